//! `landfall hash-password`: a password from standard input, and its hash.

use std::io::{self, BufRead};

use crate::Failure;
use crate::auth;

/// The longest line that is read, in bytes.
const MOST: u64 = 64 << 10;

/// Reads one line and hashes it. A password is no argument: others on the machine can see those.
pub(super) fn hash_typed() -> Result<String, Failure> {
    hash(io::stdin().lock())
}

fn hash(input: impl BufRead) -> Result<String, Failure> {
    let mut line = Vec::new();
    let read = input.take(MOST).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::Runtime(format!("standard input cannot be read: {error}")))?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let password = line.strip_suffix(b"\r").unwrap_or(line);
    if password.is_empty() {
        return Err(Failure::Runtime("there is no password on standard input".to_owned()));
    }
    auth::hash_password(password).ok_or_else(|| Failure::Runtime("the password is too long".to_owned()))
}
