//! What is formed is read back, and nothing else is read.

use proptest::prelude::*;

use super::*;
use crate::Service;

fn instance() -> InstanceName {
    "landfall".parse().unwrap()
}

fn id_text() -> impl Strategy<Value = String> {
    let char =
        prop_oneof![any::<char>(), prop::sample::select(&['.', '*', '>', ' ', '%', '/', 'a', '2'][..])];
    proptest::collection::vec(char, 1..20)
        .prop_map(|chars| chars.into_iter().filter(|c| !c.is_control()).collect::<String>())
        .prop_filter("ids are not empty", |text| !text.is_empty())
}

/// The server's rule, done again by hand: does this filter take that subject?
fn takes(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[test]
fn each_event_has_its_subject_in_exactly_one_stream() {
    let subjects = Subjects::new(&instance());
    let service = |kind| Event::Service(Service { kind, version: "0", sessions: 0, started_at: 0 });
    let join = service(ServiceKind::Join);
    assert_eq!(&*subjects.of(&join), "kaa.v1.events.landfall.service.lifecycle.join");
    assert!(Arc::ptr_eq(&subjects.of(&join), &subjects.of(&join)), "formed once");
    let all = [
        (&subjects.connected, "endpoint.connectivity.connected", Stream::Connectivity),
        (&subjects.disconnected, "endpoint.connectivity.disconnected", Stream::Connectivity),
        (&subjects.upstream, "endpoint.message.upstream", Stream::Messages),
        (&subjects.downstream, "endpoint.message.downstream", Stream::Messages),
        (&subjects.refused, "endpoint.access.refused", Stream::Access),
        (&subjects.of(&join), "service.lifecycle.join", Stream::Connectivity),
        (
            &subjects.of(&service(ServiceKind::KeepAlive)),
            "service.lifecycle.keep-alive",
            Stream::Connectivity,
        ),
        (&subjects.of(&service(ServiceKind::Leave)), "service.lifecycle.leave", Stream::Connectivity),
    ];
    for (subject, rest, stream) in all {
        assert_eq!(**subject, *format!("kaa.v1.events.landfall.{rest}"));
        assert!(takes(WATCH_ALL, subject));
        for other in [Stream::Connectivity, Stream::Messages, Stream::Access] {
            let bound = stream_subjects(other).iter().filter(|filter| takes(filter, subject)).count();
            assert_eq!(bound, usize::from(other == stream), "{subject} in {}", stream_name(other));
        }
        let parsed = parse_event(subject).unwrap();
        assert_eq!(format!("{}.{}.{}", parsed.entity, parsed.group, parsed.kind), rest);
        assert_eq!(parsed.instance, "landfall");
    }
}

#[test]
fn fences_and_leases_read_back_and_nothing_else_does() {
    let incarnation = Incarnation::new(7, [3; 10]);
    for stream in [Stream::Connectivity, Stream::Messages] {
        let subject = fence(stream, &instance(), &incarnation);
        assert_eq!(parse_fence(stream, &instance(), &subject), Some(incarnation));
        assert!(takes(&fence_wildcard(stream, &instance()), &subject));
        for other in [Stream::Connectivity, Stream::Messages, Stream::Access] {
            let bound = stream_subjects(other).iter().any(|filter| takes(filter, &subject));
            assert_eq!(bound, other == stream);
        }
        assert_eq!(parse_fence(stream, &"other".parse().unwrap(), &subject), None);
        assert!(!takes(WATCH_ALL, &subject), "no event");
    }
    let replica: ReplicaId = "a~1".parse().unwrap();
    let lease = lease_subject(&instance(), &replica);
    assert_eq!(lease, "$KV.LANDFALL_LEASES.landfall.a=7E1");
    assert!(takes(&lease_wildcard(&instance()), &lease));
    assert_eq!(parse_lease_subject(&lease), Some((instance(), replica)));
    for other in [
        "$KV.LANDFALL_LEASES.landfall",
        "$KV.LANDFALL_LEASES.a~b.c",
        "$KV.OTHER.a.b",
        "$KV.LANDFALL_LEASES.a.b.c",
    ] {
        assert_eq!(parse_lease_subject(other), None, "{other}");
    }
}

#[test]
fn a_will_stands_in_the_ledger_and_is_no_event() {
    let (incarnation, session) = (Incarnation::new(7, [3; 10]), SessionId::new(9, [5; 10]));
    let subject = will(&instance(), &incarnation, &session);
    assert_eq!(parse_will(&subject), Some(session));
    assert!(takes(&will_wildcard(&instance(), &incarnation), &subject));
    assert!(!takes(&will_wildcard(&"other".parse().unwrap(), &incarnation), &subject));
    assert!(!takes(WATCH_ALL, &subject) && !takes(&presence_wildcard(&instance()), &subject));
    for stream in [Stream::Connectivity, Stream::Messages] {
        let bound = stream_subjects(stream).iter().any(|filter| takes(filter, &subject));
        assert_eq!(bound, stream == Stream::Connectivity);
    }
    let next = Incarnation::new(8, [4; 10]);
    assert_eq!(will_of(&subject, &next), Some(will(&instance(), &next, &session)));
    for other in ["landfall.will.i.x.y", "landfall.will.i", &format!("{subject}.x"), "landfall.fence.a.b.c"] {
        assert_eq!((parse_will(other), will_of(other, &next)), (None, None), "{other}");
    }
}

#[test]
fn a_token_is_written_as_the_contract_says() {
    assert_eq!(escape_token("pump-17_a~Z0"), "pump-17_a~Z0");
    assert_eq!(escape_token("a.b*c>d e%"), "a%2Eb%2Ac%3Ed%20e%25");
    assert_eq!(escape_token("ü"), "%C3%BC");
    assert_eq!(escape_token("\r\n"), "%0D%0A");
}

#[test]
fn only_what_is_written_is_read() {
    for token in [
        "a.b", "a b", "%", "%4", "%41", "%2e", "%ff", "%FF", "%C3", "ü", "a*", ">", "%%41", "%2G", "%+2",
        "a\n",
    ] {
        assert_eq!(unescape_token(token), None, "{token:?}");
    }
    for subject in [
        "",
        "kaa.v1.service.landfall.command.t",
        "kaa.v1.service.landfall.command.t.d.x",
        "kaa.v1.service.landfall.command..d",
        "kaa.v1.service.landfall.command.t.",
        "kaa.v1.service.landfall.command.t.%0A",
        "kaa.v1.service.landfall.command.t.*",
        "kaa.v1.service.landfall2.command.t.d",
        "kaa.v1.service.land.command.t.d",
        "kaa.v1.events.landfall.command.t.d",
    ] {
        assert_eq!(parse_command(&instance(), subject), None, "{subject}");
    }
    for subject in
        ["admin.", "admin.sessions.x", "admin.kick", "admin.kick.t", "admin.kick.t.d.e", "admin.other"]
    {
        assert_eq!(
            parse_admin(&instance(), &format!("kaa.v1.service.landfall.{subject}")),
            None,
            "{subject}"
        );
    }
    for subject in ["kaa.v1.events.i.endpoint.message", "kaa.v1.events..e.g.t", "kaa.v1.events.i.e.g.", "x.y"]
    {
        assert_eq!(parse_event(subject), None, "{subject}");
    }
}

proptest! {
    #[test]
    fn escaping_is_undone_exactly(text in any::<String>()) {
        let token = escape_token(&text);
        prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_~-%".contains(&b)), "{token}");
        prop_assert_eq!(unescape_token(&token), Some(text));
    }

    #[test]
    fn what_can_be_read_is_what_would_be_written(token in "[%0-9A-Fa-f_.~-]{0,12}") {
        if let Some(text) = unescape_token(&token) {
            prop_assert_eq!(escape_token(&text), token);
        }
    }

    #[test]
    fn a_device_finds_its_way_through_a_subject(tenant in id_text(), device in id_text()) {
        let (tenant, device): (TenantId, DeviceId) = (tenant.parse().unwrap(), device.parse().unwrap());
        let subject = command_subject(&instance(), &tenant, &device);
        prop_assert!(takes(&command_wildcard(&instance()), &subject));
        prop_assert_eq!(subject.split('.').count(), 7);
        prop_assert_eq!(parse_command(&instance(), &subject), Some((tenant.clone(), device.clone())));
        for call in [AdminCall::Sessions, AdminCall::Kick { tenant, device }] {
            let subject = admin_subject(&instance(), &call);
            prop_assert!(takes(&admin_wildcard(&instance()), &subject));
            prop_assert_eq!(parse_admin(&instance(), &subject), Some(call));
        }
    }

    #[test]
    fn a_device_finds_its_way_through_the_store(tenant in id_text(), device in id_text()) {
        let (tenant, device): (TenantId, DeviceId) = (tenant.parse().unwrap(), device.parse().unwrap());
        let other: InstanceName = "landfall2".parse().unwrap();
        let queue = queue_subject(&instance(), &tenant, &device);
        prop_assert!(takes(QUEUE_ALL, &queue));
        prop_assert!(takes(&queue_wildcard(&instance()), &queue));
        prop_assert!(!takes(QUEUE_NOBODYS, &queue) && !takes(&queue_wildcard(&other), &queue));
        prop_assert_eq!(parse_queue(&instance(), &queue), Some((tenant.clone(), device.clone())));
        prop_assert_eq!(parse_queue(&other, &queue), None);
        prop_assert_eq!(parse_nobodys_queue(&queue), None);
        let key = session_key(&instance(), &tenant, &device);
        prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=.".contains(&b)), "{key}");
        prop_assert_eq!(parse_session_key(&other, &key), None);
        prop_assert_eq!(parse_nobodys_session_key(&key), None);
        prop_assert_eq!(parse_session_key(&instance(), &key), Some((tenant, device)));
        let subject = session_subject(&key);
        prop_assert_eq!(parse_session_subject(&subject), Some(key.as_str()));
        prop_assert!(takes(&session_subject(">"), &subject));
        prop_assert!(takes(&session_wildcard(&instance()), &subject));
        prop_assert!(!takes(&session_wildcard(&other), &subject) && !takes(&nobodys_sessions(), &subject));
    }

    #[test]
    fn a_key_that_can_be_read_is_one_that_would_be_written(key in "([=~%0-9A-F]|=7E|=2E){0,5}[.]([=~%0-9A-F]|=7E|=25){0,5}") {
        if let Some((tenant, device)) = parse_nobodys_session_key(&key) {
            prop_assert_eq!(device_key(&tenant, &device), key);
        }
    }

    #[test]
    fn any_subject_is_parsed_without_a_panic(subject in ".{0,60}", rest in ".{0,30}") {
        let _ = (parse_event(&subject), parse_command(&instance(), &subject));
        let _ = parse_admin(&instance(), &format!("kaa.v1.service.landfall.admin.{rest}"));
    }
}
