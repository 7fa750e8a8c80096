//! Devices that answer commands: over MQTT by topic, over CoAP by observing, over UDP by the line.
//!
//! Owns: what a device does with a command. Does not own: the requests ([`super`]).

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use landfall_coap_core::{Code, Kind, Message, codec, number};

use crate::client::{self, Packet};
use crate::coap::{Coap, Request, acknowledgement};
use crate::fleet::{Device, Fleet};
use crate::line::Line;
use crate::mqtt::Mqtt;

const DATAGRAM: usize = 64 * 1024;
/// The token of the observation; requests count theirs from 1.
const OBSERVATION: u32 = 0;

/// A device that is ready for commands.
pub(super) enum Ready {
    Mqtt(Mqtt, Vec<u8>),
    Coap(Coap, String, Vec<u8>),
    Line(Line, String, Vec<u8>),
}

/// Makes device `n` ready: it subscribes, observes, or says its first word.
pub(super) async fn ready(
    fleet: &Arc<Fleet>,
    n: u32,
    device: Device,
    qos: u8,
    size: usize,
) -> Result<Ready, String> {
    let (name, answer) = (fleet.name(n), vec![b'y'; size]);
    let preparing = async {
        match device {
            Device::Mqtt(mut mqtt) => {
                mqtt.subscribe("command///req/#", qos).await?;
                Ok(Ready::Mqtt(mqtt, answer))
            }
            Device::Coap(mut coap) => {
                observe(&mut coap, &name).await?;
                Ok(Ready::Coap(coap, name.clone(), answer))
            }
            Device::Line(mut line) => {
                line.say(b"").await?;
                Ok(Ready::Line(line, name.clone(), answer))
            }
            Device::Dtls(_) => Err(io::Error::other("devices over DTLS answer no commands here")),
        }
    };
    let done = tokio::time::timeout(fleet.deadline(), preparing).await;
    done.map_err(|_| format!("{name}: not ready for commands in time"))?
        .map_err(|error| format!("{name}: {error}"))
}

impl Ready {
    /// Answers until the connection ends; says why it did.
    pub(super) async fn run(self) -> String {
        let ended = match self {
            Self::Mqtt(mqtt, answer) => over_mqtt(mqtt, &answer).await,
            Self::Coap(coap, name, answer) => over_coap(coap, &name, &answer).await,
            Self::Line(line, name, answer) => over_the_line(line, &name, &answer).await,
        };
        ended.err().map(|error| error.to_string()).unwrap_or_default()
    }
}

async fn over_mqtt(mut mqtt: Mqtt, answer: &[u8]) -> io::Result<()> {
    let (mut out, mut id) = (BytesMut::new(), 0_u16);
    loop {
        mqtt.link.read(&mut mqtt.input).await?;
        let version = mqtt.version;
        client::take_packets(&mut mqtt.input, version, |packet| {
            match packet {
                Packet::Publish { topic, qos, id: theirs, .. } => {
                    if qos > 0 {
                        let kind = if qos == 1 { client::PUBACK } else { client::PUBREC };
                        client::put_answer(&mut out, kind, theirs);
                    }
                    id = id.checked_add(1).unwrap_or(1);
                    if let Some(command) =
                        topic.strip_prefix("command///req/").and_then(|rest| rest.split('/').next())
                    {
                        let topic = format!("command///res/{command}/200");
                        client::put_publish(&mut out, version, &topic, (qos, id), answer);
                    }
                }
                Packet::Answer { kind: client::PUBREC, id, .. } => {
                    client::put_answer(&mut out, client::PUBREL, id);
                }
                Packet::Answer { kind: client::PUBREL, id, .. } => {
                    client::put_answer(&mut out, client::PUBCOMP, id);
                }
                Packet::Disconnect { code } => {
                    return Err(io::Error::other(format!("the server disconnects with {code}")));
                }
                _ => {}
            }
            Ok(())
        })?;
        mqtt.link.write(&mut out).await?;
    }
}

/// Asks to be told of commands (RFC 7641), and waits for the first word.
async fn observe(coap: &mut Coap, name: &str) -> io::Result<()> {
    let path = format!("/command?ep={name}");
    let mut request = Request::with(Kind::Con, Code::GET, &path, b"", |message| {
        message.options.push_uint(number::OBSERVE, 0);
    });
    coap.token = OBSERVATION.wrapping_sub(1);
    match coap.ask(&mut request).await? {
        code if code.is_success() => Ok(()),
        code => Err(io::Error::other(format!("the observation is answered {code}"))),
    }
}

async fn over_coap(mut coap: Coap, name: &str, answer: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM];
    let mut token = OBSERVATION;
    loop {
        let length = coap.mouth.socket.recv(&mut buffer).await?;
        let Ok(message) = codec::decode(buffer.get(..length).unwrap_or_default()) else { continue };
        if message.kind == Kind::Con {
            coap.mouth.socket.send(&acknowledgement(message.id)).await?;
        }
        let Some(place) = place_of_answer(&message) else { continue };
        token = token.wrapping_add(1).max(1);
        // Should it be lost, the command expires: that is counted.
        let mut request =
            Request::new(Kind::Con, Code::POST, &format!("{place}?ep={name}&status=200"), answer);
        let id = coap.mouth.next_id();
        coap.mouth.socket.send(request.stamped(id, token)).await?;
    }
}

/// Where the answer to a command goes; nothing that has no Location-Path is one.
fn place_of_answer(message: &Message) -> Option<String> {
    let part = |value: &Bytes| String::from_utf8(value.to_vec()).ok();
    let parts: Option<Vec<String>> = message.options.all(number::LOCATION_PATH).map(part).collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join("/"))
}

async fn over_the_line(line: Line, name: &str, answer: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = line.socket.recv(&mut buffer).await?;
        let Some(id) = command_id(buffer.get(..length).unwrap_or_default()) else { continue };
        let mut datagram = format!("LF1 {name} res={id} status=200\n").into_bytes();
        datagram.extend_from_slice(answer);
        line.socket.send(&datagram).await?;
    }
}

/// The id in `LF1 cmd id={id} name={name} LF {payload}`.
fn command_id(datagram: &[u8]) -> Option<&str> {
    let line = datagram.split(|byte| *byte == b'\n').next()?;
    let words = std::str::from_utf8(line).ok()?.strip_prefix("LF1 cmd ")?;
    words.split(' ').find_map(|word| word.strip_prefix("id="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_where_its_answer_goes() {
        assert_eq!(command_id(b"LF1 cmd id=7f3a name=read\nid=8"), Some("7f3a"));
        assert_eq!((command_id(b"LF1 ack seq=1"), command_id(b"LF1 cmd\nid=1")), (None, None));
        let mut message = Message::empty(Kind::Con, 1);
        assert_eq!(place_of_answer(&message), None);
        for part in ["command", "res", "7f3a"] {
            message.options.push(number::LOCATION_PATH, Bytes::from_static(part.as_bytes()));
        }
        assert_eq!(place_of_answer(&message).as_deref(), Some("command/res/7f3a"));
    }
}
