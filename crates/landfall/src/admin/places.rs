//! Places for the connections of the operator's interface.
//!
//! Owns: the bound, and the places beside it, so that whoever asks whether the gateway lives is answered while others hold every
//! ordinary place. Does not own: what is answered there.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at once that are served everything.
const ORDINARY: usize = 64;
/// Connections beside them. A further one takes the place of the one that is there longest.
const BESIDE: usize = 16;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    ordinary: Arc<Semaphore>,
    beside: Mutex<VecDeque<CancellationToken>>,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) enum Place {
    Ordinary(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    Beside(CancellationToken),
}

impl Places {
    /// Connections at once, with some that are on their way out.
    pub(super) const MOST: usize = ORDINARY + 2 * BESIDE;

    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { ordinary: Arc::new(Semaphore::new(ORDINARY)), beside: Mutex::default() })
    }

    pub(super) fn take(&self) -> Place {
        if let Ok(permit) = Arc::clone(&self.ordinary).try_acquire_owned() {
            return Place::Ordinary(permit);
        }
        let token = CancellationToken::new();
        let mut beside = self.beside.lock();
        beside.retain(|held| !held.is_cancelled());
        if beside.len() >= BESIDE
            && let Some(longest) = beside.pop_front()
        {
            longest.cancel();
        }
        beside.push_back(token.clone());
        Place::Beside(token)
    }
}

impl Place {
    /// Returns when another connection has taken the place.
    pub(super) async fn wanted(&self) {
        match self {
            Self::Ordinary(_) => std::future::pending().await,
            Self::Beside(token) => token.cancelled().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Beside(token) = self {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_there_longest_makes_room_and_places_come_back() {
        let places = Places::new();
        let ordinary: Vec<Place> = (0..ORDINARY).map(|_| places.take()).collect();
        assert!(ordinary.iter().all(|place| matches!(place, Place::Ordinary(_))));
        let mut beside: VecDeque<Place> = (0..BESIDE).map(|_| places.take()).collect();
        let is_wanted = |place: &Place| matches!(place, Place::Beside(token) if token.is_cancelled());
        assert!(!beside.iter().any(is_wanted));
        beside.push_back(places.take());
        assert!(is_wanted(&beside[0]) && !beside.iter().skip(1).any(is_wanted));
        drop(beside);
        drop(ordinary);
        assert!(matches!(places.take(), Place::Ordinary(_)));
        assert!(places.beside.lock().iter().all(CancellationToken::is_cancelled));
    }
}
