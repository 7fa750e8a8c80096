//! Sessions that outlive their connection (sections 3.1.2.4, 4.1 and 4.4).

use landfall_event::Memo;
use landfall_mqtt_core::{Accept, Ack, Action, Delivery, Inbound, Limits, PublishFailure, SessionState};

use crate::peer::*;

const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// The session's next connection, with what it is sent behind CONNACK; the state has been on disk in between.
fn again(peer: &Peer, version: Version, properties: &[u8]) -> (Peer, Vec<u8>) {
    let state = peer.conn.session_state();
    let kept = serde_json::to_string(&state).unwrap();
    let state: SessionState = serde_json::from_str(&kept).unwrap();
    assert_eq!(state, peer.conn.session_state().at_rest());
    let connect = connect(version).flags(0).properties(properties).bytes();
    let mut next = Peer::with(version, Limits::default(), &connect, Some(state));
    assert!(next.conn.session_present());
    let heard = next.heard();
    (next, heard)
}

#[test]
fn session_present_says_whether_the_state_was_used() {
    for version in BOTH {
        for (flags, state, present) in [
            (0, Some(SessionState::default()), true),
            (0, None, false),                          // [MQTT-3.2.2-3]
            (2, Some(SessionState::default()), false), // [MQTT-3.2.2-2]
        ] {
            let mut peer = Peer::fresh(Limits::default());
            peer.send(&connect(version).flags(flags).bytes());
            let (conn, out) = peer.both();
            conn.accept(&landfall_mqtt_core::Accept::default(), state, out);
            assert_eq!(peer.conn.session_present(), present);
            assert_eq!(peer.heard()[2], u8::from(present));
        }
    }
}

#[test]
fn a_clean_start_forgets_everything() {
    let mut peer = Peer::v5();
    peer.subscribe(&[("a", 2)]);
    peer.deliver_acknowledged("a", QoS::ExactlyOnce);
    let state = peer.conn.session_state();
    let connect = connect(Version::V5).flags(2).bytes();
    let mut next = Peer::with(Version::V5, Limits::default(), &connect, Some(state));
    assert!(next.heard().is_empty());
    assert_eq!((next.conn.subscriptions().len(), next.conn.in_flight()), (0, 0)); // [MQTT-3.1.2-4]
}

#[test]
fn what_is_unacknowledged_is_sent_again_in_order_with_dup() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        peer.subscribe(&[("a", 2)]);
        let (first, _) = peer.deliver_acknowledged("a", QoS::AtLeastOnce);
        let (second, second_id) = peer.deliver_acknowledged("a", QoS::ExactlyOnce);
        let (third, _) = peer.deliver_acknowledged("a", QoS::ExactlyOnce);
        peer.ask(&ack(0x50, second_id)); // released: only PUBREL is due
        peer.deliver(Message::new("a", "x", QoS::AtMostOnce));

        let (mut next, heard) = again(&peer, version, &[]);
        let expected = [
            ack(0x62, 2),
            publish(version, 0x3A, "a", 1, &[], b"x"),
            publish(version, 0x3C, "a", 3, &[], b"x"),
        ];
        assert_eq!(heard, expected.concat()); // [MQTT-4.4.0-1]
        assert_eq!(next.acknowledged(&ack(0x40, 1)), (first, Ack::Done), "the tokens are the same");
        assert_eq!(next.acknowledged(&ack(0x70, 2)), (second, Ack::Done));
        assert_eq!(next.ask(&ack(0x50, 3)), [0x62, 2, 0, 3]);
        assert_eq!(next.acknowledged(&ack(0x70, 3)), (third, Ack::Done));
        let (fourth, id) = next.deliver_acknowledged("a", QoS::AtLeastOnce);
        assert!(fourth > third && id == 4, "the numbering goes on");
    }
}

