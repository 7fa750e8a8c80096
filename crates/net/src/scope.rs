//! Where tasks start, and where they all end.
//!
//! Owns: starting a task, cancelling, waiting, aborting what does not end, and counting what panicked.
//! Does not own: what a task does when it is cancelled.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long [`Scope::drain`] waits for aborted tasks to be gone. A task that blocks its thread cannot be aborted.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// A set of tasks that can be told to end, and waited for.
///
/// Cheap to clone; a clone is the same scope. [`Scope::child`] makes a part that can be drained by itself and is drained
/// with its parent: for a part of the program, not for a connection.
#[derive(Clone)]
pub struct Scope {
    shared: Arc<Shared>,
}

struct Shared {
    token: CancellationToken,
    tasks: Mutex<Tasks>,
    /// Told whenever the last task has left.
    empty: Notify,
    /// Of this scope and its whole family.
    panics: Arc<AtomicU64>,
}

#[derive(Default)]
struct Tasks {
    seats: Slab<Seat>,
    /// Tells two users of one slab key apart.
    next_serial: u32,
    /// Nothing starts any more.
    closed: bool,
    /// The drain's time is over: what gets its handle only now is aborted at once.
    aborting: bool,
    children: Vec<Weak<Shared>>,
}

struct Seat {
    serial: u32,
    /// None in the moment between taking the seat and starting the task.
    abort: Option<AbortHandle>,
}

/// What a drain had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Tasks that had not ended in time and were aborted.
    pub aborted: usize,
    /// Aborted tasks that are still there: each blocks a thread.
    pub stuck: usize,
}

impl Drained {
    /// Did every task end by itself in time?
    pub fn is_clean(self) -> bool {
        self.aborted == 0
    }
}

impl Scope {
    /// A new scope without a parent.
    #[expect(
        clippy::new_without_default,
        reason = "a scope is started on purpose, never filled in by a derive"
    )]
    pub fn new() -> Self {
        Self::with(CancellationToken::new(), Arc::default(), false)
    }

    fn with(token: CancellationToken, panics: Arc<AtomicU64>, closed: bool) -> Self {
        let tasks = Mutex::new(Tasks { closed, ..Tasks::default() });
        Self { shared: Arc::new(Shared { token, tasks, empty: Notify::new(), panics }) }
    }

    /// A part of this scope: cancelled and drained with it, or before it. A child of a closed scope is closed.
    #[must_use]
    pub fn child(&self) -> Self {
        let mut tasks = self.shared.tasks.lock();
        let child =
            Self::with(self.shared.token.child_token(), Arc::clone(&self.shared.panics), tasks.closed);
        tasks.children.retain(|c| c.strong_count() > 0);
        tasks.children.push(Arc::downgrade(&child.shared));
        child
    }

    /// Starts a task. Returns false, and drops the future unpolled, when the scope has been cancelled.
    ///
    /// A panic in the task ends that task alone; it is logged and counted ([`Scope::panics`]).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[expect(clippy::disallowed_methods, reason = "the one place where tasks start")]
    pub fn spawn<F>(&self, future: F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some((key, serial)) = self.shared.tasks.lock().take_seat() else { return false };
        let guard = Guard { shared: Arc::clone(&self.shared), key, serial };
        // Combinators, not an async block: an async block would hold the future twice.
        let task = AssertUnwindSafe(future).catch_unwind().map(move |end| guard.leave(end));
        let abort = tokio::spawn(task).abort_handle();
        let mut tasks = self.shared.tasks.lock();
        if tasks.aborting {
            drop(tasks);
            abort.abort();
        } else if let Some(seat) = tasks.seat(key, serial) {
            seat.abort = Some(abort);
        }
        true
    }

    /// Starts a task that is dropped where it stands when the scope is cancelled: for work that has no last step.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_until_cancelled<F>(&self, future: F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token();
        self.spawn(async move {
            let _ = token.run_until_cancelled_owned(future).await;
        })
    }

    /// Waits until the scope is cancelled; returns at once when it has been.
    pub async fn cancelled(&self) {
        self.shared.token.cancelled().await;
    }

    /// Has the scope, or one above it, been cancelled?
    pub fn is_cancelled(&self) -> bool {
        self.shared.token.is_cancelled()
    }

    /// A token that is cancelled with the scope, for code that takes one.
    pub fn token(&self) -> CancellationToken {
        self.shared.token.child_token()
    }

    /// Tells every task of the scope and its children to end, and lets no new one start. Does not wait.
    pub fn cancel(&self) {
        for shared in self.family() {
            shared.tasks.lock().closed = true;
        }
        self.shared.token.cancel();
    }

    /// Cancels, waits for every task at most `within`, then aborts what is left and says how many that were.
    ///
    /// Not to be called from a task of this scope: it would wait for itself.
    pub async fn drain(&self, within: Duration) -> Drained {
        let deadline = Instant::now() + within;
        self.cancel();
        let family = self.family();
        if timeout_at(deadline, all_gone(&family)).await.is_ok() {
            return Drained::default();
        }
        let aborted = family.iter().map(|shared| shared.abort_all()).sum();
        // No task can start any more, so what is left only shrinks.
        let _ = timeout(ABORT_GRACE, all_gone(&family)).await;
        let stuck = family.iter().map(|shared| shared.tasks.lock().seats.len()).sum();
        tracing::warn!(aborted, stuck, "tasks did not end in time and were aborted");
        Drained { aborted, stuck }
    }

    /// Tasks that are running in this scope and its children.
    pub fn len(&self) -> usize {
        self.family().iter().map(|shared| shared.tasks.lock().seats.len()).sum()
    }

    /// Is no task running?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tasks that have panicked, in this scope and everything that descends from the same root.
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// This scope and all below it, parents first.
    fn family(&self) -> Vec<Arc<Shared>> {
        let mut found = vec![Arc::clone(&self.shared)];
        let mut next = 0;
        while let Some(shared) = found.get(next).map(Arc::clone) {
            found.extend(shared.tasks.lock().children.iter().filter_map(Weak::upgrade));
            next += 1;
        }
        found
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("tasks", &self.len()).field("cancelled", &self.is_cancelled()).finish()
    }
}

