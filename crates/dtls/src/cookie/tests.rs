//! Who gets in with which cookie, and when.

use super::{COOKIE, Cookies, REPLY, ROTATION_MS};
use crate::handshake::hello::HelloStart;
use crate::listener::Address;

const SECRET: [u8; 32] = [7; 32];

fn address(text: &str) -> Address {
    Address::from(text.parse::<std::net::SocketAddr>().unwrap())
}

fn hello<'a>(random: &'a [u8; 32], cookie: &'a [u8]) -> HelloStart<'a> {
    HelloStart {
        record_version: 0xFEFF,
        record_sequence: 0x0102_0304_0506,
        message_seq: 0x0708,
        length: 60,
        version: 0xFEFD,
        random,
        session_id: &[],
        cookie,
        rest: &[],
    }
}

/// The cookie that somebody is given.
fn given(cookies: &mut Cookies, now: u64, from: &str, random: &[u8; 32]) -> Vec<u8> {
    let reply = cookies.check(now, &address(from), &hello(random, &[])).unwrap_err();
    reply[REPLY - COOKIE..].to_vec()
}

#[test]
fn the_request_is_what_the_protocol_says() {
    let mut cookies = Cookies::new(&SECRET, 0);
    let reply = cookies.check(0, &address("192.0.2.1:5"), &hello(&[1; 32], &[])).unwrap_err();
    let expected = [
        [22, 0xFE, 0xFF, 0, 0].as_slice(),
        &[1, 2, 3, 4, 5, 6, 0, 32],
        &[3, 0, 0, 20, 7, 8, 0, 0, 0, 0, 0, 20],
        &[0xFE, 0xFF, 17, 0],
    ]
    .concat();
    assert_eq!(reply[..expected.len()], expected);
    assert_eq!(reply.len(), expected.len() + 16);
}

#[test]
fn a_cookie_is_good_where_it_was_given_and_for_that_random() {
    let mut cookies = Cookies::new(&SECRET, 0);
    let cookie = given(&mut cookies, 0, "192.0.2.1:5", &[1; 32]);
    let mut is_good = |from: &str, random: [u8; 32], cookie: &[u8]| {
        cookies.check(0, &address(from), &hello(&random, cookie)).is_ok()
    };
    assert!(is_good("192.0.2.1:5", [1; 32], &cookie));
    assert!(!is_good("192.0.2.2:5", [1; 32], &cookie));
    assert!(!is_good("192.0.2.1:6", [1; 32], &cookie));
    assert!(!is_good("[2001:db8::1]:5", [1; 32], &cookie));
    assert!(!is_good("192.0.2.1:5", [2; 32], &cookie));
    assert!(!is_good("192.0.2.1:5", [1; 32], &cookie[..16]));
    assert!(!is_good("192.0.2.1:5", [1; 32], &[&cookie[..], &[0]].concat()));
    assert!(!is_good("192.0.2.1:5", [1; 32], &[]));
    for byte in 0..cookie.len() {
        let mut changed = cookie.clone();
        changed[byte] ^= 1;
        assert!(!is_good("192.0.2.1:5", [1; 32], &changed), "byte {byte}");
    }
}

#[test]
fn it_outlives_one_rotation_and_not_two() {
    let mut cookies = Cookies::new(&SECRET, 0);
    let last = ROTATION_MS - 1;
    let cookie = given(&mut cookies, last, "192.0.2.1:5", &[1; 32]);
    let mut is_good = |now| cookies.check(now, &address("192.0.2.1:5"), &hello(&[1; 32], &cookie)).is_ok();
    assert!(is_good(last));
    assert!(is_good(last + 1));
    assert!(is_good(2 * ROTATION_MS - 1));
    assert!(!is_good(2 * ROTATION_MS));
    // Its low byte comes again.
    assert!(!is_good(256 * ROTATION_MS));
    assert!(!is_good(257 * ROTATION_MS));
}

#[test]
fn every_secret_has_its_own() {
    let mut one = Cookies::new(&SECRET, 0);
    let mut other = Cookies::new(&[8; 32], 0);
    let cookie = given(&mut one, 0, "192.0.2.1:5", &[1; 32]);
    assert!(other.check(0, &address("192.0.2.1:5"), &hello(&[1; 32], &cookie)).is_err());
    assert_ne!(cookie, given(&mut one, 256 * ROTATION_MS, "192.0.2.1:5", &[1; 32]));
}
