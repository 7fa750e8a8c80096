//! What a socket's channels bring.
//!
//! Owns: the words in their order, and the memory of what was said, which is used again. Does not own: what comes of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use landfall_hub::Principal;

use crate::{Channel, Via};

/// Memory that is kept for the next words, in bytes: that of the largest datagram.
const KEPT_BYTES: usize = 64 * 1024;
/// Words that memory is kept for.
const KEPT_WORDS: usize = 1_024;

/// What a socket's channels bring.
#[derive(Debug)]
pub enum Word {
    /// A handshake has succeeded: the device is there.
    Opened {
        /// On this channel.
        via: Via,
        /// Who it is; `None` for a client that has proven nothing, which names itself in what it sends as over plain UDP.
        principal: Option<Box<Principal>>,
        /// What it called itself: the PSK identity, or the certificate's common name or fingerprint.
        remote_id: Arc<str>,
    },
    /// It has sent this.
    Data {
        /// On this channel.
        via: Via,
        /// Where it stands in [`Words::bytes`].
        bytes: Range<usize>,
    },
    /// The channel is over. One whose place another has taken, at the same address or for the same device, is told behind
    /// the [`Word::Opened`] of that one: a session that the new one has taken over is over by then.
    Closed {
        /// This channel; it takes nothing any more. What is kept with it is there until the words are given back.
        via: Via,
        /// The device has said so. Else it may well be there, and find that it has to shake hands anew.
        by_device: bool,
    },
}

/// What came at once, in its order. Given back to be filled again.
#[derive(Debug, Default)]
pub struct Words {
    words: VecDeque<Word>,
    bytes: Vec<u8>,
    /// Channels that are over.
    closed: Vec<Channel>,
}

impl Words {
    /// Takes the next word; its bytes stay.
    #[expect(clippy::should_implement_trait, reason = "its bytes are read between two words")]
    pub fn next(&mut self) -> Option<Word> {
        self.words.pop_front()
    }

    /// What a [`Word::Data`] brought.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(crate) fn data(&mut self, via: Via, bytes: &[u8]) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.words.push_back(Word::Data { via, bytes: begin..self.bytes.len() });
    }

    pub(crate) fn opened(&mut self, via: Via, principal: Option<Box<Principal>>, remote_id: Arc<str>) {
        self.words.push_back(Word::Opened { via, principal, remote_id });
    }

    pub(crate) fn closed(&mut self, via: Via, by_device: bool) {
        self.closed.extend(via.channel);
        self.words.push_back(Word::Closed { via, by_device });
    }

    /// Empties them for what comes next. Returns the channels that were over.
    pub(crate) fn renew(&mut self) -> impl Iterator<Item = Channel> {
        self.words.clear();
        self.words.shrink_to(KEPT_WORDS);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.closed.shrink_to(KEPT_WORDS);
        self.closed.drain(..)
    }
}
