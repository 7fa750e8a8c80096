//! A sensor: sends a reading every second and answers whatever command comes.
//!
//! `mqtt_sensor [HOST:PORT [DEVICE]]`, else from `LANDFALL_MQTT` (127.0.0.1:1883), `LANDFALL_DEVICE` (thermo-1) and, for a
//! gateway that knows its devices, `LANDFALL_PASSWORD`. Ctrl-C says goodbye.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;
use std::time::Duration;

use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::time::sleep;

fn setting(argument: usize, variable: &str, default: &str) -> String {
    env::args().nth(argument).or_else(|| env::var(variable).ok()).unwrap_or_else(|| default.to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = setting(1, "LANDFALL_MQTT", "127.0.0.1:1883");
    let device = setting(2, "LANDFALL_DEVICE", "thermo-1");
    let (host, port) = address.rsplit_once(':').ok_or("the address is HOST:PORT")?;
    let mut options = MqttOptions::new(&device, host, port.parse()?);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_keep_alive(Duration::from_secs(20)).set_network_options(network);
    if let Ok(password) = env::var("LANDFALL_PASSWORD") {
        options.set_credentials(&device, password);
    }
    let (client, mut events) = AsyncClient::new(options, 16);
    let network = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    println!("{device} is connected to {address}");
                    client.try_subscribe("command///req/#", QoS::AtLeastOnce)?;
                }
                // A PUBACK says that the reading is stored, not merely received.
                Ok(Event::Incoming(Packet::PubAck(_))) => println!("a reading is stored"),
                Ok(Event::Incoming(Packet::Publish(command))) => answer(&client, &command)?,
                Ok(_) => {}
                Err(error) => {
                    println!("not connected: {error}");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    };
    let readings = async {
        for reading in 1_u32.. {
            let payload = format!(r#"{{"reading":{reading},"celsius":20.{}}}"#, reading % 10);
            // Waits while the gateway takes nothing.
            client.publish("telemetry/climate", QoS::AtLeastOnce, false, payload).await?;
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    };
    tokio::select! {
        end = network => return end,
        end = readings => return end,
        _ = tokio::signal::ctrl_c() => {}
    }
    client.try_disconnect()?;
    while events.poll().await.is_ok() {}
    Ok(())
}

/// The request is on `command///req/{id}/{name}`, the answer goes to `command///res/{id}/{status}`.
fn answer(client: &AsyncClient, command: &Publish) -> Result<(), Box<dyn Error>> {
    let topic = std::str::from_utf8(&command.topic)?;
    let request = topic.strip_prefix("command///req/").and_then(|rest| rest.split_once('/'));
    let Some((id, name)) = request else { return Ok(()) };
    println!("command {name}: {}", String::from_utf8_lossy(&command.payload));
    let topic = format!("command///res/{id}/200");
    Ok(client.try_publish(topic, QoS::AtLeastOnce, false, format!(r#"{{"done":"{name}"}}"#))?)
}
