//! Both authenticators, with files of the test's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_event::{IdentifiedBy, RefusedCause, TopicFilter, Transport};
use landfall_hub::{AuthError, Authenticator, Credentials, PeerCertificate, Principal, Secret};
use tokio_util::sync::CancellationToken;

use super::{DevicesAuth, OpenAuth, file};
use crate::reloads::Reloads;

mod crowd;
mod stateless;

/// `secret` under parameters so small that the tests do not wait for them.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$ZWlnaHQgYnl0ZXM$";

fn hash_of(password: &str) -> String {
    use argon2::password_hash::{PasswordHasher, SaltString};
    use argon2::{Algorithm, Argon2, Params, Version};
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    let salt = SaltString::encode_b64(b"eight bytes").unwrap();
    let hash = argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string();
    assert!(hash.starts_with(HASH), "{hash}");
    hash
}

fn nobody() -> Credentials {
    Credentials {
        transport: Transport::Mqtt,
        remote_address: SocketAddr::from(([127, 0, 0, 1], 5)),
        client_id: "client-1".into(),
        username: None,
        password: None,
        signature: None,
        certificate: None,
    }
}

fn user(name: &str, password: &str) -> Credentials {
    let password = Some(Secret::new(Bytes::copy_from_slice(password.as_bytes())));
    Credentials { username: Some(name.into()), password, ..nobody() }
}

fn certified(common_name: Option<&str>, fingerprint: &str) -> Credentials {
    let common_name = common_name.map(str::to_owned);
    let certificate = Some(PeerCertificate { common_name, fingerprint: fingerprint.to_owned() });
    Credentials { transport: Transport::Mqtts, certificate, ..nobody() }
}

struct World {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl World {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("devices.toml");
        std::fs::write(&path, text).unwrap();
        Self { _directory: directory, path }
    }

    fn auth(&self) -> DevicesAuth {
        DevicesAuth::open(&self.path, (2, 64)).unwrap()
    }

    /// Puts another text in the file's place, at once.
    fn replace(&self, text: &str) {
        let other = self.path.with_extension("new");
        std::fs::write(&other, text).unwrap();
        std::fs::rename(&other, &self.path).unwrap();
    }
}

async fn name(auth: &impl Authenticator, credentials: &Credentials) -> Result<String, RefusedCause> {
    match auth.authenticate(credentials).await {
        Ok(principal) => Ok(format!("{}@{}", principal.device, principal.tenant)),
        Err(AuthError::Refused(cause)) => Err(cause),
        Err(AuthError::Unavailable) => panic!("unavailable"),
    }
}

fn problem(text: &str) -> String {
    file::parse(Path::new("devices.toml"), text).unwrap_err().to_string()
}

#[tokio::test]
async fn open_believes_a_valid_client_id_and_allows_everything() {
    let auth = OpenAuth::default();
    let principal = auth.authenticate(&nobody()).await.unwrap();
    assert_eq!((principal.tenant.as_str(), principal.device.as_str()), ("default", "client-1"));
    assert_eq!(principal.identified_by, IdentifiedBy::Anonymous);
    assert!(principal.acl.may_publish("a/b") && principal.acl.may_subscribe(&"#".parse().unwrap()));
    for id in ["", "a\r\nb", "a\0", &"x".repeat(65_535)] {
        let credentials = Credentials { client_id: id.into(), ..nobody() };
        assert_eq!(name(&auth, &credentials).await, Err(RefusedCause::Malformed));
    }
    let odd = Credentials { client_id: "a.*.> #/+ é".into(), ..nobody() };
    assert_eq!(name(&auth, &odd).await, Ok("a.*.> #/+ é@default".to_owned()));
}

