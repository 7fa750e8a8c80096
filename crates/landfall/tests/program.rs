//! The program from outside: arguments, settings, exit statuses, what is said where. No gateway is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

struct Program {
    directory: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Program {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path().join(name), text).unwrap();
        self
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with("", arguments)
    }

    fn run_with(&self, input: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.path()).args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not read its input may have closed it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ran(child.wait_with_output().unwrap())
    }
}

struct Ran(Output);

impl Ran {
    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    #[track_caller]
    fn ends(&self, status: i32) -> &Self {
        assert_eq!(self.0.status.code(), Some(status), "{:?}", self.0);
        self
    }

    /// Standard error says all of these.
    #[track_caller]
    fn says(&self, words: &[&str]) -> &Self {
        let text = self.err();
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text}"));
        self
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let program = Program::new();
    let version = program.run(&["--version"]);
    assert_eq!(version.ends(0).out(), format!("landfall {}\n", env!("CARGO_PKG_VERSION")));
    let help = program.run(&["--help"]);
    for protocol in ["MQTT", "CoAP", "UDP", "DTLS"] {
        assert!(help.out().contains(protocol), "{}", help.out());
    }
    for command in ["run", "config", "watch", "sessions", "kick", "send", "init", "hash-password"] {
        assert!(help.ends(0).out().contains(&format!("\n  {command} ")), "{}", help.out());
    }
    assert!(!help.out().contains("__nats-child"), "{}", help.out());
}

#[test]
fn a_wrong_command_line_is_told_with_status_64() {
    let program = Program::new();
    program.run(&[]).ends(64);
    program.run(&["nope"]).ends(64).says(&["nope"]);
    program.run(&["kick"]).ends(64).says(&["DEVICE"]);
    program.run(&["kick", "a\nb"]).ends(64).says(&["control character"]);
    program.run(&["send", "d", "n", "p", "--ttl", "soon"]).ends(64).says(&["500ms, 10s, 5m"]);
    program.run(&["watch", "--type", "nope"]).ends(64).says(&["connected"]);
    program.run(&["watch", "--nats", "127.0.0.1:4222"]).ends(64).says(&["--nats", "nats://"]);
}

#[test]
fn settings_are_checked_without_running() {
    assert_eq!(Program::new().run(&["config", "check"]).ends(0).out(), "ok: the defaults\n");
    let program = Program::new().file("landfall.toml", "[instance]\nname = \"north\"\n");
    assert_eq!(program.run(&["config", "check"]).ends(0).out(), "ok: landfall.toml\n");
    let program = Program::new().file("landfall.toml", "[mqtt]\nlisten = 5\n").file("good.toml", "");
    program
        .run(&["config", "check"])
        .ends(64)
        .says(&["`mqtt.listen` = 5 (landfall.toml:2)", "tcp://127.0.0.1:1883"]);
    assert_eq!(program.run(&["config", "check", "--config", "good.toml"]).ends(0).out(), "ok: good.toml\n");
    program.run(&["--config", "absent.toml", "config", "check"]).ends(64).says(&["absent.toml"]);
    let program = Program::new().file("other.toml", "nope = 1\n").env("LANDFALL_CONFIG", "other.toml");
    program.run(&["config", "check"]).ends(64).says(&["unknown key `nope` (other.toml:1)"]);
}

#[test]
fn the_files_that_settings_name_are_checked_too() {
    let program = Program::new().env("LANDFALL_AUTH__MODE", "devices");
    program.run(&["config", "check"]).ends(64).says(&["the file of devices devices.toml cannot be read"]);
    let program = program.file("devices.toml", "[[device]]\nid = \"a\"\npassword = \"hunter2\"\n");
    let ran = program.run(&["config", "check"]);
    ran.ends(64).says(&["devices.toml:3: `password`"]);
    assert!(!ran.err().contains("hunter2"));
    let program = Program::new().env("LANDFALL_TLS__CERT", "no.pem").env("LANDFALL_TLS__KEY", "no.key");
    program.run(&["config", "check"]).ends(64).says(&["tls.cert", "no.pem"]);
    let program = Program::new().file(
        "landfall.toml",
        "[coap]\nlisten = [\"dtls://127.0.0.1:0\"]\n[dtls]\ncert = \"no.pem\"\nkey = \"no.key\"\n",
    );
    program.run(&["config", "check"]).ends(64).says(&["dtls.cert", "no.pem"]);
}

