//! Good histories pass, and whatever is planted in one is found.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::HashSet;

use landfall_event::wire;
use landfall_event::{
    Disconnected, Dormant, Dropped, Ended, Epoch, Event, EventId, Gap, Identity, Incarnation, Occasion,
    Origin, Service, ServiceKind, SessionId, SessionRef, Stream, Transport, json,
};
use landfall_ledger::{Counts, Journal, Kind, Stored, Verifier, Violation};
use landfall_testkit::forged::{self, ended};
use proptest::prelude::*;

const T0: u64 = 1_760_000_000_000;

/// One event of a history.
#[derive(Clone, Debug)]
struct Told {
    stream: Stream,
    id: EventId,
    at: u64,
    event: Event,
    incarnation: u8,
}

fn incarnation(n: u8) -> Incarnation {
    Incarnation::new(T0 + u64::from(n), [n; 10])
}

impl Told {
    fn seen(&self) -> wire::Event {
        let origin = Origin {
            instance: "i".parse().unwrap(),
            replica: "r".parse().unwrap(),
            incarnation: incarnation(self.incarnation),
        };
        let occasion = Occasion { origin: &origin, id: self.id, at: self.at };
        json::decode(&json::encode(&occasion, &self.event)).unwrap()
    }

    /// The session and the number that the event is of; of one that ends several, the first.
    fn of(&self) -> Option<SessionId> {
        match &self.event {
            Event::Connected(connected) => Some(connected.session.session()),
            Event::Disconnected(disconnected) => Some(disconnected.ended[0].session.session()),
            Event::Dormant(dormant) => Some(dormant.session.session()),
            Event::Upstream(upstream) => Some(upstream.session.session()),
            _ => None,
        }
    }
}

fn session(device: u8, n: u64, at: u64, transport: Transport) -> SessionRef {
    let identity = Identity::new(SessionId::new(at, [device + 1; 10]), Epoch(T0 + n));
    forged::session(&format!("d{device}"), identity, transport)
}

fn connected(session: &SessionRef, at: u64) -> Told {
    told(EventId::Session(session.session(), Stream::Connectivity, 1), at, forged::connected(session))
}

fn told(id: EventId, at: u64, event: Event) -> Told {
    Told { stream: event.stream(), id, at, event, incarnation: 1 }
}

fn dormant(session: &SessionRef, seq: u64, at: u64) -> Told {
    let event = Event::Dormant(Dormant { session: session.clone(), seq, sleep_ms: 1, wake_by: at + 1 });
    told(EventId::Session(session.session(), Stream::Connectivity, seq), at, event)
}

fn upstream(session: &SessionRef, seq: u64, at: u64) -> Told {
    let payload = format!("{}:{seq}", session.session());
    let event = Event::Upstream(forged::upstream(session, seq, payload));
    told(EventId::Session(session.session(), Stream::Messages, seq), at, event)
}

/// What devices do, in one byte each: who, and what.
fn history(steps: &[(u8, u8)]) -> Vec<Told> {
    struct Device {
        open: Option<SessionRef>,
        presence: u64,
        messages: u64,
    }
    let mut devices: Vec<Device> = (0..4).map(|_| Device { open: None, presence: 0, messages: 0 }).collect();
    let mut story = Vec::new();
    let mut at = T0;
    for (n, (who, what)) in (0..).zip(steps) {
        at += 10;
        let device = &mut devices[usize::from(who % 4)];
        match (device.open.clone(), what % 5) {
            (None, _) => {
                let session = session(who % 4, n, at, Transport::Mqtt);
                story.push(connected(&session, at));
                *device = Device { open: Some(session), presence: 2, messages: 1 };
            }
            (Some(session), 0) => {
                let end =
                    Event::Disconnected(Disconnected { ended: vec![ended(&session, device.presence, at)] });
                let id = EventId::Session(session.session(), Stream::Connectivity, device.presence);
                story.push(told(id, at, end));
                device.open = None;
            }
            (Some(session), 1) => {
                story.push(dormant(&session, device.presence, at));
                device.presence += 1;
            }
            (Some(session), _) => {
                story.push(upstream(&session, device.messages, at));
                device.messages += 1;
            }
        }
    }
    // Everybody leaves, in one event.
    at += 10;
    let left: Vec<Ended> =
        devices.iter().filter_map(|device| Some(ended(device.open.as_ref()?, device.presence, at))).collect();
    if !left.is_empty() {
        let id = EventId::Gateway(incarnation(1), 1);
        story.push(told(id, at, Event::Disconnected(Disconnected { ended: left })));
    }
    story
}

