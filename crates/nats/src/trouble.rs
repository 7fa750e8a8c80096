//! What keeps events from being stored: which kind of thing, in whose words, since when.
//!
//! Owns: the closed list of causes, telling them apart, how often the log repeats one. Does not own: noticing ([`crate::driver`]), mending.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long the log is silent about a cause that it has told, at first; each time it is twice that.
const FIRST_SILENCE: Duration = Duration::from_secs(30);
/// And at most.
const LONGEST_SILENCE: Duration = Duration::from_secs(600);
/// The most characters that are kept of what a server says.
const MOST_WORDS: usize = 300;

/// What kind of thing keeps events from being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No server is reached, or it does not answer.
    ServerNotReached,
    /// The server lets nobody in who says what the gateway says: a user, password, token, credentials or certificate.
    LoginRefused,
    /// The server's user may not do what the gateway has to.
    PermissionMissing,
    /// There is a server, and no JetStream for this account.
    NoJetStream,
    /// JetStream has no room: its disk, its memory or what the account may have of them.
    StoreFull,
    /// The stream has reached a limit of its own and takes nothing more.
    StreamFull,
    /// No stream takes the subject.
    StreamMissing,
    /// JetStream says something else, or nothing.
    NotStored,
}

impl Cause {
    /// Its word in `/readyz` and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerNotReached => "nats-not-reached",
            Self::LoginRefused => "nats-login-refused",
            Self::PermissionMissing => "nats-permission-missing",
            Self::NoJetStream => "jetstream-not-enabled",
            Self::StoreFull => "store-full",
            Self::StreamFull => "stream-full",
            Self::StreamMissing => "stream-missing",
            Self::NotStored => "not-stored",
        }
    }

    /// Which it is, by what was said. The server and its client library have no better way to tell some of them.
    pub(crate) fn of(said: &str) -> Self {
        let said = said.to_ascii_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if any(&["permissions violation", "permission violation"]) {
            Self::PermissionMissing
        } else if any(&[
            "authorization",
            "authentication",
            "user authentication",
            "nkey",
            "jwt",
            "account authentication",
            "credentials",
        ]) {
            Self::LoginRefused
        } else if any(&[
            "no responders",
            "jetstream not enabled",
            "(10076)",
            "(10039)",
            "jetstream is not enabled",
        ]) {
            Self::NoJetStream
        } else if any(&["maximum bytes", "maximum messages", "maximum per subject"]) {
            Self::StreamFull
        } else if any(&[
            "no space left",
            "insufficient",
            "resource limits",
            "resources",
            "(10002)",
            "(10023)",
            "(10028)",
            "(10047)",
        ]) {
            Self::StoreFull
        } else if any(&["no stream takes", "stream not found", "(10059)"]) {
            Self::StreamMissing
        } else if any(&["cannot connect", "does not answer", "it broke", "it is silent", "connection"]) {
            Self::ServerNotReached
        } else {
            Self::NotStored
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What keeps events from being stored now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The kind.
    pub cause: Cause,
    /// The last error, as it was said.
    pub error: String,
    /// For how long nothing could be stored.
    pub lasts: Duration,
    /// How often that was met.
    pub times: u64,
}

/// When the log tells something that is met again and again: at once, then after silences that grow, with how often it was met.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    about: String,
    /// When it was told last.
    told: Option<Instant>,
    silence: Duration,
    /// How often it was met since.
    untold: u64,
}

impl Telling {
    /// Met once more; how often since it was told last, if it is to be told now.
    pub(crate) fn meets(&mut self, about: &str, now: Instant) -> Option<u64> {
        if self.about != about {
            *self = Self { about: about.to_owned(), untold: self.untold, ..Self::default() };
        }
        self.untold += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < self.silence) {
            return None;
        }
        self.silence = (self.silence * 2).clamp(FIRST_SILENCE, LONGEST_SILENCE);
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// The trouble of one publisher.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    now: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    cause: Cause,
    error: String,
    since: Instant,
    times: u64,
    telling: Telling,
}