#[tokio::test]
async fn open_leaves_topics_with_a_dollar_to_the_setting() {
    let filter = |text: &str| text.parse::<TopicFilter>().unwrap();
    let acl = OpenAuth::default().authenticate(&nobody()).await.unwrap().acl;
    assert!(!acl.may_publish("$aws/things/a/shadow/update") && !acl.may_publish("$SYS/broker/uptime"));
    let acl = OpenAuth::new(&[filter("#"), filter("$aws/#")]).authenticate(&nobody()).await.unwrap().acl;
    assert!(acl.may_publish("a") && acl.may_publish("$aws/things/a/shadow/update"));
    assert!(acl.may_subscribe(&filter("$aws/things/a/#")) && acl.may_receive("$aws/things/a/b"));
    assert!(!acl.may_publish("$SYS/broker/uptime") && !acl.may_subscribe(&filter("$SYS/#")));
    let acl = OpenAuth::new(&[filter("up/+")]).authenticate(&nobody()).await.unwrap().acl;
    assert!(acl.may_publish("up/a") && !acl.may_publish("a"));
    assert!(acl.may_subscribe(&filter("command///req/#")), "commands reach it all the same");
    assert!(!OpenAuth::new(&[]).authenticate(&nobody()).await.unwrap().acl.may_publish("a"));
}

#[tokio::test]
async fn an_entry_may_name_topics_with_a_dollar() {
    let text =
        |topics: &str| format!("[[device]]\nid = \"a\"\npassword = \"plain:x\"\npublish = [{topics}]\n");
    let acl = acl_of(&text("\"#\"")).await;
    assert!(acl.may_publish("a") && !acl.may_publish("$aws/things/a/shadow/update"));
    let acl = acl_of(&text("\"#\", \"$aws/things/%d/#\"")).await;
    assert!(acl.may_publish("a") && acl.may_publish("$aws/things/a/shadow/update"));
    assert!(!acl.may_publish("$aws/things/b/shadow/update") && !acl.may_publish("$aws"));
    let acl = acl_of(&text("\"$SYS/#\"")).await;
    assert!(acl.may_publish("$SYS/broker/connection/a/state") && !acl.may_publish("a"));
}

#[tokio::test]
async fn open_says_certificate_where_the_name_is_that_of_one() {
    let auth = OpenAuth::default();
    for (transport, expected) in [
        (Transport::Coaps, IdentifiedBy::Certificate),
        (Transport::Dtls, IdentifiedBy::Certificate),
        (Transport::Mqtts, IdentifiedBy::Anonymous),
    ] {
        let shown = Credentials { transport, ..certified(Some("client-1"), &"ab".repeat(32)) };
        assert_eq!(auth.authenticate(&shown).await.unwrap().identified_by, expected, "{transport:?}");
    }
}

#[tokio::test]
async fn a_password_proves_the_device_and_the_client_id_proves_nothing() {
    let world = World::new(&format!(
        "[[device]]\nid = \"pump-17\"\npassword = \"{}\"\napp_version = \"demo-v1\"\nkeep_alive = \"60s\"\n\
         [[device]]\nid = \"pump-17\"\ntenant = \"acme\"\npassword = \"plain:tiger\"\n",
        hash_of("secret")
    ));
    let auth = world.auth();
    assert_eq!(auth.devices(), 2);
    for (user_name, password, expected) in [
        ("pump-17", "secret", Ok("pump-17@default")),
        ("pump-17@default", "secret", Ok("pump-17@default")),
        ("pump-17@acme", "tiger", Ok("pump-17@acme")),
        ("pump-17@acme", "secret", Err(RefusedCause::BadCredentials)),
        ("pump-17", "tiger", Err(RefusedCause::BadCredentials)),
        ("pump-17", "", Err(RefusedCause::BadCredentials)),
        ("pump-17", "secret2", Err(RefusedCause::BadCredentials)),
        ("pump-18", "secret", Err(RefusedCause::UnknownDevice)),
        ("pump-17@", "secret", Err(RefusedCause::UnknownDevice)),
        ("@acme", "tiger", Err(RefusedCause::UnknownDevice)),
        ("", "", Err(RefusedCause::UnknownDevice)),
    ] {
        let found = name(&auth, &user(user_name, password)).await;
        assert_eq!(found, expected.map(str::to_owned), "{user_name:?} {password:?}");
    }
    let principal = auth.authenticate(&user("pump-17", "secret")).await.unwrap();
    assert_eq!(principal.identified_by, IdentifiedBy::Password);
    assert_eq!(principal.keep_alive, Some(Duration::from_secs(60)));
    assert_eq!(&*principal.app_version, "demo-v1");
    assert_eq!(name(&auth, &nobody()).await, Err(RefusedCause::BadCredentials));
    let without = Credentials { password: None, ..user("pump-17", "") };
    assert_eq!(name(&auth, &without).await, Err(RefusedCause::BadCredentials));
}