fn verify(story: &[Told]) -> (Counts, Vec<Violation>) {
    verify_with(story, Journal::default(), true)
}

/// As the command does: the connectivity stream ahead of the messages.
fn verify_with(story: &[Told], journal: Journal, alive: bool) -> (Counts, Vec<Violation>) {
    let mut verifier = Verifier::new(0, journal);
    for stream in [Stream::Connectivity, Stream::Messages] {
        for (place, told) in (1..).zip(story.iter().filter(|told| told.stream == stream)) {
            verifier.read(&Stored { instance: "i", stream, place, stored_at: told.at, event: &told.seen() });
        }
    }
    verifier.finish(|_| alive)
}

fn kinds(found: &[Violation]) -> HashSet<Kind> {
    found.iter().map(|violation| violation.kind).collect()
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::vec((any::<u8>(), any::<u8>()), 20..120)
}

/// The next event of the same session in the same stream.
fn successor(story: &[Told], at: usize) -> Option<usize> {
    let (stream, session) = (story[at].stream, story[at].of()?);
    (at + 1..story.len()).find(|later| {
        story[*later].stream == stream
            && match &story[*later].event {
                Event::Disconnected(all) => all.ended.iter().any(|end| end.session.session() == session),
                _ => story[*later].of() == Some(session),
            }
    })
}

proptest! {
    #[test]
    fn a_good_history_passes(steps in steps()) {
        let (counts, found) = verify(&history(&steps));
        prop_assert_eq!(found, vec![]);
        prop_assert_eq!(counts.open, 0);
        prop_assert_eq!(counts.connected, counts.disconnected);
    }

    #[test]
    fn a_dropped_event_is_found(steps in steps(), at in any::<prop::sample::Index>()) {
        let mut story = history(&steps);
        let at = at.index(story.len());
        // Behind a session's last message there is none whose number would show it: that is the journals' part.
        prop_assume!(story[at].stream == Stream::Connectivity || successor(&story, at).is_some());
        story.remove(at);
        let (_, found) = verify_with(&story, Journal::default(), false);
        prop_assert!(!found.is_empty());
    }

    #[test]
    fn a_doubled_event_is_found(steps in steps(), at in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let mut story = history(&steps);
        let at = at.index(story.len());
        let again = story[at].clone();
        let to = at + 1 + to.index(story.len() - at);
        story.insert(to, again);
        prop_assert!(!verify(&story).1.is_empty());
    }

    #[test]
    fn swapped_events_are_found(steps in steps(), at in any::<prop::sample::Index>()) {
        let mut story = history(&steps);
        let at = at.index(story.len());
        if let Some(next) = successor(&story, at) {
            story.swap(at, next);
            prop_assert!(!verify(&story).1.is_empty());
        }
    }

    #[test]
    fn a_late_event_is_found(steps in steps(), at in any::<prop::sample::Index>()) {
        let mut story = history(&steps);
        let at = at.index(story.len());
        // An end that comes when the device's next session has begun, or any event behind its successor.
        let device = |told: &Told| match &told.event {
            Event::Connected(connected) => Some(connected.session.device.clone()),
            Event::Disconnected(all) if all.ended.len() == 1 => Some(all.ended[0].session.device.clone()),
            _ => None,
        };
        let begins_again = |later: &usize| {
            matches!(story[*later].event, Event::Connected(_)) && device(&story[*later]) == device(&story[at])
        };
        let behind = match &story[at].event {
            Event::Disconnected(_) if device(&story[at]).is_some() => (at + 1..story.len()).find(begins_again),
            _ => successor(&story, at),
        };
        if let Some(behind) = behind {
            let late = story.remove(at);
            story.insert(behind, late);
            prop_assert!(!verify(&story).1.is_empty());
        }
    }

    #[test]
    fn a_lost_acknowledged_message_is_found(steps in steps(), at in any::<prop::sample::Index>()) {
        let mut story = history(&steps);
        let messages: Vec<usize> = (0..story.len()).filter(|at| story[*at].stream == Stream::Messages).collect();
        prop_assume!(!messages.is_empty());
        let mut journal = Journal::default();
        for at in &messages {
            let Event::Upstream(upstream) = &story[*at].event else { panic!("a message") };
            let payload = std::str::from_utf8(&upstream.payload).unwrap();
            journal.add(&format!("{{\"device\":\"{}\",\"payload\":\"{payload}\"}}\n", upstream.session.device)).unwrap();
        }
        prop_assert_eq!(verify_with(&story, journal.clone(), true).1, vec![]);
        story.remove(messages[at.index(messages.len())]);
        prop_assert!(kinds(&verify_with(&story, journal, true).1).contains(&Kind::LostAcknowledged));
    }
}