impl Troubles {
    /// Notes what was met. The log tells a cause when it is new, and again after a silence, with how often it was met meanwhile.
    pub(crate) fn note(&self, cause: Cause, said: &str, now: Instant) {
        let error: String = said.chars().take(MOST_WORDS).collect();
        let mut state = self.now.lock();
        let known = state.get_or_insert_with(|| State {
            cause,
            error: String::new(),
            since: now,
            times: 0,
            telling: Telling::default(),
        });
        known.times += 1;
        known.error = error;
        known.cause = cause;
        if let Some(times) = known.telling.meets(cause.as_str(), now) {
            let (why, since) = (&known.error, now.saturating_duration_since(known.since));
            tracing::warn!(%cause, ?why, times, for_s = since.as_secs(), "nothing is stored for now");
        }
    }

    /// Events are stored again: how long they were not, if anything was met.
    pub(crate) fn is_over(&self, now: Instant) -> Option<Duration> {
        let state = self.now.lock().take()?;
        Some(now.saturating_duration_since(state.since))
    }

    pub(crate) fn now(&self, now: Instant) -> Option<Trouble> {
        let state = self.now.lock();
        let State { cause, error, since, times, .. } = state.as_ref()?;
        let lasts = now.saturating_duration_since(*since);
        Some(Trouble { cause: *cause, error: error.clone(), lasts, times: *times })
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_cause_is_told_from_the_others_by_what_is_said() {
        for (said, cause) in [
            ("cannot connect to nats://n: Connection refused (os error 111)", Cause::ServerNotReached),
            ("cannot connect to nats://n: it does not answer", Cause::ServerNotReached),
            ("cannot connect to nats://n: it closed the connection", Cause::ServerNotReached),
            ("cannot connect to nats://n: it says 'Authorization Violation'", Cause::LoginRefused),
            ("cannot connect to nats://n: it says 'User Authentication Expired'", Cause::LoginRefused),
            ("'Permissions Violation for Publish to \"a.b.c\"'", Cause::PermissionMissing),
            ("JetStream not enabled for account (10039)", Cause::NoJetStream),
            ("JetStream does not answer: no responders", Cause::NoJetStream),
            (
                "JetStream does not answer: jetstream error: 503, JetStream not enabled, error code: 10076",
                Cause::NoJetStream,
            ),
            ("resource limits exceeded for account (10002)", Cause::StoreFull),
            ("insufficient storage resources available (10047)", Cause::StoreFull),
            ("write msgs/1.blk: no space left on device (10077)", Cause::StoreFull),
            ("maximum bytes exceeded (10077)", Cause::StreamFull),
            ("maximum messages exceeded (10077)", Cause::StreamFull),
            ("no stream takes the subject", Cause::StreamMissing),
            ("an answer that is none of JetStream's", Cause::NotStored),
        ] {
            assert_eq!(Cause::of(said), cause, "{said}");
        }
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_cause_is_logged_at_first_and_then_counted() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let (troubles, began) = (Troubles::default(), Instant::now());
        tracing::subscriber::with_default(subscriber, || {
            for second in 0..3_600 {
                // The server says it in two ways, in turns.
                let said = ["authorization violation", "it says 'Authorization Violation'"][second % 2];
                let at = Duration::from_secs(u64::try_from(second).unwrap());
                troubles.note(Cause::LoginRefused, said, began + at);
            }
        });
        let log = String::from_utf8(sink.0.lock().clone()).unwrap();
        assert!((6..=12).contains(&log.lines().count()), "{log}");
        assert!(log.contains("times=1 ") && log.contains("times=30 "), "{log}");
        let trouble = troubles.now(began + Duration::from_secs(3_600)).unwrap();
        assert_eq!((trouble.cause, trouble.times), (Cause::LoginRefused, 3_600));
        assert_eq!(trouble.lasts, Duration::from_secs(3_600));
        assert_eq!(troubles.is_over(began + Duration::from_secs(41)), Some(Duration::from_secs(41)));
        assert_eq!(troubles.is_over(began), None);
    }
}