#[test]
fn a_second_resume_sends_again_what_the_first_could_not() {
    let mut peer = Peer::v5();
    peer.subscribe(&[("a", 1)]);
    for _ in 0..3 {
        peer.deliver_acknowledged("a", QoS::AtLeastOnce);
    }
    let (next, heard) = again(&peer, Version::V5, &[0x21, 0, 1]);
    assert_eq!(heard, publish(Version::V5, 0x3A, "a", 1, &[], b"x"));
    let (_, heard) = again(&next, Version::V5, &[]);
    let all: Vec<u8> = (1..=3).flat_map(|id| publish(Version::V5, 0x3A, "a", id, &[], b"x")).collect();
    assert_eq!(heard, all);
}

#[test]
fn a_resume_keeps_within_the_new_window() {
    let mut peer = Peer::v5();
    peer.subscribe(&[("a", 2)]);
    for _ in 0..4 {
        peer.deliver_acknowledged("a", QoS::AtLeastOnce);
    }
    let (mut next, heard) = again(&peer, Version::V5, &[0x21, 0, 2]);
    let one = |id| publish(Version::V5, 0x3A, "a", id, &[], b"x");
    assert_eq!(heard, [one(1), one(2)].concat());
    let waiting = Message::new("a", "new", QoS::AtLeastOnce);
    assert_eq!(next.deliver(waiting.clone()), Delivery::Full(waiting.clone()), "the old ones first");
    let actions = next.send(&ack(0x40, 1));
    assert!(matches!(&actions[..], [Action::Acknowledged(..)]), "{actions:?}");
    assert_eq!(next.heard(), one(3));
    next.acknowledged(&ack(0x40, 2));
    assert_eq!(next.heard(), one(4));
    assert_eq!(next.deliver(waiting.clone()), Delivery::Full(waiting.clone()));
    let actions = next.send(&ack(0x40, 3));
    assert!(matches!(&actions[..], [Action::Acknowledged(..), Action::WindowOpened]), "{actions:?}");
    assert!(matches!(next.deliver(waiting), Delivery::Sent { .. }));
}

#[test]
fn a_message_that_has_become_too_large_ends_on_resume() {
    let mut peer = Peer::v5();
    peer.subscribe(&[("a", 1)]);
    peer.deliver(Message::new("a", vec![0; 1_000], QoS::AtLeastOnce));
    let (token, _) = {
        peer.heard();
        peer.deliver_acknowledged("a", QoS::AtLeastOnce)
    };
    let (mut next, heard) = again(&peer, Version::V5, &[&[0x27][..], &500_u32.to_be_bytes()].concat());
    assert_eq!(heard, publish(Version::V5, 0x3A, "a", 2, &[], b"x"));
    let actions = next.poll();
    assert!(matches!(&actions[..], [Action::Acknowledged(t, Ack::TooLarge)] if *t < token), "{actions:?}");
    assert_eq!(next.conn.in_flight(), 1);
}

#[test]
fn a_qos_2_message_is_stored_once_over_a_resume() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = peer.publish(&qos2(version, 5));
        peer.stored(&message);
        let (mut next, _) = again(&peer, version, &[]);
        // The PUBREC was lost: the client sends with DUP.
        assert_eq!(next.ask(&publish(version, 0x3C, "t", 5, &[], b"x")), [0x50, 2, 0, 5]);
        let (mut next, _) = again(&next, version, &[]);
        // The PUBREC had come: the client goes on with PUBREL.
        assert_eq!(next.ask(&ack(0x62, 5)), [0x70, 2, 0, 5]);
        let (mut next, _) = again(&next, version, &[]);
        next.publish(&publish(version, 0x3C, "t", 5, &[], b"x"));
    }
}

/// The session's next connection in the same process, where messages are still on their way to the store.
fn at_once(peer: &mut Peer, version: Version) -> Peer {
    peer.conn.close();
    let connect = connect(version).flags(0).bytes();
    Peer::with(version, Limits::default(), &connect, Some(peer.conn.session_state()))
}

