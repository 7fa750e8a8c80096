//! Passwords of devices: how they are stored, and verifying one without telling anything by the time it takes.
//!
//! Owns: the `argon2id` and `plain:` forms, the comparison, the check of a signature, the decoy. Does not own: when a verification may run
//! (`super::devices` bounds how many do at once).

use std::fmt;

use argon2::password_hash::{PasswordHash, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHasher, Version};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The most memory that one verification may take, in KiB; and the most passes and lanes.
const MOST_MEMORY: u32 = 256 << 10;
const MOST_PASSES: u32 = 32;
const MOST_LANES: u32 = 16;

/// A password as the file of devices holds it. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum StoredPassword {
    /// A hash in PHC form.
    Argon2(String),
    /// The password itself.
    Plain(Vec<u8>),
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredPassword(..)")
    }
}

/// What is allowed, for errors.
pub(super) const ALLOWED: &str = "an argon2id hash ($argon2id$v=19$m=19456,t=2,p=1$salt$hash, at most 256 MiB of memory, 32 \
                                  passes, 16 lanes) or \"plain:\" and the password";

impl StoredPassword {
    /// Reads a value of the file.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(plain) = text.strip_prefix("plain:") {
            return (!plain.is_empty()).then(|| Self::Plain(plain.as_bytes().to_vec()));
        }
        argon2_params(text).map(|_| Self::Argon2(text.to_owned()))
    }

    /// The parameters of the hash.
    pub(super) fn params(&self) -> Option<Params> {
        match self {
            Self::Argon2(hash) => argon2_params(hash),
            Self::Plain(_) => None,
        }
    }
}

fn argon2_params(text: &str) -> Option<Params> {
    let hash = PasswordHash::new(text).ok()?;
    let complete = hash.salt.is_some() && hash.hash.is_some();
    let algorithm = Algorithm::try_from(hash.algorithm).ok()?;
    let version_known = hash.version.is_none_or(|version| Version::try_from(version).is_ok());
    let params = Params::try_from(&hash).ok()?;
    let bounded =
        params.m_cost() <= MOST_MEMORY && params.t_cost() <= MOST_PASSES && params.p_cost() <= MOST_LANES;
    (complete && bounded && version_known && algorithm == Algorithm::Argon2id).then_some(params)
}

/// Hashes a password for the file of devices: argon2id with the parameters of the argon2 crate (19 MiB, 2 passes, 1 lane)
/// and a random salt. `None` when the password is too long for argon2.
pub(crate) fn hash(password: &[u8]) -> Option<String> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).ok()?;
    let hash = Argon2::default().hash_password(password, &salt).ok()?;
    Some(hash.to_string())
}

/// What argon2 fills, some 20 MiB: used again and again, since an allocator keeps what many threads take and give back.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} KiB)", self.0.len())
    }
}

impl Memory {
    /// As much as these parameters need. What was there is overwritten in the first pass.
    fn blocks(&mut self, params: &Params) -> &mut [Block] {
        let needed = params.block_count();
        if self.0.len() < needed {
            // Not grown: what was there would be copied, and both would be there for a moment.
            self.0 = Vec::new();
            self.0.resize(needed, Block::default());
        }
        &mut self.0
    }
}

/// Verifies a password against an argon2id hash. Takes long: not for an async thread.
pub(super) fn verify_argon2(hash: &str, password: &[u8], memory: &mut Memory) -> bool {
    verified(hash, password, memory).unwrap_or(false)
}

fn verified(hash: &str, password: &[u8], memory: &mut Memory) -> Option<bool> {
    let hash = PasswordHash::new(hash).ok()?;
    let (salt, stored) = (hash.salt?, hash.hash?);
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let (algorithm, params) = (Algorithm::try_from(hash.algorithm).ok()?, Params::try_from(&hash).ok()?);
    let mut salt_bytes = [0_u8; Salt::MAX_LENGTH];
    let salt = salt.decode_b64(&mut salt_bytes).ok()?;
    let mut out = vec![0_u8; stored.len()];
    let blocks = memory.blocks(&params);
    let argon2 = Argon2::new(algorithm, version, params);
    argon2.hash_password_into_with_memory(password, salt, &mut out, blocks).ok()?;
    Some(bool::from(out.ct_eq(stored.as_bytes())))
}

