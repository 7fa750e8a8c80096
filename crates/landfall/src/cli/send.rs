//! `landfall send`: one command to a device.

use std::io::Read as _;
use std::time::Duration;

use async_nats::{HeaderMap, Message, Request, RequestErrorKind};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use landfall_event::subject;
use landfall_event::wire::{self, Body};
use landfall_event::{CommandId, CommandName, DeviceId, Outcome, TenantId, check_topic_name};
use landfall_nats::header;

use super::ClientArgs;
use super::client::{self, Connection};
use super::line::line;
use super::output::Output;
use crate::Failure;
use crate::settings::{Settings, parse_duration};
use crate::text::{visible, visible_json};

/// What a device has for a command without `--ttl`.
const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// What the outcome has for its way, once the command's time is over.
const GRACE: Duration = Duration::from_secs(5);
/// The most that is read from standard input.
const MOST_INPUT: u64 = 8 << 20;

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The device's id.
    device: DeviceId,
    /// The command's name.
    name: CommandName,
    /// The payload; `-` reads it from standard input.
    payload: String,
    /// The device's tenant.
    #[arg(long, default_value = TenantId::DEFAULT)]
    tenant: TenantId,
    /// How long the command may wait for the device [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Duration>,
    /// What counts as success [default: delivered].
    #[arg(long)]
    wait: Option<WaitFor>,
    /// The command's id [default: made by the gateway].
    #[arg(long)]
    id: Option<CommandId>,
    /// The MQTT topic to send it on, instead of the command topic.
    #[arg(long, value_parser = topic)]
    topic: Option<String>,
    /// The payload's content type.
    #[arg(long, value_name = "TYPE", value_parser = content_type)]
    content_type: Option<String>,
    /// Prints the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// What a sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WaitFor {
    /// Written to the device's connection.
    Delivered,
    /// Acknowledged by the device's protocol.
    Acknowledged,
    /// Answered by the device.
    Answered,
}

impl WaitFor {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Acknowledged => "acknowledged",
            Self::Answered => "answered",
        }
    }
}

fn ttl(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text)
        .filter(|ttl| !ttl.is_zero())
        .ok_or("must be a duration such as 500ms, 10s, 5m, 2h or 1d")
}

fn topic(text: &str) -> Result<String, String> {
    check_topic_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn content_type(text: &str) -> Result<String, &'static str> {
    let plain = !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
    plain.then(|| text.to_owned()).ok_or("must be 1 to 256 bytes without control characters")
}

pub(super) async fn send(args: SendArgs, settings: &Settings, out: &mut Output) -> Result<(), Failure> {
    let payload = payload(&args.payload)?;
    let connection = client::connect(&args.client, settings, "send").await?;
    let patience = args.ttl.unwrap_or(DEFAULT_TTL) + GRACE;
    let request = Request::new().headers(args.headers()).payload(payload).timeout(Some(patience));
    let subject = subject::command_subject(&connection.instance, &args.tenant, &args.device);
    let reply = connection.client.send_request(subject, request).await;
    let reply = reply.map_err(|error| failure(error.kind(), &connection, patience, &error))?;
    report(&reply, args.json, out)
}

impl SendArgs {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("Command-Name", self.name.as_str());
        let ttl = self.ttl.map(|ttl| ttl.as_millis().to_string());
        for (name, value) in [
            ("Command-Id", self.id.as_ref().map(CommandId::as_str)),
            ("Command-Ttl", ttl.as_deref()),
            ("Command-Wait", self.wait.map(WaitFor::as_str)),
            ("Topic", self.topic.as_deref()),
            ("Content-Type", self.content_type.as_deref()),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers
    }
}

