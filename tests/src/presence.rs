//! How long a device that never connects may be silent: its own word, else its entry, else its tenant's, else what was
//! learned of it, else the default; for UDP and CoAP alike.

/// These measure, and have the machine to themselves.
mod timing {
    use std::time::Duration;

    use landfall_testkit::recorder::Seen;
    use landfall_testkit::udp::UdpDevice;
    use landfall_testkit::{CoapClient, World};

    /// How late silence may be noticed: `presence.tick`, and as much again for a busy machine.
    const LATE: u64 = 200;

    const DEVICES: &str = r##"
[[tenant]]
id = "acme"
keep_alive = "2s"
[[device]]
id = "by-default"
password = "plain:k"
[[device]]
id = "by-tenant"
tenant = "acme"
password = "plain:k"
[[device]]
id = "by-entry"
tenant = "acme"
password = "plain:k"
keep_alive = "3s"
[[device]]
id = "by-itself"
tenant = "acme"
password = "plain:k"
keep_alive = "60s"
"##;

    /// How long a device had been silent when its session ended.
    fn silent(event: &Seen) -> u64 {
        event.number("timestamp") - event.number("lastSeenAt")
    }

    #[tokio::test]
    async fn the_silence_is_the_devices_word_else_its_entry_else_its_tenants_else_the_default() {
        let world =
            World::with(|settings| settings.devices(DEVICES).set("presence.idle_timeout", "4s")).await;
        let devices = [
            ("by-default", "default", ["", ""], [4_000, 4_000], ["idle-timeout"; 2]),
            ("by-tenant", "acme", ["", ""], [2_000, 2_000], ["idle-timeout"; 2]),
            ("by-entry", "acme", ["", ""], [3_000, 3_000], ["idle-timeout"; 2]),
            ("by-itself", "acme", ["hb=1", "lt=2"], [1_500, 2_000], ["idle-timeout", "lifetime-expired"]),
        ];
        for (name, tenant, [heartbeat, lifetime], ..) in devices {
            let mut udp = UdpDevice::new(world.gateway.udp(), name).await.tenant(tenant).key("k");
            assert!(udp.deliver(heartbeat, "x").await);
            let mut coap = CoapClient::new(world.gateway.coap(), 7).await;
            let (endpoint, tenant) = (format!("ep={name}"), format!("t={tenant}"));
            let mut queries = vec![endpoint.as_str(), &tenant, "key=k"];
            queries.extend(Some(lifetime).filter(|word| !word.is_empty()));
            assert_eq!(coap.post("x", &queries, "x").await.code_text(), "2.04");
        }
        for (name, _, _, dues, reasons) in devices {
            for (transport, due, reason) in [("udp", dues[0], reasons[0]), ("coap", dues[1], reasons[1])] {
                let over = |event: &Seen| event.text("transport") == transport;
                let connected = world.recorder.expect_that("connected", name, transport, over).await;
                assert_eq!(connected.number("keepAliveMs"), due, "{}", connected.json);
                assert_eq!(connected.json["inferred"], true);
                let ended = world.recorder.expect_end(name, transport).await;
                assert_eq!((ended.text("reason"), ended.text("initiator")), (reason, "gateway"), "{name}");
                assert_eq!(ended.json["inferred"], true);
                let silent = silent(&ended);
                assert!((due..=due + LATE).contains(&silent), "{name} by {transport}: {silent} ms");
            }
        }
        world.close().await;
    }

    #[tokio::test]
    async fn a_learned_cadence_finds_a_loss_sooner_and_says_why() {
        const TIMEOUT: u64 = 2_000;
        let world = World::with(|settings| {
            settings
                .set("presence.idle_timeout", "2s")
                .set("presence.adaptive", true)
                .set("presence.adaptive_min", "100ms")
        })
        .await;
        let at = world.gateway.udp();
        let mut steady = UdpDevice::new(at, "steady").await;
        let mut announced = UdpDevice::new(at, "announced").await;
        let mut coap = CoapClient::new(world.gateway.coap(), 9).await;
        assert!(announced.deliver("hb=2", "").await);
        // Heard for more than twice the timeout, which is when a cadence begins to count.
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..48 {
            ticks.tick().await;
            assert!(steady.deliver("", "x").await);
            assert!(announced.deliver("", "").await);
            assert_eq!(coap.post("x", &["ep=steady"], "x").await.code_text(), "2.04");
        }
        let mut new = UdpDevice::new(at, "new").await;
        assert!(new.deliver("", "x").await);
        for transport in ["udp", "coap"] {
            let over = |event: &Seen| event.text("transport") == transport;
            let ended = world.recorder.expect_end("steady", transport).await;
            assert_eq!((ended.text("reason"), &ended.json["inferred"]), ("idle-timeout", &true.into()));
            let (silent, evidence) = (silent(&ended), &ended.json["evidence"]);
            assert!(silent < TIMEOUT / 2, "{silent} ms: {}", ended.json);
            let interval = evidence["intervalMs"].as_u64().expect("evidence");
            assert!((80..=150).contains(&interval), "{evidence}");
            // Its own account of the silence agrees with the event's.
            assert!(evidence["silentMs"].as_u64().unwrap().abs_diff(silent) <= 5, "{}", ended.json);
            assert!(evidence["phi"].as_f64().unwrap() >= 8.0, "at the level that is set: {evidence}");
            let connected = world.recorder.expect_that("connected", "steady", transport, over).await;
            assert_eq!(connected.number("keepAliveMs"), TIMEOUT, "nothing was known of it then");
        }
        // Nothing is learned of one that has just begun, nor of one that says itself how often it speaks.
        for (name, due) in [("new", TIMEOUT), ("announced", 3_000)] {
            let ended = world.recorder.expect_end(name, "udp").await;
            assert!(ended.json.get("evidence").is_none(), "{}", ended.json);
            let silent = silent(&ended);
            assert!((due..=due + LATE).contains(&silent), "{name}: {silent} ms");
        }
        world.close().await;
    }
}
