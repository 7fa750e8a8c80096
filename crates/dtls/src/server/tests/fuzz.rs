//! A handshake with strange bytes in it.

use proptest::prelude::*;

use super::peer::{KEY, Peer, USUAL, psk_config};
use crate::engine::{Answer, Engine, Stage};
use crate::record::ContentType;
use crate::suite::Suite;

/// The client's datagrams of a handshake up to its data.
fn shake(peer: &mut Peer, mut change: impl FnMut(usize, &mut Vec<u8>)) {
    let mut send = |peer: &mut Peer, number, mut datagram: Vec<u8>| {
        change(number, &mut datagram);
        peer.receive(datagram);
    };
    let body = peer.hello(&[peer.suite.code()], USUAL);
    let hello = peer.message(crate::handshake::MessageType::CLIENT_HELLO, &body);
    send(peer, 0, hello);
    if peer.told.failure().is_some() {
        return;
    }
    peer.listen_extended();
    let exchange = peer.psk_key_exchange(b"meter", KEY);
    send(peer, 1, exchange);
    peer.answer(Answer::Psk(KEY));
    let last = [peer.change(), peer.finished()].concat();
    send(peer, 2, last);
    let data = peer.protected(ContentType::APPLICATION_DATA, b"data");
    send(peer, 3, data);
}

proptest! {
    #[test]
    fn any_bytes_at_any_time(
        strange in prop::collection::vec((0_usize..4, prop::collection::vec(any::<u8>(), 0..120)), 0..10),
        headers in prop::collection::vec((20_u8..26, 0_u8..3, 0_u8..22), 10),
    ) {
        let mut peer = Peer::new(psk_config(), Suite::PskGcm);
        shake(&mut peer, |at, datagram| {
            let mut all = Vec::new();
            for ((when, bytes), (content, epoch, kind)) in strange.iter().zip(&headers) {
                if *when == at {
                    // Most of it is nearly a record.
                    let (length, body) = (u16::try_from(bytes.len() + 1).unwrap(), [&[*kind][..], bytes].concat());
                    all.extend([*content, 0xFE, 0xFD, 0, *epoch, 0, 0, 0, 0, 0, 77]);
                    all.extend(length.to_be_bytes());
                    all.extend(body);
                }
            }
            all.append(datagram);
            *datagram = all;
        });
        prop_assert!(peer.told.data.iter().all(|data| data == b"data"));
    }

    #[test]
    fn any_bit_that_is_changed(at in 0_usize..4, bit in 0_usize..2_000) {
        let mut peer = Peer::new(psk_config(), Suite::PskCcm8);
        shake(&mut peer, |number, datagram| {
            if number == at {
                let bit = bit % (datagram.len() * 8);
                datagram[bit / 8] ^= 1 << (bit % 8);
            }
        });
        let told = &peer.told;
        prop_assert!(told.data.iter().all(|data| data == b"data"));
        // Only the numbers of records in epoch 0 and what is ignored may differ without an effect.
        let whole = peer.server.stage() == Stage::Established && told.data.len() == 1;
        prop_assert!(whole || told.failure().is_some() || !told.dropped().is_empty() || told.data.is_empty());
    }
}
