//! A sensor: sends a reading every five seconds, again until it is stored, and answers whatever command comes.
//!
//! `coap_sensor [HOST:PORT [DEVICE]]`, 127.0.0.1:5683 and sensor-1 if not given; for a gateway that knows its devices, the key
//! is in `LANDFALL_KEY`. Ctrl-C says goodbye.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{env, error::Error, time::Duration};

use coap_lite::{CoapOption, MessageClass, Packet, RequestType};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

struct Sensor {
    socket: UdpSocket,
    name: [String; 2],
    id: u16,
}

impl Sensor {
    /// Asks until there is an answer: its code, where it points to, and its payload. The same message again is taken once.
    async fn ask(&mut self, method: RequestType, path: &str, query: &str, payload: &str) -> [String; 3] {
        self.id = self.id.wrapping_add(1);
        let mut request = Packet::new();
        (request.header.code, request.header.message_id) = (MessageClass::Request(method), self.id);
        request.set_token(self.id.to_be_bytes().to_vec());
        path.split('/').for_each(|part| request.add_option(CoapOption::UriPath, part.into()));
        let queries = self.name.iter().map(String::as_str).chain([query]);
        queries.for_each(|query| request.add_option(CoapOption::UriQuery, query.into()));
        request.payload = payload.into();
        loop {
            let _ = self.socket.send(&request.to_bytes().unwrap_or_default()).await;
            let Ok(answer) = timeout(Duration::from_secs(2), self.answer(self.id)).await else { continue };
            let to = answer.get_option(CoapOption::LocationPath).into_iter().flatten();
            let to: Vec<_> = to.map(|part| String::from_utf8_lossy(part)).collect();
            let text = String::from_utf8_lossy(&answer.payload).into_owned();
            return [answer.header.get_code(), to.join("/"), text];
        }
    }

    async fn answer(&self, id: u16) -> Packet {
        let mut bytes = [0; 2048];
        loop {
            let Ok(length) = self.socket.recv(&mut bytes).await else { continue };
            let Ok(message) = Packet::from_bytes(bytes.get(..length).unwrap_or_default()) else { continue };
            if let [0x40..=0x4f, _, high, low, ..] = bytes {
                let _ = self.socket.send(&[0x60, 0, high, low]).await;
            }
            if message.get_token() == id.to_be_bytes() {
                return message;
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5683".to_owned())).await?;
    let device = env::args().nth(2).unwrap_or_else(|| "sensor-1".to_owned());
    let name = [format!("ep={device}"), format!("key={}", env::var("LANDFALL_KEY").unwrap_or_default())];
    let mut sensor = Sensor { id: socket.local_addr()?.port(), socket, name };
    let [_, registration, _] = sensor.ask(RequestType::Post, "rd", "lt=20", "").await;
    let readings = async {
        for reading in 1_u32.. {
            let payload = format!(r#"{{"reading":{reading}}}"#);
            // 2.04 says that the reading is stored, and brings a command if one comes within four seconds.
            let [code, to, text] = sensor.ask(RequestType::Post, "telemetry", "ttd=4", &payload).await;
            println!("{payload}: {code} {to} {text}");
            if !to.is_empty() {
                sensor.ask(RequestType::Post, &to, "status=200", "done").await;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! { () = readings => {}, _ = tokio::signal::ctrl_c() => {} }
    timeout(Duration::from_secs(4), sensor.ask(RequestType::Delete, &registration, "", "")).await?;
    Ok(())
}
