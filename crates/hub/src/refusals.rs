//! Coalesces refusals, so that a flood of bad attempts is a handful of events with counts.
//!
//! Owns: which refusals become which event. Does not own: publishing them. Pure: time is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use landfall_event::{DeviceId, MAX_TOPIC, Refused, RefusedCause, TenantId, Transport, UnixMs};

use crate::attempt::Attempt;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Source {
    cause: RefusedCause,
    transport: Transport,
    address: IpAddr,
    device: Option<(TenantId, DeviceId)>,
    /// Plain bytes and a foreign certificate of one source are two things.
    detail: Option<&'static str>,
}

/// Sources are told apart by their whole address up to this part of the limit; strangers beyond it by their network.
const CROWD: usize = 4;

impl Source {
    /// The same for every address of the network that one host may speak for: 24 bits of IPv4, 64 of IPv6; whatever was wrong.
    fn of_network(self) -> Self {
        let address = match self.address.to_canonical() {
            IpAddr::V4(address) => IpAddr::from((u32::from(address) & (u32::MAX << 8)).to_be_bytes()),
            IpAddr::V6(address) => IpAddr::from((u128::from(address) & (u128::MAX << 64)).to_be_bytes()),
        };
        Self { address, detail: None, ..self }
    }
}

/// The first refusal of a source is told at once; the next ones within `interval` are told together at its end. When
/// `limit` sources are told apart already, further ones are counted together, by cause and transport. What is told together has the
/// first name that was claimed and the first topic that was denied, and how many had another; a detail only where all have it. While nobody can be
/// told (`tell` is false), all are counted, and told when somebody can.
#[derive(Debug)]
pub(crate) struct Refusals {
    interval_ms: u64,
    limit: usize,
    open: HashMap<Source, Entry>,
    /// Beyond the limit: bounded by the closed lists of causes and transports.
    rest: HashMap<(RefusedCause, Transport), Refused>,
}

#[derive(Debug)]
struct Entry {
    since: u64,
    waiting: Option<Refused>,
}

impl Refusals {
    pub(crate) fn new(interval_ms: u64, limit: usize) -> Self {
        Self { interval_ms, limit, open: HashMap::new(), rest: HashMap::new() }
    }

    /// Sources told apart now.
    pub(crate) fn sources(&self) -> usize {
        self.open.len()
    }

    /// Counts one refusal; returns the event that it makes at once, if it does.
    pub(crate) fn note(
        &mut self,
        attempt: &Attempt<'_>,
        (now, at): (u64, UnixMs),
        tell: bool,
    ) -> Option<Refused> {
        let Attempt { cause, transport, remote, .. } = *attempt;
        let (address, device) = (remote.ip(), attempt.device.clone());
        let source = Source { cause, transport, address, device, detail: attempt.detail };
        let is_crowded = self.open.len() >= self.limit / CROWD;
        let source = if is_crowded && source.device.is_none() && !self.open.contains_key(&source) {
            source.of_network()
        } else {
            source
        };
        if let Some(entry) = self.open.get_mut(&source) {
            add(entry.waiting.get_or_insert_with(|| none_of(attempt, at)), attempt, at);
            return None;
        }
        if self.open.len() >= self.limit {
            let none = || Refused { device: None, ..none_of(attempt, at) };
            add(self.rest.entry((cause, transport)).or_insert_with(none), attempt, at);
            return None;
        }
        let mut one = none_of(attempt, at);
        add(&mut one, attempt, at);
        let (told, waiting) = if tell { (Some(one), None) } else { (None, Some(one)) };
        self.open.insert(source, Entry { since: now, waiting });
        told
    }

    /// The events whose interval is over.
    pub(crate) fn due(&mut self, now: u64, out: &mut Vec<Refused>) {
        let interval = self.interval_ms;
        self.open.retain(|_, entry| {
            if now.saturating_sub(entry.since) < interval {
                return true;
            }
            entry.since = now;
            match entry.waiting.take() {
                Some(event) => {
                    out.push(event);
                    true
                }
                None => false,
            }
        });
        if self.open.len() < self.limit {
            out.extend(self.rest.drain().map(|(_, event)| event));
        }
    }

