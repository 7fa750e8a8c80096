//! What is known of each owner: which of its records are here, and whether they are a whole session.
//!
//! Owns: the counts, and the answer to "which sessions are complete". Does not own: the records.
//! Its size is bounded by what is on disk: an owner is here only while one of its records is.

use std::collections::HashMap;

use crate::format::Entry;
use crate::{Owner, Role};

/// One owner's records that are not settled.
#[derive(Debug)]
struct State {
    first: u64,
    last: u64,
    bytes: u64,
    records: u64,
    shape: Shape,
}

/// What the begins and ends among them, in their order, amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Neither.
    Neither,
    /// A begin without its end.
    Open,
    /// A begin, and its end. Whatever begins after that is open again.
    Complete,
    /// An end whose begin is not here: it was handed out and settled, so its end must come.
    Headless,
}

/// A session that is in the spool from its begin to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Complete {
    pub(crate) owner: Owner,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) bytes: u64,
}

/// Every owner of a record that is not settled.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    states: HashMap<Owner, State>,
}

impl Owners {
    /// A record is here. Records come in the order of their numbers.
    pub(crate) fn add(&mut self, entry: &Entry) {
        let Some(owner) = entry.class.owner else { return };
        let number = entry.number;
        let state = self.states.entry(owner).or_insert(State {
            first: number,
            last: number,
            bytes: 0,
            records: 0,
            shape: Shape::Neither,
        });
        state.last = number;
        state.bytes += entry.length as u64;
        state.records += 1;
        state.shape = match (entry.class.role, state.shape) {
            (_, Shape::Headless) | (Role::Ends, Shape::Neither) => Shape::Headless,
            (Role::Begins, _) => Shape::Open,
            (Role::Ends, Shape::Open | Shape::Complete) => Shape::Complete,
            (Role::Message | Role::Other, shape) => shape,
        };
    }

    /// A record of `length` bytes is gone.
    pub(crate) fn remove(&mut self, owner: Option<Owner>, length: u64) {
        let Some(owner) = owner else { return };
        let Some(state) = self.states.get_mut(&owner) else { return };
        state.records = state.records.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(length);
        if state.records == 0 {
            self.states.remove(&owner);
        }
    }

    /// Everything of the owner is as good as gone.
    pub(crate) fn forget(&mut self, owner: &Owner) {
        self.states.remove(owner);
    }

    /// The complete sessions of which nothing was handed out, that is, whose numbers are all above `handed`; oldest
    /// first.
    pub(crate) fn complete(&self, handed: u64) -> Vec<Complete> {
        let mut found: Vec<Complete> = self
            .states
            .iter()
            .filter(|(_, state)| state.shape == Shape::Complete && state.first > handed)
            .map(|(owner, state)| Complete {
                owner: *owner,
                first: state.first,
                last: state.last,
                bytes: state.bytes,
            })
            .collect();
        found.sort_unstable_by_key(|session| session.first);
        found
    }

    /// The span of numbers of the owner's session, if it is complete and nothing of it was handed out.
    pub(crate) fn span(&self, owner: &Owner, handed: u64) -> Option<(u64, u64)> {
        let state = self.states.get(owner)?;
        (state.shape == Shape::Complete && state.first > handed).then_some((state.first, state.last))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }
}
