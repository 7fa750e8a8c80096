//! `landfall-load`: puts a known load on a server and says what came of it.
//!
//! Owns: the scenarios and their command line. Does not own: the server under load: any for MQTT and DTLS, a gateway for UDP.

mod client;
mod dtls;
mod idle;
mod metrics;
mod process;
mod publish;
mod report;
mod udp;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Puts a known load on a server and says what came of it.
#[derive(Debug, Parser)]
#[command(name = "landfall-load", version)]
struct Cli {
    /// Print the summary as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Worker threads.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Opens connections, holds them, and measures the server's memory before and with them.
    Idle(idle::Idle),
    /// Publishes with a window of unacknowledged messages per connection.
    Publish(publish::Publish),
    /// Plays UDP devices of a gateway: their memory, their heartbeats, and how late it tells that all fell silent at once.
    Udp(udp::Udp),
    /// Plays DTLS clients with a pre-shared key: what a handshake, an idle session and a record cost.
    Dtls(dtls::Dtls),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cli.threads.max(1)).enable_all().build();
    let result = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            match cli.scenario {
                Scenario::Idle(scenario) => scenario.run().await,
                Scenario::Publish(scenario) => scenario.run().await,
                Scenario::Udp(scenario) => scenario.run().await,
                Scenario::Dtls(scenario) => scenario.run().await,
            }
        })
    });
    match result {
        Ok(report) => {
            report.print(cli.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}
