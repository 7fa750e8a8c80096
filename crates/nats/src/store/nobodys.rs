//! Sessions and queues that earlier builds wrote without saying which instance they are of.
//!
//! Owns: whose they are now, and moving them there. Does not own: the names (`landfall_event::subject`).
//!
//! Where no other instance has ever joined they are this one's, and are moved once. Where several share the server nobody
//! can tell any more, and to give a device's session to the wrong one is worse than that it begins anew: they are left where
//! they are, and named.

use async_nats::jetstream::stream::Stream;
use futures_util::TryStreamExt as _;
use landfall_event::subject::{
    self, JOIN_ALL, QUEUE_STREAM, parse_event, parse_nobodys_queue, parse_nobodys_session_key,
    parse_session_subject, stream_name,
};

use super::{Failure, JetStreamStore};
use crate::streams::sessions_stream;

/// Moves what is nobody's, if it can only be this instance's.
pub(super) async fn take_over(store: &JetStreamStore) -> Result<(), Failure> {
    let sessions = subjects(&store.stream(&sessions_stream()).await?, &subject::nobodys_sessions()).await?;
    let queues = subjects(&store.stream(QUEUE_STREAM).await?, subject::QUEUE_NOBODYS).await?;
    if sessions.is_empty() && queues.is_empty() {
        return Ok(());
    }
    let connectivity = store.stream(stream_name(landfall_event::Stream::Connectivity)).await?;
    let joined = subjects(&connectivity, JOIN_ALL).await?;
    let is_other =
        |name: &String| parse_event(name).is_some_and(|parsed| *parsed.instance != *store.instance.as_str());
    let (instance, sessions_count, queues_count) = (&store.instance, sessions.len(), queues.len());
    if joined.iter().any(is_other) {
        tracing::error!(
            %instance, sessions = sessions_count, queues = queues_count,
            "LANDFALL_SESSIONS and LANDFALL_QUEUE hold entries of an earlier build that name no instance, and several instances share this NATS: they are left alone; move or remove the keys of two tokens and the subjects landfall.queue.*.*"
        );
        return Ok(());
    }
    for name in sessions {
        move_session(store, &name).await?;
    }
    if !queues.is_empty() {
        move_queues(store).await?;
    }
    tracing::info!(
        %instance, sessions = sessions_count, queues = queues_count,
        "moved what an earlier build kept without naming an instance"
    );
    Ok(())
}

async fn subjects(stream: &Stream<()>, filter: &str) -> Result<Vec<String>, Failure> {
    let found = stream.info_with_subjects(filter).await.map_err(Failure::away)?;
    let found: Vec<(String, usize)> = found.try_collect().await.map_err(Failure::away)?;
    Ok(found.into_iter().map(|(name, _)| name).collect())
}

async fn move_session(store: &JetStreamStore, name: &str) -> Result<(), Failure> {
    let Some((tenant, device)) = parse_session_subject(name).and_then(parse_nobodys_session_key) else {
        return Ok(());
    };
    for (_, _, state) in store.read_all(&sessions_stream(), vec![name.to_owned()]).await? {
        store.publish(&store.session_subject(&tenant, &device), None, &state).await?;
    }
    store.purge(name).await
}

/// In order. Cut off half-way it goes on with the next start: an entry that was moved and not removed is known by its id for
/// a while, and by what it says for ever.
async fn move_queues(store: &JetStreamStore) -> Result<(), Failure> {
    // The stream need not bind the old subjects any more, so it is not asked by them.
    for (name, number, entry) in store.read_all(QUEUE_STREAM, Vec::new()).await? {
        let Some((tenant, device)) = parse_nobodys_queue(&name) else { continue };
        let to = subject::queue_subject(&store.instance, &tenant, &device);
        store.publish(&to, Some(&format!("moved.{number}")), &entry).await?;
        store.delete(number).await?;
    }
    Ok(())
}
