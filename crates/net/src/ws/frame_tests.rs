//! The decoder against frames of other making, however they are cut.

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{Decoder, Ending, Fault};

/// One step of a client that keeps the rules.
#[derive(Clone, Debug)]
enum Step {
    /// A message in so many frames.
    Message(Vec<Vec<u8>>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let part =
        prop_oneof![8 => 0..200_usize, 1 => 65_530..65_540_usize].prop_flat_map(|n| vec![any::<u8>(); n]);
    let control = proptest::collection::vec(any::<u8>(), 0..=125);
    prop_oneof![
        4 => proptest::collection::vec(part, 1..4).prop_map(Step::Message),
        1 => control.clone().prop_map(Step::Ping),
        1 => control.prop_map(Step::Pong),
    ]
}

fn put(wire: &mut Vec<u8>, payload: &[u8], opcode: OpCode, last: bool, mask: [u8; 4]) {
    let mut frame = Frame::message(payload.to_vec(), OpCode::Data(Data::Binary), last);
    frame.header_mut().opcode = opcode;
    frame.header_mut().mask = Some(mask);
    frame.format(wire).unwrap();
}

/// The bytes on the wire, the payload that they mean, and the last ping.
fn encode(steps: &[Step], mask: [u8; 4]) -> (Vec<u8>, Vec<u8>, Option<Vec<u8>>) {
    let (mut wire, mut payload, mut ping) = (Vec::new(), Vec::new(), None);
    for step in steps {
        match step {
            Step::Message(parts) => {
                for (n, part) in parts.iter().enumerate() {
                    let opcode = OpCode::Data(if n == 0 { Data::Binary } else { Data::Continue });
                    put(&mut wire, part, opcode, n + 1 == parts.len(), mask);
                    payload.extend_from_slice(part);
                    // A control frame may come between the frames of a message.
                    put(&mut wire, b"", OpCode::Control(Control::Pong), true, mask);
                }
            }
            Step::Ping(bytes) => {
                put(&mut wire, bytes, OpCode::Control(Control::Ping), true, mask);
                ping = Some(bytes.clone());
            }
            Step::Pong(bytes) => put(&mut wire, bytes, OpCode::Control(Control::Pong), true, mask),
        }
    }
    (wire, payload, ping)
}

/// Feeds the wire in pieces of the given lengths, over and over.
fn decode(decoder: &mut Decoder, wire: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut rest, mut payload) = (wire, Vec::new());
    for cut in cuts.iter().cycle() {
        let mut chunk = rest[..(*cut).min(rest.len())].to_vec();
        rest = &rest[chunk.len()..];
        let n = decoder.decode(&mut chunk);
        payload.extend_from_slice(&chunk[..n]);
        if rest.is_empty() {
            break;
        }
    }
    payload
}

proptest! {
    #[test]
    fn what_another_encoder_wrote_is_read_however_it_is_cut(
        steps in proptest::collection::vec(step(), 0..8),
        cuts in proptest::collection::vec(1..5000_usize, 1..5),
        mask in any::<[u8; 4]>(),
        code in proptest::option::of(prop_oneof![Just(1000_u16), Just(1001), Just(4999)]),
    ) {
        let (mut wire, payload, ping) = encode(&steps, mask);
        let close = code.map_or(Vec::new(), |code| [&code.to_be_bytes()[..], b"bye"].concat());
        put(&mut wire, &close, OpCode::Control(Control::Close), true, mask);
        wire.extend_from_slice(b"and something behind the end");
        let mut decoder = Decoder::new();
        prop_assert!(decode(&mut decoder, &wire, &cuts) == payload);
        prop_assert_eq!(decoder.take_ping(), ping);
        prop_assert_eq!(decoder.ending(), Some(Ending::Closed(code)));
    }

    #[test]
    fn arbitrary_bytes_give_no_more_than_came_and_no_panic(
        wire in proptest::collection::vec(any::<u8>(), 0..600),
        cuts in proptest::collection::vec(1..40_usize, 1..5),
    ) {
        let (mut whole, mut pieces) = (Decoder::new(), Decoder::new());
        let one = decode(&mut whole, &wire, &[usize::MAX]);
        prop_assert!(one.len() <= wire.len());
        prop_assert_eq!(one, decode(&mut pieces, &wire, &cuts));
        prop_assert_eq!(whole.ending(), pieces.ending());
    }
}

#[test]
fn nothing_is_kept_between_frames() {
    let mut decoder = Decoder::new();
    let (wire, _, _) = encode(&[Step::Ping(vec![1; 125]), Step::Message(vec![vec![2; 70_000]])], [9; 4]);
    decode(&mut decoder, &wire, &[1000]);
    assert_eq!(decoder.take_ping(), Some(vec![1; 125]));
    assert_eq!(decoder.control.capacity(), 0);
    assert!(size_of::<Decoder>() <= 104, "{}", size_of::<Decoder>());
}

#[test]
fn each_fault_has_its_close_code() {
    let codes = [Fault::Text, Fault::TooLong, Fault::Malformed("x")].map(Fault::close_code);
    assert_eq!(codes, [1003, 1009, 1002]);
}
