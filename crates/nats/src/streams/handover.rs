//! Refusals once stood in the ledger's stream. JetStream lets no two streams take one subject, so the ledger gives that away before
//! a stream of the refusals' own is made.
//!
//! Owns: whether that is safe, and the command where it is not done. What is stored already stays where it is.
//!
//! A gateway of an earlier build publishes its refusals behind the ledger's fence. In another stream that fence is not there, the server
//! refuses them, and such a gateway stores nothing more. So nothing is taken from the ledger's stream while another gateway lives.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, Info};
use landfall_event::Stream;
use landfall_event::subject;
use landfall_hub::unix_now;

use crate::history::History;

/// Takes the subjects of the refusals from the ledger's stream, if it has them and no other gateway lives.
pub(super) async fn narrow(context: &Context, present: Info, name: &str) -> Info {
    let given = subject::stream_subjects(Stream::Access);
    let is_given = |subject: &String| given.contains(&subject.as_str());
    if name != subject::stream_name(Stream::Connectivity) || !present.config.subjects.iter().any(is_given) {
        return present;
    }
    let subjects: Vec<String> =
        present.config.subjects.iter().filter(|subject| !is_given(subject)).cloned().collect();
    let command = format!("nats stream edit {name} --subjects={}", subjects.join(","));
    let why = match History::new(context.client()).alive(None, unix_now()).await {
        Ok(None) => None,
        Ok(Some(alive)) if alive.is_empty() => None,
        Ok(Some(_)) => Some("another gateway lives, or has ended just now".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    let why = match why {
        Some(why) => why,
        None => match context.update_stream(Config { subjects, ..present.config.clone() }).await {
            Ok(info) => {
                tracing::info!(
                    stream = name,
                    "refusals have a stream of their own from now on; those in this one stay"
                );
                return info;
            }
            Err(error) => error.to_string(),
        },
    };
    tracing::warn!(
        stream = name,
        why,
        "refusals are still stored in it; once every gateway is of this build: {command}; then start one again"
    );
    present
}
