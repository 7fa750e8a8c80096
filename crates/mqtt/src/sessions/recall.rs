//! Messages that a start has found on disk, where an earlier process had kept them while the store was away.
//!
//! Owns: which session each belongs to, and keeping that anew. Does not own: what a session makes of it (`landfall-mqtt-core`).

use std::collections::HashMap;

use ahash::RandomState;
use landfall_event::Memo;

use super::Sessions;

impl Sessions {
    /// Tells the sessions that were read from the store of messages that are stored by now: a device that sends one of them again is
    /// answered, and it is no second message. Before anybody is let in.
    pub fn recall(&self, memos: Vec<Memo>) {
        if memos.is_empty() {
            return;
        }
        let mut by_session: HashMap<u64, Vec<Memo>, RandomState> = HashMap::default();
        for memo in memos {
            by_session.entry(memo.session).or_default().push(memo);
        }
        by_session.values_mut().for_each(|memos| memos.sort_by_key(|memo| memo.number));
        let places: Vec<_> =
            self.places.lock().iter().map(|(key, place)| (key.clone(), place.clone())).collect();
        for (key, place) in places {
            let mut spot = place.spot.lock();
            let Some(lying) = spot.lying.as_mut() else { continue };
            let Some(left) = lying.session.as_mut() else { continue };
            let memos = left.state.number().and_then(|number| by_session.get(&number));
            if memos.is_some_and(|memos| left.state.recall(memos)) {
                self.rewrite(&key, lying);
            }
        }
    }
}
