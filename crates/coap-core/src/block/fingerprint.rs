//! Which requests speak of the same transfer.
//!
//! Owns: what is looked at (RFC 7959 section 2.4, RFC 9175 section 3.3) and its digest. Does not own: who asks; the peer
//! is the other half of a key.

use sha2::{Digest, Sha256};

use crate::options::number;

/// Half of a SHA-256 over a request's code and those of its options that make it one request or another.
///
/// A digest, because a key made of the options themselves would be as large as a stranger likes; a cryptographic one,
/// because two requests that fall together would mix their bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Of a request whose body arrives in blocks. Requests of one transfer have the same code and the same options but for
    /// those of the transfer itself and those that are elective and no part of a cache key. The Request-Tag is a part: it
    /// is there to tell two transfers apart.
    ///
    /// `options` are number and value, in the order of the message.
    pub fn of_upload<'a>(code: u8, options: impl IntoIterator<Item = (u16, &'a [u8])>) -> Self {
        Self::of(code, options, |number| !belongs_to_transfer(number))
    }

    /// Of a request whose response leaves in blocks. A client may leave out of the later requests what described the body
    /// of its first one, so that is not looked at either.
    pub fn of_download<'a>(code: u8, options: impl IntoIterator<Item = (u16, &'a [u8])>) -> Self {
        Self::of(code, options, |number| {
            !belongs_to_transfer(number)
                && !matches!(number, number::ETAG | number::CONTENT_FORMAT | number::REQUEST_TAG)
        })
    }

    fn of<'a>(
        code: u8,
        options: impl IntoIterator<Item = (u16, &'a [u8])>,
        counts: impl Fn(u16) -> bool,
    ) -> Self {
        let mut digest = Sha256::new();
        digest.update([code]);
        for (number, value) in options.into_iter().filter(|(number, _)| counts(*number)) {
            digest.update(number.to_be_bytes());
            digest.update((value.len() as u64).to_be_bytes());
            digest.update(value);
        }
        let whole: [u8; 32] = digest.finalize().into();
        let mut half = [0; 16];
        half.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        Self(half)
    }
}

fn belongs_to_transfer(option: u16) -> bool {
    let elective_and_no_cache_key = option & 0b1 == 0 && option & 0b1_1110 == 0b1_1100;
    elective_and_no_cache_key
        || matches!(
            option,
            number::OBSERVE
                | number::BLOCK1
                | number::BLOCK2
                | number::SIZE1
                | number::SIZE2
                | number::ECHO
                | number::NO_RESPONSE
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: u8 = 2;

    fn of(options: &[(u16, &str)]) -> Fingerprint {
        Fingerprint::of_upload(POST, options.iter().map(|(number, value)| (*number, value.as_bytes())))
    }

    #[test]
    fn what_names_the_request_counts() {
        let one = of(&[(11, "a"), (15, "ep=x")]);
        assert_ne!(one, of(&[(11, "b"), (15, "ep=x")]));
        assert_ne!(one, of(&[(11, "a"), (15, "ep=y")]));
        assert_ne!(one, of(&[(11, "a"), (12, "2"), (15, "ep=x")]));
        assert_ne!(one, of(&[(11, "a"), (15, "ep=x"), (292, "1")]));
        assert_ne!(one, Fingerprint::of_upload(3, [(11, &b"a"[..]), (15, b"ep=x")]));
    }

    #[test]
    fn neighbouring_values_do_not_flow_together() {
        assert_ne!(of(&[(11, "ab"), (11, "c")]), of(&[(11, "a"), (11, "bc")]));
        assert_ne!(of(&[(11, "a"), (11, "")]), of(&[(11, "a")]));
    }

    #[test]
    fn what_the_transfer_itself_needs_does_not_count() {
        let one = of(&[(11, "a")]);
        for number in [6, 23, 27, 28, 60, 252, 258, 0x5c] {
            assert_eq!(one, of(&[(11, "a"), (number, "1")]), "option {number}");
        }
    }

    #[test]
    fn a_request_for_more_of_a_response_need_not_describe_its_own_body() {
        let path = (11_u16, &b"a"[..]);
        let first = Fingerprint::of_download(POST, [path, (12, b"2"), (292, b"1")]);
        assert_eq!(first, Fingerprint::of_download(POST, [path, (23, b"\x16")]));
        assert_ne!(first, Fingerprint::of_download(POST, [(11, &b"b"[..])]));
    }
}
