//! SIGHUP: everything is read again that can be replaced while the gateway runs.
//!
//! Owns: which parts those are, and what is said of settings that need a restart. Does not own: what became of each file
//! ([`Reloads`]), following files that change by themselves.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::logging;
use crate::reloads::{REMIND, Reloads};
use crate::settings::{Origin, Row, Settings};

/// The setting that is taken over from the settings file; the others stand until the next start.
const LOG_LEVEL: (&str, &str) = ("log", "level");

/// What is read again.
pub(super) struct Reloading {
    auth: Arc<Auth>,
    reloads: Arc<Reloads>,
    /// Tells those who follow the files of `[tls]` and `[dtls]`.
    again: watch::Sender<u64>,
    origin: Origin,
    running: Vec<Row>,
}

impl Reloading {
    pub(super) fn new(
        settings: &Settings,
        origin: Origin,
        (auth, reloads): (&Arc<Auth>, &Arc<Reloads>),
        again: watch::Sender<u64>,
    ) -> Self {
        let (auth, reloads) = (Arc::clone(auth), Arc::clone(reloads));
        reloads.follow("settings");
        Self { auth, reloads, again, origin, running: settings.rows() }
    }

    /// Reads everything again with each signal, and reminds of what is broken, until `stop`.
    pub(super) async fn run(mut self, mut hangup: Signal, stop: CancellationToken) {
        let mut reminder = tokio::time::interval(REMIND);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = reminder.tick() => self.reloads.remind(),
                told = hangup.recv() => match told {
                    Some(()) => self.everything().await,
                    None => return,
                },
            }
        }
    }

    async fn everything(&mut self) {
        tracing::info!("SIGHUP: the settings, the devices and the certificates are read again");
        self.again.send_modify(|times| *times += 1);
        self.auth.reload(&self.reloads).await;
        let origin = self.origin.clone();
        match tokio::task::spawn_blocking(move || origin.read()).await {
            Ok(Ok(settings)) => self.settings(&settings),
            Ok(Err(problems)) => {
                self.reloads.is_broken("settings", &problems);
                tracing::error!(%problems, "the settings were not taken over; those of before stay in force");
            }
            Err(error) => tracing::error!(%error, "the settings were not read"),
        }
    }

    fn settings(&mut self, settings: &Settings) {
        self.reloads.is_taken("settings");
        let mut waiting = Vec::new();
        for (running, new) in self.running.iter_mut().zip(settings.rows()) {
            if running.value == new.value {
                continue;
            }
            if (running.section, running.key) == LOG_LEVEL {
                let taken = logging::set_level(&settings.log.level);
                tracing::info!(level = %settings.log.level, taken, "the log's level has changed");
                *running = new;
            } else {
                waiting.push(format!("{}.{}", running.section, running.key));
            }
        }
        if !waiting.is_empty() {
            let keys = waiting.join(", ");
            tracing::warn!(keys, "settings have changed that are taken over at the next start only");
        }
    }
}
