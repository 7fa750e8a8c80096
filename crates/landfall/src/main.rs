//! The program: arguments, settings, the gateway.

use std::process::ExitCode;

use landfall::settings::Environment;

/// glibc's allocator leaves an idle connection the smallest (docs/performance.md); musl's is too slow for a server.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    landfall::cli::main(std::env::args_os(), &Environment::of_process(), landfall::app::run)
}
