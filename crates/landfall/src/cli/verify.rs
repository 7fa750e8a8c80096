//! `landfall verify`: does the ledger keep what the gateway promises?

mod report;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::Message;
use clap::Args;
use landfall_event::subject::parse_event;
use landfall_event::{Incarnation, InstanceName, Stream, UnixMs, wire};
use landfall_hub::unix_now;
use landfall_ledger::{Journal, Stored, Verifier};
use landfall_nats::{History, Place, Since};

use super::ClientArgs;
use super::client;
use super::output::{Output, remark};
use crate::Failure;
use crate::settings::{Settings, parse_duration};
use report::Report;

/// Between two looks at what has come.
const LOOK: Duration = Duration::from_millis(500);
/// What a gateway drops it tells of within this time, in milliseconds: a missing number is not judged before.
const TOLD_WITHIN: UnixMs = 60_000;

#[derive(Debug, Default, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Every instance whose events are in the streams.
    #[arg(long, conflicts_with = "instance")]
    all_instances: bool,
    /// Only what stands in the connectivity stream from this place on, and the messages stored since then.
    #[arg(long, value_name = "PLACE", conflicts_with = "since")]
    from_seq: Option<u64>,
    /// Only what was stored within this time, such as 90s, 15m, 24h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = age)]
    since: Option<Duration>,
    /// Messages that a client saw acknowledged, to be looked for: a file of JSON lines with `device`, `payload`, and perhaps
    /// `tenant`. May be given several times.
    #[arg(long, value_name = "FILE")]
    journal: Vec<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Go on with what comes, and print what is wrong as it is found, until Ctrl-C.
    #[arg(long)]
    follow: bool,
}

pub(super) async fn verify(args: &VerifyArgs, settings: &Settings, out: &mut Output) -> Result<(), Failure> {
    let journal = journals(&args.journal)?;
    let connection = client::connect(&args.client, settings, "verify").await?;
    let instance = (!args.all_instances).then(|| connection.instance.clone());
    let failed = |error: landfall_nats::Failure| {
        Failure::Runtime(format!("the streams at {} cannot be read: {error}", connection.place))
    };
    let mut reading = Reading::new(History::new(connection.client.clone()), instance, args, journal);
    let mut report = Report::new(args.json);
    reading.round(args).await.map_err(failed)?;
    if args.follow {
        if !args.json {
            remark(&format!("following {}", connection.place));
        }
        follow(&mut reading, &mut report, args, out).await.map_err(|error| match error {
            FollowError::Nats(error) => failed(error),
            FollowError::Output(failure) => failure,
        })?;
    }
    let alive = reading.alive().await.map_err(failed)?;
    let foreign = reading.foreign;
    let (counts, found) = reading.verifier.finish(|incarnation| alive.contains(incarnation));
    report.end(counts, foreign, &found, out)
}

fn age(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("must be a number with ms, s, m, h or d behind it, such as 24h")
}

/// Why following has ended before its time.
enum FollowError {
    Nats(landfall_nats::Failure),
    Output(Failure),
}

async fn follow(
    reading: &mut Reading,
    report: &mut Report,
    args: &VerifyArgs,
    out: &mut Output,
) -> Result<(), FollowError> {
    let mut end = std::pin::pin!(ended());
    loop {
        reading.verifier.settle_gaps(unix_now().saturating_sub(TOLD_WITHIN));
        report.found(&reading.verifier.take_found(), out).map_err(FollowError::Output)?;
        tokio::select! {
            () = &mut end => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        reading.round(args).await.map_err(FollowError::Nats)?;
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut ends = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        if let Ok(mut end) = signal(kind) {
            ends.push(Box::pin(async move { end.recv().await }));
        }
    }
    if ends.is_empty() {
        std::future::pending::<()>().await;
    }
    futures_util::future::select_all(ends).await;
}

fn journals(files: &[PathBuf]) -> Result<Journal, Failure> {
    let mut journal = Journal::default();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::Usage(format!("--journal {}: {error}", file.display())))?;
        journal
            .add(&text)
            .map_err(|error| Failure::Usage(format!("--journal {}: {error}", file.display())))?;
    }
    Ok(journal)
}

/// How far the streams are read.
struct Reading {
    history: History,
    instance: Option<InstanceName>,
    verifier: Verifier,
    connectivity: Since,
    messages: Since,
    /// Messages that are no events of ours.
    foreign: u64,
}

impl Reading {
    fn new(history: History, instance: Option<InstanceName>, args: &VerifyArgs, journal: Journal) -> Self {
        let since = args.since.map(|since| {
            unix_now().saturating_sub(UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX))
        });
        let begin = since.map_or(Since::Behind(0), Since::Time);
        let connectivity = args.from_seq.map_or(begin, |place| Since::Behind(place.saturating_sub(1)));
        let verifier = Verifier::new(since.unwrap_or(0), journal);
        Self { history, instance, verifier, connectivity, messages: begin, foreign: 0 }
    }

    /// Reads what both streams hold by now. A message is stored behind its session's `connected`, so the end of the messages
    /// is fixed first, and the connectivity stream read first.
    async fn round(&mut self, args: &VerifyArgs) -> Result<(), landfall_nats::Failure> {
        let messages = self.history.newest(Stream::Messages).await?;
        let connectivity = self.history.newest(Stream::Connectivity).await?;
        if let (Some(_), Since::Behind(place)) = (args.from_seq, self.messages)
            && place == 0
        {
            self.begin_at_place(connectivity).await?;
        }
        self.read(Stream::Connectivity, self.connectivity, connectivity).await?;
        self.connectivity = Since::Behind(connectivity);
        self.read(Stream::Messages, self.messages, messages).await?;
        self.messages = Since::Behind(messages);
        Ok(())
    }

    /// The messages begin when the event at the first place was stored, and sessions that began before are known in part.
    async fn begin_at_place(&mut self, until: u64) -> Result<(), landfall_nats::Failure> {
        let mut first = None;
        let Since::Behind(behind) = self.connectivity else { return Ok(()) };
        let until = until.min(behind.saturating_add(1_000));
        let note = |at: Place, _: &Message| {
            first.get_or_insert(at.stored_at);
        };
        self.history.read(Stream::Connectivity, self.connectivity, until, note).await?;
        if let Some(at) = first {
            self.messages = Since::Time(at);
            self.verifier.begin_at(at);
        }
        Ok(())
    }

    async fn read(&mut self, stream: Stream, since: Since, until: u64) -> Result<(), landfall_nats::Failure> {
        let Self { history, instance, verifier, foreign, .. } = self;
        let each = |at: Place, message: &Message| {
            let Some(subject) = parse_event(&message.subject) else { return };
            if instance.as_ref().is_some_and(|instance| subject.instance != instance.as_str()) {
                return;
            }
            let header =
                |name: &str| message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str);
            match wire::read(header, &message.payload) {
                Ok(event) => verifier.read(&Stored {
                    stream,
                    place: at.number,
                    stored_at: at.stored_at,
                    event: &event,
                }),
                Err(_) => *foreign += 1,
            }
        };
        history.read(stream, since, until, each).await
    }

    async fn alive(&self) -> Result<HashSet<Incarnation>, landfall_nats::Failure> {
        Ok(self.history.alive(self.instance.as_ref(), unix_now()).await?.into_iter().collect())
    }
}
