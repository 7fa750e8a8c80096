use proptest::prelude::*;

use super::*;
use crate::engine::EngineEvent;
use crate::fragments::Fragments;
use crate::handshake::MessageType;

#[derive(Default)]
struct Datagrams(Vec<Vec<u8>>);

impl Outlet for Datagrams {
    fn transmit(&mut self, datagram: &[u8]) {
        self.0.push(datagram.to_vec());
    }

    fn data(&mut self, _: &[u8]) {}

    fn event(&mut self, _: EngineEvent) {}
}

/// Messages with these lengths, one after the other.
fn messages(lengths: &[usize]) -> Vec<u8> {
    let message = |(number, length): (usize, &usize)| {
        let header = FragmentHeader::whole(
            MessageType(11),
            u32::try_from(*length).unwrap(),
            u16::try_from(number).unwrap(),
        );
        [&header.to_bytes()[..], &vec![u8::try_from(number).unwrap(); *length]].concat()
    };
    lengths.iter().enumerate().flat_map(message).collect()
}

fn sent(lengths: &[usize], mtu: usize) -> Vec<Vec<u8>> {
    let mut datagrams = Datagrams::default();
    Flight::new(0, mtu).begin(0, messages(lengths), &mut datagrams);
    datagrams.0
}

/// The lengths of the messages' pieces, in a list for each datagram, with the messages' numbers.
fn pieces(datagrams: &[Vec<u8>]) -> Vec<Vec<(u16, usize)>> {
    let of_datagram = |datagram: &Vec<u8>| {
        let (mut rest, mut pieces) = (datagram.as_slice(), Vec::new());
        while let Some((record, after)) = RecordHeader::read(rest) {
            let (body, more) = after.split_at(record.length.into());
            let (header, piece, _) = FragmentHeader::read(body).unwrap();
            pieces.push((header.message_seq, piece.len()));
            rest = more;
        }
        pieces
    };
    datagrams.iter().map(of_datagram).collect()
}

#[test]
fn what_fits_goes_together() {
    assert_eq!(pieces(&sent(&[70, 0], 1_200)), [[(0, 70), (1, 0)]]);
}

#[test]
fn a_message_that_fits_alone_is_not_cut() {
    assert_eq!(pieces(&sent(&[100, 150, 0], 256)), [vec![(0, 100)], vec![(1, 150), (2, 0)]]);
}

#[test]
fn a_message_that_fits_nowhere_is_cut() {
    let expected = [vec![(0, 70), (1, 136)], vec![(1, 231)], vec![(1, 133), (2, 0)]];
    assert_eq!(pieces(&sent(&[70, 500, 0], 256)), expected);
}

#[test]
fn a_repeated_flight_has_new_numbers() {
    let (mut flight, mut datagrams) = (Flight::new(5, 1_200), Datagrams::default());
    flight.begin(0, messages(&[70, 0]), &mut datagrams);
    assert!(!flight.repeat(499, &mut datagrams));
    assert!(flight.repeat(500, &mut datagrams));
    let sequence = |datagram: &Vec<u8>| RecordHeader::read(datagram).unwrap().0.sequence;
    assert_eq!(datagrams.0.iter().map(sequence).collect::<Vec<_>>(), [5, 7]);
    assert_eq!(flight.take_number(), 9);
}

proptest! {
    #[test]
    fn any_flight_fits_and_is_whole(lengths in prop::collection::vec(0_usize..3_000, 1..4), mtu in 100_usize..2_000) {
        let (datagrams, mut fragments) = (sent(&lengths, mtu), Fragments::new(0));
        for datagram in &datagrams {
            prop_assert!(datagram.len() <= mtu && !datagram.is_empty());
            let mut rest = datagram.as_slice();
            while let Some((record, after)) = RecordHeader::read(rest) {
                let (body, more) = after.split_at(record.length.into());
                let (header, piece, _) = FragmentHeader::read(body).unwrap();
                fragments.insert(&header, piece).unwrap();
                rest = more;
            }
        }
        let mut whole = Vec::new();
        while let Some((header, body)) = fragments.take() {
            whole.extend(header.to_bytes());
            whole.extend(body);
        }
        // What is put together holds 8 KiB at once, and all of it came at once.
        if lengths.iter().sum::<usize>() <= 8_192 {
            prop_assert_eq!(whole, messages(&lengths));
        }
    }
}
