//! Cookies (RFC 6347, section 4.2.1): who cannot be reached at its address gets no further.
//!
//! Owns: the secrets, the HelloVerifyRequest. Does not own: what happens to whoever has returned one.
//!
//! A cookie is the low byte of the number of the secret that it was made with, and a code over the address and the client's
//! random. Nothing is kept of whom it was given to, and at most two codes are computed for a ClientHello, whatever it shows.

use landfall_session::Tick;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::handshake::hello::HelloStart;
use crate::handshake::{self, FragmentHeader, MessageType};
use crate::listener::Address;
use crate::record::{self, ContentType, DTLS_1_0, RecordHeader};

/// A secret makes cookies for this long, and they are good for as long again.
const ROTATION_MS: u64 = 60_000;
/// Bytes of the code in a cookie: 128 bits.
const CODE: usize = 16;
const COOKIE: usize = 1 + CODE;
/// Version and cookie of a HelloVerifyRequest.
const BODY: usize = 2 + 1 + COOKIE;
/// Bytes of a datagram with a HelloVerifyRequest: fewer than any in which a ClientHello begins.
const REPLY: usize = record::HEADER + handshake::HEADER + BODY;

/// What a ClientHello is answered with that shows no cookie of ours.
pub(crate) type HelloVerifyRequest = [u8; REPLY];

/// The secrets of now and of before.
pub(crate) struct Cookies {
    root: hmac::Key,
    /// The number of the secret of now.
    rotation: u64,
    secret: hmac::Key,
    before: hmac::Key,
}

impl Cookies {
    pub(crate) fn new(secret: &[u8; 32], now: Tick) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let rotation = now / ROTATION_MS;
        let (secret, before) = (secret_of(&root, rotation), secret_of(&root, rotation.wrapping_sub(1)));
        Self { root, rotation, secret, before }
    }

    /// `Ok` for a ClientHello that returns the cookie that its sender was given; else the answer to it.
    pub(crate) fn check(
        &mut self,
        now: Tick,
        address: &Address,
        hello: &HelloStart<'_>,
    ) -> Result<(), HelloVerifyRequest> {
        self.rotate(now);
        let before = self.rotation.wrapping_sub(1);
        let shown = hello.cookie.split_first();
        if let Some((&number, code)) = shown.filter(|(number, _)| **number == low_byte(before)) {
            let right = cookie(&self.before, number, address, hello.random);
            if is_code(&right, code) {
                return Ok(());
            }
        }
        let right = cookie(&self.secret, low_byte(self.rotation), address, hello.random);
        match shown {
            Some((&number, code)) if number == low_byte(self.rotation) && is_code(&right, code) => Ok(()),
            _ => Err(verify_request(hello, &right)),
        }
    }

    fn rotate(&mut self, now: Tick) {
        let rotation = now / ROTATION_MS;
        if rotation != self.rotation {
            self.rotation = rotation;
            self.secret = secret_of(&self.root, rotation);
            self.before = secret_of(&self.root, rotation.wrapping_sub(1));
        }
    }
}

fn secret_of(root: &hmac::Key, rotation: u64) -> hmac::Key {
    let mut context = hmac::Context::with_key(root);
    context.update(b"cookie");
    context.update(&rotation.to_be_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref())
}

fn low_byte(rotation: u64) -> u8 {
    (rotation & 0xFF) as u8
}

fn cookie(secret: &hmac::Key, number: u8, address: &Address, random: &[u8; 32]) -> [u8; COOKIE] {
    let mut context = hmac::Context::with_key(secret);
    context.update(&address.to_bytes());
    context.update(random);
    let code = context.sign();
    let mut cookie = [number; COOKIE];
    for (place, byte) in cookie.iter_mut().skip(1).zip(code.as_ref()) {
        *place = *byte;
    }
    cookie
}

fn is_code(right: &[u8; COOKIE], shown: &[u8]) -> bool {
    let [_, right @ ..] = right;
    bool::from(right.ct_eq(shown))
}

/// The numbers are the ClientHello's, for none are counted here; the version says 1.0, and negotiates nothing.
fn verify_request(hello: &HelloStart<'_>, cookie: &[u8; COOKIE]) -> HelloVerifyRequest {
    let length = (handshake::HEADER + BODY) as u16;
    let mut record = RecordHeader::new(ContentType::HANDSHAKE, 0, hello.record_sequence, length);
    // What a client writes on its own records it also reads.
    record.version = hello.record_version;
    let message =
        FragmentHeader::whole(MessageType::HELLO_VERIFY_REQUEST, BODY as u32, hello.message_seq).to_bytes();
    let version = DTLS_1_0.to_be_bytes();
    let mut reply = [0; REPLY];
    let bytes = record.to_bytes().into_iter().chain(message).chain(version).chain([COOKIE as u8]);
    for (place, byte) in reply.iter_mut().zip(bytes.chain(*cookie)) {
        *place = byte;
    }
    reply
}

#[cfg(test)]
mod tests;
