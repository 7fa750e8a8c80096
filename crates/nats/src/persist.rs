//! Trying again for as long as a failure passes.
//!
//! Owns: how long, and the pauses between. Does not own: which failure passes, and what it is called at the end.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::connect::reconnect_delay;

/// How long one request is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until it is given up.
    pub(crate) within: Duration,
    /// The pauses begin as after so many failures to connect.
    pub(crate) failures: usize,
}

/// A failure that may pass.
pub(crate) trait Passing {
    /// Why, if it does.
    fn passing(&self) -> Option<&str>;
}

/// Tries until there is an answer, `passed` being told of every failure that passes.
///
/// # Errors
/// When patience is at an end: what the last failure said, and for how long it was tried.
pub(crate) async fn persist<T, E, F, Fut>(
    patience: Patience,
    passed: impl Fn(&str),
    attempt: F,
) -> Result<Result<T, E>, String>
where
    E: Passing,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + patience.within;
    let mut why = "no answer".to_owned();
    for failures in patience.failures.. {
        let Ok(answer) = timeout_at(deadline, attempt()).await else { break };
        let Some(said) = answer.as_ref().err().and_then(Passing::passing) else { return Ok(answer) };
        passed(said);
        said.clone_into(&mut why);
        if timeout_at(deadline, sleep(reconnect_delay(failures))).await.is_err() {
            break;
        }
    }
    Err(format!("{why}, for {} s", patience.within.as_secs()))
}