#[test]
fn what_is_printed_is_a_settings_file() {
    let program = Program::new()
        .env("LANDFALL_NATS__URL", "nats://app:hunter2@n:4222")
        .env("LANDFALL_MQTT__LISTEN", "tcp://127.0.0.1:0,ws://127.0.0.1:0");
    let printed = program.run(&["config", "print"]);
    let text = printed.ends(0).out();
    assert!(text.contains("url = \"nats://***@n:4222\"") && !text.contains("hunter2"), "{text}");
    assert!(text.contains("listen = [\"tcp://127.0.0.1:0\", \"ws://127.0.0.1:0\"]"), "{text}");
    let again = Program::new().file("landfall.toml", &text);
    assert_eq!(again.run(&["config", "print"]).ends(0).out(), text);
}

#[test]
fn a_password_is_hashed_for_the_file_of_devices() {
    let program = Program::new();
    let ran = program.run_with("open sesame\r\nmore", &["hash-password"]);
    let hash = ran.ends(0).out();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && hash.lines().count() == 1, "{hash}");
    let devices = format!("[[device]]\nid = \"a\"\npassword = \"{}\"\n", hash.trim());
    let program = program.file("devices.toml", &devices).env("LANDFALL_AUTH__MODE", "devices");
    program.run(&["config", "check"]).ends(0);
    program.run(&["hash-password"]).ends(1).says(&["no password"]);
}

#[test]
fn a_bench_is_made_once_with_secrets_that_others_cannot_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let program = Program::new();
    let made = program.run(&["init", "bench", "--host", "gateway.lan", "--device", "board 7"]);
    let told = made.ends(0).out();
    for line in [
        "landfall run --config bench/landfall.toml",
        "mosquitto_pub -h gateway.lan -p 8883 --cafile bench/ca.pem -i 'board 7' -u 'board 7' -P ",
        "coap-client-openssl -u 'board 7' -k ",
    ] {
        assert!(told.contains(line), "{line:?} is not in {told}");
    }
    for secret in ["landfall.toml", "devices.toml", "server.key"] {
        let file = program.path().join("bench").join(secret);
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{secret}");
    }
    let password = told.split_once("password ").unwrap().1.split_once('\n').unwrap().0;
    let devices = std::fs::read_to_string(program.path().join("bench/devices.toml")).unwrap();
    assert!(devices.contains("id = \"board 7\"") && !devices.contains(password), "{devices}");
    program.run(&["--config", "bench/landfall.toml", "config", "check"]).ends(0);
    program.run(&["init", "bench"]).ends(1).says(&["bench/landfall.toml is there already"]);
    assert_eq!(std::fs::read_to_string(program.path().join("bench/devices.toml")).unwrap(), devices);
}

#[test]
fn a_gateway_with_wrong_settings_does_not_start() {
    let program = Program::new().env("LANDFALL_MQTT__LISTEN", "tcp://0.0.0.0:0");
    program
        .run(&["run"])
        .ends(64)
        .says(&["`auth.mode` = \"open\" (default)", "environment variable LANDFALL_MQTT__LISTEN"]);
    let program = Program::new().file("landfall.toml", "[coap]\nlistne = [\"udp://127.0.0.1:5683\"]\n");
    program
        .run(&["run"])
        .ends(64)
        .says(&["unknown key `coap.listne` (landfall.toml:2)", "did you mean `coap.listen`?"]);
    let program = Program::new().env("LANDFALL_COAP__LISTEN", "coaps://127.0.0.1:5684");
    program
        .run(&["run"])
        .ends(64)
        .says(&["`coap.listen` = \"coaps://127.0.0.1:5684\"", "udp://127.0.0.1:5683"]);
    let program = Program::new().env("LANDFALL_COAP__LISTEN", "dtls://127.0.0.1:5684");
    program.run(&["run"]).ends(64).says(&[
        "`coap.listen` has \"dtls://127.0.0.1:5684\"",
        "`auth.mode` = \"open\" (default)",
        "`dtls.cert`",
    ]);
}

#[test]
fn without_a_gateway_a_client_command_says_what_to_do() {
    let program = Program::new();
    for arguments in [&["watch"][..], &["sessions"], &["kick", "d"], &["send", "d", "n", "p"]] {
        let ran = program.run(arguments);
        ran.ends(1).says(&["data/nats/landfall.run.json", "`landfall run`", "--nats URL"]);
        assert_eq!((ran.err().lines().count(), ran.out().as_str()), (1, ""), "{arguments:?}");
    }
}