impl Tasks {
    fn take_seat(&mut self) -> Option<(usize, u32)> {
        if self.closed {
            return None;
        }
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        Some((self.seats.insert(Seat { serial, abort: None }), serial))
    }

    fn seat(&mut self, key: usize, serial: u32) -> Option<&mut Seat> {
        self.seats.get_mut(key).filter(|seat| seat.serial == serial)
    }
}

impl Shared {
    async fn gone(&self) {
        loop {
            let told = self.empty.notified();
            tokio::pin!(told);
            // Enabled before the look, so that a task that leaves in between is not missed.
            told.as_mut().enable();
            if self.tasks.lock().seats.is_empty() {
                return;
            }
            told.await;
        }
    }

    /// Aborts all and returns how many there were.
    fn abort_all(&self) -> usize {
        let mut tasks = self.tasks.lock();
        tasks.aborting = true;
        let handles: Vec<_> = tasks.seats.iter().map(|(_, seat)| seat.abort.clone()).collect();
        // An aborted task comes back for the lock when it gives its seat back.
        drop(tasks);
        handles.iter().flatten().for_each(AbortHandle::abort);
        handles.len()
    }
}

async fn all_gone(family: &[Arc<Shared>]) {
    for shared in family {
        shared.gone().await;
    }
}

/// Gives the seat back when its task is gone, however that came about.
struct Guard {
    shared: Arc<Shared>,
    key: usize,
    serial: u32,
}

impl Guard {
    fn leave(self, end: Result<(), Box<dyn Any + Send>>) {
        if let Err(payload) = end {
            self.shared.panics.fetch_add(1, Ordering::Relaxed);
            let message = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("");
            // A message may quote what a peer sent: bounded and escaped.
            let message: String = message.chars().take(200).collect();
            tracing::error!(?message, "a task panicked; it alone ends");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut tasks = self.shared.tasks.lock();
        if tasks.seat(self.key, self.serial).is_none() {
            return;
        }
        // The handle is dropped after the lock is released: it may be the task's last reference.
        let seat = tasks.seats.try_remove(self.key);
        let empty = tasks.seats.is_empty();
        drop(tasks);
        drop(seat);
        if empty {
            self.shared.empty.notify_waiters();
        }
    }
}
