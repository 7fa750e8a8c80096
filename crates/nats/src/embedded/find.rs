//! Which nats-server is used.
//!
//! Owns: where it is looked for, and that it is new enough. Does not own: getting one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{EmbeddedError, OLDEST_SERVER};

const NAME: &str = "nats-server";
/// How long it may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The first program that is new enough: the named one, or else those on PATH, then those in `.tools/`.
pub(super) async fn find(named: Option<&Path>) -> Result<PathBuf, EmbeddedError> {
    let candidates = match named {
        Some(path) => vec![path.to_path_buf()],
        None => candidates(),
    };
    let mut unfit = None;
    for path in candidates {
        if !path.is_file() {
            continue;
        }
        let said = version(&path).await;
        match said.as_deref().map(parse_version) {
            Some(Some(found)) if found >= OLDEST_SERVER => return Ok(path),
            _ => {
                let found = said.unwrap_or_else(|| "unknown".to_owned());
                unfit.get_or_insert(EmbeddedError::TooOld { path, found });
            }
        }
    }
    Err(unfit.unwrap_or(EmbeddedError::Missing { named: named.map(Path::to_path_buf) }))
}

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let executable = std::env::current_exe().ok();
    let beside = executable.iter().filter_map(|path| path.parent()).map(|folder| folder.join(".tools"));
    let here = std::env::current_dir().ok().map(|folder| folder.join(".tools"));
    on_path.chain(here).chain(beside).map(|folder| folder.join(NAME)).collect()
}

/// What the program calls its version: "2.15.1".
async fn version(path: &Path) -> Option<String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(VERSION_TIMEOUT, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.trim().rsplit_once('v')?.1;
    (!version.is_empty() && version.len() < 64).then(|| version.to_owned())
}

/// Major and minor.
fn parse_version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse_version("2.15.1"), Some((2, 15)));
        assert_eq!(parse_version("2.12.0-RC.3"), Some((2, 12)));
        assert!(parse_version("2.9.10") < Some(OLDEST_SERVER));
        assert_eq!(parse_version("unknown"), None);
    }
}