#[test]
fn each_kind_is_named() {
    let (one, two) = (session(0, 1, T0, Transport::Mqtt), session(0, 2, T0 + 50, Transport::Mqtts));
    let end = |session: &SessionRef, seq, at| {
        let id = EventId::Session(session.session(), Stream::Connectivity, seq);
        told(id, at, Event::Disconnected(Disconnected { ended: vec![ended(session, seq, at)] }))
    };
    let open = || vec![connected(&one, T0)];
    let closed = || vec![connected(&one, T0), end(&one, 2, T0 + 10)];
    let with = |mut story: Vec<Told>, more: Vec<Told>| {
        story.extend(more);
        story
    };
    let cases = [
        (Kind::ClosedTwice, with(closed(), vec![end(&one, 3, T0 + 20)])),
        (Kind::DisconnectedWithoutConnected, vec![end(&one, 2, T0)]),
        (Kind::ConnectedTwice, with(open(), open())),
        (Kind::AfterEnd, with(closed(), vec![dormant(&one, 3, T0 + 20)])),
        (Kind::AfterEnd, with(closed(), vec![upstream(&one, 1, T0 + 60_000)])),
        (Kind::WithoutConnected, vec![upstream(&one, 1, T0)]),
        (Kind::SeqGap, with(open(), vec![end(&one, 3, T0)])),
        (Kind::SeqGap, with(open(), vec![upstream(&one, 2, T0)])),
        (Kind::SeqOrder, with(open(), vec![upstream(&one, 2, T0), upstream(&one, 1, T0)])),
        (Kind::Duplicate, with(open(), vec![upstream(&one, 1, T0), upstream(&one, 1, T0)])),
        (Kind::Overlap, with(open(), vec![connected(&two, T0 + 50)])),
        (
            Kind::EpochNotRising,
            with(closed(), vec![connected(&session(0, 1, T0 + 60, Transport::Udp), T0 + 60)]),
        ),
    ];
    for (kind, story) in cases {
        let found = verify(&story).1;
        assert_eq!(kinds(&found), HashSet::from([kind]), "{found:?}");
    }
    let (counts, found) = verify_with(&open(), Journal::default(), false);
    assert_eq!((counts.open, kinds(&found)), (1, HashSet::from([Kind::NeverClosed])));
}

#[test]
fn what_was_dropped_and_told_is_no_gap() {
    let one = session(0, 1, T0, Transport::Mqtt);
    let dropped = |from, to| {
        let gaps = vec![Gap { session: one.session(), from, to }];
        told(
            EventId::Gateway(incarnation(1), 9),
            T0,
            Event::Dropped(Dropped { sessions: 2, messages: 3, gaps }),
        )
    };
    let story =
        |from, to| vec![connected(&one, T0), dropped(from, to), upstream(&one, 1, T0), upstream(&one, 5, T0)];
    let (counts, found) = verify(&story(2, 4));
    assert_eq!((counts.dropped_messages, counts.dropped_sessions, found), (3, 2, vec![]));
    assert_eq!(kinds(&verify(&story(2, 3)).1), HashSet::from([Kind::SeqGap]));
}

#[test]
fn another_instances_device_of_the_same_name_is_another_device() {
    let story = [session(0, 2, T0, Transport::Mqtt), session(0, 1, T0 + 10, Transport::Mqtt)];
    let judge = |instances: [&str; 2]| {
        let mut verifier = Verifier::new(0, Journal::default());
        for (place, (instance, session)) in (1..).zip(instances.iter().zip(&story)) {
            let told = connected(session, session.session().began_at());
            verifier.read(&Stored {
                instance,
                stream: told.stream,
                place,
                stored_at: told.at,
                event: &told.seen(),
            });
        }
        kinds(&verifier.finish(|_| true).1)
    };
    assert_eq!(judge(["i", "i"]), HashSet::from([Kind::EpochNotRising, Kind::Overlap]));
    assert_eq!(judge(["i", "other"]), HashSet::new());
}