    /// Everything that waits, at shutdown.
    pub(crate) fn flush(&mut self, out: &mut Vec<Refused>) {
        out.extend(self.open.drain().filter_map(|(_, entry)| entry.waiting));
        out.extend(self.rest.drain().map(|(_, event)| event));
    }
}

/// What is to become the event of such attempts, and counts none yet.
fn none_of(attempt: &Attempt<'_>, at: UnixMs) -> Refused {
    Refused {
        cause: attempt.cause,
        transport: attempt.transport,
        remote_address: attempt.remote,
        device: attempt.device.clone(),
        detail: attempt.detail,
        claimed: None,
        other_claims: 0,
        topic: None,
        other_topics: 0,
        count: 0,
        first_at: at,
        last_at: at,
    }
}

fn add(sum: &mut Refused, attempt: &Attempt<'_>, at: UnixMs) {
    sum.count += 1;
    sum.last_at = at;
    sum.remote_address = attempt.remote;
    if sum.detail != attempt.detail {
        sum.detail = None;
    }
    add_text(&mut sum.claimed, &mut sum.other_claims, attempt.claimed.as_deref(), Refused::MAX_CLAIM);
    add_text(&mut sum.topic, &mut sum.other_topics, attempt.topic, MAX_TOPIC);
}

/// The first text is kept, up to `most` bytes; of further ones, how many are another.
fn add_text(first: &mut Option<Arc<str>>, others: &mut u64, text: Option<&str>, most: usize) {
    let Some(text) = text else { return };
    let text = text.get(..text.floor_char_boundary(most)).unwrap_or_default();
    match first {
        None => *first = Some(text.into()),
        Some(first) if **first == *text => {}
        Some(_) => *others += 1,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn malformed(remote: SocketAddr) -> Attempt<'static> {
        Attempt::new(RefusedCause::Malformed, Transport::Mqtt, remote)
    }

    fn note(r: &mut Refusals, host: u8, now: u64) -> Option<Refused> {
        note_from(r, [127, 0, host, 1].into(), now)
    }

    fn note_from(r: &mut Refusals, address: IpAddr, now: u64) -> Option<Refused> {
        let remote = SocketAddr::from((address, 4000));
        r.note(&malformed(remote), (now, 1000 + now), true)
    }

    #[test]
    fn the_first_is_told_at_once_and_the_rest_together() {
        let mut r = Refusals::new(10_000, 8);
        assert_eq!(note(&mut r, 1, 0).map(|e| e.count), Some(1));
        for now in 1..=5 {
            assert_eq!(note(&mut r, 1, now), None);
        }
        let mut out = Vec::new();
        r.due(9_999, &mut out);
        assert!(out.is_empty());
        r.due(10_000, &mut out);
        assert_eq!(
            out.iter().map(|e| (e.count, e.first_at, e.last_at)).collect::<Vec<_>>(),
            [(5, 1001, 1005)]
        );
        r.due(20_000, &mut out);
        assert_eq!(r.sources(), 0);
        assert_eq!(note(&mut r, 1, 20_001).map(|e| e.count), Some(1));
    }

    #[test]
    fn a_flood_of_sources_is_bounded_and_counted() {
        let mut r = Refusals::new(10_000, 4);
        let told = (0..=255).filter_map(|host| note(&mut r, host, 0)).count();
        assert_eq!((told, r.sources()), (4, 4));
        let mut out = Vec::new();
        r.due(10_000, &mut out);
        assert_eq!(out.iter().map(|e| e.count).sum::<u64>(), 252);
    }

    #[test]
    fn strangers_in_a_crowd_are_told_apart_by_network() {
        let mut r = Refusals::new(10_000, 16);
        let told = (1..=255).filter_map(|host| note_from(&mut r, [192, 0, 2, host].into(), 0)).count();
        assert_eq!(told, 4 + 1, "some by their address, the others together");
        let six = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, n, n, n, n]);
        let told = (0..200).filter_map(|n| note_from(&mut r, six(n), 0)).count();
        assert_eq!(told, 1);
        assert!(note_from(&mut r, [198, 51, 100, 1].into(), 0).is_some(), "another network has its own");
        let mut out = Vec::new();
        r.due(10_000, &mut out);
        assert_eq!(out.iter().map(|e| e.count).sum::<u64>(), 250 + 199, "each is counted");
    }

    #[test]
    fn while_nobody_can_be_told_all_are_counted() {
        let mut r = Refusals::new(10_000, 4);
        let remote = SocketAddr::from(([127, 0, 0, 1], 4000));
        for now in 0..3 {
            assert_eq!(r.note(&malformed(remote), (now, now), false), None);
        }
        let mut out = Vec::new();
        r.due(10_000, &mut out);
        assert_eq!(out.iter().map(|e| e.count).sum::<u64>(), 3);
    }

    #[test]
    fn shutdown_tells_what_waits() {
        let mut r = Refusals::new(10_000, 4);
        note(&mut r, 1, 0);
        note(&mut r, 1, 1);
        let mut out = Vec::new();
        r.flush(&mut out);
        assert_eq!(out.iter().map(|e| e.count).sum::<u64>(), 1);
    }

    fn told_at_the_end(r: &mut Refusals) -> Vec<Refused> {
        let mut out = Vec::new();
        r.flush(&mut out);
        out
    }

    #[test]
    fn the_first_name_is_told_and_how_many_gave_another() {
        let mut r = Refusals::new(10_000, 4);
        let remote = SocketAddr::from(([127, 0, 0, 1], 4000));
        let mut come = |name: Option<&str>| r.note(&malformed(remote).claiming(name), (0, 0), true);
        assert_eq!(come(Some("pump")).unwrap().claimed.as_deref(), Some("pump"));
        let long = "ä".repeat(100);
        for name in [None, Some(&*long), Some("pump"), Some(&*long), Some("valve"), Some("")] {
            assert_eq!(come(name), None);
        }
        let [event] = &told_at_the_end(&mut r)[..] else { panic!("one event") };
        assert_eq!((event.count, event.claimed.as_deref()), (6, Some(&*"ä".repeat(64))), "128 bytes of it");
        assert_eq!(event.other_claims, 2);
    }

    #[test]
    fn the_first_topic_is_told_and_how_many_were_others() {
        let mut r = Refusals::new(10_000, 4);
        let remote = SocketAddr::from(([127, 0, 0, 1], 4000));
        let long = "t".repeat(MAX_TOPIC + 1);
        for topic in ["a", &long, "b", "b"] {
            r.note(&malformed(remote).about(topic), (0, 0), true);
        }
        let [event] = &told_at_the_end(&mut r)[..] else { panic!("one event") };
        assert_eq!((event.topic.as_ref().unwrap().len(), event.other_topics), (MAX_TOPIC, 2));
    }

    #[test]
    fn details_of_one_source_are_told_apart_until_there_is_a_crowd() {
        let mut r = Refusals::new(10_000, 16);
        let remote = SocketAddr::from(([192, 0, 2, 1], 4000));
        let told = ["a", "b"].map(|detail| r.note(&malformed(remote).with_detail(detail), (0, 0), true));
        assert_eq!(told.map(|event| event.unwrap().detail), [Some("a"), Some("b")]);
        for host in 2..=3 {
            note_from(&mut r, [192, 0, 3, host].into(), 0);
        }
        for detail in ["c", "d", "e"] {
            r.note(&malformed(remote).with_detail(detail), (0, 0), true);
        }
        assert_eq!(r.sources(), 5, "one place for all further ones of the network");
        let [event] = &told_at_the_end(&mut r)[..] else { panic!("one event") };
        assert_eq!((event.count, event.detail), (2, None), "what not all have is not told of all");
    }
}
