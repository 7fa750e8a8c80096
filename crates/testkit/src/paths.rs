//! Where the binaries are that tests start.

use std::env;
use std::path::{Path, PathBuf};

/// The environment variable that makes a missing interop client a failure instead of a skip. CI sets it.
pub const REQUIRE_INTEROP: &str = "LANDFALL_REQUIRE_INTEROP";

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/testkit lies two levels down")
}

/// A binary of this workspace: in the folder that the variable `LANDFALL_BIN` names, which is how a release build is measured,
/// else built in the same profile as the running test.
///
/// # Panics
/// When it has not been built, saying how to.
pub fn binary(name: &str) -> PathBuf {
    if let Some(folder) = env::var_os("LANDFALL_BIN") {
        return repository().join(folder).join(name);
    }
    let mut folder = env::current_exe().expect("the running test has a path");
    folder.pop();
    // Tests lie in target/{profile}/deps, binaries one level up.
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: build it with `cargo build --workspace --bins` (`make test` does)",
        path.display()
    );
    path
}

/// The nats-server of the tests: `.tools/` first, so that an old one on PATH does no harm.
///
/// # Panics
/// When there is none, saying how to get one.
pub fn nats_server() -> PathBuf {
    let own = repository().join(".tools/nats-server");
    if own.is_file() {
        return own;
    }
    program("nats-server").expect("no nats-server in .tools/ or on PATH: `make tools` fetches one")
}

/// A program on PATH, or where Debian keeps daemons.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/bin")])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// The Python that has `module` (`paho`, `aiocoap`).
pub fn python(module: &str) -> Option<PathBuf> {
    let environment = repository().join(".tools/venv");
    let mut versions = environment.join("lib").read_dir().ok()?.flatten();
    versions.find(|version| version.path().join("site-packages").join(module).is_dir())?;
    Some(environment.join("bin/python")).filter(|python| python.is_file())
}

/// A program of libcoap (`coap-client`, `coap-server`): Debian names each after what it is built with.
pub fn libcoap(name: &str) -> Option<PathBuf> {
    program(&format!("{name}-notls")).or_else(|| program(name))
}

/// libfaketime, which gives a program a wall clock of its own (Debian: `libfaketime`).
pub fn faketime() -> Option<PathBuf> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu", "."];
    let at = |place: &str| Path::new("/usr/lib").join(place).join("faketime/libfaketime.so.1");
    places.into_iter().map(at).find(|path| path.is_file())
}

/// An interop client, or `None` with a word on stderr that the test is skipped.
///
/// # Panics
/// When it is missing and [`REQUIRE_INTEROP`] is `1`.
pub fn interop(name: &str, found: Option<PathBuf>) -> Option<PathBuf> {
    if found.is_none() {
        let required = env::var(REQUIRE_INTEROP).is_ok_and(|value| value == "1");
        assert!(!required, "{name} is missing and {REQUIRE_INTEROP}=1: `make tools` installs it");
        eprintln!("SKIPPED: {name} is missing (`make tools` installs it)");
    }
    found
}
