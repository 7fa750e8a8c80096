//! Sends one command to a device and prints its outcome: a NATS request, so any NATS client can do it.
//!
//! `send_command DEVICE NAME PAYLOAD [NATS_URL]`, the URL else from `NATS_URL` (nats://127.0.0.1:4222).
//! `LANDFALL_INSTANCE` (landfall) and `LANDFALL_TENANT` (default) name whose device it is.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::env;
use std::error::Error;
use std::time::Duration;

use async_nats::{HeaderMap, Request};
use serde_json::Value;

/// How long the device has.
const TTL: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [device, name, payload, rest @ ..] = arguments.as_slice() else {
        return Err("usage: send_command DEVICE NAME PAYLOAD [NATS_URL]".into());
    };
    let variable = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let url = rest.first().cloned().unwrap_or_else(|| variable("NATS_URL", "nats://127.0.0.1:4222"));
    let instance = variable("LANDFALL_INSTANCE", "landfall");
    let tenant = token(&variable("LANDFALL_TENANT", "default"));

    let address: async_nats::ServerAddr = url.parse()?;
    // The library leaves it to its user to show what stands in the URL.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => async_nats::ConnectOptions::new(),
    };
    let client = options.connect(address).await?;
    let mut headers = HeaderMap::new();
    headers.insert("Command-Name", name.as_str());
    headers.insert("Command-Ttl", TTL.as_millis().to_string());
    headers.insert("Command-Wait", "answered");
    let request = Request::new()
        .headers(headers)
        .payload(payload.clone().into())
        // The gateway replies at the latest when the command expires: a little later is late enough.
        .timeout(Some(TTL + Duration::from_secs(2)));
    let subject = format!("kaa.v1.service.{instance}.command.{tenant}.{}", token(device));
    let reply = client.send_request(subject, request).await?;

    let event: Value = serde_json::from_slice(&reply.payload)?;
    println!("{event:#}");
    match event.get("outcome").and_then(Value::as_str) {
        Some("answered") => Ok(()),
        other => Err(format!("no answer: {}", other.unwrap_or("not an outcome")).into()),
    }
}

/// An id as one token of a subject: every byte outside of `[A-Za-z0-9_~-]` is written `%XX`.
fn token(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'~' | b'-' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
