use landfall_event::{
    Disconnected, Ended as Published, Epoch, Event, EventId, Format, Identity, Initiator, Occasion, Origin,
    SessionId, SessionInfo, SessionRef, Subjects, Transport, encode,
};

use super::*;

const HEARD: u64 = 1_760_000_000_000;

fn ended(device: u32, reason: Reason, last_seen_at: u64, at: u64) -> Published {
    Published {
        session: SessionRef::from(SessionInfo {
            tenant: "default".parse().unwrap(),
            device: format!("meter-{device:07}").parse().unwrap(),
            app_version: "".into(),
            identity: Identity::new(SessionId::new(2, [0; 10]), Epoch(1)),
            transport: Transport::Udp,
        }),
        seq: 2,
        reason,
        initiator: Initiator::Network,
        inferred: true,
        connected_at: HEARD - 5_000,
        last_seen_at: Some(last_seen_at),
        at,
        counters: None,
        evidence: None,
        detail: None,
    }
}

fn message(ended: Vec<Published>) -> Message {
    let origin = Origin {
        instance: "north".parse().unwrap(),
        replica: "a1".parse().unwrap(),
        incarnation: SessionId::new(1, [0; 10]),
    };
    let at = ended.iter().map(|one| one.at).max().unwrap();
    let event = Event::Disconnected(Disconnected { ended });
    let occasion = Occasion { origin: &origin, id: EventId::Gateway(origin.incarnation, 1), at };
    let encoded = encode(Format::Json, &occasion, &event);
    Message {
        subject: (&*Subjects::new(&origin.instance).of(&event)).into(),
        reply: None,
        payload: encoded.body,
        headers: None,
        status: None,
        description: None,
        length: 0,
    }
}

fn bursts() -> Vec<Burst> {
    let burst =
        |devices, heartbeat, from: u64| Burst { devices, heartbeat, heard: from..=from + 20, again: 1 };
    vec![burst(0..2, 2, HEARD), burst(2..3, 1, HEARD + 1_500)]
}

fn due(n: u64) -> u64 {
    HEARD + 3_000 + n
}

fn all() -> Vec<Arrived> {
    let one = |device, heard| ended(device, Reason::IdleTimeout, heard, due(60));
    vec![
        (due(90), message(vec![one(0, HEARD), one(2, HEARD + 1_510)])),
        (due(95), message(vec![one(1, HEARD + 20)])),
    ]
}

#[test]
fn lateness_counts_from_each_devices_own_deadline() {
    let tally = Tally::of(&all(), &bursts(), 3).unwrap();
    assert_eq!((tally.messages, tally.again), (2, 2));
    assert_eq!(tally.deadlines, [due(0), due(10), due(20)]);
    assert_eq!(tally.detected, [40, 50, 60]);
    assert_eq!(tally.published, [75, 80, 90]);
}

#[test]
fn missing_twice_early_and_other_ends_are_told() {
    let told = |arrived: &[Arrived]| Tally::of(arrived, &bursts(), 3).unwrap_err();
    assert_eq!(told(&all()[..1]), "2 ends were told of 3");
    let mut twice = all();
    twice.push((due(99), message(vec![ended(1, Reason::IdleTimeout, HEARD, due(50))])));
    assert_eq!(told(&twice), "meter-0000001 ended twice");
    let with = |one: Published| told(&[(due(90), message(vec![one]))]);
    assert!(with(ended(0, Reason::Kicked, HEARD, due(9))).contains("kicked"));
    assert!(with(ended(0, Reason::IdleTimeout, HEARD, due(0) - 3)).contains("3 ms before"));
    assert!(with(ended(0, Reason::IdleTimeout, HEARD + 23, due(60))).contains("was heard at"));
    assert!(with(ended(3, Reason::IdleTimeout, HEARD, due(60))).contains("never was"));
}

#[test]
fn others_do_not_count() {
    let mut arrived = all();
    let mut other = ended(0, Reason::Kicked, HEARD, HEARD);
    other.session = SessionRef::from(SessionInfo {
        tenant: "default".parse().unwrap(),
        device: "pump-1".parse().unwrap(),
        app_version: "".into(),
        identity: Identity::new(SessionId::new(2, [0; 10]), Epoch(1)),
        transport: Transport::Mqtt,
    });
    arrived.push((HEARD, message(vec![other])));
    assert_eq!(Tally::of(&arrived, &bursts(), 3).unwrap().messages, 2);
}
