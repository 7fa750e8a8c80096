use super::*;
use crate::keys::TrafficKey;

#[derive(Default)]
struct Told {
    datagrams: Vec<Vec<u8>>,
    data: Vec<Vec<u8>>,
    dropped: Vec<BadRecord>,
}

impl Outlet for Told {
    fn transmit(&mut self, datagram: &[u8]) {
        self.datagrams.push(datagram.to_vec());
    }

    fn data(&mut self, bytes: &[u8]) {
        self.data.push(bytes.to_vec());
    }

    fn event(&mut self, event: EngineEvent) {
        if let EngineEvent::Dropped(why) = event {
            self.dropped.push(why);
        }
    }
}

const SUITE: Suite = Suite::PskCcm8;

fn key(byte: u8) -> TrafficKey {
    TrafficKey { key: [byte; 32], salt: [byte; 4] }
}

fn channel() -> Channel {
    bearing(1_000)
}

/// One that is closed with so many forged records.
fn bearing(max_forged: u32) -> Channel {
    Channel::new(SUITE, TrafficKeys { client: key(1), server: key(2) }, max_forged)
}

/// A record of the client's.
fn record(content: ContentType, sequence: u64, text: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    SUITE.seal(&key(1), RecordHeader::new(content, EPOCH, sequence, 0), text, &mut record).unwrap();
    record
}

fn receive(channel: &mut Channel, record: &[u8], told: &mut Told) -> Option<Closing> {
    let (header, body) = RecordHeader::read(record).unwrap();
    channel.receive(header, &mut body.to_vec(), told)
}

/// What the server said, deciphered.
fn said(datagram: &[u8]) -> (RecordHeader, Vec<u8>) {
    let (header, body) = RecordHeader::read(datagram).unwrap();
    (header, SUITE.open(&key(2), header, &mut body.to_vec()).unwrap().to_vec())
}

#[test]
fn a_replayed_record_is_dropped() {
    let (mut channel, mut told) = (channel(), Told::default());
    let data = record(ContentType::APPLICATION_DATA, 3, b"x");
    for _ in 0..3 {
        assert_eq!(receive(&mut channel, &data, &mut told), None);
    }
    assert_eq!((told.data.len(), told.dropped), (1, vec![BadRecord::Replayed; 2]));
}

#[test]
fn a_forged_record_moves_no_window() {
    let (mut channel, mut told) = (channel(), Told::default());
    let mut far = record(ContentType::APPLICATION_DATA, MAX_SEQUENCE, b"x");
    *far.last_mut().unwrap() ^= 1;
    receive(&mut channel, &far, &mut told);
    receive(&mut channel, &record(ContentType::APPLICATION_DATA, 0, b"y"), &mut told);
    assert_eq!((told.data, told.dropped), (vec![b"y".to_vec()], vec![BadRecord::Forged]));
}

#[test]
fn the_last_forged_record_that_a_channel_bears_closes_it() {
    let (mut channel, mut told) = (bearing(3), Told::default());
    let mut forged = record(ContentType::APPLICATION_DATA, 5, b"x");
    *forged.last_mut().unwrap() ^= 1;
    let data = record(ContentType::APPLICATION_DATA, 4, b"x");
    for _ in 0..2 {
        assert_eq!(receive(&mut channel, &forged, &mut told), None);
        // Neither what is repeated nor what has no place is a guess.
        receive(&mut channel, &data, &mut told);
        let stray = RecordHeader::new(ContentType::APPLICATION_DATA, 7, 0, 0).to_bytes();
        assert_eq!(receive(&mut channel, &stray, &mut told), None);
    }
    assert_eq!((told.data.len(), told.datagrams.len()), (1, 0));
    assert_eq!(receive(&mut channel, &forged, &mut told), Some(Closing::Forged));
    let (header, text) = said(&told.datagrams[0]);
    assert_eq!((header.content, text), (ContentType::ALERT, vec![1, 0]), "the device is told close_notify");
}

