//! The fleet's devices without a memory, two behind one port: each begins anew at any moment, with the message ids of before.
//!
//! Owns: what they send, in one piece or in blocks, and give up. Does not own: judging it ([`super::order::torn`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Shared;
use crate::coap::{Block, Message, code, kind, method, option};
use crate::proxy::Seed;

/// Bytes of the smallest block, and of what a body repeats.
const UNIT: usize = 16;

pub(super) async fn device(shared: Arc<Shared>, n: usize, mut seed: Seed) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let (first, mut next) = ((seed.draw() >> 48) as u16, 0_u64);
    while !shared.is_over() {
        // It begins anew, or another one is there.
        let name = format!("wakes{}-{n}", seed.below(2));
        let (any, mut id) = (seed.draw(), first);
        for _ in 0..=seed.below(4) {
            next += 1;
            let unit = format!("{:.<UNIT$}", format!("{name}#{next}"));
            let body = unit.repeat(1 + usize::try_from(seed.below(3)).unwrap_or(0));
            let word = Word { device: &name, token: seed.draw().to_be_bytes().to_vec(), body: &body };
            let patience = Duration::from_millis(20 + seed.below(1_500));
            let said = timeout(patience, word.say(&socket, (&shared, any), &mut id)).await;
            if said == Ok(code(2, 4)) {
                shared.acknowledged_by_forgetful(&name, &body);
            }
            shared.pause(&mut seed).await;
        }
    }
}

/// A message that is sent until it is acknowledged, or its device gives it up.
struct Word<'a> {
    device: &'a str,
    token: Vec<u8>,
    body: &'a str,
}

impl Word<'_> {
    /// The code of the last answer.
    async fn say(&self, socket: &UdpSocket, (shared, any): (&Shared, u64), id: &mut u16) -> u8 {
        let blocks = self.body.len() / UNIT;
        let ep = format!("ep={}", self.device);
        let whole = Message::request(method::POST).path("t").queries(&[&ep, "lt=60"]);
        for (number, piece) in (0..).zip(self.body.as_bytes().chunks(UNIT)) {
            *id = id.wrapping_add(1);
            let more = usize::try_from(number + 1).is_ok_and(|sent| sent < blocks);
            let block = Block { number, more, exponent: 0 };
            let request = if blocks > 1 {
                whole.clone().number(option::BLOCK1, block.value()).payload(piece)
            } else {
                whole.clone().payload(piece)
            };
            let request = Message { id: *id, token: self.token.clone(), ..request };
            let answer = exchange(socket, (shared, any), &request).await;
            if answer != code(2, 31) {
                return answer;
            }
        }
        code(5, 0)
    }
}

/// Sends a request, again and again the same bytes, until it is answered.
async fn exchange(socket: &UdpSocket, (shared, any): (&Shared, u64), request: &Message) -> u8 {
    let mut buffer = [0; 2048];
    loop {
        let _ = socket.send_to(&request.encode(), shared.doors(any).coap).await;
        let answer = timeout(Duration::from_millis(250), async {
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let Ok(message) = Message::decode(&buffer[..length]) else { continue };
                if message.kind == kind::CON {
                    let _ = socket.send_to(&Message::empty(kind::ACK, message.id).encode(), from).await;
                }
                let is_its_own = message.kind != kind::ACK || message.id == request.id;
                if is_its_own && message.token == request.token && message.code != 0 {
                    return message.code;
                }
            }
        });
        if let Ok(code) = answer.await {
            return code;
        }
    }
}
