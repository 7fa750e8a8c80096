//! What has no fence, sent beside the window.
//!
//! Owns: what an answer about it means. Does not own: what waits and its bound ([`crate::beside`]).

use std::sync::atomic::Ordering;

use landfall_hub::StoreError;

use super::{BATCH_BYTES, Driver};
use crate::ack::Answer;
use crate::link::Link;
use crate::publisher::Standing;
use crate::window::{Tick, Verdict};

/// How long nothing is sent to a stream that does not take it.
const PAUSE_MS: Tick = 2_000;

impl Driver {
    /// Writes what has no fence, to be sent with the next flush.
    pub(super) fn send_beside(&mut self, link: &mut Link) {
        if self.standing() != Standing::Publishing {
            return;
        }
        let (now, mut too_large) = (self.now(), Vec::new());
        let mut beside = self.shared.beside.lock();
        if beside.is_unanswered(now, self.bounds.ack_timeout_ms) && beside.pause(now.saturating_add(PAUSE_MS))
        {
            tracing::warn!(
                "the stream of refusals does not answer; it is tried again, and the oldest refusals go"
            );
        }
        while link.unwritten() < BATCH_BYTES
            && let Some((number, publication)) = beside.next(now)
        {
            if let Err(error) = link.send(number, publication, None) {
                too_large.extend(beside.take(number).map(|publication| (publication, error)));
            }
        }
        drop(beside);
        too_large.into_iter().for_each(|(publication, error)| self.shared.refuse_beside(publication, error));
    }

    /// Takes an answer about it. Whatever its stream says is of no other event.
    pub(super) fn settle_beside(&mut self, number: u64, answer: &Answer) {
        let until = self.now().saturating_add(PAUSE_MS);
        let mut beside = self.shared.beside.lock();
        match answer.verdict {
            Verdict::Stored => {
                let Some(publication) = beside.take(number) else { return };
                beside.goes_on();
                drop(beside);
                self.shared.counters.submitted.fetch_add(1, Ordering::Relaxed);
                self.shared.counters.stored.fetch_add(1, Ordering::Relaxed);
                publication.receipt.stored();
            }
            Verdict::Final => {
                let Some(publication) = beside.take(number) else { return };
                drop(beside);
                tracing::warn!(id = %publication.id, why = ?answer.why, "refused for good");
                self.shared.refuse_beside(publication, StoreError::Refused(answer.why.clone()));
            }
            Verdict::Passing | Verdict::Fenced => {
                if beside.pause(until) {
                    let why = &answer.why;
                    tracing::warn!(?why, "refusals are not stored; they are tried again, and the oldest go");
                }
            }
        }
    }
}