#[test]
fn a_qos_2_message_on_its_way_to_the_store_is_one_message_over_reconnects() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = peer.publish(&qos2(version, 5));
        let mut next = at_once(&mut peer, version);
        let again = publish(version, 0x3C, "t", 5, &[], b"x");
        assert!(next.ask(&again).is_empty(), "its PUBREC waits for the store");
        // Another reconnect, and a client that leaves DUP out.
        let mut last = at_once(&mut next, version);
        let other = last.publish(&qos1(version, 6));
        assert!(other.token > message.token, "no token means two messages");
        assert!(last.ask(&qos2(version, 5)).is_empty());
        assert_eq!(last.stored(&other), [0x40, 2, 0, 6], "nothing else waits for it");
        assert_eq!(last.stored(&message), [0x50, 2, 0, 5]);
        assert_eq!(unsettled(&last), None);
        assert_eq!(last.ask(&ack(0x62, 5)), [0x70, 2, 0, 5]);
        last.publish(&qos2(version, 5)); // [MQTT-4.3.3-12]
    }
}

/// A session that lasts, under the key of its marks.
fn lasting(version: Version, key: [u64; 2], state: Option<SessionState>) -> Peer {
    let expiry: &[u8] = if version == Version::V5 { &[0x11, 0, 0, 1, 0] } else { &[] };
    let mut peer = Peer::fresh(Limits::default());
    assert_eq!(peer.send(&connect(version).flags(0).properties(expiry).bytes()).len(), 1);
    let (conn, out) = peer.both();
    conn.accept(&Accept { key, ..Accept::default() }, state, out);
    peer.heard();
    peer
}

#[test]
fn what_is_stored_from_a_disk_is_known_to_a_state_that_was_read_from_the_store() {
    for version in BOTH {
        let mut peer = lasting(version, [1, 2], None);
        let (released, open) = (peer.publish(&qos2(version, 4)), peer.publish(&qos2(version, 5)));
        peer.stored(&released);
        assert_eq!(peer.ask(&ack(0x62, 4)), [0x70, 2, 0, 4]);
        let memo = |peer: &Peer, message: &Inbound| peer.conn.memo(message.token).unwrap();
        let kept = serde_json::to_string(&peer.conn.session_state()).unwrap();
        let late = peer.publish(&publish(version, 0x34, "t", 6, &[], b"y"));
        let least = peer.publish(&qos1(version, 7));
        assert_eq!(peer.conn.memo(least.token), None, "a second event is allowed at QoS 1");
        let memos = [memo(&peer, &open), memo(&peer, &late)];
        // That of a message which the state has seen stored, and which was released since; and that of another session.
        let old = Memo { number: released.token.0, packet_id: 4, ..memos[0] };
        let foreign = Memo { session: 1, packet_id: 8, ..memos[1] };
        let mut state: SessionState = serde_json::from_str(&kept).unwrap();
        assert_eq!(state.number(), Some(memos[0].session));
        assert!(!state.clone().recall(&[old, foreign]));
        assert!(state.recall(&[old, memos[0], memos[1], foreign]));
        assert!(!state.clone().recall(&memos), "once");

        let mut next = lasting(version, [0, 0], Some(state));
        assert_eq!(next.ask(&publish(version, 0x3C, "t", 5, &[], b"x")), [0x50, 2, 0, 5]);
        assert_eq!(next.ask(&publish(version, 0x34, "t", 6, &[], b"y")), [0x50, 2, 0, 6]);
        assert!(next.publish(&qos2(version, 4)).token > late.token, "no token means two messages");
        next.publish(&qos2(version, 8));
    }
}

#[test]
fn a_session_that_ends_with_its_connection_notes_nothing() {
    let mut peer = Peer::v5();
    let message = peer.publish(&qos2(Version::V5, 5));
    assert_eq!(peer.conn.memo(message.token), None);
}

