//! Prints one line for every event of every Landfall instance, with nothing but a NATS client.
//!
//! `watch_events [NATS_URL]`, else from `NATS_URL` (nats://127.0.0.1:4222). `landfall nats-context --url` tells the URL
//! of an embedded server, with its password.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use futures_util::StreamExt;
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("NATS_URL").ok());
    let url = url.unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let address: async_nats::ServerAddr = url.parse()?;
    // The library leaves it to its user to show what stands in the URL.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => async_nats::ConnectOptions::new(),
    };
    let client = options.connect(address).await?;
    // Whoever must not miss an event reads the streams LANDFALL_CONNECTIVITY and LANDFALL_MESSAGES (refusals: LANDFALL_ACCESS)
    // with a consumer; whoever wants to see what happens now subscribes.
    let mut events = client.subscribe("kaa.v1.events.>").await?;
    client.flush().await?;
    println!("watching kaa.v1.events.>");
    while let Some(message) = events.next().await {
        match serde_json::from_slice::<Value>(&message.payload) {
            Ok(event) => println!("{}", line(&event)),
            Err(_) => println!("{} ({} bytes that are no JSON)", message.subject, message.payload.len()),
        }
    }
    Ok(())
}

/// A field that an event does not have is not shown.
fn line(event: &Value) -> String {
    let text = |name: &str| match event.get(name) {
        None => String::new(),
        Some(Value::String(text)) => format!(" {text}"),
        Some(other) => format!(" {other}"),
    };
    // Within a session, `seq` has no gaps: a reader that sees one has missed something.
    let mut line = event["type"].as_str().unwrap_or("?").to_owned();
    for name in [
        "endpointId",
        "transport",
        "seq",
        "topic",
        "payload",
        "name",
        "outcome",
        "response",
        "reason",
        "cause",
    ] {
        line.push_str(&text(name));
    }
    line
}
