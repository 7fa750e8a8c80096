//! The programs of `examples/`, as somebody would try them: a sensor, a reader of events, a command.

use std::process::Command;
use std::time::Duration;

use landfall_testkit::process::{Process, Signal};
use landfall_testkit::{PATIENCE, World, paths};

fn example(name: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(paths::binary(name));
    for variable in [
        "LANDFALL_MQTT",
        "LANDFALL_DEVICE",
        "LANDFALL_PASSWORD",
        "LANDFALL_KEY",
        "LANDFALL_INSTANCE",
        "LANDFALL_TENANT",
    ] {
        command.env_remove(variable);
    }
    command.args(arguments);
    Process::spawn(name, command)
}

#[tokio::test]
async fn a_sensor_a_reader_and_a_command_meet() {
    let world = World::start().await;
    let reader = example("watch_events", &[&world.nats.url()]);
    reader.logged("watching kaa.v1.events.>", PATIENCE).await;

    let sensor = example("mqtt_sensor", &[&world.mqtt().to_string(), "thermo 1.a"]);
    sensor.logged("a reading is stored", PATIENCE).await;
    reader.logged("connected thermo 1.a mqtt 1", PATIENCE).await;
    reader.logged(r#"upstream thermo 1.a mqtt 1 telemetry/climate {"#, PATIENCE).await;

    let command = example("send_command", &["thermo 1.a", "blink", r#"{"times":3}"#, &world.nats.url()]);
    let status = command.exited(Duration::from_secs(20)).await;
    command.logged(r#""outcome": "answered""#, PATIENCE).await;
    assert!(status.success(), "{}", command.log());
    sensor.logged(r#"command blink: {"times":3}"#, PATIENCE).await;
    reader.logged(r#"blink answered {"done":"blink"}"#, PATIENCE).await;

    sensor.signal(Signal::INT);
    assert!(sensor.exited(PATIENCE).await.success(), "{}", sensor.log());
    reader.logged("disconnected thermo 1.a mqtt 2 client-closed", PATIENCE).await;
    world.close().await;
}

#[tokio::test]
async fn a_coap_sensor_registers_reads_answers_and_says_goodbye() {
    let world = World::start().await;
    let reader = example("watch_events", &[&world.nats.url()]);
    reader.logged("watching kaa.v1.events.>", PATIENCE).await;
    let sensor = example("coap_sensor", &[&world.gateway.coap().to_string(), "sensor 1.a"]);
    reader.logged("connected sensor 1.a coap 1", PATIENCE).await;
    reader.logged(r#"upstream sensor 1.a coap 1 telemetry {"reading":1}"#, PATIENCE).await;
    // It waits for a command with each reading.
    let command = example("send_command", &["sensor 1.a", "blink", "twice", &world.nats.url()]);
    let status = command.exited(Duration::from_secs(20)).await;
    assert!(status.success(), "{}", command.log());
    sensor.logged("2.04 command/res/", PATIENCE).await;
    reader.logged("blink answered done", PATIENCE).await;
    sensor.signal(Signal::INT);
    assert!(sensor.exited(PATIENCE).await.success(), "{}", sensor.log());
    reader.logged("disconnected sensor 1.a coap 2 deregistered", PATIENCE).await;
    world.close().await;
}

#[tokio::test]
async fn a_command_to_nobody_says_so() {
    let world = World::start().await;
    let command = example("send_command", &["nobody", "blink", "", &world.nats.url()]);
    assert!(!command.exited(PATIENCE).await.success(), "there is nobody to answer");
    command.logged("not-connected", PATIENCE).await;
    world.close().await;
}

#[tokio::test]
async fn a_sensor_of_a_gateway_that_knows_its_devices_needs_its_password() {
    let devices = "[[device]]\nid = \"thermo-1\"\npassword = \"plain:warm\"\n";
    let world = World::with(|settings| settings.devices(devices)).await;
    let address = world.mqtt().to_string();
    let stranger = example("mqtt_sensor", &[&address, "thermo-1"]);
    stranger.logged("not connected", PATIENCE).await;
    drop(stranger);

    let mut command = Command::new(paths::binary("mqtt_sensor"));
    command.args([&address, "thermo-1"]).env("LANDFALL_PASSWORD", "warm");
    let sensor = Process::spawn("mqtt_sensor", command);
    sensor.logged("a reading is stored", PATIENCE).await;
    sensor.signal(Signal::INT);
    assert!(sensor.exited(PATIENCE).await.success(), "{}", sensor.log());
    world.close().await;
}

#[tokio::test]
async fn a_sensor_in_python_and_a_beacon_in_c_are_heard() {
    let world = World::start().await;
    let reader = example("watch_events", &[&world.nats.url()]);
    reader.logged("watching kaa.v1.events.>", PATIENCE).await;
    if let Some(python) = paths::interop("paho-mqtt", paths::python("paho")) {
        let mut command = Command::new(python);
        command.arg(paths::repository().join("examples/python/mqtt_sensor.py"));
        command.args([&world.mqtt().to_string(), "thermo-py"]);
        let sensor = Process::spawn("mqtt_sensor.py", command);
        sensor.logged("stored: Success", PATIENCE).await;
        reader.logged(r#"upstream thermo-py mqtt 1 telemetry/climate {"celsius":20.1}"#, PATIENCE).await;
        let command = example("send_command", &["thermo-py", "blink", "twice", &world.nats.url()]);
        assert!(command.exited(Duration::from_secs(20)).await.success(), "{}", command.log());
        sensor.logged("command blink: twice", PATIENCE).await;
        sensor.signal(Signal::INT);
        assert!(sensor.exited(PATIENCE).await.success(), "{}", sensor.log());
        reader.logged("disconnected thermo-py mqtt 2 client-closed", PATIENCE).await;
    }
    if let Some(compiler) = paths::interop("cc", paths::program("cc")) {
        let folder = tempfile::tempdir().unwrap();
        let beacon = folder.path().join("udp_beacon");
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&beacon);
        command.arg(paths::repository().join("examples/c/udp_beacon.c"));
        let built = Process::spawn("cc", command);
        assert!(built.exited(PATIENCE).await.success(), "{}", built.log());
        let mut command = Command::new(&beacon);
        command.args(["127.0.0.1", &world.gateway.udp().port().to_string(), "beacon-c"]);
        let beacon = Process::spawn("udp_beacon", command);
        assert!(beacon.exited(PATIENCE).await.success(), "{}", beacon.log());
        beacon.logged("stored", PATIENCE).await;
        reader.logged(r#"upstream beacon-c udp 1 {"volts":3.1}"#, PATIENCE).await;
    }
    world.close().await;
}
