//! Settings from texts and variables of the test's own.

use landfall_net::ClientAuth;

use super::*;

fn file(text: &str) -> File {
    File { path: "landfall.toml".into(), text: text.to_owned() }
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Problems> {
    Settings::load(Some(&file(text)), &Environment::of(variables.iter().copied()))
}

/// The one problem that the settings have.
fn problem(text: &str, variables: &[(&str, &str)]) -> String {
    let problems = load(text, variables).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
    problems.to_string()
}

#[test]
fn without_a_file_and_a_variable_the_defaults_hold() {
    let settings = Settings::load(None, &Environment::default()).unwrap();
    assert_eq!(settings.instance.name.as_str(), "landfall");
    assert_eq!(settings.nats.url, NatsTarget::Embedded);
    assert_eq!(settings.mqtt.listen[0].to_string(), "tcp://127.0.0.1:1883");
    assert_eq!(settings.mqtt.max_packet_size, 262_144);
    assert_eq!(settings.coap.listen[0].to_string(), "udp://127.0.0.1:5683");
    assert_eq!(settings.udp.listen[0].to_string(), "udp://127.0.0.1:7683");
    assert_eq!(settings.coap.max_body, 262_144);
    assert_eq!(settings.presence.idle_timeout, Duration::from_secs(300));
    assert_eq!(settings.drain_timeout, Duration::from_secs(10));
    assert_eq!(settings.auth.mode, AuthMode::Open);
    assert_eq!(settings.auth.open_topics, ["#".parse().unwrap()]);
    assert_eq!(settings.admin.listen.as_ref().unwrap().to_string(), "tcp://127.0.0.1:8080");
}

#[test]
fn every_default_in_the_code_is_valid_and_the_value_in_force() {
    for row in Settings::load(None, &Environment::default()).unwrap().rows() {
        let written = if row.section.is_empty() {
            format!("{} = {}", row.key, row.default)
        } else {
            format!("[{}]\n{} = {}", row.section, row.key, row.default)
        };
        let again = load(&written, &[]).unwrap();
        let same = again.rows().into_iter().find(|r| (r.section, r.key) == (row.section, row.key)).unwrap();
        assert_eq!(same.value, row.value, "{written}");
    }
}

#[test]
fn every_key_is_also_a_variable_and_the_variable_wins() {
    for row in Settings::load(None, &Environment::default()).unwrap().rows() {
        let text = row.value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(&row.value);
        load("", &[(&row.variable(), text)])
            .unwrap_or_else(|problems| panic!("{}: {problems}", row.variable()));
    }
    let settings = load(
        "[nats]\nurl = \"nats://file:4222\"\n",
        &[("LANDFALL_NATS__URL", "nats://env:4222"), ("LANDFALL_DRAIN_TIMEOUT", "3s")],
    )
    .unwrap();
    assert_eq!(settings.nats.url.to_string(), "nats://env:4222");
    assert_eq!(settings.drain_timeout, Duration::from_secs(3));
}

#[test]
fn lists_in_variables_are_arrays_or_comma_separated() {
    for text in ["tcp://127.0.0.1:1, ws://127.0.0.1:2", r#"["tcp://127.0.0.1:1", "ws://127.0.0.1:2"]"#] {
        let settings = load("", &[("LANDFALL_MQTT__LISTEN", text)]).unwrap();
        let listen: Vec<_> = settings.mqtt.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["tcp://127.0.0.1:1", "ws://127.0.0.1:2"]);
    }
}

