//! The moment between the gateway's binary and the server's: asking for a signal at the parent's death.
//!
//! Owns: what runs in the new process before it becomes nats-server. Does not own: starting it ([`super::supervisor`]).

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The word by which a launcher knows that it is to call [`child_main`] with the arguments behind it.
pub const CHILD_COMMAND: &str = "__nats-child";

/// `EX_UNAVAILABLE`: the parent has gone, or the server cannot be executed.
const UNAVAILABLE: i32 = 69;

/// Becomes the server. `arguments` are those behind [`CHILD_COMMAND`]: the parent's process id, the program, its arguments.
///
/// The signal that is asked for here survives `exec`. Between the start of this process and that request the parent may
/// die unnoticed, so the parent is looked at once more afterwards.
pub fn child_main(arguments: impl IntoIterator<Item = OsString>) -> ! {
    let why = become_server(arguments.into_iter());
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(std::io::stderr(), "{CHILD_COMMAND}: {why}");
    std::process::exit(UNAVAILABLE)
}

/// Returns only when it fails, saying why.
fn become_server(mut arguments: impl Iterator<Item = OsString>) -> String {
    let parent = arguments.next().as_deref().and_then(parse_pid);
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        return "it is not meant to be called by hand".to_owned();
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("no signal at the parent's death: {error}");
    }
    if getppid() != Some(parent) {
        return "the gateway has gone".to_owned();
    }
    let error = Command::new(&program).args(arguments).exec();
    format!("{}: {error}", program.display())
}

fn parse_pid(text: &OsStr) -> Option<Pid> {
    text.to_str()?.parse().ok().and_then(Pid::from_raw)
}
