//! Planted histories: each fault by its name, for programs and for people.

use landfall_event::{
    Disconnected, Dropped, Ended, Event, EventId, Format, Gap, Reason, ServiceKind, SessionId, Stream,
};
use landfall_testkit::streams::{CONNECTIVITY, MESSAGES};
use landfall_testkit::{NatsServer, forged};
use tempfile::TempDir;

use super::{Forged, Forger, now, text};

/// A session that begins, says three things and ends.
async fn goes_well(gateway: &Forged<'_>, device: &str) {
    let session = gateway.session(device, 1);
    gateway.begins(&session).await;
    for seq in 1..4 {
        gateway.message(&session, seq).await;
    }
    gateway.ends(&session, 2).await;
}

#[tokio::test]
async fn a_good_history_passes_in_every_format() {
    let forger = Forger::start().await;
    for format in Format::ALL {
        let mut gateway = forger.instance(format.as_str()).await;
        gateway.format = *format;
        goes_well(&gateway, "pump").await;
        let raw = gateway.session("camera", 1);
        gateway.begins(&raw).await;
        gateway.raw_message(&raw, 1).await;
        let both = [raw, gateway.session("valve", 1)];
        gateway.begins(&both[1]).await;
        gateway.message(&both[0], 2).await;
        let left = both.iter().map(|session| forged::ended(session, 2, now())).collect();
        let id = EventId::Gateway(gateway.origin.incarnation, 2);
        gateway.tells(id, &Event::Disconnected(Disconnected { ended: left })).await;
        assert_eq!(forger.kinds(format.as_str(), &[]).await, Vec::<String>::new());
    }
    let (status, json) = forger.judge(&["--all-instances"]).await;
    assert_eq!(status, 0, "{json}");
    for (count, expected) in
        [("connected", 9), ("disconnected", 9), ("open", 0), ("messages", 15), ("foreign", 0)]
    {
        assert_eq!(json[count], expected, "{count}: {json}");
    }
}

/// Plants one fault.
async fn plant(gateway: &Forged<'_>, kind: &str) {
    let one = gateway.session("odd", 7);
    match kind {
        "disconnected-without-connected" => return gateway.ends(&one, 2).await,
        "without-connected" => return gateway.message(&one, 1).await,
        _ => gateway.begins(&one).await,
    }
    match kind {
        "never-closed" => gateway.says(9, ServiceKind::Leave).await,
        "closed-twice" => {
            gateway.ends(&one, 2).await;
            gateway.ends(&one, 3).await;
        }
        "connected-twice" => gateway.begins(&one).await,
        "seq-gap" => gateway.message(&one, 2).await,
        "seq-order" => {
            for seq in [2, 1] {
                gateway.message(&one, seq).await;
            }
        }
        "duplicate" => {
            for seq in [1, 1] {
                gateway.message(&one, seq).await;
            }
        }
        "never-let-in" => {
            let reason = Reason::NotAdmitted;
            let end = Ended { reason, initiator: reason.initiator(), ..forged::ended(&one, 2, now()) };
            let id = EventId::Session(one.session(), Stream::Connectivity, 2);
            gateway.tells(id, &Event::Disconnected(Disconnected { ended: vec![end] })).await;
        }
        "overlap" => gateway.begins(&gateway.session("odd", 8)).await,
        "epoch-not-rising" => {
            gateway.ends(&one, 2).await;
            gateway.begins(&gateway.session("odd", 7)).await;
        }
        other => panic!("nothing plants {other}"),
    }
}

#[tokio::test]
async fn each_fault_is_found_and_named() {
    let forger = Forger::start().await;
    let all = [
        "never-closed",
        "closed-twice",
        "connected-twice",
        "disconnected-without-connected",
        "without-connected",
        "seq-gap",
        "seq-order",
        "duplicate",
        "never-let-in",
        "overlap",
        "epoch-not-rising",
    ];
    for kind in all {
        let gateway = forger.instance(kind).await;
        goes_well(&gateway, "even").await;
        plant(&gateway, kind).await;
        let (status, json) = forger.judge(&["--instance", kind]).await;
        assert_eq!((status, super::kinds(&json)), (1, vec![kind.to_owned()]), "{json}");
        let found = &json["violations"][0];
        assert_eq!(found["device"], "odd@default", "{json}");
        assert!(found["sessionId"].as_str().is_some_and(|id| id.parse::<SessionId>().is_ok()), "{json}");
        let stream = found["stream"].as_str().unwrap();
        assert!([CONNECTIVITY, MESSAGES].contains(&stream), "{json}");
        assert_eq!(found["streamSeq"].as_u64() == Some(0), kind == "never-closed", "{json}");
    }
    let (status, json) = forger.judge(&["--all-instances"]).await;
    assert_eq!(status, 1);
    let mut found = super::kinds(&json);
    let mut planted: Vec<String> = all.map(str::to_owned).to_vec();
    found.sort();
    planted.sort();
    assert_eq!(found, planted, "instances have devices of their own, whatever their names: {json}");
}