/// Takes as long as verifying against a hash of these parameters, to no end: so that a name that is not known cannot be told
/// from a wrong password.
pub(super) fn burn(params: Params, password: &[u8], memory: &mut Memory) {
    let mut out = [0_u8; 32];
    let blocks = memory.blocks(&params);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let done = argon2.hash_password_into_with_memory(password, b"landfall's decoy", &mut out, blocks);
    std::hint::black_box((done.is_ok(), out));
}

/// A key of this process, for digests that never leave it.
pub(super) struct DigestKey([u8; 32]);

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

/// A keyed digest of a password.
pub(super) type Digest = [u8; 32];

impl DigestKey {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    pub(super) fn digest(&self, password: &[u8]) -> Digest {
        keyed(&self.0, password).finalize().into_bytes().into()
    }

    /// Compares two secrets; the time tells neither where they differ nor how long they are.
    pub(super) fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        same(&self.digest(a), &self.digest(b))
    }
}

fn keyed(key: &[u8], message: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(message);
    mac
}

/// Is `mac` the HMAC-SHA-256 of the message under this key? The time tells not where they differ.
pub(super) fn has_signed(key: &[u8], message: &[u8], mac: &[u8; 32]) -> bool {
    keyed(key, message).verify_slice(mac).is_ok()
}

/// Compares two digests in constant time.
pub(super) fn same(a: &Digest, b: &Digest) -> bool {
    bool::from(a.ct_eq(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small parameters: these tests are not about cost.
    fn cheap(password: &str) -> String {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
        let salt = SaltString::encode_b64(b"eight bytes").unwrap();
        argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string()
    }

    #[test]
    fn a_hash_verifies_its_password_only() {
        let stored = cheap("open sesame");
        assert!(StoredPassword::parse(&stored).is_some());
        let mut memory = Memory::default();
        assert!(verify_argon2(&stored, b"open sesame", &mut memory));
        assert!(!verify_argon2(&stored, b"open sesam", &mut memory));
        burn(Params::new(16, 2, 1, None).unwrap(), b"another", &mut memory);
        assert!(verify_argon2(&stored, b"open sesame", &mut memory), "whatever was in the memory before");
    }

    #[test]
    fn what_is_hashed_here_is_taken_here() {
        let (one, two) = (hash(b"open sesame").unwrap(), hash(b"open sesame").unwrap());
        assert_ne!(one, two, "each has a salt of its own");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(
            StoredPassword::parse(&one).is_some()
                && verify_argon2(&one, b"open sesame", &mut Memory::default())
        );
    }

    #[test]
    fn hashes_that_are_weak_broken_or_ruinous_are_refused() {
        let good = cheap("x");
        for bad in [
            String::new(),
            "plain:".to_owned(),
            "secret".to_owned(),
            good.replace("argon2id", "argon2i"),
            good.replace("m=8", "m=4000000"),
            good.replace("t=1", "t=1000"),
            good.replace("v=19", "v=1"),
            good.rsplit_once('$').unwrap().0.to_owned(),
            "$2b$12$abcdefghijklmnopqrstuv".to_owned(),
        ] {
            assert!(StoredPassword::parse(&bad).is_none(), "{bad}");
        }
    }

    /// RFC 4231, test cases 2 and 6: a short key, and one that is longer than a block.
    #[test]
    fn a_signature_is_hmac_sha_256() {
        let hex = |text: &str| -> [u8; 32] {
            std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        };
        let short = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(has_signed(b"Jefe", b"what do ya want for nothing?", &short));
        let long = hex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
        assert!(has_signed(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First", &long));
        assert!(!has_signed(b"Jefe", b"what do ya want for nothing", &short));
        assert!(!has_signed(b"jefe", b"what do ya want for nothing?", &short));
        assert!(!has_signed(b"", b"", &[0; 32]));
    }

    #[test]
    fn secrets_compare_by_content() {
        let key = DigestKey::random();
        assert!(key.equal(b"abc", b"abc"));
        assert!(!key.equal(b"abc", b"abcd"));
        assert!(!key.equal(b"", b"a"));
        let stored = StoredPassword::parse("plain:hunter2").unwrap();
        assert!(!format!("{stored:?} {key:?}").contains("hunter2"));
    }
}