#[test]
fn two_gateways_may_begin_in_the_same_millisecond() {
    let here = session(0, 2, T0, Transport::Mqtt);
    let identity = Identity::new(SessionId::new(T0, [99; 10]), Epoch(T0 + 1));
    let there = forged::session("d0", identity, Transport::Udp);
    let mut elsewhere = connected(&there, T0);
    elsewhere.incarnation = 2;
    assert_eq!(kinds(&verify(&[connected(&here, T0), elsewhere]).1), HashSet::new());
    let both = [connected(&here, T0), connected(&there, T0)];
    assert_eq!(kinds(&verify(&both).1), HashSet::from([Kind::EpochNotRising]), "one gateway knows better");
}

#[test]
fn another_gateways_session_hides_no_overlap() {
    let (first, third) = (session(0, 1, T0, Transport::Mqtt), session(0, 3, T0 + 20, Transport::Mqtt));
    let mut elsewhere = connected(&session(0, 2, T0 + 10, Transport::Mqtt), T0 + 10);
    elsewhere.incarnation = 2;
    let (counts, found) = verify(&[connected(&first, T0), elsewhere, connected(&third, T0 + 20)]);
    assert_eq!((counts.overlaps, kinds(&found)), (1, HashSet::from([Kind::Overlap])));
}

#[test]
fn messages_that_the_stream_has_let_go_are_not_missing() {
    let (older, newer) = (session(0, 1, T0, Transport::Mqtt), session(1, 2, T0 + 100, Transport::Mqtt));
    let judge = |messages: &[Told]| {
        let mut verifier = Verifier::new(0, Journal::default());
        verifier.messages_begin_at(T0 + 50);
        let story = [connected(&older, T0), connected(&newer, T0 + 100)];
        for (place, told) in (1..).zip(story.iter().chain(messages)) {
            let stored =
                Stored { instance: "i", stream: told.stream, place, stored_at: told.at, event: &told.seen() };
            verifier.read(&stored);
        }
        kinds(&verifier.finish(|_| true).1)
    };
    assert_eq!(judge(&[upstream(&older, 7, T0 + 60), upstream(&older, 8, T0 + 61)]), HashSet::new());
    assert_eq!(
        judge(&[upstream(&older, 7, T0 + 60), upstream(&older, 9, T0 + 61)]),
        HashSet::from([Kind::SeqGap])
    );
    assert_eq!(judge(&[upstream(&newer, 2, T0 + 110)]), HashSet::from([Kind::SeqGap]), "it began afterwards");
}

#[test]
fn who_spoke_lately_is_alive_without_a_lease() {
    let says = |n: u64, by: u8, kind, at| {
        let event = Event::Service(Service { kind, version: "0", sessions: 0, started_at: T0 });
        Told { incarnation: by, ..told(EventId::Gateway(incarnation(by), n), at, event) }
    };
    let story = [
        says(1, 1, ServiceKind::Join, T0),
        says(1, 2, ServiceKind::Join, T0),
        says(1, 3, ServiceKind::Join, T0),
        says(2, 1, ServiceKind::KeepAlive, T0 + 10),
        says(2, 3, ServiceKind::KeepAlive, T0 + 10),
        says(3, 3, ServiceKind::Leave, T0 + 11),
    ];
    let mut verifier = Verifier::new(0, Journal::default());
    for (place, told) in (1..).zip(&story) {
        verifier.read(&Stored {
            instance: "i",
            stream: told.stream,
            place,
            stored_at: told.at,
            event: &told.seen(),
        });
    }
    assert_eq!(verifier.heard_since(T0 + 10), HashSet::from([incarnation(1)]));
    assert_eq!(verifier.heard_since(T0), HashSet::from([incarnation(1), incarnation(2)]));
}

#[test]
fn late_news_of_an_older_session_keeps_its_epoch() {
    let (older, newer) = (session(0, 1, T0, Transport::Udp), session(0, 2, T0 + 500, Transport::Udp));
    let mut late = connected(&older, T0);
    late.incarnation = 2;
    let (counts, found) = verify(&[connected(&newer, T0 + 500), late]);
    assert_eq!((counts.overlaps, found), (1, vec![]));
}

