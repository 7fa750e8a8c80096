//! Files with secrets that others on the machine can read or change.
//!
//! Owns: which files those are, and the sentence about each. Does not own: what is in them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::settings::{AuthMode, NatsTarget, Settings};

/// What is wrong with the file that a setting names, if anybody else can read it or change it; `None` too where it cannot be looked at,
/// which whoever reads it will say.
pub(crate) fn open_to_others(setting: &str, path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let what = match (mode & 0o004 != 0, mode & 0o022 != 0) {
        (true, true) => "read and changed by other users",
        (true, false) => "read by every user",
        (false, true) => "changed by other users",
        (false, false) => return None,
    };
    let path = path.display();
    Some(format!(
        "{setting}: {path} holds secrets and can be {what} of this machine (mode {mode:o}): chmod 600 {path}"
    ))
}

/// One sentence for each such file. `file` is the settings file, which holds a secret where it names NATS with one.
pub(crate) fn all(settings: &Settings, file: &Path) -> Vec<String> {
    let nats = &settings.nats;
    let mut files = vec![
        ("tls.key", settings.tls.key.as_deref()),
        ("dtls.key", settings.dtls.key.as_deref()),
        ("nats.key", nats.key.as_deref()),
        ("nats.creds", nats.creds.as_deref()),
    ];
    if settings.auth.mode == AuthMode::Devices {
        files.push(("auth.devices", Some(&settings.auth.devices)));
    }
    if let NatsTarget::Servers(urls) = &nats.url
        && urls.iter().any(|url| url.parts().1.is_some())
    {
        files.push(("the settings", Some(file)));
    }
    files.into_iter().filter_map(|(setting, path)| open_to_others(setting, path?)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;
    use crate::settings::Environment;

    #[test]
    fn files_with_secrets_that_others_can_read_or_change_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (key, creds, devices, file) = (path("key"), path("creds"), path("devices"), path("file"));
        for (path, mode) in [(&key, 0o640), (&creds, 0o644), (&devices, 0o664), (&file, 0o620)] {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let environment = Environment::of([
            ("LANDFALL_TLS__CERT", "cert"),
            ("LANDFALL_TLS__KEY", &key),
            ("LANDFALL_NATS__CREDS", &creds),
            ("LANDFALL_NATS__URL", "nats://app:hunter2@a"),
            ("LANDFALL_AUTH__MODE", "devices"),
            ("LANDFALL_AUTH__DEVICES", &devices),
        ]);
        let settings = Settings::load(None, &environment).unwrap();
        let told = all(&settings, file.as_ref());
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("nats.creds: ") && told[0].contains("read by every user"), "{told:?}");
        assert!(told[1].starts_with("auth.devices: ") && told[1].contains("read and changed"), "{told:?}");
        assert!(told[2].starts_with("the settings: ") && told[2].contains("changed by"), "{told:?}");
        assert!(told.iter().all(|text| text.contains("chmod 600") && !text.contains("hunter2")), "{told:?}");
    }
}
