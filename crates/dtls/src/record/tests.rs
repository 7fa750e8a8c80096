use super::*;

#[test]
fn a_header_is_written_as_it_is_read() {
    let header = RecordHeader::new(ContentType::HANDSHAKE, 1, 0x0102_0304_0506, 2);
    let bytes = header.to_bytes();
    assert_eq!(bytes, [22, 0xFE, 0xFD, 0, 1, 1, 2, 3, 4, 5, 6, 0, 2]);
    assert_eq!(RecordHeader::read(&bytes).unwrap(), (header, &[][..]));
    assert_eq!(header.number(), [0, 1, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn records_are_taken_apart() {
    let mut datagram = Vec::new();
    for (sequence, body) in [(0, &b"abc"[..]), (1, b""), (2, b"d")] {
        let length = u16::try_from(body.len()).unwrap();
        datagram.extend(RecordHeader::new(ContentType::APPLICATION_DATA, 0, sequence, length).to_bytes());
        datagram.extend(body);
    }
    let mut records = Records::new(&mut datagram);
    let bodies: Vec<(u64, Vec<u8>)> =
        records.by_ref().map(|(header, body)| (header.sequence, body.to_vec())).collect();
    assert_eq!(bodies, [(0, b"abc".to_vec()), (1, Vec::new()), (2, b"d".to_vec())]);
    assert!(!records.is_broken());
}

#[test]
fn what_is_cut_short_ends_the_records() {
    let whole = RecordHeader::new(ContentType::ALERT, 0, 7, 2).to_bytes();
    for mut datagram in [whole.to_vec(), [&whole[..], &[2]].concat(), whole[..12].to_vec(), vec![0; 40]] {
        let mut records = Records::new(&mut datagram);
        assert!(records.next().is_none());
        assert!(records.is_broken());
    }
}
