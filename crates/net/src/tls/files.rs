//! Files that are looked at again and again, and read again when they have changed.
//!
//! Owns: how a change is seen, the task that looks. Does not own: what is made of the files.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::MissedTickBehavior;

use super::TlsError;
use crate::Scope;

/// When each file was changed, and how long it is: enough to see that it was replaced.
pub(super) type Stamp = Vec<Option<(SystemTime, u64)>>;

pub(super) fn stamp_of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Stamp {
    let stamp = |path| std::fs::metadata(path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
    files.into_iter().map(stamp).collect()
}

/// Starts a task that calls `look` every so often: it says whether a file has changed and was taken over. A bad new file is
/// logged as an error; `look` tells it once. `cert` is for the log.
pub(super) fn watch(
    scope: &Scope,
    every: Duration,
    cert: PathBuf,
    mut look: impl FnMut() -> Result<bool, TlsError> + Send + 'static,
) {
    let inner = scope.clone();
    scope.spawn(async move {
        let mut looks = tokio::time::interval(every.max(Duration::from_millis(10)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = inner.cancelled() => return,
                _ = looks.tick() => match look() {
                    Ok(false) => {}
                    Ok(true) => tracing::info!(?cert, "TLS files reloaded"),
                    Err(error) => tracing::error!(%error, "TLS files changed and cannot be used; the old ones stay"),
                },
            }
        }
    });
}