#[tokio::test]
async fn a_password_found_right_is_not_hashed_again() {
    let world = World::new(&format!("[[device]]\nid = \"a\"\npassword = \"{}\"\n", hash_of("secret")));
    let auth = world.auth();
    assert!(auth.authenticate(&user("a", "wrong")).await.is_err());
    assert!(auth.authenticate(&user("a", "secret")).await.is_ok());
    auth.forbid_hashing();
    assert!(auth.authenticate(&user("a", "secret")).await.is_ok(), "the digest suffices");
    assert_eq!(auth.authenticate(&user("a", "wrong")).await.unwrap_err(), AuthError::Unavailable);
    assert_eq!(
        auth.authenticate(&user("unknown", "x")).await.unwrap_err(),
        AuthError::Unavailable,
        "a decoy is hashed"
    );
}

#[tokio::test]
async fn a_file_without_hashes_needs_no_decoy() {
    let world = World::new("[[device]]\nid = \"a\"\npassword = \"plain:x\"\n");
    let auth = world.auth();
    auth.forbid_hashing();
    assert_eq!(name(&auth, &user("unknown", "x")).await, Err(RefusedCause::UnknownDevice));
    assert_eq!(name(&auth, &user("a", "x")).await, Ok("a@default".to_owned()));
}

#[tokio::test]
async fn a_certificate_proves_the_device_by_name_or_by_fingerprint() {
    let print = "ab".repeat(32);
    let colons = print
        .as_bytes()
        .chunks(2)
        .map(|c| std::str::from_utf8(c).unwrap().to_uppercase())
        .collect::<Vec<_>>();
    let world = World::new(&format!(
        "[[device]]\nid = \"a\"\ncertificate = \"sensor a\"\n[[device]]\nid = \"b\"\ncertificate = \"{}\"\n\
         password = \"plain:b\"\n",
        colons.join(":")
    ));
    let auth = world.auth();
    let other = "cd".repeat(32);
    assert_eq!(name(&auth, &certified(Some("sensor a"), &other)).await, Ok("a@default".into()));
    assert_eq!(name(&auth, &certified(None, &print)).await, Ok("b@default".into()));
    assert_eq!(
        name(&auth, &certified(Some("sensor a"), &print)).await,
        Ok("b@default".into()),
        "the print goes first"
    );
    assert_eq!(name(&auth, &certified(Some("Sensor A"), &other)).await, Err(RefusedCause::UnknownDevice));
    assert_eq!(
        name(&auth, &certified(Some("a"), &other)).await,
        Err(RefusedCause::UnknownDevice),
        "an id is no CN"
    );
    let both = Credentials { certificate: certified(None, &print).certificate, ..user("a", "x") };
    assert_eq!(
        name(&auth, &both).await,
        Ok("b@default".into()),
        "what is proved goes before what is claimed"
    );
    let by_password = Credentials { certificate: certified(None, &other).certificate, ..user("b", "b") };
    assert_eq!(auth.authenticate(&by_password).await.unwrap().identified_by, IdentifiedBy::Password);
    assert_eq!(name(&auth, &user("a", "")).await, Err(RefusedCause::BadCredentials), "a has no password");
}

