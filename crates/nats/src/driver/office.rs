//! The right to publish: taking it up, losing it, handing over what was not stored, going on as another incarnation.
//!
//! Owns: the driver's answers to its orders, and writing anew what an incarnation could not publish. Does not own: when an
//! order is given ([`crate::guardian`]), what a fence is ([`crate::fence`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Driver, End, Item};
use crate::link::Link;
use crate::publisher::{Index, Order, Resumption, Standing, note};
use crate::translation::Translation;

impl Driver {
    pub(super) fn set_standing(&self, standing: Standing) {
        self.shared.standing.send_if_modified(|now| std::mem::replace(now, standing) != standing);
    }

    pub(super) fn standing(&self) -> Standing {
        *self.shared.standing.borrow()
    }

    /// Another process has begun to close this gateway's sessions: nothing more is sent.
    pub(super) fn fenced_out(&mut self) {
        if self.standing() == Standing::Publishing {
            tracing::warn!(
                "another process took this gateway for gone and closes its sessions; nothing is published until they begin anew"
            );
            self.set_standing(Standing::Fenced);
        }
    }

    /// Does what has been ordered, as far as it can be done now.
    pub(super) async fn obey(&mut self, link: &Link) -> Result<(), End> {
        if let Some(order) = self.shared.take_order() {
            self.order = Some(order);
        }
        match self.order.take() {
            Some(Order::Begin(fences)) => {
                self.fences = Some(fences.clone());
                self.fences_are_new();
                if let Err(error) = self.look_at_copies(link).await {
                    self.order = Some(Order::Begin(fences));
                    self.complain_of(link, &error.to_string());
                    return Err(End::Unanswered);
                }
                self.set_standing(Standing::Publishing);
            }
            Some(Order::Resume(resumption)) => self.resume(*resumption),
            Some(Order::Surrender) => {
                if let Err(error) = self.surrender(link).await {
                    self.order = Some(Order::Surrender);
                    self.complain_of(link, &error.to_string());
                    return Err(End::Unanswered);
                }
            }
            Some(Order::Renew) if self.standing() == Standing::Publishing => {
                if self.window.in_flight() > 0 {
                    self.order = Some(Order::Renew);
                } else if let Err(error) = self.renew_fences(link).await {
                    self.order = Some(Order::Renew);
                    self.complain_of(link, &error.to_string());
                    return Err(End::Unanswered);
                }
            }
            Some(Order::Renew) | None => {}
        }
        Ok(())
    }

    /// Finds out of everything in the window and on the disk whether it is stored, and notes what is not. What was found out
    /// before does not count: the server may have stored since what an older connection had left with it.
    async fn surrender(&mut self, link: &Link) -> Result<(), async_nats::Error> {
        self.ask(link).await?;
        let unsettled: VecDeque<Item> = self.window.drain().map(|(item, _)| item).collect();
        let later = std::mem::replace(&mut self.ahead, unsettled);
        self.ahead.extend(later);
        let mut index = Index::new();
        self.ahead.iter().for_each(|item| note(&mut index, item.publication.id));
        if let Some(keep) = &mut self.keep {
            keep.note_unstored(&mut index);
        }
        self.later.iter().for_each(|item| note(&mut index, item.publication.id));
        self.shared.index(index);
        self.set_standing(Standing::Surrendered);
        self.count_in_flight();
        Ok(())
    }

    /// Goes on as another incarnation: its announcements, then what was not stored.
    fn resume(&mut self, resumption: Resumption) {
        let Resumption { fences, anew } = resumption;
        let (ahead, later) = (std::mem::take(&mut self.ahead), std::mem::take(&mut self.later));
        let behind = self.newest.map_or(0, |newest| newest.connectivity);
        let item = |publication| Item { publication, behind, record: None, sent: false };
        self.shared.counters.submitted.fetch_add(anew.announcements.len() as u64, Ordering::Relaxed);
        self.ahead.extend(anew.announcements.into_iter().map(item));
        let shared = Arc::clone(&self.shared);
        let mut translation = None;
        shared.rewrite(|index, waiting| {
            let made = Translation::new(anew.incarnation, anew.renewals, index);
            let waiting = waiting.into_iter().filter_map(|one| made.rewrite(one, &shared)).collect();
            translation = Some(made);
            waiting
        });
        let Some(translation) = translation else { return };
        let mut renewed = self.rewrite_items(&translation, ahead);
        self.ahead.append(&mut renewed);
        self.later = self.rewrite_items(&translation, later);
        if let Some(keep) = &mut self.keep {
            keep.translate_all(Arc::new(translation), anew.incarnation);
        }
        tracing::info!(announced = self.ahead.len(), "publishing as another incarnation");
        self.fences = Some(fences);
        self.fences_are_new();
        self.set_standing(Standing::Publishing);
        self.keep_again();
    }

    /// What is left to say of these; a record of one that is not said any more is settled.
    fn rewrite_items(&mut self, translation: &Translation, items: VecDeque<Item>) -> VecDeque<Item> {
        let mut left = VecDeque::with_capacity(items.len());
        for item in items {
            match translation.rewrite(item.publication, &self.shared) {
                Some(publication) => left.push_back(Item { publication, ..item }),
                None => self.settle_kept(item.record),
            }
        }
        left
    }
}