#[tokio::test]
async fn what_was_dropped_and_told_is_counted() {
    let forger = Forger::start().await;
    let gateway = forger.instance("i").await;
    let one = gateway.session("d", 1);
    gateway.begins(&one).await;
    for seq in [1, 5, 6] {
        gateway.message(&one, seq).await;
    }
    assert_eq!(forger.kinds("i", &[]).await, ["seq-gap"]);
    let gaps = vec![Gap { session: one.session(), from: 2, to: 4 }];
    let told = Event::Dropped(Dropped { sessions: 2, messages: 3, gaps });
    gateway.tells(EventId::Gateway(gateway.origin.incarnation, 2), &told).await;
    let (status, json) = forger.judge(&["--instance", "i"]).await;
    assert_eq!(
        (status, &json["droppedSessions"], &json["droppedMessages"]),
        (0, &2.into(), &3.into()),
        "{json}"
    );
}

#[tokio::test]
async fn a_message_that_was_acknowledged_and_is_not_there_is_found() {
    let forger = Forger::start().await;
    let gateway = forger.instance("i").await;
    let one = gateway.session("pump 17", 1);
    gateway.begins(&one).await;
    gateway.message(&one, 1).await;
    gateway.raw_message(&one, 2).await;
    let folder = TempDir::new().unwrap();
    let journal = |name: &str, lines: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, lines).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let there = journal(
        "there",
        "{\"device\":\"pump 17\",\"payload\":\"{\\\"n\\\":1}\"}\n\
         {\"tenant\":\"default\",\"device\":\"pump 17\",\"payload\":\"{\\\"n\\\":2}\",\"at\":7}\n{\"device\":\"pu",
    );
    let lost = journal("lost", "{\"device\":\"pump 17\",\"payload\":\"{\\\"n\\\":3}\"}\n");
    let elsewhere =
        journal("elsewhere", "{\"tenant\":\"acme\",\"device\":\"pump 17\",\"payload\":\"{\\\"n\\\":1}\"}\n");
    assert_eq!(forger.kinds("i", &["--journal", &there]).await, Vec::<String>::new());
    let found = forger.kinds("i", &["--journal", &there, "--journal", &lost, "--journal", &elsewhere]).await;
    assert_eq!(found, ["lost-acknowledged"; 2]);
    let broken = journal("broken", "{\"device\":\"pump 17\"}\n");
    for wrong in [broken.as_str(), "/does/not/exist"] {
        let output = forger.verify(&["--journal", wrong]).await;
        assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(wrong), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn people_see_lines_that_no_terminal_obeys() {
    let forger = Forger::start().await;
    let gateway = forger.instance("i").await;
    for n in 0..120 {
        gateway.ends(&gateway.session(&format!("d\u{202e}{n}"), n), 2).await;
    }
    let output = forger.verify(&["--instance", "i"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(!said.contains(['\u{202e}', '\u{1b}']), "{said}");
    let lines = said.lines().filter(|line| line.contains("disconnected-without-connected")).count();
    assert_eq!(lines, 100, "{said}");
    for word in ["d\\u{202e}99@default", "and 20 more", "120 violations", "0  connected"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (_, json) = forger.judge(&["--instance", "i"]).await;
    assert_eq!(json["violations"].as_array().unwrap().len(), 120, "a program gets all of them");
    let well = forger.verify(&["--instance", "nobody"]).await;
    assert_eq!(well.status.code(), Some(0));
    assert!(text(&well.stdout).contains("nothing is wrong"));
}

#[tokio::test]
async fn without_streams_it_says_so() {
    let nats = NatsServer::start().await;
    let url = nats.url();
    let output = landfall_testkit::Gateway::builder().output(&["verify", "--nats", &url]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("LANDFALL_MESSAGES") && said.lines().count() == 1, "{said}");
}
