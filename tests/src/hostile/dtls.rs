//! Hostile DTLS: hellos by the hundred thousand, handshakes that nobody finishes, fragments that lie. Nobody else notices, and
//! what each may cost is bounded.

use std::time::Duration;

use landfall_testkit::dtls::wire::{self, ClientHello, Fragment, PSK_CCM_8, Record, content, message};
use landfall_testkit::dtls::{DtlsClient, Secret};
use landfall_testkit::{GatewayBuilder, PATIENCE, Pki, World, eventually};
use tokio::net::UdpSocket;

use crate::coap::Wire;

pub(super) const KEY: &[u8] = b"sixteen bytes...";

/// What a flood may leave in use.
const BOUND: u64 = 16 << 20;

pub(super) fn settings(builder: GatewayBuilder, pki: &Pki) -> GatewayBuilder {
    let device = |name: &str| {
        format!("[[device]]\nid = \"{name}\"\npsk = \"{}\"\n", landfall_testkit::interop::dtls::hex(KEY))
    };
    builder
        .udp_dtls()
        .dtls(pki)
        .devices(&[device("witness"), device("late")].concat())
        .set("events.refusal_interval", "200ms")
}

pub(super) async fn metric(world: &World, prefix: &str) -> f64 {
    world.gateway.metrics(prefix).await.iter().map(|(_, value)| value).sum()
}

/// A device that was there before, and one that comes while it lasts.
pub(super) struct Witness {
    pub(super) device: DtlsClient,
    sent: usize,
}

impl Witness {
    pub(super) async fn connect(world: &World) -> Self {
        Self {
            device: DtlsClient::connect(world.gateway.udps(), &Secret::psk("witness", KEY)).await,
            sent: 0,
        }
    }

    /// A message, stored.
    pub(super) async fn speak(&mut self, world: &World) {
        self.sent += 1;
        self.device.send(format!("{}", self.sent).as_bytes()).await;
        let upstream = world.recorder.expect_count("upstream", "witness", self.sent).await;
        assert_eq!(upstream.len(), self.sent);
    }
}

/// A new device comes in, says a word and leaves.
pub(super) async fn comes_in(world: &World, n: usize) {
    let mut late = DtlsClient::connect(world.gateway.udps(), &Secret::psk("late", KEY)).await;
    late.send(b"let me in").await;
    world.recorder.expect_count("upstream", "late", n).await;
    late.close().await;
    world.recorder.expect_ends("late", "dtls", n).await;
}

pub(super) fn assert_only_friends(world: &World) {
    let events = world.recorder.all();
    let began = events.iter().filter(|event| event.kind() == "connected");
    assert!(began.into_iter().all(|event| event.is_about("witness") || event.is_about("late")));
    let ended = world.recorder.of("disconnected", "witness");
    assert!(ended.is_empty(), "{ended:?}");
    world.gateway.assert_sound();
    super::assert_log_is_clean(world);
}

/// An address of its own on this machine, the n-th of many.
async fn stranger(n: usize) -> UdpSocket {
    let host = [127, 1, (n / 200) as u8, (n % 200 + 1) as u8];
    UdpSocket::bind((std::net::Ipv4Addr::from(host), 0)).await.unwrap()
}

async fn answer(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut datagram = vec![0; 2_048];
    let received = tokio::time::timeout(Duration::from_millis(300), socket.recv_from(&mut datagram)).await;
    let (len, _) = received.ok()?.ok()?;
    datagram.truncate(len);
    Some(datagram)
}

#[tokio::test]
async fn hellos_without_a_cookie_cost_nothing() {
    const FLOOD: usize = 200_000;
    const AT_ONCE: usize = 50;
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let at = world.gateway.udps();
    // What it needs once, it has had before it is measured.
    let mut strangers = Vec::new();
    for n in 0..100 {
        strangers.push(stranger(n).await);
    }
    let mut answers = 0_usize;
    let mut memory = 0;
    for round in 0..FLOOD / AT_ONCE {
        let socket = &strangers[round % strangers.len()];
        let mut request = 0;
        for n in 0..AT_ONCE {
            let mut hello = ClientHello::new((round * AT_ONCE + n) as u64, &[PSK_CCM_8, 0x00ff]);
            if n % 3 == 0 {
                // A cookie of its own making.
                hello = hello.cookie(&[n as u8; 32]);
            }
            let datagram = hello.datagram((n % 2) as u16);
            request = datagram.len();
            socket.send_to(&datagram, at).await.unwrap();
        }
        for _ in 0..AT_ONCE {
            let Some(answer) = answer(socket).await else { break };
            assert!(answer.len() <= request && wire::cookie(&answer).is_some(), "{answer:02x?}");
            answers += 1;
        }
        if round == 400 {
            memory = world.gateway.resident_bytes();
        }
        if round % 1_000 == 999 {
            witness.speak(&world).await;
            assert_eq!(metric(&world, "landfall_dtls_handshakes ").await, 0.0);
        }
    }
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < 2 << 20, "{grown} bytes for {FLOOD} hellos");
    assert!(answers > FLOOD / 2, "{answers} were answered");
    assert!(metric(&world, "landfall_dtls_cookies_total").await >= answers as f64);
    assert_eq!(metric(&world, "landfall_dtls_handshakes_begun_total").await, 1.0, "the witness's");
    comes_in(&world, 1).await;
    assert_only_friends(&world);
    world.close().await;
}