#[test]
fn a_message_that_fails_after_a_reconnect_is_told_to_who_sent_it_again() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let (first, second) = (peer.publish(&qos2(version, 5)), peer.publish(&qos2(version, 6)));
        let mut next = at_once(&mut peer, version);
        next.ask(&publish(version, 0x3C, "t", 5, &[], b"x"));
        let (conn, out) = next.both();
        assert!(conn.publish_failed(second.token, PublishFailure::NotStored, out).is_none(), "nobody asks");
        let end = conn.publish_failed(first.token, PublishFailure::NotStored, out);
        match version {
            Version::V5 => assert_eq!(next.heard(), [0x50, 3, 0, 5, 0x83]),
            Version::V31 | Version::V311 => assert!(matches!(end, Some(Action::Fault(_)))),
        }
        assert_eq!(unsettled(&next), None);
        // What was not stored is a new message.
        at_once(&mut next, version).publish(&publish(version, 0x3C, "t", 5, &[], b"x"));
    }
}

#[test]
fn a_message_that_is_settled_while_nobody_has_the_session_is_known_to_its_state() {
    let mut peer = Peer::v5();
    let (first, second) = (peer.publish(&qos2(Version::V5, 5)), peer.publish(&qos2(Version::V5, 6)));
    peer.conn.close();
    let mut state = peer.conn.session_state();
    assert_eq!(state.unsettled().next(), Some(first.token));
    assert!(state.settle(first.token, true) && !state.settle(second.token, false));
    assert_eq!(state.unsettled().next(), None);
    let connect = connect(Version::V5).flags(0).bytes();
    let mut next = Peer::with(Version::V5, Limits::default(), &connect, Some(state));
    assert_eq!(next.ask(&publish(Version::V5, 0x3C, "t", 5, &[], b"x")), [0x50, 2, 0, 5]);
    next.publish(&publish(Version::V5, 0x3C, "t", 6, &[], b"x"));
}

#[test]
fn the_same_message_again_without_dup_is_known_by_its_bytes() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let message = peer.publish(&qos2(version, 5));
        peer.stored(&message);
        let (mut next, _) = again(&peer, version, &[]);
        assert_eq!(next.ask(&qos2(version, 5)), [0x50, 2, 0, 5]);
        // And another message with DUP is another: the release of the first was lost with a crash.
        let (mut next, _) = again(&next, version, &[]);
        next.publish(&publish(version, 0x3C, "t", 5, &[], b"another"));
    }
}

