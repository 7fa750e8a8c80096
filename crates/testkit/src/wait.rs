//! Waiting for something under a deadline.

use std::future::Future;
use std::time::Duration;

/// How long a test waits for what must happen at once: generous, because a busy machine is no fault.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How often something that cannot announce itself is asked again.
const INTERVAL: Duration = Duration::from_millis(10);

/// Awaits `future`, at most `deadline`.
///
/// # Panics
/// When the deadline passes first, naming `what` was waited for.
pub async fn within<F: Future>(deadline: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(deadline, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {deadline:?}"),
    }
}

/// Asks until there is an answer, at most `deadline`: for what has no event to wait for.
///
/// # Panics
/// When the deadline passes first, naming `what` was waited for.
pub async fn eventually<T, F, Fut>(deadline: Duration, what: &str, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let asking = async {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    within(deadline, what, asking).await
}