/// Returns the cookie from `n` addresses, and is silent from then on. How many were answered with a flight.
async fn half_open(world: &World, n: usize) -> usize {
    let at = world.gateway.udps();
    let mut went_on = 0;
    for n in 0..n {
        let socket = stranger(n).await;
        let hello = ClientHello::new(n as u64, &[PSK_CCM_8]);
        socket.send_to(&hello.datagram(0), at).await.unwrap();
        let Some(cookie) = answer(&socket).await.as_deref().and_then(wire::cookie) else { continue };
        socket.send_to(&hello.cookie(&cookie).datagram(1), at).await.unwrap();
        went_on += usize::from(answer(&socket).await.is_some());
    }
    went_on
}

#[tokio::test]
async fn two_thousand_half_open_handshakes_keep_nobody_out() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).set("dtls.handshake_timeout", "4s")).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let memory = world.gateway.resident_bytes();
    let went_on = half_open(&world, 2_000).await;
    assert!(went_on > 1_900, "{went_on}");
    let under_way = metric(&world, "landfall_dtls_handshakes ").await;
    assert!(under_way > 1_000.0, "{under_way} at once");
    comes_in(&world, 1).await;
    witness.speak(&world).await;
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < 40 << 20, "{grown} bytes for 2,000 handshakes");
    // They are given up in their time.
    eventually(PATIENCE * 2, "the end of them all", async || {
        (metric(&world, "landfall_dtls_handshakes ").await == 0.0).then_some(())
    })
    .await;
    comes_in(&world, 2).await;
    witness.speak(&world).await;
    assert_only_friends(&world);
    world.close().await;
}

#[tokio::test]
async fn where_all_places_are_taken_the_oldest_makes_room() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki).set("dtls.max_handshakes", 16)).await;
    let mut witness = Witness::connect(&world).await;
    assert!(half_open(&world, 2_000).await > 1_900);
    assert!(metric(&world, "landfall_dtls_handshakes ").await <= 16.0);
    assert!(metric(&world, "landfall_dtls_displaced_total").await > 1_900.0);
    comes_in(&world, 1).await;
    witness.speak(&world).await;
    let refused = super::refusals(&world);
    let events = world.recorder.all().iter().filter(|event| event.kind() == "refused").count();
    assert!(events < 300, "{events} events for {refused} refusals: they are coalesced");
    assert_only_friends(&world);
    world.close().await;
}

/// Fragments that lie about their message, behind a good cookie.
fn lies() -> Vec<Fragment> {
    let base = Fragment {
        message: message::CLIENT_KEY_EXCHANGE,
        length: 100,
        number: 2,
        offset: 0,
        part: vec![7; 50],
    };
    vec![
        // 16 MB are to come, from the front and from the back.
        Fragment { length: 0x00ff_ffff, ..base.clone() },
        Fragment { length: 0x00ff_ffff, offset: 0x00ff_ffff - 50, ..base.clone() },
        Fragment { message: message::CERTIFICATE, length: 0x00ff_fffe, offset: 0x0080_0000, ..base.clone() },
        // Beyond its own end.
        Fragment { offset: 51, ..base.clone() },
        Fragment { offset: 0x00ff_ffff, ..base.clone() },
        Fragment { length: 10, ..base.clone() },
        Fragment { length: 0, offset: 0, ..base.clone() },
        // Another length than before, other bytes than before, another type than before.
        Fragment { length: 99, ..base.clone() },
        Fragment { part: vec![8; 50], ..base.clone() },
        Fragment { message: message::FINISHED, ..base.clone() },
        // Empty ones.
        Fragment { part: vec![], ..base.clone() },
        Fragment { part: vec![], offset: 100, ..base.clone() },
        Fragment { part: vec![], offset: 0x00ff_ffff, length: 0x00ff_ffff, ..base.clone() },
        // Far ahead, long past, and of a type that a client never sends.
        Fragment { number: u16::MAX, ..base.clone() },
        Fragment { number: 3, length: 60_000, ..base.clone() },
        Fragment { number: 4, length: 60_000, offset: 30_000, ..base.clone() },
        Fragment { number: 0, ..base.clone() },
        Fragment { number: 1, message: message::CLIENT_HELLO, ..base.clone() },
        Fragment { number: 2, message: message::SERVER_HELLO, ..base.clone() },
        Fragment { number: 2, message: 0, ..base.clone() },
        Fragment { number: 2, message: message::HELLO_VERIFY_REQUEST, ..base.clone() },
        Fragment { number: 2, message: 255, ..base },
    ]
}

