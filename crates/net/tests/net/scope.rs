//! Starting, cancelling, draining and what a panic does.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use landfall_net::{Drained, Scope};
use tokio::sync::oneshot;

use crate::support::within;

const LONG: Duration = Duration::from_secs(3600);

/// Counts when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn obedient(scope: &Scope) -> impl Future<Output = ()> + Send + use<> {
    let scope = scope.clone();
    async move { scope.cancelled().await }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_tasks_that_end_by_themselves() {
    let scope = Scope::new();
    for _ in 0..100 {
        assert!(scope.spawn(obedient(&scope)));
    }
    assert_eq!(scope.len(), 100);
    assert_eq!(scope.drain(LONG).await, Drained::default());
    assert!(scope.is_empty() && scope.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_aborted_and_counted() {
    let scope = Scope::new();
    let dropped = Arc::new(AtomicUsize::new(0));
    for deaf in [true, false, true] {
        let (mark, obedient) = (Dropped(Arc::clone(&dropped)), obedient(&scope));
        scope.spawn(async move {
            let _mark = mark;
            if deaf { pending().await } else { obedient.await }
        });
    }
    let began = tokio::time::Instant::now();
    let drained = scope.drain(Duration::from_secs(7)).await;
    assert_eq!(drained, Drained { aborted: 2, stuck: 0 });
    assert!(!drained.is_clean());
    assert_eq!(began.elapsed(), Duration::from_secs(7));
    assert_eq!(dropped.load(Ordering::SeqCst), 3, "aborted futures are dropped before the drain returns");
}

#[tokio::test]
async fn nothing_starts_after_a_cancel() {
    let scope = Scope::new();
    let child = scope.child();
    scope.cancel();
    let dropped = Arc::new(AtomicUsize::new(0));
    for closed in [&scope, &child, &scope.child(), &child.child()] {
        let mark = Dropped(Arc::clone(&dropped));
        let started = closed.spawn(async move {
            let _mark = mark;
            unreachable!("it must never be polled");
        });
        assert!(!started && closed.is_cancelled() && closed.is_empty());
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 4);
    assert_eq!(scope.panics(), 0);
}

#[tokio::test]
async fn a_panic_ends_one_task_and_is_counted() {
    let scope = Scope::new();
    let (tell, told) = oneshot::channel::<()>();
    let (send, receive) = oneshot::channel();
    scope.spawn(async move {
        let _tell = tell;
        panic!("on purpose");
    });
    scope.child().spawn(async { panic!("in a child, {}", "formatted") });
    scope.spawn(async move {
        // Ends only after the first has gone, and is none the worse for it.
        let _ = told.await;
        send.send(7).unwrap();
    });
    assert_eq!(within(receive).await.unwrap(), 7);
    assert_eq!(within(scope.drain(LONG)).await, Drained::default());
    assert_eq!(scope.panics(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_child_ends_alone_or_with_its_parent() {
    let scope = Scope::new();
    let (first, second) = (scope.child(), scope.child());
    let grandchild = second.child();
    for one in [&scope, &first, &second, &grandchild] {
        one.spawn(obedient(one));
    }
    assert_eq!(scope.len(), 4);
    assert!(first.drain(LONG).await.is_clean());
    assert_eq!(scope.len(), 3);
    assert!(!scope.is_cancelled() && !second.is_cancelled());
    grandchild.spawn(pending());
    assert_eq!(scope.drain(Duration::from_secs(1)).await.aborted, 1);
    assert!(scope.is_empty() && grandchild.is_cancelled());
    // The token that code of others takes is cancelled with the scope, never the other way round.
    let other = Scope::new();
    other.token().cancel();
    assert!(!other.is_cancelled());
}

#[tokio::test]
async fn a_dropped_child_is_still_drained() {
    let scope = Scope::new();
    let dropped = Arc::new(AtomicUsize::new(0));
    {
        let child = scope.child();
        let (mark, obedient) = (Dropped(Arc::clone(&dropped)), obedient(&child));
        child.spawn(async move {
            let _mark = mark;
            obedient.await;
        });
    }
    assert!(within(scope.drain(LONG)).await.is_clean());
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_and_ending_from_many_tasks_keeps_the_count() {
    let scope = Scope::new();
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..8 {
        let (inner, ran) = (scope.clone(), Arc::clone(&ran));
        scope.spawn(async move {
            for _ in 0..1000 {
                let ran = Arc::clone(&ran);
                inner.spawn(async move {
                    ran.fetch_add(1, Ordering::Relaxed);
                });
                tokio::task::yield_now().await;
            }
        });
    }
    within(async {
        while !scope.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ran.load(Ordering::Relaxed), 8000);
    assert!(scope.drain(LONG).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_task_without_a_last_step_is_dropped_where_it_stands() {
    let scope = Scope::new();
    let dropped = Arc::new(AtomicUsize::new(0));
    let mark = Dropped(Arc::clone(&dropped));
    assert!(scope.spawn_until_cancelled(async move {
        let _mark = mark;
        pending::<()>().await;
    }));
    assert_eq!(scope.drain(LONG).await, Drained::default());
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert!(!scope.spawn_until_cancelled(pending()));
}
