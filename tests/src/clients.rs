//! Real clients, not only our own: rumqttc, mosquitto and paho, in both versions, over everything that they speak.

use landfall_testkit::device::Options;
use landfall_testkit::interop::{Over, Route, mosquitto, paho};
use landfall_testkit::pki::Identity;
use landfall_testkit::{Device, PATIENCE, Pki, Version, World};
use serde_json::{Value, json};

/// A world whose gateway listens in the way that `over` asks for.
struct Stage {
    world: World,
    pki: Pki,
    identity: Option<Identity>,
    over: Over,
    version: Version,
}

impl Stage {
    async fn set(over: Over, version: Version) -> Self {
        let pki = Pki::new();
        let world = World::with(|settings| {
            let settings = settings.listen(&[&format!("{}://127.0.0.1:0", over.scheme())]);
            match over {
                Over::Tcp | Over::Ws => settings,
                Over::Tls | Over::Wss => settings.tls(&pki),
                Over::MutualTls => settings.tls(&pki).client_ca(&pki),
            }
        })
        .await;
        let identity = (over == Over::MutualTls).then(|| pki.client("a device"));
        Self { world, pki, identity, over, version }
    }

    fn route(&self) -> Route<'_> {
        let address = self.world.gateway.mqtt(self.over.scheme());
        Route { over: self.over, address, pki: &self.pki, identity: self.identity.as_ref() }
    }

    /// What an operator sees of a device that connected, sent three messages and left in order.
    async fn assert_seen(&self, device: &str) {
        let recorder = &self.world.recorder;
        let connected = recorder.expect("connected", device).await;
        assert_eq!(connected.text("transport"), self.over.transport());
        assert_eq!(connected.text("protocol"), self.version.protocol());
        let upstream = recorder.expect_count("upstream", device, 3).await;
        for (qos, event) in (0..).zip(&upstream) {
            assert_eq!(event.number("qos"), qos);
            assert_eq!(event.text("topic"), format!("measure/{qos}"));
            assert_eq!(event.json["payload"], json!({"qos": qos}));
        }
        let end = recorder.expect("disconnected", device).await;
        assert_eq!(end.text("reason"), "client-closed");
    }
}

async fn rumqttc_does(over: Over, version: Version) {
    let stage = Stage::set(over, version).await;
    let tls = over.is_secure().then(|| stage.pki.client_config(stage.identity.as_ref()));
    let options = Options::new(version, "ferris", stage.route().address).over(over, tls);
    let device = Device::with(&options).await;
    assert!(device.subscribe("command///req/#", 1).await);
    for qos in 0..=2 {
        device.publish(&format!("measure/{qos}"), json!({"qos": qos}).to_string(), qos).await;
        device.expect_acknowledged(usize::from(qos)).await;
    }
    let request = stage.world.command("ferris", "21", &[("Command-Wait", "answered"), ("Command-Id", "c1")]);
    let answer = async {
        let (topic, payload) = device.message(0).await;
        assert_eq!((topic.as_str(), payload.as_slice()), ("command///req/c1/command", b"21".as_slice()));
        device.publish("command///res/c1/200", "42", 1).await;
    };
    let (reply, ()) = tokio::join!(request, answer);
    assert_eq!((&reply["outcome"], &reply["response"]), (&json!("answered"), &json!(42)));
    device.disconnect().await;
    stage.assert_seen("ferris").await;
    stage.world.close().await;
}