#[test]
fn what_began_before_is_known_in_part() {
    let (older, newer) = (session(0, 1, T0, Transport::Mqtt), session(1, 2, T0 + 500, Transport::Mqtt));
    let mut verifier = Verifier::new(T0 + 100, Journal::default());
    let end = Event::Disconnected(Disconnected { ended: vec![ended(&older, 4, T0 + 600)] });
    let story = [
        connected(&newer, T0 + 500),
        told(EventId::Session(older.session(), Stream::Connectivity, 4), T0 + 600, end),
        upstream(&older, 7, T0 + 550),
        upstream(&older, 8, T0 + 551),
    ];
    for (place, told) in (1..).zip(&story) {
        verifier.read(&Stored {
            instance: "i",
            stream: told.stream,
            place,
            stored_at: told.at,
            event: &told.seen(),
        });
    }
    let (counts, found) = verifier.finish(|_| true);
    assert_eq!((counts.partial, counts.open, found), (1, 1, vec![]));
}

#[test]
fn a_journal_says_json_with_or_without_space_around_it() {
    let one = session(0, 1, T0, Transport::Mqtt);
    let of_payload = |payload: &'static str| {
        let mut told = upstream(&one, 1, T0);
        if let Event::Upstream(upstream) = &mut told.event {
            upstream.payload = payload.as_bytes().into();
        }
        [connected(&one, T0), told]
    };
    let looked_for = |payload: &str| {
        let mut journal = Journal::default();
        let line = serde_json::json!({ "device": "d0", "payload": payload });
        journal.add(&format!("{line}\n")).unwrap();
        journal
    };
    for (sent, journalled, is_there) in [
        (" {\"t\": 1}\n", " {\"t\": 1}\n", true),
        ("{\"t\": 1}", "{\"t\": 1} ", true),
        (" a word ", " a word ", true),
        (" a word ", "a word", false),
        ("42", "43", false),
    ] {
        let found = verify_with(&of_payload(sent), looked_for(journalled), true).1;
        assert_eq!(found.is_empty(), is_there, "{sent:?} {journalled:?}: {found:?}");
    }
}

#[test]
fn a_journal_that_is_none_says_where() {
    let mut journal = Journal::default();
    assert!(
        journal.add("{\"device\":\"d\",\"payload\":\"x\"}\n{\"device\":\"d\",\"payl").is_ok(),
        "its writer was cut off"
    );
    assert_eq!(journal.add("{\"device\":\"d\",\"payload\":\"x\"}\n{}\n").unwrap_err().line, 2);
}

#[test]
fn an_open_session_whose_beginning_is_gone_is_closed_or_found() {
    let session = session(1, 1, T0, Transport::Mqtt);
    // The ledger begins ten seconds later, and the session says something after that.
    let (since, spoke) = (T0 + 10_000, T0 + 20_000);
    let judge = |spoke: u64, more: &[Told], alive: bool| {
        let mut verifier = Verifier::new(0, Journal::default());
        verifier.begin_at(since);
        verifier.messages_begin_at(since);
        let ends: Vec<&Told> = more.iter().collect();
        let message = upstream(&session, 7, spoke);
        for (place, told) in (1..).zip(ends.into_iter().chain([&message])) {
            let (stream, event) = (told.stream, told.seen());
            verifier.read(&Stored { instance: "i", stream, place, stored_at: told.at, event: &event });
        }
        let (counts, found) = verifier.finish(|_| alive);
        (counts.open, found.into_iter().map(|found| found.kind).collect::<Vec<_>>())
    };
    assert_eq!(judge(spoke, &[], false), (1, vec![Kind::NeverClosed]), "nobody will close it");
    assert_eq!(judge(spoke, &[], true), (1, vec![]), "its gateway will");
    assert_eq!(judge(since + 1, &[], false), (1, vec![]), "its end may stand just before the beginning");
    let end = Event::Disconnected(Disconnected { ended: vec![ended(&session, 2, spoke + 1)] });
    let end = told(EventId::Session(session.session(), Stream::Connectivity, 2), spoke + 1, end);
    assert_eq!(judge(spoke, &[end], false), (0, vec![]));
}
