//! What the task of one socket has to tell the task of another.
//!
//! Owns: the box and its waker, and which sockets keep something of which session. Does not own: what it means
//! (`commands.rs`).
//!
//! A session's news goes to the socket that last heard its device. A device that speaks through two ports may be heard by
//! two sockets, and then the other one may hold what the news is about. At most as much is in a box as in the hub's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use landfall_event::{DeviceId, TenantId};
use landfall_hub::{PeerHandle, PeerId, StoreError};
use parking_lot::Mutex;

/// What a socket is told by another. It is not passed on further.
#[derive(Debug)]
pub(crate) enum Stray {
    /// The message of one of its tokens is stored, or never will be.
    Settled { token: u64, result: Result<(), StoreError> },
    /// The session has commands to send.
    Commands(PeerHandle),
    /// The session is over.
    Ended(PeerHandle),
    /// The session's device observes through another socket since the registration of this number.
    Elsewhere(PeerHandle, u64),
    /// A session has begun whose device observes through this socket since an earlier one.
    Regained(PeerHandle),
}

/// Words for a socket from the others.
#[derive(Debug)]
pub(crate) struct StrayBox {
    words: Mutex<Vec<Stray>>,
    waker: AtomicWaker,
}

impl StrayBox {
    fn new() -> Arc<Self> {
        Arc::new(Self { words: Mutex::default(), waker: AtomicWaker::new() })
    }

    fn put(&self, word: Stray) {
        self.words.lock().push(word);
        self.waker.wake();
    }

    pub(crate) fn poll(&self, cx: &Context<'_>, into: &mut Vec<Stray>) -> Poll<()> {
        self.waker.register(cx.waker());
        let mut words = self.words.lock();
        if words.is_empty() {
            return Poll::Pending;
        }
        into.append(&mut words);
        Poll::Ready(())
    }
}

/// All sockets of a server, by number; and which of them keep something of which session.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    boxes: Mutex<Vec<Arc<StrayBox>>>,
    keepers: Mutex<HashMap<PeerId, Vec<u16>>>,
    /// Which socket keeps the observer of a device that fell silent.
    retained: Mutex<HashMap<DeviceKey, u16, ahash::RandomState>>,
    observers: AtomicU64,
}

/// A device, as the key of what is kept for it.
pub(crate) type DeviceKey = (TenantId, DeviceId);

pub(crate) fn device_key(peer: &PeerHandle) -> DeviceKey {
    (peer.tenant().clone(), peer.device().clone())
}

/// The numbers of a socket's tokens begin here.
const TOKEN_BITS: u32 = 48;

impl Strays {
    /// A number and a box for one more socket; `None` beyond 65,535.
    pub(crate) fn enter(&self) -> Option<(u16, Arc<StrayBox>)> {
        let mut boxes = self.boxes.lock();
        let number = u16::try_from(boxes.len()).ok().filter(|number| *number < u16::MAX)?;
        let own = StrayBox::new();
        boxes.push(Arc::clone(&own));
        Some((number, own))
    }

    /// The socket keeps an observer or a waiting request of the session.
    pub(crate) fn keep(&self, session: PeerId, socket: u16) {
        let mut keepers = self.keepers.lock();
        let of_session = keepers.entry(session).or_default();
        if !of_session.contains(&socket) {
            of_session.push(socket);
        }
    }

    /// It does not any more.
    pub(crate) fn let_go(&self, session: PeerId, socket: u16) {
        let mut keepers = self.keepers.lock();
        if let Some(of_session) = keepers.get_mut(&session) {
            of_session.retain(|keeper| *keeper != socket);
            if of_session.is_empty() {
                keepers.remove(&session);
            }
        }
    }

    fn give(&self, socket: u16, word: Stray) {
        let to = self.boxes.lock().get(usize::from(socket)).cloned();
        if let Some(to) = to {
            to.put(word);
        }
    }

