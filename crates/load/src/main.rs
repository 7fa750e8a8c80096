//! `landfall-load`: puts a known load on a server and says what came of it.
//!
//! Owns: the scenarios and their command line. Does not own: the server under load, which is any that speaks the protocol; only
//! what reads events or sends commands needs a gateway.

mod alarm;
mod churn;
mod client;
mod clock;
mod coap;
mod commands;
mod connect;
mod dtls;
mod events;
mod fleet;
mod histogram;
mod idle;
mod lanes;
mod line;
mod link;
mod metrics;
mod mqtt;
mod nats;
mod pace;
mod process;
mod progress;
mod publish;
mod report;
mod says;
mod sleepy;
mod sources;
mod storm;
mod target;
mod tls;
mod udp;
mod ws;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use progress::Progress;
use report::Report;

/// Puts a known load on a server and says what came of it.
#[derive(Debug, Parser)]
#[command(name = "landfall-load", version)]
struct Cli {
    /// Print the summary as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Threads.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
    /// Show progress on stderr, also where it is no terminal.
    #[arg(long, global = true)]
    progress: bool,
    /// Show no progress.
    #[arg(long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Opens connections: how many a second, what each takes, what each costs.
    Connect(connect::Connect),
    /// Opens connections, holds them, and measures the server's memory before and with them.
    Idle(idle::Idle),
    /// Publishes, each device with a window of unanswered messages, or all at a fixed rate.
    Publish(publish::Publish),
    /// Drops all connections at once, or lets all come back at once.
    Storm(storm::Storm),
    /// Devices come, say one thing, go, and come again.
    Churn(churn::Churn),
    /// Commands from NATS to devices that answer: the round trip.
    Commands(commands::Commands),
    /// Devices wake at reporting intervals, say one thing and sleep again.
    Sleepy(sleepy::Sleepy),
    /// Plays UDP devices of a gateway: their memory, their heartbeats, and how late it tells that all fell silent at once.
    Udp(udp::Udp),
    /// Plays DTLS clients with a pre-shared key: what a handshake, an idle session and a record cost.
    Dtls(dtls::Dtls),
}

impl Scenario {
    async fn run(&self, progress: Progress) -> Result<Report, String> {
        match self {
            Self::Connect(scenario) => scenario.run(progress).await,
            Self::Idle(scenario) => scenario.run(progress).await,
            Self::Publish(scenario) => scenario.run(progress).await,
            Self::Storm(scenario) => scenario.run(progress).await,
            Self::Churn(scenario) => scenario.run(progress).await,
            Self::Commands(scenario) => scenario.run(progress).await,
            Self::Sleepy(scenario) => scenario.run(progress).await,
            Self::Udp(scenario) => scenario.run(progress).await,
            Self::Dtls(scenario) => scenario.run(progress).await,
        }
    }
}

/// One thread does without waking another.
fn runtime(threads: usize) -> std::io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        many => Builder::new_multi_thread().worker_threads(many).enable_all().build(),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    process::raise_file_limit();
    let progress = Progress::new(cli.progress, cli.quiet);
    let result = runtime(cli.threads)
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(cli.scenario.run(progress)));
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

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::Cli;

    /// Every text of a command and those below it.
    fn texts(command: &Command) -> Vec<String> {
        let of_arguments =
            command.get_arguments().flat_map(|argument| [argument.get_help(), argument.get_long_help()]);
        let own = of_arguments.chain([command.get_about(), command.get_long_about()]).flatten();
        let own = own.map(ToString::to_string);
        own.chain(command.get_subcommands().flat_map(texts)).collect()
    }

    /// The parser of the command line makes a line break of `{n}` in what it explains.
    #[test]
    fn no_placeholder_is_lost_in_the_help() {
        let mut command = Cli::command();
        let texts = texts(&command);
        assert!(texts.len() > 50 && texts.iter().all(|text| !text.contains("{n}")), "{texts:?}");
        command.build();
        let dtls = command.find_subcommand_mut("dtls").unwrap();
        let help = dtls.render_long_help().to_string();
        assert!(help.contains("bench-{n}") && help.contains("`{id}`"), "{help}");
    }
}