#[tokio::test]
async fn a_psk_identity_is_a_user_name_and_gets_the_key_that_the_device_must_have() {
    let key = "00112233445566778899aabbccddeeff";
    let world = World::new(&format!(
        "[[device]]\nid = \"pump-17\"\npsk = \"{key}\"\nkeep_alive = \"60s\"\n[[device]]\nid = \"pump-17\"\n\
         tenant = \"acme\"\npsk = \"{}\"\n[[device]]\nid = \"by-password\"\npassword = \"{}\"\n",
        "AB".repeat(64),
        hash_of("secret")
    ));
    assert_eq!(file::read(&world.path).unwrap().short_keys(), 0);
    let short = "[[device]]\nid = \"a\"\npsk = \"00112233445566778899aabbccddee\"\n";
    assert_eq!(file::parse(Path::new("devices.toml"), short).unwrap().short_keys(), 1);
    let auth = world.auth();
    auth.forbid_hashing();
    let identity = |identity: &str| Credentials {
        transport: Transport::Coaps,
        client_id: identity.into(),
        username: Some(identity.into()),
        ..nobody()
    };
    for (shown, first, length, tenant) in [
        ("pump-17", 0x00, 16, "default"),
        ("pump-17@default", 0x00, 16, "default"),
        ("pump-17@acme", 0xab, 64, "acme"),
    ] {
        let (key, principal) = auth.psk(&identity(shown)).await.unwrap();
        assert_eq!((key.expose()[0], key.expose().len()), (first, length), "{shown}");
        assert_eq!((principal.device.as_str(), principal.tenant.as_str()), ("pump-17", tenant));
        assert_eq!(principal.identified_by, IdentifiedBy::Psk);
        assert!(auth.still_holds(&principal.tenant, &principal.device, &principal.acl));
    }
    assert_eq!(
        auth.psk(&identity("pump-17")).await.unwrap().1.keep_alive,
        Some(Duration::from_secs(60)),
        "it is the same principal as any other way"
    );
    for shown in ["pump-18", "pump-17@", "@acme", "", "by-password"] {
        let refused = auth.psk(&identity(shown)).await.unwrap_err();
        assert_eq!(refused, AuthError::Refused(RefusedCause::UnknownDevice), "{shown:?}");
        assert!(OpenAuth::default().psk(&identity(shown)).await.is_err(), "{shown:?}");
    }
    let printed = format!("{:?}", file::read(&world.path).unwrap());
    assert!(printed.contains("psk: Some(Secret(..))"), "{printed}");
    assert_eq!(
        name(&world.auth(), &user("pump-17", key)).await,
        Err(RefusedCause::BadCredentials),
        "a PSK is no password"
    );
}

#[tokio::test]
async fn a_psk_identity_of_its_own_stands_for_the_name() {
    let world = World::new(
        "[[device]]\nid = \"pump-17\"\ntenant = \"acme\"\npsk = \"aa\"\npsk_identity = \"urn:key:7\"\npassword = \"plain:p\"\n\
         [[device]]\nid = \"pump-17\"\npsk = \"bb\"\n[[device]]\nid = \"pump-18\"\npassword = \"plain:p\"\n",
    );
    let auth = world.auth();
    let identity = |identity: &str| Credentials {
        transport: Transport::Dtls,
        client_id: identity.into(),
        username: Some(identity.into()),
        ..nobody()
    };
    for (shown, key, tenant) in [("urn:key:7", 0xaa, "acme"), ("pump-17", 0xbb, "default")] {
        let (secret, principal) = auth.psk(&identity(shown)).await.unwrap();
        assert_eq!((secret.expose(), principal.device.as_str()), (&[key][..], "pump-17"), "{shown}");
        assert_eq!(principal.tenant.as_str(), tenant);
        assert!(auth.still_holds(&principal.tenant, &principal.device, &principal.acl));
    }
    for shown in ["pump-17@acme", "URN:KEY:7", "pump-18", ""] {
        let refused = auth.psk(&identity(shown)).await.unwrap_err();
        assert_eq!(refused, AuthError::Refused(RefusedCause::UnknownDevice), "{shown:?}");
    }
    assert_eq!(name(&auth, &user("pump-17@acme", "p")).await, Ok("pump-17@acme".into()), "MQTT has the name");
    assert_eq!(name(&auth, &user("urn:key:7", "p")).await, Err(RefusedCause::UnknownDevice));
}