    /// Tells the other sockets that keep something of the session.
    fn tell(&self, peer: &PeerHandle, from: u16, word: impl Fn(PeerHandle) -> Stray) {
        let keepers = self.keepers.lock().get(&peer.id()).cloned().unwrap_or_default();
        keepers
            .into_iter()
            .filter(|keeper| *keeper != from)
            .for_each(|keeper| self.give(keeper, word(peer.clone())));
    }

    /// Hands the news of a session's commands to whichever other sockets may be able to send them.
    pub(crate) fn pass_commands(&self, peer: &PeerHandle, from: u16) {
        self.tell(peer, from, Stray::Commands);
    }

    /// Hands the news of a session's end on.
    pub(crate) fn pass_end(&self, peer: &PeerHandle, from: u16) {
        self.tell(peer, from, Stray::Ended);
    }

    /// The device observes through this socket: what it observed through another is over. Returns the number of this
    /// registration among all.
    pub(crate) fn take_observer(&self, peer: &PeerHandle, to: u16) -> u64 {
        let serial = self.observers.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell(peer, to, |peer| Stray::Elsewhere(peer, serial));
        serial
    }

    /// The socket keeps the observer of a silent device.
    pub(crate) fn retain(&self, device: DeviceKey, socket: u16) {
        self.retained.lock().insert(device, socket);
    }

    /// It does not any more.
    pub(crate) fn forsake(&self, device: &DeviceKey, socket: u16) {
        let mut retained = self.retained.lock();
        if retained.get(device) == Some(&socket) {
            retained.remove(device);
        }
    }

    /// The device of an observer that is kept begins a session: true when it is kept by the socket that asks; another one is
    /// told.
    pub(crate) fn regain(&self, peer: &PeerHandle, from: u16) -> bool {
        let socket = {
            let retained = self.retained.lock();
            if retained.is_empty() {
                return false;
            }
            retained.get(&device_key(peer)).copied()
        };
        match socket {
            Some(socket) if socket != from => {
                // From now on it hears of the session what its observer must know.
                self.keep(peer.id(), socket);
                self.give(socket, Stray::Regained(peer.clone()));
                false
            }
            socket => socket.is_some(),
        }
    }

    /// Hands the news of a stored message on to whose token it is.
    pub(crate) fn pass_settled(&self, token: u64, result: Result<(), StoreError>, from: u16) {
        let (socket, _) = split(token);
        if socket != from {
            self.give(socket, Stray::Settled { token, result });
        }
    }
}

/// The token of a socket's table entry.
pub(crate) fn token(socket: u16, entry: usize) -> Option<u64> {
    let entry = u64::try_from(entry).ok().filter(|entry| entry >> TOKEN_BITS == 0)?;
    Some(u64::from(socket) << TOKEN_BITS | entry)
}

/// The socket and its table entry.
pub(crate) fn split(token: u64) -> (u16, usize) {
    let entry = token & ((1 << TOKEN_BITS) - 1);
    (u16::try_from(token >> TOKEN_BITS).unwrap_or(u16::MAX), usize::try_from(entry).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_token_says_whose_it_is() {
        assert_eq!(token(7, 12).map(split), Some((7, 12)));
        assert_eq!(
            token(u16::MAX - 1, (1 << TOKEN_BITS) - 1).map(split),
            Some((u16::MAX - 1, (1 << TOKEN_BITS) - 1))
        );
        assert_eq!(token(0, 1 << TOKEN_BITS), None);
    }

    #[test]
    fn what_is_settled_reaches_whose_token_it_is() {
        let strays = Strays::default();
        let (first, own) = strays.enter().unwrap();
        let (second, other) = strays.enter().unwrap();
        let mine = token(first, 3).unwrap();
        let mut news = Vec::new();
        strays.pass_settled(mine, Ok(()), first);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(own.poll(cx, &mut news).is_pending(), "what is one's own is not passed on");
        strays.pass_settled(mine, Ok(()), second);
        assert!(other.poll(cx, &mut news).is_pending());
        assert!(own.poll(cx, &mut news).is_ready());
        assert!(matches!(news.as_slice(), [Stray::Settled { token, result: Ok(()) }] if *token == mine));
    }
}
