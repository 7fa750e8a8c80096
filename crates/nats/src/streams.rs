//! The streams that Landfall needs: made when missing; of those that are present only the limits follow the settings, and only where
//! nothing that is stored goes by it; and the ledger gives away what has a stream of its own by now (`handover`).
//!
//! Owns: how they are made, their limits, and the check that those which are there can hold what is published. Does not own: their
//! names and subjects (`landfall_event::subject`).

mod handover;

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use landfall_event::Stream;
use landfall_event::subject::{self, QUEUE_ALL, QUEUE_STREAM, SESSIONS_BUCKET};
use landfall_hub::unix_now;
use tokio::time::sleep;

use crate::{checkpoint, lease, reading};

/// How long a stream keeps what it holds. Zero is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The age at which a message goes.
    pub max_age: Duration,
    /// The size in bytes above which the oldest messages go.
    pub max_bytes: u64,
}

/// How the streams are made. What a stream keeps is looked at at every start; the rest applies when it is made, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// `LANDFALL_CONNECTIVITY`. It is the ledger of who is present: a session whose `connected` has gone counts as one
    /// that was never opened, but for the checkpoint of its gateway. 4 GiB by default.
    pub connectivity: Keep,
    /// `LANDFALL_MESSAGES`: seven days and 8 GiB by default.
    pub messages: Keep,
    /// `LANDFALL_ACCESS`, the refusals: 30 days and 256 MiB by default.
    pub access: Keep,
    /// `LANDFALL_QUEUE`, the offline queues: without bounds by default, as each queue has its own.
    pub queue: Keep,
    /// Copies of each stream in a cluster, 1..=5.
    pub replicas: usize,
    /// How long a stream of events knows the ids that it has stored, 30 s by default. The server keeps each id in memory for so long.
    /// After an outage that is more than half as long the publisher asks the stream.
    pub duplicate_window: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            connectivity: Keep { max_age: Duration::ZERO, max_bytes: 4 << 30 },
            messages: Keep { max_age: Duration::from_hours(7 * 24), max_bytes: 8 << 30 },
            access: Keep { max_age: Duration::from_hours(30 * 24), max_bytes: 256 << 20 },
            queue: Keep::default(),
            replicas: 1,
            duplicate_window: Duration::from_secs(30),
        }
    }
}

/// Why the streams are not there.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// JetStream does not answer, or says that it will later.
    #[error("JetStream does not answer for the stream {stream}: {why}")]
    Unavailable {
        /// The stream that was asked for.
        stream: String,
        /// What came instead.
        why: String,
    },
    /// A stream of that name is there and does not take a subject that is published.
    #[error(
        "the stream {stream} is there but does not take the subject {subject}; add it, or remove the stream"
    )]
    LacksSubject {
        /// The stream.
        stream: String,
        /// The subject that it lacks.
        subject: String,
    },
    /// A stream of that name is there and cannot serve.
    #[error("the stream {stream} is there but cannot be used: {why}")]
    Unusable {
        /// The stream.
        stream: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The server does not make the stream.
    #[error("the stream {stream} cannot be made: {why}")]
    Refused {
        /// The stream.
        stream: String,
        /// Why not.
        why: String,
    },
}

