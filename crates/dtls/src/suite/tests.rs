use super::*;
use crate::record::ContentType;

const TEXT: &[u8] = b"attack at dawn, or a little later";

fn key() -> TrafficKey {
    let key = std::array::from_fn(|at| at as u8);
    TrafficKey { key, salt: [0xa0, 0xa1, 0xa2, 0xa3] }
}

fn header(sequence: u64) -> RecordHeader {
    RecordHeader::new(ContentType::APPLICATION_DATA, 1, sequence, 0)
}

fn sealed(suite: Suite, sequence: u64, text: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    suite.seal(&key(), header(sequence), text, &mut record).unwrap();
    record
}

fn open(suite: Suite, record: &[u8]) -> Option<Vec<u8>> {
    let (header, body) = RecordHeader::read(record).unwrap();
    assert_eq!(body.len(), usize::from(header.length));
    suite.open(&key(), header, &mut body.to_vec()).map(|text| text.to_vec())
}

/// Against another implementation.
#[test]
fn records_are_protected_as_others_do() {
    let hex = |suite| -> String {
        sealed(suite, 5, TEXT).iter().skip(21).map(|byte| format!("{byte:02x}")).collect()
    };
    let ccm8 = "4d897a56cccde45268173384e44471cf11fa756aebbfc41dc6694bed763b7d204a92a038e063ca2aa9";
    let ccm =
        "4d897a56cccde45268173384e44471cf11fa756aebbfc41dc6694bed763b7d204a0abb8f010ec4f86b2247451325890a0f";
    let gcm =
        "ad7e25e747fccaf58065d79e03732384aded2710dcc6bd3b0ba8ebb7aed8595e6c6648f7ee12cd71929f65963c55c76991";
    let ccm8_of_256 = "7a7aa62da6843046510006ffd0df90d6f6f23ec462c9889cee1ccce281ec1f80f7b2d5a5c85909c30f";
    let ccm_of_256 =
        "7a7aa62da6843046510006ffd0df90d6f6f23ec462c9889cee1ccce281ec1f80f7c832af90cd5cb9da40fa7ef1d1112572";
    for (of_key, of_certificate, expected) in [
        (Suite::PskCcm8, Suite::EcdsaCcm8, ccm8),
        (Suite::PskCcm, Suite::EcdsaCcm, ccm),
        (Suite::PskGcm, Suite::EcdsaGcm, gcm),
        (Suite::Psk256Ccm8, Suite::Ecdsa256Ccm8, ccm8_of_256),
        (Suite::Psk256Ccm, Suite::Ecdsa256Ccm, ccm_of_256),
    ] {
        assert_eq!((hex(of_key), hex(of_certificate)), (expected.into(), expected.into()), "{of_key:?}");
    }
}

#[test]
fn what_is_sealed_is_opened() {
    for suite in Suite::ALL {
        for text in [&b""[..], b"x", TEXT, &[7; record::MAX_PLAINTEXT]] {
            let record = sealed(suite, 9, text);
            assert_eq!(record.len(), record::HEADER + text.len() + suite.overhead());
            assert_eq!(open(suite, &record).unwrap(), text);
        }
        assert_eq!(Suite::from_code(suite.code()), Some(suite));
    }
}

#[test]
fn what_is_too_long_is_not_sealed() {
    let mut out = b"before".to_vec();
    assert!(Suite::PskGcm.seal(&key(), header(0), &[0; record::MAX_PLAINTEXT + 1], &mut out).is_none());
    assert_eq!(out, b"before");
}

#[test]
fn any_bit_that_is_changed_is_seen() {
    for suite in Suite::ALL {
        let record = sealed(suite, 9, TEXT);
        for at in (0..record.len() * 8).filter(|at| !(8..16).contains(at) && !(88..104).contains(at)) {
            let mut changed = record.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(open(suite, &changed), None, "bit {at}");
        }
        for length in 0..record.len() - record::HEADER {
            let cut = &mut record[record::HEADER..record::HEADER + length].to_vec();
            assert!(suite.open(&key(), header(9), cut).is_none(), "cut to {length}");
        }
    }
}