#[test]
fn a_bad_value_names_key_value_place_and_what_is_allowed() {
    let text = problem("[mqtt]\nreceive_maximum = 0\n", &[]);
    assert_eq!(
        text,
        "`mqtt.receive_maximum` = 0 (landfall.toml:2): must be a whole number from 1 to 65535 (messages)"
    );
    let text = problem("", &[("LANDFALL_PRESENCE__IDLE_TIMEOUT", "soon")]);
    assert!(text.contains("`presence.idle_timeout` = \"soon\""), "{text}");
    assert!(text.contains("environment variable LANDFALL_PRESENCE__IDLE_TIMEOUT"), "{text}");
    assert!(text.contains("a duration from \"1s\" to \"30d\""), "{text}");
    let text = problem("[instance]\nname = \"a.b\"\n", &[]);
    assert!(text.contains("\"a.b\"") && text.contains("[A-Za-z0-9_~-]"), "{text}");
    let text = problem("[events]\nformat = \"xml\"\n", &[]);
    assert!(text.contains("\"json\" or \"kaa-2017\" or \"kaa-elce\""), "{text}");
}

#[test]
fn every_problem_is_told_at_once() {
    let problems =
        load("[mqtt]\nreceive_maximum = 0\nmax_packet_size = \"1GiB\"\n[nope]\na = 1\n", &[]).unwrap_err();
    assert_eq!(problems.0.len(), 3, "{problems}");
}

#[test]
fn an_unknown_key_is_named_with_a_guess_or_the_choice() {
    let text = problem("[mqtt]\nlisten = [\"tcp://127.0.0.1:1\"]\nrecieve_maximum = 5\n", &[]);
    assert_eq!(
        text,
        "unknown key `mqtt.recieve_maximum` (landfall.toml:3): did you mean `mqtt.receive_maximum`?"
    );
    let text = problem("[admin]\npassword = \"x\"\n", &[]);
    assert!(text.ends_with("the keys of this section are listen, allowed_hosts"), "{text}");
    let text = problem("", &[("LANDFALL_NATS__URI", "x")]);
    assert!(text.contains("LANDFALL_NATS__URI") && text.contains("did you mean `nats.url`?"), "{text}");
}

#[test]
fn sections_that_do_not_exist_are_named() {
    for text in
        ["[lwm2m]\nlisten = [\"udp://127.0.0.1:5683\"]\n", "[http]\n", "tcp = 1\n", "[mqt.deep]\na = 1\n"]
    {
        let text = problem(text, &[]);
        assert!(text.contains("the sections are instance, nats, events, mqtt, coap, udp, tls"), "{text}");
    }
    let text = problem("mqtt = 5\n", &[]);
    assert!(text.contains("must be a section, [mqtt]"), "{text}");
    assert!(load("[mqtt]\n[tls]\n", &[]).is_ok(), "an empty section says nothing");
}

#[test]
fn names_that_an_orchestrator_makes_are_left_alone() {
    let variables = [
        ("LANDFALL_PORT", "tcp://10.0.0.1:1883"),
        ("LANDFALL_SERVICE_HOST", "10.0.0.1"),
        ("OTHER__KEY", "1"),
    ];
    assert!(load("", &variables).is_ok());
}

