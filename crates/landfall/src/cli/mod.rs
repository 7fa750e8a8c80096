//! The command line.
//!
//! Owns: arguments, what is printed, exit statuses: 0, 1 when something did not work or the answer is no, 64 when the command
//! line or the settings are wrong. Does not own: running the gateway, which is given to [`main`].

mod admin;
mod check;
mod client;
mod init;
mod line;
mod nats_context;
mod output;
mod password;
mod send;
mod trim;
mod verify;
mod watch;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::settings::{DEFAULT_FILE, Environment, Origin, Settings};
use crate::{Failure, logging, readable};

use output::Output;

/// A device connectivity gateway: devices reach it over MQTT, CoAP, UDP, TLS and DTLS, and NATS is told who connected, who left
/// and why, what they sent and what was sent to them.
#[derive(Debug, Parser)]
#[command(name = "landfall", version, arg_required_else_help = true)]
struct Cli {
    /// The settings file [default: landfall.toml, if it is there; or the variable LANDFALL_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway until SIGTERM or SIGINT.
    Run,
    /// Looks at the settings without running anything.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Prints the events as they come, one line each.
    Watch(watch::WatchArgs),
    /// Lists the sessions that are open now.
    Sessions(admin::SessionsArgs),
    /// Ends every session of a device.
    Kick(admin::KickArgs),
    /// Sends a command to a device and prints what became of it.
    Send(send::SendArgs),
    /// Reads the stored events as a ledger and says which promise is broken; exit status 1 if any is.
    Verify(verify::VerifyArgs),
    /// Makes what a board on the bench needs: certificates, one device, a settings file; and prints what to type.
    Init(init::InitArgs),
    /// Makes room in a store that is full: old device messages go, and old events of presence that no gateway needs any more.
    Trim(trim::TrimArgs),
    /// Prints a context for the program `nats`: where NATS is, and the password of the embedded server.
    NatsContext(nats_context::ContextArgs),
    /// Reads a password from standard input, up to the end of the line, and prints its hash for the file of devices.
    HashPassword,
    /// Keeps the embedded nats-server; the gateway starts this itself.
    #[command(name = "__nats-child", hide = true)]
    NatsChild {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum ConfigCommand {
    /// Says what is wrong with the settings and with the files and directories that they name, or that nothing is.
    Check,
    /// Prints the settings in force as an annotated TOML file, secrets left out.
    Print,
}

/// What every command that talks to a running gateway takes.
#[derive(Clone, Debug, Default, Args)]
struct ClientArgs {
    /// Where NATS is: nats://HOST:PORT or tls://…, with USER:PASSWORD@ before the host where it asks for them. Default: as the
    /// settings say; with the embedded server, the running gateway's.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The gateway's `instance.name` [default: the settings'].
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

/// Runs the program: `run` is the gateway.
pub fn main<R, F>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment,
    run: R,
) -> ExitCode
where
    R: FnOnce(Settings, Origin) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error. When even this cannot be written nobody is there.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli, environment, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure != Failure::No {
                let _ = writeln!(std::io::stderr(), "landfall: {failure}");
            }
            ExitCode::from(failure.status())
        }
    }
}

fn dispatch<R, F>(cli: Cli, environment: &Environment, run: R) -> Result<(), Failure>
where
    R: FnOnce(Settings, Origin) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let named = cli.config.or_else(|| environment.get("LANDFALL_CONFIG").map(PathBuf::from));
    let settings = || Settings::find(named.as_deref(), environment);
    let file = named.as_deref().unwrap_or(DEFAULT_FILE.as_ref());
    let mut out = Output::standard(environment);
    match cli.command {
        Command::NatsChild { arguments } => landfall_nats::embedded::child_main(arguments),
        Command::Run => {
            let settings = settings()?;
            logging::init(&settings.log);
            for text in settings.warnings.iter().cloned().chain(readable::all(&settings, file)) {
                tracing::warn!("{text}");
            }
            let origin = Origin::new(named.clone(), environment.clone());
            runtime(tokio::runtime::Builder::new_multi_thread())?.block_on(run(settings, origin))
        }
        Command::Config { what: ConfigCommand::Print } => out.text(&settings()?.annotated()),
        Command::Config { what: ConfigCommand::Check } => {
            let settings = settings()?;
            client_runtime()?.block_on(check::check(&settings))?;
            settings.exposed().iter().for_each(|told| output::remark(told));
            for text in settings.warnings.iter().cloned().chain(readable::all(&settings, file)) {
                output::remark(&format!("warning: {text}"));
            }
            let place = if file.exists() { file.display().to_string() } else { "the defaults".to_owned() };
            out.line(&format!("ok: {place}"))
        }
        Command::Init(args) => init::init(&args, &mut out),
        Command::NatsContext(args) => nats_context::print(&args, &settings()?, environment, &mut out),
        Command::HashPassword => out.line(&password::hash_typed()?),
        Command::Watch(args) => client_runtime()?.block_on(watch::watch(&args, &settings()?, &mut out)),
        Command::Sessions(args) => client_runtime()?.block_on(admin::sessions(&args, &settings()?, &mut out)),
        Command::Kick(args) => client_runtime()?.block_on(admin::kick(&args, &settings()?, &mut out)),
        Command::Verify(args) => client_runtime()?.block_on(verify::verify(&args, &settings()?, &mut out)),
        Command::Trim(args) => client_runtime()?.block_on(trim::run(&args, &settings()?, &mut out)),
        Command::Send(args) => client_runtime()?.block_on(send::send(args, &settings()?, &mut out)),
    }
}

fn runtime(mut builder: tokio::runtime::Builder) -> Result<tokio::runtime::Runtime, Failure> {
    let built = builder.enable_all().build();
    built.map_err(|error| Failure::Runtime(format!("the runtime cannot be started: {error}")))
}

fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    runtime(tokio::runtime::Builder::new_current_thread())
}
