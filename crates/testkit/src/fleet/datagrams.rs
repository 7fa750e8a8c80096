//! The fleet's devices without connections: CoAP, confirmable and not, and lines over UDP, with and without `ack`.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::{ANSWER, Shared};
use crate::coap::{Message, code, kind, method};
use crate::proxy::Seed;

pub(super) async fn udp_device(shared: Arc<Shared>, n: usize, mut seed: Seed) {
    let asks = n.is_multiple_of(2);
    let name = if asks { format!("udp-{n}") } else { format!("udp0-{n}") };
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let (mut next, mut any) = (1_u64, seed.draw());
    while !shared.is_over() {
        let payload = format!("{name}:{next}");
        let ack = if asks { " ack" } else { "" };
        let datagram = format!("LF1 {name} seq={next} hb=60{ack}\n{payload}");
        let _ = socket.send_to(datagram.as_bytes(), shared.doors(any).udp).await;
        if asks {
            let wanted = format!("LF1 ack seq={next}");
            match timeout(ANSWER / 4, udp_answer(&socket, &wanted)).await {
                Ok(()) => shared.acknowledged(&name, &payload),
                // The same again.
                Err(_) => {
                    any = seed.draw();
                    continue;
                }
            }
        }
        next += 1;
        if seed.below(100) < shared.plan.leaves {
            let _ = socket.send_to(format!("LF1 {name} bye").as_bytes(), shared.doors(any).udp).await;
            any = seed.draw();
            sleep(Duration::from_millis(seed.below(60))).await;
        }
        shared.pause(&mut seed).await;
    }
}

async fn udp_answer(socket: &UdpSocket, wanted: &str) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP refusal of an earlier datagram shows up here.
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        if std::str::from_utf8(&buffer[..length]).is_ok_and(|text| text.trim_end() == wanted) {
            return;
        }
    }
}

pub(super) async fn coap_device(shared: Arc<Shared>, n: usize, mut seed: Seed) {
    let asks = n.is_multiple_of(2);
    let name = if asks { format!("coap-{n}") } else { format!("coap0-{n}") };
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let (mut next, mut id, mut any) = (1_u64, (seed.draw() >> 48) as u16, seed.draw());
    while !shared.is_over() {
        let payload = format!("{name}:{next}");
        id = id.wrapping_add(1);
        let ep = format!("ep={name}");
        let mut request = Message::request(method::POST).path("t").queries(&[&ep, "lt=60"]).payload(&payload);
        (request.id, request.token) = (id, id.to_be_bytes().to_vec());
        let request = if asks { request } else { request.non() };
        if asks {
            match timeout(ANSWER, coap_exchange(&socket, (&shared, any), &request)).await {
                Ok(answer) if answer == code(2, 4) => shared.acknowledged(&name, &payload),
                // Told to come back, or nothing: the same message in a new exchange.
                _ => {
                    any = seed.draw();
                    sleep(Duration::from_millis(50 + seed.below(100))).await;
                    continue;
                }
            }
        } else {
            let _ = socket.send_to(&request.encode(), shared.doors(any).coap).await;
            // No more of them than a listener takes from one device before it knows that nothing is stored.
            shared.pause(&mut seed).await;
            shared.pause(&mut seed).await;
        }
        next += 1;
        shared.pause(&mut seed).await;
    }
}

/// Sends a confirmable request until it is answered; returns the answer's code.
async fn coap_exchange(socket: &UdpSocket, (shared, any): (&Shared, u64), request: &Message) -> u8 {
    let mut buffer = [0; 2048];
    loop {
        let _ = socket.send_to(&request.encode(), shared.doors(any).coap).await;
        let answered = timeout(Duration::from_millis(700), async {
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let Ok(message) = Message::decode(&buffer[..length]) else { continue };
                if message.kind == kind::CON {
                    let ack = Message::empty(kind::ACK, message.id);
                    let _ = socket.send_to(&ack.encode(), from).await;
                }
                if message.token == request.token && message.code != 0 {
                    return message.code;
                }
            }
        });
        if let Ok(code) = answered.await {
            return code;
        }
    }
}