#[test]
fn a_broken_file_is_placed_without_its_text() {
    let text = problem("[nats]\nurl = \"nats://app:hunter2@n\n", &[]);
    assert!(text.contains("landfall.toml is no TOML: line 2") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_bad_nats_url_is_not_repeated() {
    let text = problem("[nats]\nurl = \"http://app:hunter2@n\"\n", &[]);
    assert!(text.contains("`nats.url` = ***") && !text.contains("hunter2"), "{text}");
}

#[test]
fn open_mode_is_refused_off_loopback() {
    for (section, scheme) in [("mqtt", "tcp"), ("coap", "udp"), ("udp", "udp")] {
        for address in ["0.0.0.0:1883", "[::]:80", "gateway.example:1883", "192.0.2.1:0"] {
            let listen = format!("{scheme}://{address}");
            let text =
                problem(&format!("[{section}]\nlisten = [\"{scheme}://127.0.0.1:1\", \"{listen}\"]\n"), &[]);
            assert!(text.contains("`auth.mode` = \"open\" (default)"), "{text}");
            let key = format!("`{section}.listen` has \"{listen}\" (landfall.toml:2)");
            assert!(text.contains(&key), "{text}");
            let variable = format!("LANDFALL_{}__LISTEN", section.to_uppercase());
            assert!(load("[auth]\nmode = \"devices\"\n", &[(&variable, &listen)]).is_ok(), "{variable}");
        }
        let near =
            ["127.0.0.2:1", "localhost:2", "[::1]:3"].map(|near| format!("{scheme}://{near}")).join(",");
        let variable = format!("LANDFALL_{}__LISTEN", section.to_uppercase());
        assert!(load("", &[(&variable, &near)]).is_ok(), "{near}");
    }
    let all = "[mqtt]\nlisten = [\"tcp://0.0.0.0:1\"]\n[coap]\nlisten = [\"udp://0.0.0.0:1\"]\n\
               [udp]\nlisten = [\"udp://0.0.0.0:2\"]\n";
    assert_eq!(load(all, &[]).unwrap_err().0.len(), 3, "each section is told");
}

#[test]
fn datagram_listeners_take_udp_and_dtls_and_say_so() {
    for (section, default) in [("coap", "udp://127.0.0.1:5683"), ("udp", "udp://127.0.0.1:7683")] {
        let secure = format!(
            "[{section}]\nsockets = 3\nlisten = [\"{default}\", \"dtls://127.0.0.1:5684\"]\n\
             [auth]\nmode = \"devices\"\n"
        );
        assert_eq!(load(&secure, &[]).unwrap().dtls_sockets(), 3);
        for listen in
            ["coaps://127.0.0.1:5684", "tcp://127.0.0.1:1", "udp://127.0.0.1", "udp://127.0.0.1:1/x"]
        {
            let text = problem(&format!("[{section}]\nlisten = [\"{listen}\"]\n"), &[]);
            let place = format!(
                "`{section}.listen` = [\"{listen}\"] (landfall.toml:2): must be a list of 1 to 64 of"
            );
            assert!(text.starts_with(&place), "{text}");
            assert!(
                text.contains(
                    "\"udp://127.0.0.1:5683\" (udp or dtls; IPv4, IPv6 in brackets, or a name; port)"
                ),
                "{text}"
            );
        }
        let rows = load("", &[]).unwrap().rows();
        let row = rows.iter().find(|row| (row.section, row.key) == (section, "listen")).unwrap();
        assert_eq!(row.value, format!("[\"{default}\"]"));
    }
}

#[test]
fn a_family_can_be_left_out_and_not_all_of_them() {
    let settings = load("[coap]\nlisten = []\n", &[("LANDFALL_UDP__LISTEN", "")]).unwrap();
    assert!(settings.coap.listen.is_empty() && settings.udp.listen.is_empty());
    assert!(load(&settings.annotated(), &[]).unwrap().coap.listen.is_empty());
    let text = problem("[mqtt]\nlisten = []\n[coap]\nlisten = []\n[udp]\nlisten = []\n", &[]);
    assert!(text.contains("`mqtt.listen`, `coap.listen` and `udp.listen`"), "{text}");
}

#[test]
fn the_bounds_of_coap_are_shared_out_among_its_sockets() {
    let of = |text: &str| load(text, &[]).unwrap();
    let settings = of("[coap]\nsockets = 3\nlisten = [\"udp://127.0.0.1:1\", \"udp://127.0.0.1:2\"]\n");
    assert_eq!(settings.coap.datagrams().sockets, 3);
    assert_eq!(
        (settings.coap.share(600, 1), settings.coap.share(601, 1), settings.coap.share(6, 5)),
        (100, 101, 5)
    );
    for made in [of("").coap.datagrams(), of("").udp.datagrams()] {
        assert!((1..=8).contains(&made.sockets), "{made:?}");
        assert_eq!(made.receive_buffer, 4 << 20);
    }
    assert!(of("[coap]\nlisten = []\n").coap.share(600, 1) >= 75);
}

#[test]
fn silences_are_learned_when_that_is_asked_for() {
    assert_eq!(load("", &[]).unwrap().presence.learning(), None);
    let settings =
        load("[presence]\nadaptive = true\nadaptive_level = 5\nadaptive_min = \"3s\"\n", &[]).unwrap();
    let learning = settings.presence.learning().unwrap();
    assert_eq!((learning.level, learning.least_ms, learning.most_ms), (5.0, 3_000, 300_000));
    assert!(load("[presence]\nidle_timeout = \"5s\"\n", &[]).is_ok(), "what is off is out of order nowhere");
}

#[test]
fn keys_that_need_each_other_say_so() {
    for (text, names) in [
        ("[mqtt]\nlisten = [\"tls://127.0.0.1:1\"]\n", ["mqtt.listen", "tls.cert"]),
        ("[tls]\ncert = \"c.pem\"\n", ["tls.cert", "tls.key"]),
        ("[tls]\nclient_ca = \"c.pem\"\n", ["tls.client_ca", "tls.key"]),
        ("[nats]\nkey = \"c.pem\"\n", ["nats.key", "nats.cert"]),
        ("[dtls]\ncert = \"c.pem\"\n", ["dtls.cert", "dtls.key"]),
        ("[dtls]\nclient_ca = \"c.pem\"\n", ["dtls.client_ca", "tls.key"]),
        (
            "[coap]\nlisten = [\"udp://127.0.0.1:5\", \"dtls://127.0.0.1:5\"]\n[auth]\nmode = \"devices\"\n",
            ["coap.listen", "dtls://127.0.0.1:5"],
        ),
        ("[nats]\nreplicas = 3\n", ["nats.replicas", "nats.url"]),
        ("[mqtt]\nlisten = [\"tcp://127.0.0.1:1\", \"ws://127.0.0.1:1\"]\n", ["mqtt.listen", "127.0.0.1:1"]),
        (
            "[mqtt]\nmax_packet_size = \"2MiB\"\n[nats]\npublish_window_bytes = \"1MiB\"\n",
            ["nats.publish_window_bytes", "mqtt.max_packet_size"],
        ),
        (
            "[nats]\nmessages_max_bytes = \"64MiB\"\npublish_window_bytes = \"64MiB\"\n[mqtt]\nmax_packet_size = \"5MiB\"\n",
            ["nats.messages_max_bytes", "mqtt.max_packet_size"],
        ),
        ("[nats]\nmessages_max_bytes = \"63MiB\"\n", ["nats.messages_max_bytes", "\"64MiB\""]),
        ("[nats]\nconnectivity_max_bytes = 1\n", ["nats.connectivity_max_bytes", "\"64MiB\""]),
        ("[presence]\ntick = \"2s\"\nidle_timeout = \"1s\"\n", ["presence.tick", "presence.idle_timeout"]),
        (
            "[presence]\nadaptive = true\nadaptive_min = \"2s\"\nidle_timeout = \"1s\"\n",
            ["presence.adaptive_min", "presence.idle_timeout"],
        ),
        ("[coap]\nmax_body = \"8MiB\"\nupload_memory = \"4MiB\"\n", ["coap.upload_memory", "coap.max_body"]),
        (
            "[coap]\nmax_body = \"8MiB\"\n[nats]\npublish_window_bytes = \"4MiB\"\n",
            ["nats.publish_window_bytes", "coap.max_body"],
        ),
        (
            "[coap]\nlisten = [\"udp://127.0.0.1:5\"]\n[udp]\nlisten = [\"udp://127.0.0.1:5\"]\n",
            ["udp.listen", "udp://127.0.0.1:5"],
        ),
    ] {
        let problem = problem(text, &[]);
        assert!(names.iter().all(|name| problem.contains(name)), "{problem}");
    }
    assert!(
        load("[mqtt]\nlisten = [\"tcp://127.0.0.1:0\", \"ws://127.0.0.1:0\"]\n", &[]).is_ok(),
        "free ports differ"
    );
    let shared = "[mqtt]\nlisten = [\"tcp://127.0.0.1:5683\"]\n[udp]\nlisten = [\"udp://127.0.0.2:5683\"]\n";
    assert!(load(shared, &[]).is_ok(), "TCP has ports of its own, and so has every address");
}

#[test]
fn client_certificates_need_somebody_who_signs_them() {
    let dtls = "[dtls]\ncert = \"c\"\nkey = \"k\"\nclient_auth = \"required\"\n";
    let problem = load(dtls, &[]).unwrap_err().to_string();
    assert!(problem.contains("`dtls.client_auth`") && problem.contains("`dtls.client_ca`"), "{problem}");
    load(&format!("{dtls}client_ca = \"ca\"\n"), &[]).unwrap();
}

#[test]
fn dtls_has_the_files_of_tls_unless_it_has_its_own() {
    let files = |text: &str| {
        let settings = load(text, &[]).unwrap();
        let files = settings.dtls.settings(&settings.tls, settings.auth.mode);
        (files, settings.dtls.client_auth(&settings.tls))
    };
    assert_eq!(files("").0, None);
    let of_tls = "[tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\nclient_auth = \"optional\"\n";
    let (inherited, client_auth) = files(of_tls);
    let inherited = inherited.unwrap();
    assert_eq!((inherited.cert.setting, inherited.key.path.as_os_str()), ("tls.cert", "k".as_ref()));
    assert_eq!(inherited.client_ca.unwrap().setting, "tls.client_ca");
    assert!(inherited.ecdsa_needed, "\"open\" has nothing else to prove itself by");
    assert_eq!(client_auth, ClientAuth::Optional);
    let devices = format!("{of_tls}[auth]\nmode = \"devices\"\n");
    assert!(!files(&devices).0.unwrap().ecdsa_needed, "there are keys");
    let own = "[dtls]\ncert = \"C\"\nkey = \"K\"\nclient_auth = \"required\"\n";
    let (own, client_auth) = files(&format!("{devices}{own}"));
    let own = own.unwrap();
    assert_eq!((own.key.setting, own.key.path.as_os_str()), ("dtls.key", "K".as_ref()));
    assert_eq!(own.client_ca.unwrap().setting, "tls.client_ca");
    assert!(own.ecdsa_needed, "whoever names a key means it");
    assert_eq!(client_auth, ClientAuth::Required);
}

#[test]
fn dtls_needs_something_to_prove_itself_by() {
    for section in ["coap", "udp"] {
        let listen = format!("[{section}]\nlisten = [\"dtls://127.0.0.1:5684\"]\n");
        let text = problem(&listen, &[]);
        for part in [
            &format!("`{section}.listen` has \"dtls://127.0.0.1:5684\" (landfall.toml:2)"),
            "`auth.mode` = \"open\" (default)",
            "`dtls.cert` and `dtls.key`",
            "`tls.cert` and `tls.key`",
            "`auth.mode` = \"devices\"",
        ] {
            assert!(text.contains(part), "{text}");
        }
        for enough in [
            "[auth]\nmode = \"devices\"\n",
            "[dtls]\ncert = \"c\"\nkey = \"k\"\n",
            "[tls]\ncert = \"c\"\nkey = \"k\"\n",
        ] {
            assert!(load(&format!("{listen}{enough}"), &[]).is_ok(), "{enough}");
        }
    }
}

#[test]
fn the_bounds_of_dtls_are_told() {
    for (wrong, allowed) in [
        ("mtu = 255", "a whole number from 256 to 16384 (bytes)"),
        ("max_sessions = 0", "a whole number from 1 to 10000000 (channels)"),
        ("max_handshakes = 0", "(handshakes)"),
        ("max_handshakes_per_address = 0", "a whole number from 1 to 1000000 (handshakes)"),
        ("max_vouched_per_device = 0", "a whole number from 1 to 65536 (channels)"),
        ("max_forged = 11863284", "a whole number from 1 to 11863283 (records)"),
        ("lost_alerts = -1", "a whole number from 0 to 1000000 (alerts; 0 for none)"),
        ("handshake_timeout = \"0s\"", "a duration from \"1s\" to \"5m\""),
        ("session_timeout = \"31d\"", "a duration from \"1m\" to \"30d\""),
        ("client_auth = \"no\"", "\"required\" or \"optional\", or \"\" for `tls.client_auth`"),
    ] {
        let text = problem(&format!("[dtls]\n{wrong}\n"), &[]);
        assert!(text.starts_with(&format!("`dtls.{wrong}").replacen(" =", "` =", 1)), "{text}");
        assert!(text.contains("(landfall.toml:2)") && text.contains(allowed), "{text}");
    }
}

#[test]
fn what_is_printed_reads_back_and_holds_no_secret() {
    let text = "drain_timeout = \"90s\"\n[nats]\nurl = \"nats://app:hunter2@n:4222\"\ncreds = \"a \\\"b\\\".creds\"\n\
                [mqtt]\nlisten = [\"tcp://127.0.0.1:0\", \"ws://[::1]:0\"]\n[log]\nlevel = \"debug,rustls=info\"\n";
    let settings = load(text, &[]).unwrap();
    let printed = settings.annotated();
    assert!(!printed.contains("hunter2"), "{printed}");
    let again = load(&printed, &[]).unwrap();
    assert_eq!(again.annotated(), printed);
    assert_eq!(again.drain_timeout, Duration::from_secs(90));
    assert_eq!(again.nats.creds.as_deref(), Some(Path::new("a \"b\".creds")));
    assert!(printed.contains("Environment: LANDFALL_MQTT__MAX_PACKET_SIZE."), "{printed}");
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("absent.toml");
    let problems = Settings::find(Some(&missing), &Environment::default()).unwrap_err();
    assert!(problems.to_string().contains("absent.toml cannot be read"), "{problems}");
    let present = directory.path().join("present.toml");
    std::fs::write(&present, "[instance]\nname = \"north\"\n").unwrap();
    let settings = Settings::find(Some(&present), &Environment::default()).unwrap();
    assert_eq!(settings.instance.name.as_str(), "north");
}

#[test]
fn a_generated_replica_is_a_token_whatever_the_host_is_called() {
    for host in ["", "host.example.org", "höst\n", &"x".repeat(300)] {
        let replica = generated_replica(host, 0xab);
        assert!(replica.as_str().ends_with("-000000ab"), "{replica}");
    }
    assert_eq!(generated_replica("a.b", 1).as_str(), "a-b-00000001");
    let settings = load("[instance]\nreplica = \"a1\"\n", &[]).unwrap();
    assert_eq!(settings.instance.replica().as_str(), "a1");
}

#[test]
fn a_variable_that_lacks_an_underscore_is_told() {
    let environment = Environment::of([
        ("LANDFALL_MQTT_LISTEN", "tcp://127.0.0.1:0"),
        ("LANDFALL_MQTT_MAX_CONNECTIONS", "7"),
        ("LANDFALL_NATS_PORT", "tcp://10.0.0.7:4222"),
        ("LANDFALL_SERVICE_HOST", "10.0.0.7"),
        ("LANDFALL_CONFIG", "landfall.toml"),
    ]);
    let settings = Settings::load(None, &environment).unwrap();
    assert_eq!(
        settings.warnings,
        [
            "the environment variable LANDFALL_MQTT_LISTEN is ignored: did you mean LANDFALL_MQTT__LISTEN?",
            "the environment variable LANDFALL_MQTT_MAX_CONNECTIONS is ignored: did you mean LANDFALL_MQTT__MAX_CONNECTIONS?",
        ]
    );
}
