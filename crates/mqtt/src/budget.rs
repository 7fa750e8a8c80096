//! How many bytes of commands may wait for devices that are away.
//!
//! Owns: the sum, and that every share is given back. Does not own: what waits (`sessions.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use landfall_hub::Command;

/// What a waiting command counts beside its payload, in bytes.
const ENTRY_BYTES: usize = 512;

/// Payload bytes of everything that waits.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// A waiting command's share of the budget, given back when it leaves.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// A share for the command; None when that would be more than there is, unless it is `due` in any case.
    pub(crate) fn share(self: &Arc<Self>, command: &Command, due: bool) -> Option<Share> {
        let bytes = command.payload.len().saturating_add(ENTRY_BYTES);
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| due || *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Share { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
