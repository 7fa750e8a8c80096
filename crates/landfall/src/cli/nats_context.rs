//! `landfall nats-context`: how other people's programs find the gateway's NATS and what they need there.
//!
//! Owns: the form of a context of the program `nats`, and where that program looks for it. Does not own: where NATS is
//! (`super::client`).

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use super::output::{Output, remark};
use super::{ClientArgs, client};
use crate::Failure;
use crate::settings::{Environment, NatsUrl, Settings};

#[derive(Debug, Args)]
pub(super) struct ContextArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Prints the URL alone, credentials included: NATS_URL="$(landfall nats-context --url)".
    #[arg(long, conflicts_with = "save")]
    url: bool,
    /// Saves it under this name, for `nats --context NAME`, in place of an earlier one.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
}

pub(super) fn print(
    args: &ContextArgs,
    settings: &Settings,
    environment: &Environment,
    out: &mut Output,
) -> Result<(), Failure> {
    let urls = client::servers(&args.client, settings)?;
    if args.url {
        let urls: Vec<_> = urls.iter().map(NatsUrl::expose).collect();
        return out.line(&urls.join(","));
    }
    let context = context(&urls, settings)?;
    let Some(name) = &args.save else { return out.text(&context) };
    let path = place(name, environment)?;
    save(&path, &context)
        .map_err(|error| Failure::Runtime(format!("{} cannot be written: {error}", path.display())))?;
    remark(&format!("saved; use it as `nats --context {name} ...`"));
    Ok(())
}

/// The context as JSON.
fn context(urls: &[NatsUrl], settings: &Settings) -> Result<String, Failure> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: String| drop(fields.insert(key.to_owned(), Value::from(value)));
    put("description", format!("Landfall, instance {}", settings.instance.name));
    let parts: Vec<_> = urls.iter().map(NatsUrl::parts).collect();
    put("url", parts.iter().map(|(url, _)| url.as_str()).collect::<Vec<_>>().join(","));
    match parts.iter().find_map(|(_, user)| *user) {
        Some((user, Some(password))) => {
            put("user", user.to_owned());
            put("password", password.to_owned());
        }
        Some((token, None)) => put("token", token.to_owned()),
        None => {}
    }
    let nats = &settings.nats;
    let files = [("creds", &nats.creds), ("ca", &nats.ca), ("cert", &nats.cert), ("key", &nats.key)];
    for (key, path) in files {
        // The program may be started elsewhere.
        let Some(path) = path else { continue };
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        put(key, path.display().to_string());
    }
    let text = serde_json::to_string_pretty(&fields).map_err(Failure::runtime)?;
    Ok(format!("{text}\n"))
}

/// Where the program looks for a context of this name.
fn place(name: &str, environment: &Environment) -> Result<PathBuf, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Failure::Usage("--save: must be a name of [A-Za-z0-9_.-]".to_owned()));
    }
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let config = config.ok_or_else(|| {
        Failure::Usage("--save: neither XDG_CONFIG_HOME nor HOME says where contexts are kept".to_owned())
    })?;
    Ok(config.join("nats/context").join(format!("{name}.json")))
}

/// It may hold a password, so nobody else may read it.
fn save(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new();
    let mut file = file.create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::Printed;
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings::load(None, &Environment::of([("LANDFALL_NATS__URL", url)])).unwrap()
    }

    fn args(url: bool, save: Option<&str>) -> ContextArgs {
        ContextArgs { client: ClientArgs::default(), url, save: save.map(str::to_owned) }
    }

    #[test]
    fn a_context_holds_the_credentials_apart_from_the_addresses() {
        let settings = settings("nats://app:hunter2@a:1,tls://b");
        let printed = Printed::default();
        let environment = Environment::default();
        print(&args(false, None), &settings, &environment, &mut printed.output(false)).unwrap();
        let found: Value = serde_json::from_str(&printed.text()).unwrap();
        assert_eq!((&found["url"], &found["user"]), (&"nats://a:1,tls://b:4222".into(), &"app".into()));
        assert_eq!(found["password"], "hunter2");
        let printed = Printed::default();
        print(&args(true, None), &settings, &environment, &mut printed.output(false)).unwrap();
        assert_eq!(printed.text(), "nats://app:hunter2@a:1,tls://b:4222\n");
    }

    #[test]
    fn a_saved_context_is_where_the_program_looks_and_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::of([("XDG_CONFIG_HOME", directory.path().to_str().unwrap())]);
        let save = |name: &str| {
            let out = Printed::default();
            print(&args(false, Some(name)), &settings("nats://t0ken@a"), &environment, &mut out.output(false))
        };
        save("landfall").unwrap();
        let path = directory.path().join("nats/context/landfall.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let found: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(found["token"], "t0ken");
        for name in ["", "../x", "a/b", ".hidden"] {
            assert_eq!(save(name).unwrap_err().status(), 64, "{name}");
        }
    }
}