#[test]
fn of_a_state_without_marks_dup_decides() {
    let old: SessionState = serde_json::from_str(r#"{"subscriptions":[],"received":[5,6]}"#).unwrap();
    let connect = connect(Version::V5).flags(0).bytes();
    let mut peer = Peer::with(Version::V5, Limits::default(), &connect, Some(old));
    assert_eq!(peer.ask(&publish(Version::V5, 0x3C, "t", 5, &[], b"x")), [0x50, 2, 0, 5]);
    peer.publish(&qos2(Version::V5, 6));
}

#[test]
fn a_packet_id_of_an_old_state_that_begins_anew_is_a_new_message() {
    for (version, qos) in
        [(Version::V311, 0x34), (Version::V5, 0x34), (Version::V311, 0x32), (Version::V5, 0x32)]
    {
        let mut peer = Peer::of(version);
        let message = peer.publish(&qos2(version, 5));
        peer.stored(&message);
        let (mut next, _) = again(&peer, version, &[]);
        // Without DUP it cannot be the message of then [MQTT-3.3.1-1].
        next.publish(&publish(version, qos, "t", 5, &[], b"new"));
    }
}

#[test]
fn resumed_qos_2_ids_take_no_share_until_they_are_sent_again() {
    let limits = || Limits { receive_maximum: 2, ..Limits::default() };
    let connect = connect(Version::V5).flags(0).bytes();
    let mut peer = Peer::with(Version::V5, limits(), &connect, None);
    for id in [1, 2] {
        let message = peer.publish(&qos2(Version::V5, id));
        peer.stored(&message);
    }
    let state = peer.conn.session_state();
    let mut next = Peer::with(Version::V5, limits(), &connect, Some(state));
    next.publish(&qos1(Version::V5, 3));
    next.publish(&qos1(Version::V5, 4));
    assert_eq!(next.ask(&ack(0x62, 1)), [0x70, 2, 0, 1]);
    assert!(next.fault(&publish(Version::V5, 0x3C, "t", 2, &[], b"x")).violation.code() == 0x93);
}

#[test]
fn a_message_stored_after_the_end_is_known_to_the_state() {
    for version in BOTH {
        let mut peer = Peer::of(version);
        let first = peer.publish(&qos1(version, 4));
        let second = peer.publish(&qos2(version, 5));
        let third = peer.publish(&qos2(version, 6));
        peer.send(&[0xE0, 0]);
        let revision = peer.conn.state_revision();
        assert_eq!(unsettled(&peer), Some(second.token));
        assert!(peer.stored(&second).is_empty(), "nothing is sent after the end");
        assert_ne!(peer.conn.state_revision(), revision);
        assert_eq!(unsettled(&peer), Some(third.token));
        let (mut next, _) = again(&peer, version, &[]);
        assert_eq!(next.ask(&publish(version, 0x3C, "t", 5, &[], b"x")), [0x50, 2, 0, 5]);
        next.publish(&publish(version, 0x3C, "t", 6, &[], b"x"));
        assert!(peer.stored(&first).is_empty() && peer.stored(&third).is_empty());
    }
}

#[test]
fn failures_after_the_end_change_nothing() {
    let mut peer = Peer::v5();
    let message = peer.publish(&qos2(Version::V5, 5));
    peer.send(&[0xE0, 0]);
    let (conn, out) = peer.both();
    assert!(conn.publish_failed(message.token, PublishFailure::NotStored, out).is_none());
    // As after a message that no session remembers: only its number is used up.
    let mut other = Peer::v5();
    other.publish(&qos1(Version::V5, 5));
    assert_eq!(peer.conn.session_state(), other.conn.session_state());
}

#[test]
fn the_state_tells_what_is_wanted_and_what_is_under_way() {
    let mut peer = Peer::v5();
    peer.subscribe(&[("a/#", 1)]);
    peer.deliver(until(10_000, QoS::ExactlyOnce));
    let mut state = peer.conn.session_state();
    assert_eq!((state.granted("a"), state.granted("b")), (Some(QoS::AtLeastOnce), None));
    for (now, left) in [(0, 10), (3_500, 7), (9_999, 1)] {
        state.lapse(now);
        let messages: Vec<_> = state.in_flight().collect();
        assert_eq!(messages[0].1.message_expiry, Some(left)); // [MQTT-3.3.2-6]
    }
    state.lapse(10_000);
    assert_eq!(state.in_flight().count(), 0);
}

/// A message that is void from then on.
fn until(expires_at: u64, qos: QoS) -> Message {
    Message { expires_at: Some(expires_at), ..Message::new("a/b", "x", qos) }
}

/// The state of a session with one message of each QoS that was sent and not acknowledged.
fn state_with(version: Version, times: &[(u64, u8)]) -> SessionState {
    let mut peer = Peer::of(version);
    peer.subscribe(&[("a/#", 2)]);
    for (expires_at, qos) in times {
        let qos = if *qos == 1 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        assert!(matches!(peer.deliver(until(*expires_at, qos)), Delivery::Sent { token: Some(_), .. }));
    }
    peer.conn.session_state()
}

#[test]
fn what_is_void_is_not_sent_again_and_its_handshake_ends_in_order() {
    for version in BOTH {
        let mut state = state_with(version, &[(10, 1), (10, 2), (20, 1), (20, 2)]);
        state.lapse(10);
        let connect = connect(version).flags(0).bytes();
        let mut next = Peer::with(version, Limits::default(), &connect, Some(state));
        let expiry: &[u8] = if version == Version::V5 { &[0x02, 0, 0, 0, 1] } else { &[] };
        // The client may hold id 2 since its PUBREC was lost, and would take the next message of that id for the same.
        let expected = [
            ack(0x62, 2),
            publish(version, 0x3A, "a/b", 3, expiry, b"x"),
            publish(version, 0x3C, "a/b", 4, expiry, b"x"),
        ];
        assert_eq!(next.heard(), expected.concat());
        assert_eq!(next.conn.in_flight(), 3, "the id is in use until the client has released it");
        let actions = next.send(&ack(0x70, 2)); // [MQTT-4.3.3-13]
        assert!(matches!(&actions[..], [Action::Acknowledged(..)]), "{actions:?}");
        assert_eq!(next.conn.in_flight(), 2);
    }
}

#[test]
fn what_becomes_void_while_it_waits_for_the_window_is_not_sent_again() {
    let mut state = state_with(Version::V5, &[(50, 1), (10, 1), (10, 2), (50, 1)]);
    state.lapse(0);
    let connect = connect(Version::V5).flags(0).properties(&[0x21, 0, 1]).bytes();
    let mut next = Peer::with(Version::V5, Limits::default(), &connect, Some(state));
    let one = |id| publish(Version::V5, 0x3A, "a/b", id, &[0x02, 0, 0, 0, 1], b"x");
    assert_eq!(next.heard(), one(1));
    assert_eq!(next.conn.take_resent().len(), 1, "what waits was not sent");
    let revision = next.conn.state_revision();
    let (conn, out) = next.both();
    conn.lapse(9, out);
    assert_eq!(next.heard(), [0_u8; 0]);
    let (conn, out) = next.both();
    conn.lapse(10, out);
    assert_eq!(next.heard(), ack(0x62, 3));
    assert_ne!(next.conn.state_revision(), revision, "the state is to be kept anew");
    let actions = next.poll();
    let lapsed = |action: &Action| matches!(action, Action::Acknowledged(_, Ack::Lapsed));
    assert!(actions.len() == 2 && actions.iter().all(lapsed), "{actions:?}");
    // What is on its way on this connection is not touched.
    let (conn, out) = next.both();
    conn.lapse(60, out);
    assert_eq!(next.conn.in_flight(), 2, "the first, and the id that the client holds");
}

#[test]
fn a_state_of_nonsense_is_survived() {
    let nonsense = r#"{"subscriptions":[{"filter":"a","qos":2,"id":7}],"received":[0,5,5,3],
        "in_flight":[{"token":1,"packet_id":0,"qos":1,"stage":"Published"},
                     {"token":2,"packet_id":9,"qos":1,"stage":"Published"},
                     {"token":3,"packet_id":9,"qos":2,"stage":"Released"}]}"#;
    let state: SessionState = serde_json::from_str(nonsense).unwrap();
    let connect = connect(Version::V5).flags(0).bytes();
    let mut peer = Peer::with(Version::V5, Limits::default(), &connect, Some(state));
    assert_eq!(peer.heard(), ack(0x62, 9));
    assert_eq!(peer.ask(&ack(0x62, 5)), [0x70, 2, 0, 5]);
    assert!(serde_json::from_str::<SessionState>(r#"{"subscriptions":[{"filter":"a#","qos":0}]}"#).is_err());
    assert!(serde_json::from_str::<SessionState>(r#"{"subscriptions":[{"filter":"a","qos":3}]}"#).is_err());
}

#[test]
fn subscriptions_and_their_options_survive() {
    let mut peer = Peer::v5();
    peer.grant(&subscribe_v5(1, &[0x0B, 7], &[("a", 0b1110)]));
    let (mut next, _) = again(&peer, Version::V5, &[]);
    let [one] = next.conn.subscriptions() else { panic!("one") };
    assert!(one.no_local && one.retain_as_published && one.qos == QoS::ExactlyOnce);
    next.deliver(Message::new("a", "x", QoS::AtMostOnce));
    assert_eq!(next.heard(), publish(Version::V5, 0x30, "a", 0, &[0x0B, 7], b"x"));
}
