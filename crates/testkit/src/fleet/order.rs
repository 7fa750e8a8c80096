//! What the numbers in a fleet's payloads tell of the stream, beyond what `landfall verify` can know.
//!
//! Owns: order, doubles and losses of what the devices of a [`Fleet`](super::Fleet) sent. Does not own: acknowledged messages,
//! which the journal tells of.

use std::collections::{BTreeMap, BTreeSet};

use crate::recorder::Seen;

/// Who sent a message, and its number there.
fn number_of(event: &Seen) -> Option<(&str, u64)> {
    let (device, number) = event.json["payload"].as_str()?.split_once(':')?;
    Some((device, number.parse().ok()?))
}

fn numbers(messages: &[Seen]) -> impl Iterator<Item = (&str, u64)> {
    messages.iter().filter(|event| event.kind() == "upstream").filter_map(number_of)
}

/// Does the device ask for no acknowledgement, and send each message once?
fn is_bare(device: &str) -> bool {
    ["mqtt0-", "coap0-", "udp0-"].iter().any(|begin| device.starts_with(begin))
}

/// Finds what is out of order: each device's numbers rise in the stream, a message that came again counting where it came
/// first. Empty when all is well.
pub fn disorder(messages: &[Seen]) -> Vec<String> {
    disorder_of(messages, |_| true)
}

/// The same for devices that wait for acknowledgements. The others may be out of order when they go from one replica to
/// another: what they said to the first may be stored later.
pub fn disorder_of_acknowledged(messages: &[Seen]) -> Vec<String> {
    disorder_of(messages, |device| !is_bare(device))
}

fn disorder_of(messages: &[Seen], whose: impl Fn(&str) -> bool) -> Vec<String> {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (device, number) in numbers(messages).filter(|(device, _)| whose(device)) {
        if !seen.insert((device, number)) {
            continue;
        }
        let newest = newest.entry(device).or_default();
        if number < *newest {
            found.push(format!("{device}:{number} after {newest}"));
        }
        *newest = (*newest).max(number);
    }
    found
}

/// Finds messages that are stored twice though they were sent once. Empty when all is well.
pub fn doubled(messages: &[Seen]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (device, number) in numbers(messages).filter(|(device, _)| is_bare(device)) {
        if !seen.insert((device, number)) {
            found.push(format!("{device}:{number} twice"));
        }
    }
    found
}

/// Finds messages without acknowledgement that are not stored though a later one of their device is: for tests in which
/// nothing that the gateway had taken was given up. Empty when all is well.
pub fn lost(messages: &[Seen]) -> Vec<String> {
    let mut stored: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (device, number) in numbers(messages).filter(|(device, _)| is_bare(device)) {
        stored.entry(device).or_default().insert(number);
    }
    let missing = |(device, numbers): (&str, BTreeSet<u64>)| {
        let last = numbers.last().copied().unwrap_or(0);
        let missing: Vec<u64> = (1..=last).filter(|number| !numbers.contains(number)).collect();
        (!missing.is_empty()).then(|| format!("{device}: {missing:?} of {last}"))
    };
    stored.into_iter().filter_map(missing).collect()
}

/// Finds bodies of forgetful devices that nobody has sent: each of theirs repeats 16 bytes. Empty when all is well.
pub fn torn(messages: &[Seen]) -> Vec<String> {
    let bodies = messages.iter().filter_map(|event| event.json["payload"].as_str());
    let is_torn = |body: &&str| {
        let mut units = body.as_bytes().chunks(16);
        let first = units.next();
        units.any(|unit| Some(unit) != first)
    };
    bodies.filter(|body| body.starts_with("wakes")).filter(is_torn).map(str::to_owned).collect()
}
