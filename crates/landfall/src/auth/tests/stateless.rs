//! What CoAP and UDP devices show: names with tenants, keys, signatures, and the silence that the file allows them.

use hmac::{Hmac, Mac};
use landfall_hub::Signature;
use sha2::Sha256;

use super::*;

/// What an unproven CoAP or UDP device shows that calls itself `device` or `device@tenant`.
fn named(transport: Transport, name: &str) -> Credentials {
    let device = name.split('@').next().unwrap();
    Credentials { transport, client_id: device.into(), username: Some(name.into()), ..nobody() }
}

fn with_key(name: &str, key: &str) -> Credentials {
    let password = Some(Secret::new(Bytes::copy_from_slice(key.as_bytes())));
    Credentials { password, ..named(Transport::Coap, name) }
}

fn signed(name: &str, key: &str) -> Credentials {
    let message = Bytes::from(format!("LF1 {name} seq=5\n21.5"));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(&message);
    let signature = Some(Signature { message, mac: mac.finalize().into_bytes().into() });
    Credentials { signature, ..named(Transport::Udp, name) }
}

/// The answer of the first poll; `None` when it is not there yet.
fn at_once(auth: &DevicesAuth, credentials: &Credentials) -> Option<Result<Principal, AuthError>> {
    let mut answer = auth.authenticate(credentials);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match answer.as_mut().poll(&mut context) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn open_believes_the_name_and_the_tenant() {
    let auth = OpenAuth::default();
    for transport in [Transport::Coap, Transport::Udp, Transport::Coaps, Transport::Dtls] {
        for (shown, expected) in [
            ("pump-17", Ok("pump-17@default")),
            ("pump-17@acme", Ok("pump-17@acme")),
            ("pump-17@a@b", Ok("pump-17@a@b")),
            ("pump-17@", Err(RefusedCause::Malformed)),
            ("@acme", Err(RefusedCause::Malformed)),
            ("pump-17@a\nb", Err(RefusedCause::Malformed)),
            ("", Err(RefusedCause::Malformed)),
        ] {
            let found = name(&auth, &named(transport, shown)).await;
            assert_eq!(found, expected.map(str::to_owned), "{shown:?}");
        }
        let other = Credentials { client_id: "pump-1".into(), ..named(transport, "pump-17") };
        assert_eq!(name(&auth, &other).await, Err(RefusedCause::Malformed), "one name, said twice");
        let nameless = Credentials { username: None, ..named(transport, "pump-17") };
        assert_eq!(name(&auth, &nameless).await, Ok("pump-17@default".into()));
    }
    let at = Credentials { client_id: "a@b".into(), ..named(Transport::Coap, "a@b@c") };
    assert_eq!(
        name(&auth, &at).await,
        Ok("a@b@c".into()),
        "the id may hold the sign that parts it from the tenant"
    );
    let mqtt = named(Transport::Mqtt, "pump-17@acme");
    assert_eq!(name(&auth, &mqtt).await, Ok("pump-17@default".into()), "an MQTT user name says nothing");
    let principal = auth.authenticate(&signed("pump-17", "whatever")).await.unwrap();
    assert_eq!(principal.identified_by, IdentifiedBy::Anonymous);
}

#[tokio::test]
async fn a_key_is_the_password_of_the_entry() {
    let world = World::new(&format!(
        "[[device]]\nid = \"a\"\npassword = \"{}\"\n[[device]]\nid = \"b\"\ntenant = \"acme\"\npassword = \"plain:b\"\n",
        hash_of("secret")
    ));
    let auth = world.auth();
    for (shown, key, expected) in [
        ("a", "secret", Ok("a@default")),
        ("a@default", "secret", Ok("a@default")),
        ("b@acme", "b", Ok("b@acme")),
        ("a", "wrong", Err(RefusedCause::BadCredentials)),
        ("b@acme", "", Err(RefusedCause::BadCredentials)),
        ("b", "b", Err(RefusedCause::UnknownDevice)),
        ("c", "secret", Err(RefusedCause::UnknownDevice)),
    ] {
        let found = name(&auth, &with_key(shown, key)).await;
        assert_eq!(found, expected.map(str::to_owned), "{shown:?} {key:?}");
    }
    let principal = auth.authenticate(&with_key("a", "secret")).await.unwrap();
    assert_eq!(principal.identified_by, IdentifiedBy::Password);
    let keyless = named(Transport::Udp, "a");
    assert_eq!(name(&auth, &keyless).await, Err(RefusedCause::BadCredentials));
    assert_eq!(name(&auth, &named(Transport::Udp, "c")).await, Err(RefusedCause::UnknownDevice));
}

#[tokio::test]
async fn a_device_with_a_pre_shared_key_alone_has_no_key_for_plain_transports() {
    let world = World::new("[[device]]\nid = \"a\"\npsk = \"6162\"\n");
    let auth = world.auth();
    for key in ["6162", "ab", ""] {
        assert_eq!(name(&auth, &with_key("a", key)).await, Err(RefusedCause::BadCredentials), "{key:?}");
        assert_eq!(name(&auth, &signed("a", key)).await, Err(RefusedCause::BadCredentials), "{key:?}");
    }
}

#[tokio::test]
async fn a_signature_is_right_or_wrong_at_the_first_poll() {
    let world = World::new(&format!(
        "[[device]]\nid = \"a\"\ntenant = \"acme\"\npassword = \"plain:secret\"\n[[device]]\nid = \"b\"\npassword = \"{}\"\n",
        hash_of("secret")
    ));
    let auth = world.auth();
    auth.forbid_hashing();
    let answer = |credentials: &Credentials| at_once(&auth, credentials).expect("an answer at once");
    let principal = answer(&signed("a@acme", "secret")).unwrap();
    assert_eq!((principal.device.as_str(), principal.tenant.as_str()), ("a", "acme"));
    assert_eq!(principal.identified_by, IdentifiedBy::Password);
    let refused = |cause| Err(AuthError::Refused(cause));
    let cause = |credentials: &Credentials| answer(credentials).map(|_| ());
    assert_eq!(cause(&signed("a@acme", "wrong")), refused(RefusedCause::BadCredentials));
    assert_eq!(cause(&signed("c", "secret")), refused(RefusedCause::UnknownDevice));
    assert_eq!(cause(&signed("c", "")), refused(RefusedCause::UnknownDevice));
    let mut other = signed("a@acme", "secret");
    other.signature.as_mut().unwrap().message = Bytes::from_static(b"LF1 a@acme seq=6\n21.5");
    assert_eq!(cause(&other), refused(RefusedCause::BadCredentials), "another message");
    let beside = Credentials { signature: other.signature, ..with_key("a@acme", "secret") };
    assert_eq!(cause(&beside), refused(RefusedCause::BadCredentials), "a key mends no wrong signature");
    assert!(format!("{beside:?}").contains("Signature(of 21 bytes)"), "{beside:?}");
}

#[tokio::test]
async fn a_hash_verifies_no_signature_and_the_operator_is_told_once() {
    let world = World::new(&format!("[[device]]\nid = \"b\"\npassword = \"{}\"\n", hash_of("secret")));
    let auth = world.auth();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let refused = tracing::subscriber::with_default(subscriber, || {
        [at_once(&auth, &signed("b", "secret")), at_once(&auth, &signed("b", "secret"))]
    });
    for answer in refused {
        let cause = answer.expect("an answer at once").map(|_| ());
        assert_eq!(cause, Err(AuthError::Refused(RefusedCause::BadCredentials)));
    }
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains("device=\"b\" tenant=\"default\""), "{text}");
    assert!(text.contains("plain:") && !text.contains("secret"), "{text}");
    assert_eq!(
        name(&auth, &with_key("b", "secret")).await,
        Ok("b@default".into()),
        "the key itself is right"
    );
}