impl StreamError {
    /// True when it may work later without anybody's doing.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Makes the streams that are missing and checks those that are there, once. That of the refusals is done without where it cannot be
/// made or used.
///
/// # Errors
/// When JetStream does not answer, when a stream that is there cannot serve, when one cannot be made.
pub async fn ensure(context: &Context, settings: &StreamSettings) -> Result<(), StreamError> {
    let access = subject::stream_name(Stream::Access);
    for config in configs(settings) {
        let is_access = config.name == access;
        match ensure_one(context, config).await {
            // Nothing else goes by it.
            Err(error) if is_access => {
                tracing::warn!(%error, "refusals are stored where another stream takes their subject, else they are lost");
            }
            ensured => ensured?,
        }
    }
    Ok(())
}

/// Like [`ensure`], and waits for as long as JetStream does not answer.
///
/// # Errors
/// Those of [`ensure`] that do not pass by themselves.
pub async fn establish(context: &Context, settings: &StreamSettings) -> Result<(), StreamError> {
    let mut told = false;
    loop {
        match ensure(context, settings).await {
            Err(error) if error.is_passing() => {
                if !told {
                    tracing::warn!(%error, "waiting for JetStream");
                    told = true;
                }
                sleep(Duration::from_millis(500)).await;
            }
            result => return result,
        }
    }
}

/// The name of the stream behind the bucket of the sessions.
pub(crate) fn sessions_stream() -> String {
    format!("KV_{SESSIONS_BUCKET}")
}

/// How long a stream knows the ids of single requests, which are tried for half a minute at the most; the server's own default.
const REQUESTS_KNOWN: Duration = Duration::from_mins(2);

/// The server wants the window to be no longer than the age.
fn window(wanted: Duration, keep: Keep) -> Duration {
    if keep.max_age.is_zero() { wanted } else { wanted.min(keep.max_age) }
}

fn configs(settings: &StreamSettings) -> [Config; 7] {
    let make = |name: &str, subjects: Vec<String>, keep: Keep| Config {
        name: name.to_owned(),
        subjects,
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: keep.max_age,
        max_bytes: i64::try_from(keep.max_bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(-1),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        num_replicas: settings.replicas.max(1),
        duplicate_window: window(REQUESTS_KNOWN, keep),
        allow_direct: true,
        ..Config::default()
    };
    let events = |stream, keep| {
        let subjects = subject::stream_subjects(stream).iter().map(|s| (*s).to_owned()).collect();
        Config {
            duplicate_window: window(settings.duplicate_window, keep),
            ..make(subject::stream_name(stream), subjects, keep)
        }
    };
    // What the key-value tools make of a bucket with a history of one.
    let bucket = |stream: &str, subjects: String| Config {
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        ..make(stream, vec![subjects], Keep::default())
    };
    [
        events(Stream::Connectivity, settings.connectivity),
        events(Stream::Messages, settings.messages),
        make(QUEUE_STREAM, vec![QUEUE_ALL.to_owned()], settings.queue),
        bucket(&sessions_stream(), subject::session_subject(">")),
        bucket(&lease::stream(), subject::all_leases()),
        bucket(&checkpoint::stream(), subject::all_checkpoints()),
        events(Stream::Access, settings.access),
    ]
}

async fn ensure_one(context: &Context, config: Config) -> Result<(), StreamError> {
    if let Some(present) = find(context, &config.name).await? {
        check(&present.config, &config)?;
        let present = handover::narrow(context, present, &config.name).await;
        follow_settings(context, &present, &config).await;
        return Ok(());
    }
    let (name, wanted) = (config.name.clone(), config);
    let mut config = wanted.clone();
    loop {
        match context.create_stream(config.clone()).await {
            Ok(_) => {
                tracing::info!(stream = name, max_bytes = config.max_bytes, "stream made");
                return Ok(());
            }
            Err(error) => match error.kind() {
                // Another replica made it at the same moment, with other settings.
                CreateStreamErrorKind::JetStream(said)
                    if said.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                {
                    return match find(context, &name).await? {
                        Some(present) => check(&present.config, &wanted),
                        None => Err(StreamError::Unavailable { stream: name, why: said.to_string() }),
                    };
                }
                // The server sets the whole limit aside at once.
                CreateStreamErrorKind::JetStream(said)
                    if said.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED
                        && config.max_bytes / 2 >= SMALLEST =>
                {
                    config.max_bytes /= 2;
                    tracing::warn!(
                        stream = name,
                        max_bytes = config.max_bytes,
                        "the server has no room for its limit; a half is tried"
                    );
                }
                CreateStreamErrorKind::JetStream(said) if said.code() < 500 => {
                    return Err(StreamError::Refused { stream: name, why: said.to_string() });
                }
                _ => return Err(StreamError::Unavailable { stream: name, why: error.to_string() }),
            },
        }
    }
}

/// The smallest stream of events that is made on a small disk, as the settings allow it.
const SMALLEST: i64 = 64 << 20;

/// Gives a stream that is there the limits of the settings, if nothing that it holds goes by it; else says how to do it.
async fn follow_settings(context: &Context, present: &Info, wanted: &Config) {
    let (has, state) = (&present.config, &present.state);
    let events = [Stream::Connectivity, Stream::Messages, Stream::Access].map(subject::stream_name);
    let is_events = events.contains(&wanted.name.as_str());
    let unlimited = |bytes: i64| if bytes > 0 { bytes } else { -1 };
    if !is_events
        || (has.max_age == wanted.max_age && unlimited(has.max_bytes) == unlimited(wanted.max_bytes))
    {
        return;
    }
    let oldest = unix_now().saturating_sub(reading::unix_ms(state.first_timestamp));
    let is_young = wanted.max_age.is_zero() || u128::from(oldest) < wanted.max_age.as_millis();
    let fits = u64::try_from(wanted.max_bytes).is_ok_and(|most| state.bytes <= most) || wanted.max_bytes < 0;
    let is_safe = state.messages == 0 || (is_young && fits);
    let why = if is_safe {
        let duplicate_window = match wanted.max_age {
            Duration::ZERO => has.duplicate_window,
            age => has.duplicate_window.min(age),
        };
        let (max_age, max_bytes) = (wanted.max_age, wanted.max_bytes);
        let config = Config { max_age, max_bytes, duplicate_window, ..has.clone() };
        match context.update_stream(config).await {
            Ok(_) => {
                tracing::info!(
                    stream = has.name,
                    ?max_age,
                    max_bytes,
                    "its limits are those of the settings now"
                );
                return;
            }
            Err(error) => error.to_string(),
        }
    } else {
        "messages that it holds would go".to_owned()
    };
    tracing::warn!(
        stream = has.name,
        why,
        "its limits are not those of the settings; to change them: {}",
        command(wanted)
    );
}

/// What gives a stream these limits.
fn command(wanted: &Config) -> String {
    let age = match wanted.max_age.as_secs() {
        0 => "0".to_owned(),
        seconds => format!("{seconds}s"),
    };
    format!("nats stream edit {} --max-age={age} --max-bytes={}", wanted.name, wanted.max_bytes)
}

async fn find(context: &Context, name: &str) -> Result<Option<Info>, StreamError> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            GetStreamErrorKind::JetStream(said) if said.code() < 500 => {
                Err(StreamError::Refused { stream: name.to_owned(), why: said.to_string() })
            }
            _ => Err(StreamError::Unavailable { stream: name.to_owned(), why: error.to_string() }),
        },
    }
}