fn payload(text: &str) -> Result<Bytes, Failure> {
    if text != "-" {
        return Ok(Bytes::from(text.to_owned()));
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MOST_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::Runtime(format!("standard input cannot be read: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MOST_INPUT {
        return Err(Failure::Runtime(format!("the payload is larger than {MOST_INPUT} bytes")));
    }
    Ok(Bytes::from(bytes))
}

fn failure(
    kind: RequestErrorKind,
    connection: &Connection,
    patience: Duration,
    error: &dyn std::error::Error,
) -> Failure {
    match kind {
        RequestErrorKind::NoResponders => connection.nobody(),
        RequestErrorKind::TimedOut => Failure::Runtime(format!(
            "no outcome came within {} s over NATS at {}: no replica of the instance \"{}\" had the device, or its gateway is \
             gone",
            patience.as_secs(),
            connection.place,
            connection.instance
        )),
        _ => Failure::Runtime(format!("NATS at {}: {error}", connection.place)),
    }
}

/// Prints the outcome; succeeds when the command did.
fn report(reply: &Message, json: bool, out: &mut Output) -> Result<(), Failure> {
    let event = wire::read(|name| header(reply, name), &reply.payload);
    if json {
        out.line(&visible_json(&reply.payload))?;
    }
    let Ok(event) = event else {
        let body = String::from_utf8_lossy(&reply.payload);
        return if json {
            Err(Failure::No)
        } else {
            Err(Failure::Runtime(format!("the gateway says {}", visible(&body))))
        };
    };
    if !json {
        out.line(&line(&event, out))?;
    }
    match event.body {
        Body::Downstream(command) if succeeded(command.details.outcome) => Ok(()),
        _ => Err(Failure::No),
    }
}

fn succeeded(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Delivered | Outcome::Acknowledged | Outcome::Answered)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::output::tests::Printed;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        send: SendArgs,
    }

    fn parse(arguments: &[&str]) -> Result<SendArgs, clap::Error> {
        Line::try_parse_from(std::iter::once(&"send").chain(arguments)).map(|line| line.send)
    }

    #[test]
    fn arguments_become_the_headers_of_the_contract() {
        let args = parse(&[
            "pump-17",
            "reboot",
            "now",
            "--ttl",
            "2m",
            "--wait",
            "answered",
            "--id",
            "c-1",
            "--topic",
            "a/b",
            "--content-type",
            "text/plain",
        ]);
        let args = args.unwrap();
        let headers = args.headers();
        for (name, value) in [
            ("Command-Name", "reboot"),
            ("Command-Id", "c-1"),
            ("Command-Ttl", "120000"),
            ("Command-Wait", "answered"),
            ("Topic", "a/b"),
            ("Content-Type", "text/plain"),
        ] {
            assert_eq!(headers.get(name).map(async_nats::HeaderValue::as_str), Some(value), "{name}");
        }
        assert_eq!(parse(&["d", "n", "p"]).unwrap().headers().len(), 1);
    }

    #[test]
    fn arguments_that_no_gateway_would_take_are_refused_here() {
        for bad in [
            &["", "n", "p"][..],
            &["d", "a/b", "p"],
            &["d", "n", "p", "--ttl", "soon"],
            &["d", "n", "p", "--ttl", "0s"],
            &["d", "n", "p", "--topic", "a/#"],
            &["d", "n", "p", "--id", "a\nb"],
            &["d", "n", "p", "--content-type", "a\r\nb"],
            &["d", "n", "p", "--wait", "forever"],
            &["d", "n"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    fn reply(body: &str) -> Message {
        Message {
            subject: "inbox".into(),
            reply: None,
            payload: body.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn the_exit_status_follows_the_outcome() {
        for outcome in Outcome::ALL {
            let body = format!(
                r#"{{"type":"downstream","id":"01991234-5678-7fff-bfff-ffffffffffff.g.1","correlationId":"x","timestamp":1,
                "timeout":0,"originatorReplicaId":"a1","incarnation":"01991234-5678-7fff-bfff-ffffffffffff",
                "tenant":"default","endpointId":"d","appVersionName":"","commandId":"c","name":"n","outcome":"{outcome}",
                "latencyMs":1,"attempts":1}}"#
            );
            for json in [false, true] {
                let printed = Printed::default();
                let result = report(&reply(&body), json, &mut printed.output(false));
                assert_eq!(
                    result.is_ok(),
                    outcome.as_str().ends_with("ed") && succeeded(*outcome),
                    "{outcome}"
                );
                assert!(printed.text().contains(outcome.as_str()));
                assert_eq!(printed.text().lines().count(), 1);
            }
        }
        let printed = Printed::default();
        let result = report(
            &reply(r#"{"outcome":"rejected","status":"bad-subject"}"#),
            false,
            &mut printed.output(false),
        );
        assert!(result.unwrap_err().to_string().contains("bad-subject"));
    }
}