async fn paho_does(over: Over, version: Version) {
    let stage = Stage::set(over, version).await;
    let Some(process) = paho(stage.route(), version, "snake", &["--commands", "1"]) else { return };
    process.logged(r#""what": "published", "qos": 2"#, PATIENCE).await;
    let reply = stage.world.command("snake", "21", &[("Command-Wait", "answered")]).await;
    assert_eq!((&reply["outcome"], &reply["response"]), (&json!("answered"), &json!({"echo": 21})));
    let status = process.exited(PATIENCE * 2).await;
    assert!(status.success(), "{}", process.log());
    let told: Vec<Value> = process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(told.iter().any(|line| line["what"] == "suback" && line["reasons"] == json!([1])), "{told:?}");
    stage.assert_seen("snake").await;
    stage.world.close().await;
}

/// What old trackers and bridges speak: another name and level, a protocol of its own in the event.
#[tokio::test]
async fn mosquitto_speaks_mqtt_3_1() {
    let stage = Stage::set(Over::Tcp, Version::V4).await;
    for qos in ["0", "1", "2"] {
        let (device, payload) = (format!("old-{qos}"), format!(r#"{{"qos": {qos}}}"#));
        let arguments = ["-V", "mqttv31", "-i", &device, "-q", qos, "-t", "t", "-m", &payload];
        let Some(client) = mosquitto("mosquitto_pub", stage.route(), stage.version, &arguments) else {
            return;
        };
        assert!(client.exited(PATIENCE).await.success(), "{}", client.log());
        let connected = stage.world.recorder.expect("connected", &device).await;
        assert_eq!((connected.text("protocol"), connected.text("transport")), ("MQTT/3.1", "mqtt"));
        assert_eq!(connected.json["cleanStart"], true);
        let event = stage.world.recorder.expect("upstream", &device).await;
        assert_eq!(event.json["payload"]["qos"].to_string(), qos);
        let end = stage.world.recorder.expect("disconnected", &device).await;
        assert_eq!(end.text("reason"), "client-closed");
    }
    let arguments =
        ["-V", "mqttv31", "-i", "old", "-q", "1", "-t", "command///req/#", "-C", "1", "-F", "%q %p"];
    let Some(sub) = mosquitto("mosquitto_sub", stage.route(), stage.version, &arguments) else { return };
    stage.world.recorder.expect("connected", "old").await;
    // A command reaches it once it has subscribed.
    while stage.world.command("old", "go", &[("Command-Wait", "acknowledged")]).await["outcome"] == "rejected"
    {
    }
    assert_eq!(sub.logged(" go", PATIENCE).await, "1 go");
    assert!(sub.exited(PATIENCE).await.success(), "{}", sub.log());
    stage.world.close().await;
}

async fn mosquitto_does(over: Over, version: Version) {
    let stage = Stage::set(over, version).await;
    let arguments = ["-i", "fly", "-q", "1", "-t", "command///req/#", "-C", "1", "-F", "%t %q %p"];
    let Some(sub) = mosquitto("mosquitto_sub", stage.route(), version, &arguments) else { return };
    stage.world.recorder.expect("connected", "fly").await;
    // The device is there as soon as it is connected; a command reaches it once it has subscribed.
    let reply = loop {
        let reply = stage.world.command("fly", "wings", &[("Command-Wait", "acknowledged")]).await;
        if reply["outcome"] != "rejected" {
            break reply;
        }
    };
    assert_eq!(reply["outcome"], "acknowledged");
    let line = sub.logged("command///req/", PATIENCE).await;
    assert!(line.ends_with("/command 1 wings"), "{line}");
    assert!(sub.exited(PATIENCE).await.success(), "{}", sub.log());
    let end = stage.world.recorder.expect("disconnected", "fly").await;
    assert_eq!(end.text("reason"), "client-closed");
    for qos in ["0", "1", "2"] {
        let payload = format!(r#"{{"qos": {qos}}}"#);
        let device = format!("pub-{qos}");
        let topic = format!("measure/{qos}");
        let arguments = ["-i", &device, "-q", qos, "-t", &topic, "-m", &payload];
        let Some(publisher) = mosquitto("mosquitto_pub", stage.route(), version, &arguments) else { return };
        assert!(publisher.exited(PATIENCE).await.success(), "{}", publisher.log());
        let connected = stage.world.recorder.expect("connected", &device).await;
        assert_eq!(connected.text("transport"), over.transport());
        assert_eq!(connected.text("protocol"), version.protocol());
        let event = stage.world.recorder.expect("upstream", &device).await;
        assert_eq!(event.text("topic"), topic);
        assert_eq!(event.number("qos").to_string(), qos);
        assert_eq!(event.json["payload"]["qos"].to_string(), qos);
        let end = stage.world.recorder.expect("disconnected", &device).await;
        assert_eq!(end.text("reason"), "client-closed");
    }
    stage.world.close().await;
}

/// One test for each version that a client speaks, over each way.
macro_rules! matrix {
    ($client:ident: $does:ident over $($name:ident = $over:ident),+) => {
        mod $client {
            use super::*;

            $(mod $name {
                use super::*;

                #[tokio::test]
                async fn version_3_1_1() {
                    $does(Over::$over, Version::V4).await;
                }

                #[tokio::test]
                async fn version_5() {
                    $does(Over::$over, Version::V5).await;
                }
            })+
        }
    };
}

matrix!(rumqttc: rumqttc_does over tcp = Tcp, tls = Tls, mutual_tls = MutualTls, ws = Ws, wss = Wss);
matrix!(paho_mqtt: paho_does over tcp = Tcp, tls = Tls, mutual_tls = MutualTls, ws = Ws, wss = Wss);
// Debian's build of mosquitto's clients has no WebSocket.
matrix!(mosquitto_clients: mosquitto_does over tcp = Tcp, tls = Tls, mutual_tls = MutualTls);

#[tokio::test]
async fn tls_1_2_and_1_3_and_all_listeners_at_once() {
    let pki = Pki::new();
    let world = World::with(|settings| {
        settings.tls(&pki).listen(&[
            "tcp://127.0.0.1:0",
            "tls://127.0.0.1:0",
            "ws://127.0.0.1:0",
            "wss://127.0.0.1:0",
        ])
    })
    .await;
    for (name, version) in [("old", &rustls::version::TLS12), ("new", &rustls::version::TLS13)] {
        let config = pki.client_config_of(None, &[version]);
        for over in [Over::Tls, Over::Wss] {
            let device = format!("{name}-{}", over.scheme());
            let address = world.gateway.mqtt(over.scheme());
            let options = Options::new(Version::V5, &device, address).over(over, Some(config.clone()));
            let client = Device::with(&options).await;
            let event = world.recorder.expect("connected", &device).await;
            assert_eq!(event.text("transport"), over.transport());
            client.disconnect().await;
        }
    }
    for over in [Over::Tcp, Over::Ws] {
        let options =
            Options::new(Version::V4, over.scheme(), world.gateway.mqtt(over.scheme())).over(over, None);
        Device::with(&options).await.disconnect().await;
    }
    world.close().await;
}
