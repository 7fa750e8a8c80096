//! Files that are looked at again and again, and read again when they have changed.
//!
//! Owns: how a change is seen, the task that looks. Does not own: what is made of the files.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::TlsError;
use crate::Scope;

/// When each file was changed, and how long it is: enough to see that it was replaced.
pub(super) type Stamp = Vec<Option<(SystemTime, u64)>>;

pub(super) fn stamp_of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Stamp {
    let stamp = |path| std::fs::metadata(path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
    files.into_iter().map(stamp).collect()
}

/// Whoever wants to know what became of a reading.
type Told = Box<dyn Fn(Result<(), &TlsError>) + Send>;

/// How files are followed.
pub struct Following {
    /// Between two looks at them.
    pub every: Duration,
    /// With each change of this they are read at once, whether they have changed or not.
    pub again: watch::Receiver<u64>,
    /// Told of each reading whether the files could be used.
    pub told: Told,
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Following").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Following {
    /// Looks every so often, and tells nobody but the log.
    pub fn every(every: Duration) -> Self {
        Self { every, again: watch::channel(0).1, told: Box::new(|_| {}) }
    }
}

/// Starts a task that calls `look` every so often: it says whether a file has changed and was taken over, and reads them in any case
/// where it is told to. A bad new file is logged as an error; `look` tells it once. `cert` is for the log.
pub(super) fn watch(
    scope: &Scope,
    following: Following,
    cert: PathBuf,
    mut look: impl FnMut(bool) -> Result<bool, TlsError> + Send + 'static,
) {
    let inner = scope.clone();
    let Following { every, mut again, told } = following;
    scope.spawn(async move {
        let mut looks = tokio::time::interval(every.max(Duration::from_millis(10)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let in_any_case = tokio::select! {
                () = inner.cancelled() => return,
                _ = looks.tick() => false,
                () = changed(&mut again) => true,
            };
            match look(in_any_case) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(?cert, "TLS files reloaded");
                    told(Ok(()));
                }
                Err(error) => {
                    tracing::error!(%error, "TLS files changed and cannot be used; the old ones stay");
                    told(Err(&error));
                }
            }
        }
    });
}

/// For ever where nobody will say so.
async fn changed(again: &mut watch::Receiver<u64>) {
    if again.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
