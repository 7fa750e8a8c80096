//! What was stored before a connection was lost: asking the streams.
//!
//! Owns: when that is asked, and settling what is found. Does not own: how a stream is read ([`crate::link`]).

use std::collections::HashMap;

use landfall_event::{Stream, subject};

use super::{Driver, Newest};
use crate::ack;
use crate::fence::STREAMS;
use crate::link::Link;
use crate::window::Tick;

impl Driver {
    /// Before anything is sent: where the streams end now, if that is not known yet; and, when messages were under way on
    /// a lost connection for so long that a stream may have forgotten their ids, which of them it holds.
    pub(super) async fn take_stock(&mut self, link: &Link) -> Result<(), async_nats::Error> {
        let since = self.window.doubtful_since();
        if self.newest.is_some() && since.is_none() {
            return Ok(());
        }
        let mut newest = Newest { connectivity: 0, messages: 0 };
        let mut all_asked = true;
        for stream in STREAMS {
            let Some(end) = link.end_of(stream).await? else { continue };
            *newest.of(stream) = end.newest;
            let reach = Tick::try_from(end.remembers.as_millis() / 2).unwrap_or(Tick::MAX);
            match since {
                Some(since) if self.now().saturating_sub(since) >= reach => {
                    self.recall(link, stream, end.newest).await?;
                }
                _ => all_asked = false,
            }
        }
        self.newest.get_or_insert(newest);
        if all_asked {
            self.window.no_doubt();
        }
        Ok(())
    }

    /// A stream that is kept on several servers takes one message at a time that names a fence, and refuses others meanwhile.
    pub(super) async fn look_at_copies(&mut self, link: &Link) -> Result<(), async_nats::Error> {
        if self.fences.is_none() {
            return Ok(());
        }
        let mut replicated = false;
        for stream in STREAMS {
            replicated |= link.end_of(stream).await?.is_some_and(|end| end.is_replicated);
        }
        self.window.one_by_one(replicated);
        Ok(())
    }

    /// Settles the unsettled messages that the stream holds already.
    pub(super) async fn recall(
        &mut self,
        link: &Link,
        stream: Stream,
        newest: u64,
    ) -> Result<(), async_nats::Error> {
        let mut unsettled = HashMap::new();
        let mut behind = newest;
        for (number, item) in self.window.unsettled().filter(|(_, item)| item.publication.stream == stream) {
            // A stream that was made anew begins at 1 again.
            behind = behind.min(if item.behind > newest { 0 } else { item.behind });
            unsettled.insert(item.publication.id, number);
        }
        let mut stored = Vec::new();
        link.ids_behind(stream, behind, |id| stored.extend(unsettled.get(&id))).await?;
        let (name, found) = (subject::stream_name(stream), stored.len());
        tracing::info!(stream = name, found, "asked what was stored before the connection was lost");
        for number in stored {
            self.settle(number, &ack::Answer::stored(0));
        }
        Ok(())
    }
}
