//! `landfall verify`: does the ledger keep what the gateway promises?

mod reading;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use landfall_event::UnixMs;
use landfall_hub::unix_now;
use landfall_ledger::{Journal, Verifier};
use landfall_nats::History;

use super::ClientArgs;
use super::client;
use super::output::{Output, remark};
use crate::Failure;
use crate::settings::{Settings, parse_duration};
use crate::signals::Signals;
use reading::{Beginning, Reading};
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
    /// Only what was stored since then: a time such as 2026-03-01T06:00:00Z, or how long ago, such as 90s, 15m, 24h, 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
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
    let beginning = args.beginning(unix_now());
    let since = if let Beginning::Time(at) = beginning { at } else { 0 };
    let history = History::new(connection.client.clone());
    let mut reading = Reading::new(history, instance, Verifier::new(since, journal), beginning);
    let mut report = Report::new(args.json);
    let mut alive = reading.alive().await.map_err(failed)?;
    reading.round().await.map_err(failed)?;
    if args.follow {
        let mut signals = Signals::listen()?;
        if !args.json {
            remark(&format!("following {}", connection.place));
        }
        follow(&mut reading, &mut report, &mut signals, out).await.map_err(|error| match error {
            FollowError::Nats(error) => failed(error),
            FollowError::Output(failure) => failure,
        })?;
        alive = reading.alive().await.map_err(failed)?;
        reading.round().await.map_err(failed)?;
    }
    // Who leaves while this reads was alive before, and who comes is alive after.
    alive.extend(reading.alive().await.map_err(failed)?);
    let foreign = reading.foreign;
    let (counts, found) = reading.verifier.finish(|incarnation| alive.contains(incarnation));
    report.end(counts, foreign, &found, out)
}

impl VerifyArgs {
    fn beginning(&self, now: UnixMs) -> Beginning {
        match (self.from_seq, self.since) {
            (Some(place), _) => Beginning::Place(place),
            (None, Some(since)) => Beginning::Time(since.unix(now)),
            (None, None) => Beginning::Whole,
        }
    }
}

/// A moment that was said in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// So long before now.
    Ago(Duration),
    /// This one.
    At(UnixMs),
}

fn moment(text: &str) -> Result<Moment, &'static str> {
    if let Some(ago) = parse_duration(text) {
        return Ok(Moment::Ago(ago));
    }
    let at = async_nats::datetime::parse_rfc3339(text).ok().map(|at| at.unix_timestamp_nanos() / 1_000_000);
    at.and_then(|ms| UnixMs::try_from(ms).ok())
        .map(Moment::At)
        .ok_or("must be a time such as 2026-03-01T06:00:00Z, or a number with ms, s, m, h or d behind it, such as 24h")
}

impl Moment {
    fn unix(self, now: UnixMs) -> UnixMs {
        match self {
            Self::Ago(ago) => now.saturating_sub(UnixMs::try_from(ago.as_millis()).unwrap_or(UnixMs::MAX)),
            Self::At(at) => at,
        }
    }
}

/// Why following has ended before its time.
enum FollowError {
    Nats(landfall_nats::Failure),
    Output(Failure),
}

async fn follow(
    reading: &mut Reading,
    report: &mut Report,
    signals: &mut Signals,
    out: &mut Output,
) -> Result<(), FollowError> {
    loop {
        reading.verifier.settle_gaps(unix_now().saturating_sub(TOLD_WITHIN));
        report.found(&reading.verifier.take_found(), out).map_err(FollowError::Output)?;
        tokio::select! {
            () = signals.end() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        reading.round().await.map_err(FollowError::Nats)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        assert_eq!(moment("90s").unwrap().unix(100_000), 10_000);
        assert_eq!(moment("24h").unwrap().unix(1_000), 0, "nothing was before");
        for text in ["2026-03-01T06:00:00Z", "2026-03-01T07:30:00.000+01:30"] {
            assert_eq!(moment(text).unwrap().unix(0), 1_772_344_800_000, "{text}");
        }
        for text in ["", "soon", "2026-03-01", "1969-01-01T00:00:00Z", "24"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
