//! `landfall trim`: room in a store that is full.

use std::time::Duration;

use clap::Args;
use landfall_event::subject::stream_name;
use landfall_event::{Stream, UnixMs};
use landfall_hub::unix_now;
use landfall_nats::trim;

use super::ClientArgs;
use super::client;
use super::output::Output;
use crate::Failure;
use crate::settings::{Settings, parse_duration};

#[derive(Debug, Args)]
pub(super) struct TrimArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// What was stored longer ago goes, such as 12h or 7d; 0s is everything.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Duration,
    /// Events of presence too, as far as the checkpoints of all gateways allow; else device messages only.
    #[arg(long)]
    connectivity: bool,
}

fn age(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("must be a number with ms, s, m, h or d behind it, such as 12h")
}

pub(super) async fn run(args: &TrimArgs, settings: &Settings, out: &mut Output) -> Result<(), Failure> {
    let connection = client::connect(&args.client, settings, "trim").await?;
    let age = UnixMs::try_from(args.older_than.as_millis()).unwrap_or(UnixMs::MAX);
    let before = unix_now().saturating_sub(age);
    let streams: &[Stream] =
        if args.connectivity { &[Stream::Messages, Stream::Connectivity] } else { &[Stream::Messages] };
    for stream in streams {
        let trimmed = trim(connection.client.clone(), *stream, before).await.map_err(|error| {
            Failure::Runtime(format!("{} at {}: {error}", stream_name(*stream), connection.place))
        })?;
        let held =
            if trimmed.is_held { "; a gateway that is gone would be closed by what is left" } else { "" };
        out.line(&format!(
            "{}: {} messages gone, {} bytes free; it begins at {}{held}",
            stream_name(*stream),
            trimmed.messages,
            trimmed.bytes,
            trimmed.begins_at
        ))?;
    }
    Ok(())
}