#[test]
fn what_has_no_place_is_dropped() {
    let (mut channel, mut told) = (channel(), Told::default());
    let other_epoch =
        |epoch, content| [&RecordHeader::new(content, epoch, 0, 2).to_bytes()[..], &[2, 40]].concat();
    for stray in [
        other_epoch(0, ContentType::APPLICATION_DATA),
        other_epoch(0, ContentType::ALERT),
        other_epoch(0, ContentType::HANDSHAKE),
        other_epoch(2, ContentType::APPLICATION_DATA),
        record(ContentType::CHANGE_CIPHER_SPEC, 0, &[1]),
        record(ContentType(99), 1, &[1]),
        record(ContentType::HANDSHAKE, 2, &FragmentHeader::whole(MessageType(0), 0, 9).to_bytes()),
    ] {
        assert_eq!(receive(&mut channel, &stray, &mut told), None);
    }
    assert_eq!(told.dropped, [BadRecord::Unexpected; 7]);
    assert!(told.data.is_empty() && told.datagrams.is_empty());
}

#[test]
fn alerts_end_it_when_they_are_fatal() {
    let end = |text: &[u8]| {
        let mut told = Told::default();
        let why = receive(&mut channel(), &record(ContentType::ALERT, 0, text), &mut told);
        (why, told.datagrams.len())
    };
    assert_eq!(end(&[1, 0]), (Some(Closing::CloseNotify), 1));
    assert_eq!(end(&[2, 0]), (Some(Closing::CloseNotify), 1));
    assert_eq!(end(&[2, 40]), (Some(Closing::Alert(40)), 0));
    assert_eq!(end(&[1, 90]), (None, 0));
    assert_eq!(end(&[3, 40]), (None, 0));
    assert_eq!(end(&[2]), (None, 0));
}

#[test]
fn nothing_is_negotiated_anew() {
    let (mut channel, mut told) = (channel(), Told::default());
    let hello = FragmentHeader::whole(MessageType::CLIENT_HELLO, 0, 3).to_bytes();
    assert_eq!(receive(&mut channel, &record(ContentType::HANDSHAKE, 0, &hello), &mut told), None);
    let (header, text) = said(&told.datagrams[0]);
    assert_eq!((header.content, text), (ContentType::ALERT, vec![1, 100]));
}

#[test]
fn the_last_flight_goes_out_until_data_comes() {
    let (mut channel, mut told) = (channel(), Told::default());
    channel.set_last_flight(7, 5, [9; VERIFY_DATA]);
    let finished = FragmentHeader::whole(MessageType::FINISHED, 12, 3).to_bytes();
    let finished = [&finished[..], &[0; 12]].concat();
    assert!(channel.send_last_flight(&mut told));
    receive(&mut channel, &record(ContentType::HANDSHAKE, 0, &finished), &mut told);
    assert_eq!(told.datagrams.len(), 2);
    for (n, datagram) in (0_u64..).zip(&told.datagrams) {
        let (change, _) = RecordHeader::read(datagram).unwrap();
        assert_eq!((change.content, change.sequence), (ContentType::CHANGE_CIPHER_SPEC, 7 + n));
        let (header, text) = said(&datagram[14..]);
        assert_eq!((header.sequence, text.len()), (n, FINISHED));
        assert_eq!(text[12..], [9; 12]);
    }
    receive(&mut channel, &record(ContentType::APPLICATION_DATA, 1, b"x"), &mut told);
    receive(&mut channel, &record(ContentType::HANDSHAKE, 2, &finished), &mut told);
    assert_eq!(told.datagrams.len(), 2);
}

#[test]
fn numbers_end_before_they_come_again() {
    let mut channel = channel();
    channel.next_record = MAX_SEQUENCE - 2;
    let mut out = Vec::new();
    assert_eq!(channel.send(b"last", &mut out), Ok(()));
    let length = out.len();
    for _ in 0..3 {
        assert_eq!(channel.send(b"more", &mut out), Err(SendError::Exhausted));
        assert_eq!(out.len(), length);
    }
    let mut told = Told::default();
    channel.close(&mut told);
    channel.close(&mut told);
    assert_eq!(told.datagrams.len(), 1, "room for one close_notify");
    assert_eq!(said(&told.datagrams[0]).0.sequence, MAX_SEQUENCE - 1);
}

#[test]
fn what_is_too_long_is_not_sent() {
    let mut out = b"before".to_vec();
    assert_eq!(channel().send(&[0; MAX_PLAINTEXT + 1], &mut out), Err(SendError::TooLarge));
    assert_eq!(channel().send(&[0; MAX_PLAINTEXT], &mut out), Ok(()));
}
