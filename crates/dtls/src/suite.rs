//! The four cipher suites, and what each does to a record (RFC 5288, 5289, 5487, 6655 and 7251).
//!
//! Owns: their numbers and names, the protection of records. Does not own: which one is chosen (`server`), sequence numbers.
//!
//! A key is expanded for each record: a channel that waits for its next record for minutes costs no more than the raw key.

use aes::Aes128;
use ccm::aead::KeyInit;
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U8, U12};
use ccm::{AeadInOut, Ccm};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::keys::TrafficKey;
use crate::record::{self, RecordHeader};

type Ccm8 = Ccm<Aes128, U8, U12>;

/// Bytes of the nonce that stand in the record.
const EXPLICIT_NONCE: usize = 8;

/// A cipher suite that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    PskCcm8,
    PskGcm,
    EcdsaCcm8,
    EcdsaGcm,
}

impl Suite {
    /// By its registered number.
    pub(crate) const fn from_code(code: u16) -> Option<Self> {
        match code {
            0xC0A8 => Some(Self::PskCcm8),
            0x00A8 => Some(Self::PskGcm),
            0xC0AE => Some(Self::EcdsaCcm8),
            0xC02B => Some(Self::EcdsaGcm),
            _ => None,
        }
    }

    /// Its registered number.
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::PskCcm8 => 0xC0A8,
            Self::PskGcm => 0x00A8,
            Self::EcdsaCcm8 => 0xC0AE,
            Self::EcdsaGcm => 0xC02B,
        }
    }

    /// Its registered name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PskCcm8 => "TLS_PSK_WITH_AES_128_CCM_8",
            Self::PskGcm => "TLS_PSK_WITH_AES_128_GCM_SHA256",
            Self::EcdsaCcm8 => "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
            Self::EcdsaGcm => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        }
    }

    /// Whether both sides are proven by a key that they share; else by certificates.
    pub(crate) const fn is_psk(self) -> bool {
        matches!(self, Self::PskCcm8 | Self::PskGcm)
    }

    const fn is_ccm(self) -> bool {
        matches!(self, Self::PskCcm8 | Self::EcdsaCcm8)
    }

    const fn tag(self) -> usize {
        if self.is_ccm() { 8 } else { 16 }
    }

    /// Bytes that protection adds to a record's plaintext.
    pub(crate) const fn overhead(self) -> usize {
        EXPLICIT_NONCE + self.tag()
    }

    /// Appends a protected record to `out`: `header` has everything but the length. `None` when the text is longer than a record
    /// can be; `out` is then as it was.
    pub(crate) fn seal(
        self,
        key: &TrafficKey,
        header: RecordHeader,
        text: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        if text.len() > record::MAX_PLAINTEXT {
            return None;
        }
        let number = header.number();
        let length = u16::try_from(text.len() + self.overhead()).ok()?;
        let start = out.len();
        out.extend(RecordHeader { length, ..header }.to_bytes());
        out.extend(number);
        let body = out.len();
        out.extend(text);
        let sealed = out.get_mut(body..).and_then(|text| self.encrypt(key, header, text));
        match sealed {
            Some(tag) => out.extend(tag.get(..self.tag()).unwrap_or_default()),
            None => {
                out.truncate(start);
                return None;
            }
        }
        Some(())
    }

    /// The tag is at the front of the array.
    fn encrypt(self, key: &TrafficKey, header: RecordHeader, text: &mut [u8]) -> Option<[u8; 16]> {
        let number = header.number();
        let (nonce, data) = (nonce(key, number), additional_data(header, text.len()));
        let mut tag = [0; 16];
        if self.is_ccm() {
            let sealed =
                Ccm8::new(&key.key.into()).encrypt_inout_detached(&nonce.into(), &data, InOutBuf::from(text));
            tag.first_chunk_mut::<8>()?.copy_from_slice(sealed.ok()?.as_slice());
        } else {
            let sealed = gcm(key)?.seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(data),
                text,
            );
            tag.copy_from_slice(sealed.ok()?.as_ref());
        }
        Some(tag)
    }

    /// Deciphers a record's body in place. `None` when it does not authenticate.
    pub(crate) fn open<'a>(
        self,
        key: &TrafficKey,
        header: RecordHeader,
        body: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let (number, body) = body.split_first_chunk_mut::<EXPLICIT_NONCE>()?;
        let nonce = nonce(key, *number);
        let length = body.len().checked_sub(self.tag()).filter(|length| *length <= record::MAX_PLAINTEXT)?;
        let data = additional_data(header, length);
        if !self.is_ccm() {
            let nonce = Nonce::assume_unique_for_key(nonce);
            return gcm(key)?.open_in_place(nonce, Aad::from(data), body).ok();
        }
        let (text, tag) = body.split_at_mut(length);
        let tag: [u8; 8] = *tag.first_chunk()?;
        let cipher = Ccm8::new(&key.key.into());
        cipher.decrypt_inout_detached(&nonce.into(), &data, InOutBuf::from(&mut *text), &tag.into()).ok()?;
        Some(text)
    }
}

fn gcm(key: &TrafficKey) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_128_GCM, &key.key).ok().map(LessSafeKey::new)
}

/// Four bytes that both sides know, and the eight in the record (RFC 5288, section 3).
fn nonce(key: &TrafficKey, explicit: [u8; EXPLICIT_NONCE]) -> [u8; 12] {
    let [s0, s1, s2, s3] = key.salt;
    let [n0, n1, n2, n3, n4, n5, n6, n7] = explicit;
    [s0, s1, s2, s3, n0, n1, n2, n3, n4, n5, n6, n7]
}

/// What is authenticated besides the text (RFC 5246, section 6.2.3.3; RFC 6347, section 4.1.2.1).
fn additional_data(header: RecordHeader, text: usize) -> [u8; 13] {
    let [n0, n1, n2, n3, n4, n5, n6, n7] = header.number();
    let [v0, v1] = header.version.to_be_bytes();
    let [l0, l1] = u16::try_from(text).unwrap_or(u16::MAX).to_be_bytes();
    [n0, n1, n2, n3, n4, n5, n6, n7, header.content.0, v0, v1, l0, l1]
}

#[cfg(test)]
mod tests;
