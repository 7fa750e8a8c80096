//! The program: arguments, settings, the gateway.

use std::process::ExitCode;

use landfall::settings::Environment;

/// Many connections allocate and free small things on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    landfall::cli::main(std::env::args_os(), &Environment::of_process(), landfall::app::run)
}