/// Can the stream that is there do what the wanted one would?
fn check(present: &Config, wanted: &Config) -> Result<(), StreamError> {
    let stream = present.name.clone();
    let lacking =
        wanted.subjects.iter().find(|wanted| !present.subjects.iter().any(|has| covers(has, wanted)));
    if let Some(subject) = lacking {
        return Err(StreamError::LacksSubject { stream, subject: subject.clone() });
    }
    let fault = if present.no_ack {
        "it acknowledges nothing (no_ack)"
    } else if present.sealed {
        "it is sealed"
    } else if present.mirror.is_some() {
        "it is a mirror"
    } else if wanted.max_messages_per_subject > 0 && present.max_messages_per_subject < 1 {
        "it is no key-value bucket"
    } else {
        if present.storage == StorageType::Memory {
            tracing::warn!(stream, "the stream is kept in memory: it does not survive its server");
        }
        return Ok(());
    };
    Err(StreamError::Unusable { stream, why: fault })
}

/// True when every subject that the filter `wanted` matches is also matched by the filter `has`.
fn covers(has: &str, wanted: &str) -> bool {
    let (mut has, mut wanted) = (has.split('.'), wanted.split('.'));
    loop {
        match (has.next(), wanted.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(ours), Some(theirs)) if ours == theirs => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_covers_what_it_matches() {
        for (has, wanted) in [
            (">", "a.b.>"),
            ("a.>", "a.*.c.>"),
            ("a.*.c.>", "a.*.c.>"),
            ("a.*.c.>", "a.b.c.d"),
            ("a.b", "a.b"),
            ("*.*", "a.*"),
        ] {
            assert!(covers(has, wanted), "{has} {wanted}");
        }
        for (has, wanted) in [
            ("a.*.c", "a.*.c.>"),
            ("a.b.>", "a.*.>"),
            ("a.*", "a.>"),
            ("a.>", "a"),
            ("a.b", "a.b.c"),
            ("a.b.c", "a.b"),
        ] {
            assert!(!covers(has, wanted), "{has} {wanted}");
        }
    }

    #[test]
    fn a_stream_that_never_acknowledges_is_no_use() {
        let [wanted, ..] = configs(&StreamSettings::default());
        assert!(check(&wanted, &wanted).is_ok());
        let silent = Config { no_ack: true, ..wanted.clone() };
        assert!(matches!(check(&silent, &wanted), Err(StreamError::Unusable { .. })));
        let narrow = Config { subjects: wanted.subjects.iter().skip(1).cloned().collect(), ..wanted.clone() };
        let error = check(&narrow, &wanted).unwrap_err();
        assert!(
            error.to_string().contains(&wanted.name) && error.to_string().contains(&wanted.subjects[0]),
            "{error}"
        );
    }

    #[test]
    fn the_duplicate_window_is_never_longer_than_the_age() {
        let keep = Keep { max_age: Duration::from_secs(20), max_bytes: 7 };
        let [_, messages, ..] = configs(&StreamSettings { messages: keep, ..StreamSettings::default() });
        assert_eq!((messages.duplicate_window, messages.max_bytes), (Duration::from_secs(20), 7));
    }
}