/// A handshake behind a good cookie: its socket, which gets what is sent next.
pub(super) async fn begun(world: &World, n: usize, suites: &[u16]) -> UdpSocket {
    let socket = stranger(n).await;
    let at = world.gateway.udps();
    let hello = ClientHello::new(n as u64, suites);
    socket.send_to(&hello.datagram(0), at).await.unwrap();
    let cookie = wire::cookie(&answer(&socket).await.unwrap()).unwrap();
    socket.send_to(&hello.cookie(&cookie).datagram(1), at).await.unwrap();
    answer(&socket).await.unwrap();
    socket
}

#[tokio::test]
async fn fragments_that_lie_are_held_within_a_bound() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    let at = world.gateway.udps();
    let memory = world.gateway.resident_bytes();
    let lies = lies();
    for suite in [PSK_CCM_8, wire::ECDHE_ECDSA_GCM] {
        for (n, lie) in lies.iter().enumerate() {
            let socket = begun(&world, n, &[suite]).await;
            for (sequence, lie) in (2..).zip(std::iter::once(lie).chain(&lies)) {
                socket.send_to(&lie.datagram(sequence), at).await.unwrap();
            }
            // The length of the part is a lie as well, either way.
            for claimed in [0, 49, 51, 0x00ff_ffff] {
                let body = lie.encode_claiming(claimed);
                let record = Record::plain(content::HANDSHAKE, 90 + u64::from(claimed), body);
                socket.send_to(&record.encode(), at).await.unwrap();
            }
        }
        witness.speak(&world).await;
    }
    // Holes: every other byte of messages that never become whole, 500 times, at many handshakes.
    for n in 0..40 {
        let socket = begun(&world, 100 + n, &[wire::ECDHE_ECDSA_GCM]).await;
        for hole in 0..500_u32 {
            let fragment = Fragment {
                message: message::CERTIFICATE,
                length: 8_000,
                number: 2 + (hole % 6) as u16,
                offset: hole * 16,
                part: vec![1],
            };
            socket.send_to(&fragment.datagram(u64::from(hole) + 2), at).await.unwrap();
        }
        witness.speak(&world).await;
    }
    let grown = world.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < BOUND, "{grown} bytes");
    comes_in(&world, 1).await;
    witness.speak(&world).await;
    assert_eq!(metric(&world, "landfall_dtls_defects_total").await, 0.0);
    assert_only_friends(&world);
    world.close().await;
}

/// A ClientHello in fragments before the cookie cannot be assembled without memory; nothing is kept of it.
#[tokio::test]
async fn a_hello_in_fragments_without_a_cookie_is_nobodys() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let at = world.gateway.udps();
    let wire = Wire::to(at).await;
    let body = ClientHello::new(1, &[PSK_CCM_8]).body();
    let length = body.len() as u32;
    for (sequence, part) in body.chunks(8).enumerate() {
        let fragment = Fragment {
            message: message::CLIENT_HELLO,
            length,
            number: 0,
            offset: sequence as u32 * 8,
            part: part.to_vec(),
        };
        wire.send(&fragment.datagram(sequence as u64)).await;
    }
    let mut witness = Witness::connect(&world).await;
    witness.speak(&world).await;
    assert_eq!(metric(&world, "landfall_dtls_handshakes ").await, 0.0);
    assert_eq!(metric(&world, "landfall_dtls_handshakes_begun_total").await, 1.0);
    world.close().await;
}

/// A cookie is good for its address and its ClientHello only.
#[tokio::test]
async fn a_cookie_is_worth_nothing_to_others() {
    let pki = Pki::new();
    let world = World::with(|builder| settings(builder, &pki)).await;
    let (one, other) = (Wire::to(world.gateway.udps()).await, Wire::to(world.gateway.udps()).await);
    let hello = ClientHello::new(1, &[PSK_CCM_8]);
    one.send(&hello.datagram(0)).await;
    let cookie = wire::cookie(&one.receive().await).unwrap();
    // From another port; with another random; altered; cut short.
    let mut altered = cookie.clone();
    altered[0] ^= 1;
    other.send(&hello.clone().cookie(&cookie).datagram(1)).await;
    assert!(wire::cookie(&other.receive().await).is_some(), "asked for its own");
    for bad in [
        ClientHello::new(2, &[PSK_CCM_8]).cookie(&cookie),
        hello.clone().cookie(&altered),
        hello.clone().cookie(&cookie[1..]),
        hello.clone().cookie(&[]),
    ] {
        one.send(&bad.datagram(1)).await;
        assert!(wire::cookie(&one.receive().await).is_some(), "{bad:?}");
    }
    assert_eq!(metric(&world, "landfall_dtls_handshakes_begun_total").await, 0.0);
    one.send(&hello.cookie(&cookie).datagram(1)).await;
    assert!(wire::cookie(&one.receive().await).is_none(), "now it goes on");
    assert_eq!(metric(&world, "landfall_dtls_handshakes_begun_total").await, 1.0);
    world.close().await;
}
