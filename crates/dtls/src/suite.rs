//! The cipher suites, and what each does to a record (RFC 5288, 5289, 5487, 6655 and 7251).
//!
//! Owns: their numbers and names, the protection of records. Does not own: which one is chosen (`server`), sequence numbers.
//!
//! All of them derive their keys with SHA-256. A key is expanded for each record: a channel that waits for its next record
//! for minutes costs no more than the raw key.

use aes::{Aes128, Aes256};
use ccm::aead::KeyInit;
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U8, U12, U16};
use ccm::{AeadInOut, Ccm};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::keys::TrafficKey;
use crate::record::{self, RecordHeader};

type Ccm8 = Ccm<Aes128, U8, U12>;
type Ccm16 = Ccm<Aes128, U16, U12>;
type Ccm8Of256 = Ccm<Aes256, U8, U12>;
type Ccm16Of256 = Ccm<Aes256, U16, U12>;

/// Bytes of the nonce that stand in the record.
const EXPLICIT_NONCE: usize = 8;

/// A cipher suite that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    PskCcm8,
    PskCcm,
    PskGcm,
    Psk256Ccm8,
    Psk256Ccm,
    EcdsaCcm8,
    EcdsaCcm,
    EcdsaGcm,
    Ecdsa256Ccm8,
    Ecdsa256Ccm,
}

/// What a suite does to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    Gcm,
    Ccm8,
    Ccm,
    Ccm8Of256,
    CcmOf256,
}

impl Suite {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::PskCcm8,
        Self::PskCcm,
        Self::PskGcm,
        Self::Psk256Ccm8,
        Self::Psk256Ccm,
        Self::EcdsaCcm8,
        Self::EcdsaCcm,
        Self::EcdsaGcm,
        Self::Ecdsa256Ccm8,
        Self::Ecdsa256Ccm,
    ];

    /// By its registered number.
    pub(crate) fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.code() == code)
    }

    /// Its registered number.
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::PskCcm8 => 0xC0A8,
            Self::PskCcm => 0xC0A4,
            Self::PskGcm => 0x00A8,
            Self::Psk256Ccm8 => 0xC0A9,
            Self::Psk256Ccm => 0xC0A5,
            Self::EcdsaCcm8 => 0xC0AE,
            Self::EcdsaCcm => 0xC0AC,
            Self::EcdsaGcm => 0xC02B,
            Self::Ecdsa256Ccm8 => 0xC0AF,
            Self::Ecdsa256Ccm => 0xC0AD,
        }
    }

    /// Its registered name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PskCcm8 => "TLS_PSK_WITH_AES_128_CCM_8",
            Self::PskCcm => "TLS_PSK_WITH_AES_128_CCM",
            Self::PskGcm => "TLS_PSK_WITH_AES_128_GCM_SHA256",
            Self::Psk256Ccm8 => "TLS_PSK_WITH_AES_256_CCM_8",
            Self::Psk256Ccm => "TLS_PSK_WITH_AES_256_CCM",
            Self::EcdsaCcm8 => "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
            Self::EcdsaCcm => "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",
            Self::EcdsaGcm => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            Self::Ecdsa256Ccm8 => "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8",
            Self::Ecdsa256Ccm => "TLS_ECDHE_ECDSA_WITH_AES_256_CCM",
        }
    }

    /// Whether both sides are proven by a key that they share; else by certificates.
    pub(crate) const fn is_psk(self) -> bool {
        matches!(self, Self::PskCcm8 | Self::PskCcm | Self::PskGcm | Self::Psk256Ccm8 | Self::Psk256Ccm)
    }

    const fn cipher(self) -> Cipher {
        match self {
            Self::PskGcm | Self::EcdsaGcm => Cipher::Gcm,
            Self::PskCcm8 | Self::EcdsaCcm8 => Cipher::Ccm8,
            Self::PskCcm | Self::EcdsaCcm => Cipher::Ccm,
            Self::Psk256Ccm8 | Self::Ecdsa256Ccm8 => Cipher::Ccm8Of256,
            Self::Psk256Ccm | Self::Ecdsa256Ccm => Cipher::CcmOf256,
        }
    }

    /// Bytes of a key of one direction.
    pub(crate) const fn key_length(self) -> usize {
        match self.cipher() {
            Cipher::Gcm | Cipher::Ccm8 | Cipher::Ccm => 16,
            Cipher::Ccm8Of256 | Cipher::CcmOf256 => 32,
        }
    }

    const fn tag(self) -> usize {
        match self.cipher() {
            Cipher::Ccm8 | Cipher::Ccm8Of256 => 8,
            Cipher::Gcm | Cipher::Ccm | Cipher::CcmOf256 => 16,
        }
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
        let key = key.bytes(self.key_length())?;
        match self.cipher() {
            Cipher::Ccm8 => seal_ccm::<Ccm8>(key, nonce, &data, text),
            Cipher::Ccm => seal_ccm::<Ccm16>(key, nonce, &data, text),
            Cipher::Ccm8Of256 => seal_ccm::<Ccm8Of256>(key, nonce, &data, text),
            Cipher::CcmOf256 => seal_ccm::<Ccm16Of256>(key, nonce, &data, text),
            Cipher::Gcm => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let sealed = gcm(key)?.seal_in_place_separate_tag(nonce, Aad::from(data), text);
                sealed.ok()?.as_ref().first_chunk().copied()
            }
        }
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
        let key = key.bytes(self.key_length())?;
        match self.cipher() {
            Cipher::Ccm8 => open_ccm::<Ccm8>(key, nonce, &data, body, length),
            Cipher::Ccm => open_ccm::<Ccm16>(key, nonce, &data, body, length),
            Cipher::Ccm8Of256 => open_ccm::<Ccm8Of256>(key, nonce, &data, body, length),
            Cipher::CcmOf256 => open_ccm::<Ccm16Of256>(key, nonce, &data, body, length),
            Cipher::Gcm => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                gcm(key)?.open_in_place(nonce, Aad::from(data), body).ok()
            }
        }
    }
}

/// Enciphers `text` in place. Its tag, at the front of the array.
fn seal_ccm<C: AeadInOut<NonceSize = U12> + KeyInit>(
    key: &[u8],
    nonce: [u8; 12],
    data: &[u8],
    text: &mut [u8],
) -> Option<[u8; 16]> {
    let cipher = C::new_from_slice(key).ok()?;
    let sealed = cipher.encrypt_inout_detached(&nonce.into(), data, InOutBuf::from(text)).ok()?;
    let mut tag = [0; 16];
    for (place, byte) in tag.iter_mut().zip(sealed) {
        *place = byte;
    }
    Some(tag)
}

/// Deciphers the first `length` bytes of `body`, which ends with their tag.
fn open_ccm<'a, C: AeadInOut<NonceSize = U12> + KeyInit>(
    key: &[u8],
    nonce: [u8; 12],
    data: &[u8],
    body: &'a mut [u8],
    length: usize,
) -> Option<&'a mut [u8]> {
    let (text, tag) = body.split_at_mut_checked(length)?;
    let tag: &[u8] = tag;
    let cipher = C::new_from_slice(key).ok()?;
    let tag = tag.try_into().ok()?;
    cipher.decrypt_inout_detached(&nonce.into(), data, InOutBuf::from(&mut *text), tag).ok()?;
    Some(text)
}

fn gcm(key: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_128_GCM, key).ok().map(LessSafeKey::new)
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