/// What a subscriber has written.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

const FLEET: &str = "[[device]]\nid = \"own\"\ntenant = \"acme\"\npassword = \"plain:x\"\nkeep_alive = \"60s\"\n\
                     [[device]]\nid = \"tenants\"\ntenant = \"acme\"\npassword = \"plain:x\"\n\
                     [[device]]\nid = \"none\"\ntenant = \"other\"\npassword = \"plain:x\"\n";

async fn fleet(auth: &DevicesAuth) -> Vec<Principal> {
    let mut found = Vec::new();
    for shown in ["own@acme", "tenants@acme", "none@other"] {
        found.push(auth.authenticate(&with_key(shown, "x")).await.unwrap());
    }
    found
}

#[tokio::test]
async fn the_devices_own_silence_goes_before_its_tenants() {
    let tenants = "[[tenant]]\nid = \"acme\"\nkeep_alive = \"1h\"\n[[tenant]]\nid = \"other\"\n";
    for text in [format!("{tenants}{FLEET}"), format!("{FLEET}{tenants}")] {
        let world = World::new(&text);
        let silences: Vec<_> = fleet(&world.auth()).await.iter().map(|found| found.keep_alive).collect();
        assert_eq!(silences, [Some(Duration::from_secs(60)), Some(Duration::from_secs(3600)), None]);
    }
}

#[tokio::test]
async fn a_change_at_the_tenant_is_one_of_the_devices_that_it_reaches() {
    let world = World::new(&format!("{FLEET}[[tenant]]\nid = \"acme\"\nkeep_alive = \"1h\"\n"));
    let auth = world.auth();
    let before = fleet(&auth).await;
    let mut changes = auth.changes();
    followed(&auth, async {
        world.replace(&format!("{FLEET}[[tenant]]\nid = \"acme\"\nkeep_alive = \"2h\"\n"));
        changed(&mut changes).await;
    })
    .await;
    let valid: Vec<_> = before
        .iter()
        .map(|principal| auth.still_holds(&principal.tenant, &principal.device, &principal.acl))
        .collect();
    assert_eq!(valid, [true, false, true]);
}