async fn acl_of(text: &str) -> Arc<landfall_hub::Acl> {
    let world = World::new(text);
    let id: String = text.split("id = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let auth = world.auth();
    auth.authenticate(&user(&id, "x")).await.unwrap().acl
}

#[tokio::test]
async fn an_absent_list_has_a_default_and_an_empty_one_denies() {
    let filter = |text: &str| text.parse::<TopicFilter>().unwrap();
    let acl = acl_of("[[device]]\nid = \"a\"\npassword = \"plain:x\"\n").await;
    assert!(acl.may_publish("anything/at/all"));
    assert!(acl.may_subscribe(&filter("command///req/#")) && acl.may_subscribe(&filter("c///q/#")));
    assert!(!acl.may_subscribe(&filter("#")) && !acl.may_subscribe(&filter("other")));
    let acl = acl_of("[[device]]\nid = \"a\"\npassword = \"plain:x\"\npublish = []\nsubscribe = []\n").await;
    assert!(!acl.may_publish("a") && !acl.may_subscribe(&filter("command///req/#")));
}

#[tokio::test]
async fn the_id_in_a_filter_widens_nothing() {
    let text = |id: &str| {
        format!(
            "[[device]]\nid = \"{id}\"\npassword = \"plain:x\"\npublish = [\"d/%d/up\"]\nsubscribe = [\"%d/#\", \"all\"]\n"
        )
    };
    let filter = |text: &str| text.parse::<TopicFilter>().unwrap();
    let acl = acl_of(&text("pump")).await;
    assert!(acl.may_publish("d/pump/up") && !acl.may_publish("d/other/up"));
    assert!(acl.may_subscribe(&filter("pump/x")) && !acl.may_subscribe(&filter("other/x")));
    for id in ["#", "+", "a/b", "+/+", "pump/#"] {
        let acl = acl_of(&text(id)).await;
        assert!(acl.publish.is_empty(), "{id}: {acl:?}");
        assert_eq!(acl.subscribe, [filter("all")], "{id}");
    }
}

#[test]
fn what_is_wrong_with_the_file_is_told_with_line_and_key_and_without_secrets() {
    for (text, expected) in [
        (
            "[[device]]\nname = \"a\"\n",
            "devices.toml:2: unknown key `name`: the keys of a device are id, tenant",
        ),
        ("[[device]]\ntenant = \"a\"\n", "devices.toml:2: `id` is missing"),
        ("[[device]]\nid = \"\"\n", "devices.toml:2: `id` = \"\": must be 1 to 128 bytes"),
        ("[[device]]\nid = 5\n", "devices.toml:2: `id` = 5: must be"),
        (
            "[[device]]\nid = \"a\"\npassword = \"hunter2\"\n",
            "devices.toml:3: `password` = ***: must be an argon2id hash",
        ),
        (
            "[[device]]\nid = \"a\"\npsk = \"hunter2\"\n",
            "devices.toml:3: `psk` = ***: must be 1 to 64 bytes in hex",
        ),
        (
            "[[device]]\nid = \"a\"\nkeep_alive = \"0s\"\n",
            "`keep_alive` = \"0s\": must be a duration from \"1s\"",
        ),
        (
            "[[device]]\nid = \"a\"\npublish = [\"a/#/b\"]\n",
            "`publish` = [\"a/#/b\"]: must be a list of MQTT topic filters",
        ),
        ("[[device]]\nid = \"a\"\npublish = \"#\"\n", "`publish` = \"#\": must be a list"),
        ("device = 5\n", "devices.toml:1: `device` = 5: must be tables, [[device]]"),
        ("[device]\nid = \"a\"\n", "devices.toml:1: `device` = a table: must be tables, [[device]]"),
        (
            "[[devices]]\nid = \"a\"\n",
            "devices.toml:1: unknown key `devices`: only [[device]] and [[tenant]] are allowed",
        ),
        ("[[tenant]]\nid = \"\"\n", "devices.toml:2: `id` = \"\": must be 1 to 128 bytes"),
        ("[[tenant]]\nkeep_alive = \"5s\"\n", "devices.toml:2: `id` is missing: it must be 1 to 128 bytes"),
        (
            "[[tenant]]\nid = \"a\"\nkeep_alive = 60\n",
            "devices.toml:3: `keep_alive` = 60: must be a duration from \"1s\" to \"30d\"",
        ),
        (
            "[[tenant]]\nid = \"a\"\npassword = \"hunter2\"\n",
            "devices.toml:3: unknown key `password`: the keys of a tenant are id, keep_alive",
        ),
        (
            "[[tenant]]\nid = \"a\"\n[[tenant]]\nid = \"a\"\n",
            "devices.toml:4: the tenant \"a\" is that of line 2; each must be there once",
        ),
        ("tenant = \"a\"\n", "devices.toml:1: `tenant` = \"a\": must be tables, [[tenant]]"),
        ("[[device]\n", "devices.toml is no TOML: line 1"),
        ("\u{1}\u{2} garbage", "devices.toml is no TOML: line 1"),
    ] {
        let problem = problem(text);
        assert!(problem.starts_with(expected) || problem.contains(expected), "{problem}\nnot\n{expected}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn what_is_wrong_with_a_psk_identity_is_told_with_its_key() {
    for (text, expected) in [
        (
            "[[device]]\nid = \"a\"\npsk = \"aa\"\npsk_identity = \"\"\n",
            "devices.toml:4: `psk_identity` = \"\": must be 1 to 128 bytes without control characters",
        ),
        (
            "[[device]]\nid = \"a\"\npsk = \"aa\"\npsk_identity = 7\n",
            "devices.toml:4: `psk_identity` = 7: must be",
        ),
        (
            "[[device]]\nid = \"a\"\npsk_identity = \"b\"\n",
            "devices.toml:2: `psk_identity` names a key that is not there: `psk` is missing",
        ),
    ] {
        let problem = problem(text);
        assert!(problem.starts_with(expected), "{problem}\nnot\n{expected}");
    }
}

#[test]
fn two_devices_never_answer_to_one_name() {
    let twice = problem("[[device]]\nid = \"a\"\n[[device]]\nid = \"a\"\ntenant = \"default\"\n");
    assert!(
        twice.contains("devices.toml:4: device \"a\" would answer to the user name \"a@default\" of line 2"),
        "{twice}"
    );
    let ambiguous = problem("[[device]]\nid = \"a@b\"\n[[device]]\nid = \"a\"\ntenant = \"b\"\n");
    assert!(ambiguous.contains("the user name \"a@b\" of line 2 too"), "{ambiguous}");
    let shared =
        problem("[[device]]\nid = \"a\"\ncertificate = \"x\"\n[[device]]\nid = \"b\"\ncertificate = \"x\"\n");
    assert!(shared.contains("CommonName(\"x\")"), "{shared}");
    let key = "psk = \"aa\"\npsk_identity = \"x\"\n";
    let shared = problem(&format!("[[device]]\nid = \"a\"\n{key}[[device]]\nid = \"b\"\n{key}"));
    let expected = "devices.toml:6: device \"b\" would answer to the PSK identity \"x\" of line 2 too";
    assert!(shared.contains(expected), "{shared}");
    for other in ["[[device]]\nid = \"x\"\npsk = \"bb\"\n", "[[device]]\nid = \"x\"\n"] {
        let name = format!("[[device]]\nid = \"a\"\n{key}{other}");
        assert!(problem(&name).contains("the PSK identity \"x\" of line 2 too"), "{name}");
        let name = format!("{other}[[device]]\nid = \"a\"\n{key}");
        assert!(problem(&name).contains("the PSK identity \"x\" of line 2 too"), "{name}");
    }
    let swapped = "[[device]]\nid = \"a\"\npsk = \"aa\"\npsk_identity = \"b\"\n\
                   [[device]]\nid = \"b\"\npsk = \"bb\"\npsk_identity = \"a\"\n";
    assert!(file::parse(Path::new("devices.toml"), swapped).is_ok(), "names and identities are two things");
}

#[test]
fn problems_are_counted_and_not_listed_without_end() {
    let text = "[[device]]\n".repeat(50_000);
    let problems = file::parse(Path::new("d"), &text).unwrap_err();
    assert_eq!(problems.0.len(), 21);
    assert!(problems.to_string().ends_with("and 49980 more problems"));
}

#[test]
fn a_file_that_is_absent_or_garbage_stops_the_start() {
    let missing = DevicesAuth::open(Path::new("/nonexistent/devices.toml"), (1, 64)).unwrap_err();
    assert!(
        missing.to_string().contains("the file of devices /nonexistent/devices.toml cannot be read"),
        "{missing}"
    );
    let world = World::new("");
    std::fs::write(&world.path, [0xff, 0xfe, 0x00]).unwrap();
    let garbage = DevicesAuth::open(&world.path, (1, 64)).unwrap_err();
    assert!(garbage.to_string().contains("devices.toml cannot be read"), "{garbage}");
}

#[tokio::test]
async fn an_empty_file_denies_everybody() {
    let auth = World::new("").auth();
    assert_eq!(name(&auth, &user("a", "x")).await, Err(RefusedCause::UnknownDevice));
    assert_eq!(name(&auth, &nobody()).await, Err(RefusedCause::BadCredentials));
}

async fn changed(changes: &mut tokio::sync::watch::Receiver<u64>) {
    tokio::time::timeout(Duration::from_secs(20), changes.changed())
        .await
        .expect("a change in time")
        .unwrap();
}

/// Runs `play` while the authenticator follows its file.
async fn followed<T>(auth: &DevicesAuth, play: impl Future<Output = T>) -> T {
    let stop = CancellationToken::new();
    let end = stop.clone();
    let reloads = Reloads::default();
    let (told, ()) = tokio::join!(
        async {
            let told = play.await;
            end.cancel();
            told
        },
        auth.run(stop, &reloads)
    );
    told
}

#[tokio::test]
async fn only_devices_that_are_gone_or_changed_lose_their_sessions() {
    let entry = |id: &str, rest: &str| format!("[[device]]\nid = \"{id}\"\npassword = \"plain:x\"\n{rest}");
    let world = World::new(&[entry("kept", ""), entry("gone", ""), entry("changed", "")].concat());
    let auth = world.auth();
    let mut before: Vec<Principal> = Vec::new();
    for id in ["kept", "gone", "changed"] {
        before.push(auth.authenticate(&user(id, "x")).await.unwrap());
    }
    let mut changes = auth.changes();
    followed(&auth, async {
        world.replace(&[entry("changed", "publish = []\n"), entry("new", ""), entry("kept", "")].concat());
        changed(&mut changes).await;
    })
    .await;
    let valid: Vec<_> = before
        .iter()
        .map(|principal| auth.still_holds(&principal.tenant, &principal.device, &principal.acl))
        .collect();
    assert_eq!(valid, [true, false, false]);
    assert_eq!(name(&auth, &user("gone", "x")).await, Err(RefusedCause::UnknownDevice));
    assert_eq!(name(&auth, &user("new", "x")).await, Ok("new@default".into()));
    let again = auth.authenticate(&user("changed", "x")).await.unwrap();
    assert!(auth.still_holds(&again.tenant, &again.device, &again.acl) && !again.acl.may_publish("a"));
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_a_mended_one_does() {
    let world = World::new("[[device]]\nid = \"a\"\npassword = \"plain:x\"\n");
    let auth = world.auth();
    let principal = auth.authenticate(&user("a", "x")).await.unwrap();
    let mut changes = auth.changes();
    let mut looks = auth.looks();
    followed(&auth, async {
        world.replace("[[device\n");
        tokio::time::timeout(Duration::from_secs(20), looks.changed())
            .await
            .expect("it is read in time")
            .unwrap();
        assert!(auth.still_holds(&principal.tenant, &principal.device, &principal.acl));
        assert_eq!(name(&auth, &user("a", "x")).await, Ok("a@default".into()));
        world.replace("[[device]]\nid = \"b\"\npassword = \"plain:x\"\n");
        changed(&mut changes).await;
    })
    .await;
    assert!(!auth.still_holds(&principal.tenant, &principal.device, &principal.acl));
}
