//! What the gateway says to a device: `LF1 ack` and `LF1 cmd`.
//!
//! Owns: the two lines. Does not own: when they are sent (`door.rs`). Pure.

use std::io::Write as _;

use landfall_hub::Command;

use crate::line::escape;

/// Writes `LF1 ack seq={n}`, or `LF1 ack` when the datagram had no number.
pub(crate) fn ack(seq: Option<u64>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"LF1 ack");
    if let Some(seq) = seq {
        // Writing into a vector does not fail.
        let _ = write!(out, " seq={seq}");
    }
}

/// Writes `LF1 cmd id={id} name={name}`, LF, payload.
pub(crate) fn command(command: &Command, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"LF1 cmd id=");
    escape(command.id.as_str().as_bytes(), out);
    out.extend_from_slice(b" name=");
    escape(command.name.as_str().as_bytes(), out);
    out.push(b'\n');
    out.extend_from_slice(&command.payload);
}
