//! `landfall config check`: everything that `landfall run` opens is opened here too.
//!
//! Owns: which paths those are. Does not own: what must be in a file (whoever reads it).

use std::fs;
use std::io;
use std::path::Path;

use landfall_nats::embedded::find_server;
use landfall_nats::{ConnectSettings, Target};

use crate::Failure;
use crate::auth::Auth;
use crate::settings::{NatsTarget, NatsUrl, Settings};

/// Says everything that is wrong at once.
pub(super) async fn check(settings: &Settings) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    if let Err(problems) = Auth::from_settings(&settings.auth) {
        wrong.push(problems.to_string());
    }
    if let Some(tls) = settings.tls.settings()
        && let Err(error) = landfall_net::Tls::load(tls)
    {
        wrong.push(error.to_string());
    }
    if settings.dtls_sockets() > 0
        && let Some(dtls) = settings.dtls.settings(&settings.tls, settings.auth.mode)
        && let Err(error) = landfall_net::DtlsFiles::load(dtls)
    {
        wrong.push(error.to_string());
    }
    if let Err(problem) = nats(settings).await {
        wrong.push(problem);
    }
    let nats = &settings.nats;
    for (setting, path) in [("nats.store_dir", &nats.store_dir), ("nats.spool_dir", &nats.spool_dir)] {
        if let Err(error) = can_be_written(path) {
            wrong.push(format!("{setting} = {path:?}: it cannot be used: {error}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Usage(wrong.join("\n"))) }
}

/// What is needed to reach NATS, without reaching it.
async fn nats(settings: &Settings) -> Result<(), String> {
    let nats = &settings.nats;
    let urls = match &nats.url {
        NatsTarget::Embedded => {
            // One that is not named need not be on this machine, where the settings are looked at only.
            let Some(named) = nats.server.as_deref() else { return Ok(()) };
            return find_server(Some(named)).await.map(drop).map_err(|error| error.to_string());
        }
        NatsTarget::Servers(urls) => urls.iter().map(NatsUrl::expose).collect(),
    };
    let target = Target::new(ConnectSettings {
        urls,
        credentials: nats.creds.clone(),
        ca: nats.ca.clone(),
        certificate: nats.cert.clone().zip(nats.key.clone()),
        name: String::new(),
    });
    let target = target.map_err(|error| format!("nats.url: {error}"))?;
    target.check().map_err(|error| format!("the files of [nats]: {error}"))
}

/// Can a file be written in this directory, which is made when it is missing? Leaves nothing behind.
fn can_be_written(directory: &Path) -> io::Result<()> {
    let there = directory.ancestors().find(|path| path.exists() && !path.as_os_str().is_empty());
    let there = there.unwrap_or(Path::new("."));
    if !there.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is a file", there.display())));
    }
    let probe = there.join(format!(".landfall-check.{}", std::process::id()));
    fs::OpenOptions::new().create_new(true).write(true).open(&probe)?;
    fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;

    fn found(variables: &[(&str, &str)]) -> String {
        let settings = Settings::load(None, &Environment::of(variables.iter().copied())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match runtime.block_on(check(&settings)) {
            Ok(()) => String::new(),
            Err(failure) => {
                assert_eq!(failure.status(), 64);
                failure.to_string()
            }
        }
    }

    #[test]
    fn every_path_that_a_gateway_opens_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (good, file, missing) = (path("a/b/c"), path("file"), path("missing"));
        fs::write(&file, "no credentials").unwrap();
        let below = path("file/below");
        let dirs = [("LANDFALL_NATS__STORE_DIR", good.as_str()), ("LANDFALL_NATS__SPOOL_DIR", good.as_str())];
        let with = |more: &[(&'static str, &str)]| {
            let all: Vec<_> = dirs.iter().copied().chain([("LANDFALL_NATS__URL", "nats://n")]).collect();
            found(&[all, more.to_vec()].concat())
        };
        assert_eq!(with(&[]), "");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
        for (variable, value, setting) in [
            ("LANDFALL_NATS__CREDS", &missing, "missing"),
            ("LANDFALL_NATS__CREDS", &file, "file"),
            ("LANDFALL_NATS__CA", &missing, "missing"),
            ("LANDFALL_NATS__CA", &file, "file"),
            ("LANDFALL_NATS__SPOOL_DIR", &below, "nats.spool_dir"),
            ("LANDFALL_NATS__STORE_DIR", &file, "nats.store_dir"),
        ] {
            let text = with(&[(variable, value)]);
            assert!(text.contains(setting) && text.contains(value.as_str()), "{variable}={value}: {text}");
        }
        let pair = with(&[("LANDFALL_NATS__CERT", &missing), ("LANDFALL_NATS__KEY", &missing)]);
        assert!(pair.contains("missing"), "{pair}");
        let server = found(&[&dirs[..], &[("LANDFALL_NATS__SERVER", missing.as_str())]].concat());
        assert!(server.contains("nats-server is not installed at"), "{server}");
    }
}
