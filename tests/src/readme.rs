//! The README's first screen, as somebody would type it: the commands run, and they print what the page shows.
//!
//! Times, ports, ids and durations differ from run to run and are compared by their kind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use landfall_testkit::paths::{self, repository};
use landfall_testkit::process::{Process, Signal};
use serde_json::Value;

/// The whole demonstration on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A block of the transcript: the command, if it begins with one, and the lines that it shows.
struct Block {
    command: Option<String>,
    lines: Vec<String>,
}

#[tokio::test]
async fn the_first_screen_is_true() {
    let [run, publish, rest, datagram, silence] =
        transcript().try_into().unwrap_or_else(|_| panic!("five blocks"));
    assert_eq!(run.command.as_deref(), Some("make run"));

    let store = tempfile::tempdir().unwrap();
    let demonstration = Demonstration::start(store.path(), &[]);
    let make = &demonstration.0;
    make.logged("landfall sessions", PATIENCE).await;
    let listeners = listeners(store.path());
    // The programs are built already, so nothing is.
    assert_shown(&make.log(), &run.lines[1..]);
    assert_eq!(run.lines[0], "building");

    let command = publish.command.expect("a command");
    let mut words = shell_words(&command).into_iter();
    let program = words.next().unwrap();
    if let Some(path) = paths::interop(&program, paths::program(&program)) {
        let mut client = Command::new(path);
        client.args(words).args(["-h", "127.0.0.1", "-p", port(&listeners, "mqtt")]);
        let client = Process::spawn("mosquitto_pub", client);
        assert!(client.exited(PATIENCE).await.success(), "{}", client.log());
        assert!(publish.lines.is_empty() && client.log().is_empty(), "it prints nothing");
        make.logged("disconnected  pump-17", PATIENCE).await;
        assert_shown(later(&make.log()), &rest.lines);
    }

    let command = datagram.command.expect("a command");
    let usual = "/dev/udp/127.0.0.1/7683";
    assert!(command.contains(usual), "the port that nothing has to be set for: {command}");
    let command = command.replace(usual, &format!("/dev/udp/127.0.0.1/{}", port(&listeners, "udp")));
    let mut shell = Command::new("bash");
    shell.args(["-c", &command]);
    let shell = Process::spawn("bash", shell);
    assert!(shell.exited(PATIENCE).await.success(), "{}", shell.log());
    assert!(datagram.lines.is_empty() && shell.log().is_empty(), "it prints nothing");
    make.logged("disconnected  beacon-1", PATIENCE).await;
    assert_shown(later(&make.log()), &silence.lines);

    // A second one leaves the first one's log alone.
    let again = Demonstration::start(store.path(), &[]);
    assert!(!again.0.exited(PATIENCE).await.success());
    again.0.logged("a gateway runs here already", PATIENCE).await;

    make.signal(Signal::TERM);
    make.exited(PATIENCE).await;
    assert!(fs::read_to_string(repository().join("data/landfall.log")).unwrap().contains("serving"));

    // In one test: both write into the same folder.
    goes_on_without_a_demonstration().await;
}

/// Where only devices of the file come in, the gateway runs all the same.
async fn goes_on_without_a_demonstration() {
    let store = tempfile::tempdir().unwrap();
    let devices = store.path().join("devices.toml");
    fs::write(&devices, "[[device]]\nid = \"pump-17\"\npassword = \"plain:wet\"\n").unwrap();
    let settings =
        [("LANDFALL_AUTH__MODE", "devices"), ("LANDFALL_AUTH__DEVICES", devices.to_str().unwrap())];
    let demonstration = Demonstration::start(store.path(), &settings);
    let make = &demonstration.0;
    make.logged("landfall sessions", PATIENCE).await;
    assert!(make.log().contains("no demonstration: with auth.mode = \"devices\""), "{}", make.log());
    let listeners = listeners(store.path());
    if let Some(path) = paths::interop("mosquitto_pub", paths::program("mosquitto_pub")) {
        let mut client = Command::new(path);
        client.args(["-h", "127.0.0.1", "-p", port(&listeners, "mqtt"), "-u", "pump-17", "-P", "wet"]);
        client.args(["-i", "pump-17", "-q", "1", "-t", "site/7/flow", "-m", "1"]);
        let client = Process::spawn("mosquitto_pub", client);
        assert!(client.exited(PATIENCE).await.success(), "{}", client.log());
        make.logged("disconnected  pump-17", PATIENCE).await;
    }
    make.signal(Signal::TERM);
    make.exited(PATIENCE).await;
}

/// What the gateway says it listens at, by protocol.
fn listeners(store: &Path) -> Value {
    let run = fs::read(store.join("landfall.run.json")).unwrap();
    serde_json::from_slice::<Value>(&run).unwrap()["listeners"].take()
}

fn port<'a>(listeners: &'a Value, protocol: &str) -> &'a str {
    listeners[protocol][0].as_str().and_then(|address| address.rsplit(':').next()).unwrap()
}

/// What is printed once the demonstration has said what to try next.
fn later(log: &str) -> &str {
    log.split_once("landfall sessions").expect("what to try next").1
}

/// It has children, which only an orderly end takes along: also when the test fails.
struct Demonstration(Process);

impl Demonstration {
    /// `make run` with every port free and its store there; more settings as variables.
    fn start(store: &Path, more: &[(&str, &str)]) -> Self {
        let bin = paths::binary("landfall").parent().unwrap().to_owned();
        let mut make = Command::new("sh");
        // One pipe for both outputs keeps the order of the lines.
        make.args(["-c", "exec make --no-print-directory run 2>&1"]).current_dir(repository());
        for (variable, value) in [
            ("LANDFALL_BIN", bin.to_str().unwrap()),
            ("LANDFALL_MQTT__LISTEN", "tcp://127.0.0.1:0"),
            ("LANDFALL_COAP__LISTEN", "udp://127.0.0.1:0"),
            ("LANDFALL_UDP__LISTEN", "udp://127.0.0.1:0"),
            ("LANDFALL_ADMIN__LISTEN", "127.0.0.1:0"),
            ("LANDFALL_NATS__STORE_DIR", store.to_str().unwrap()),
        ]
        .iter()
        .chain(more)
        {
            make.env(variable, value);
        }
        Self(Process::spawn("make run", make))
    }
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        self.0.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.0.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Every line of the page is among those of the log, in order.
fn assert_shown(log: &str, page: &[String]) {
    let mut printed = log.lines().map(plain);
    for line in page.iter().filter(|line| !line.trim().is_empty()) {
        let wanted = plain(line);
        assert!(
            printed.any(|line| line == wanted),
            "README.md shows\n  {wanted}\nwhich is not printed there:\n{log}"
        );
    }
}

/// A line without what differs from run to run.
fn plain(line: &str) -> String {
    line.split_whitespace().map(plain_word).collect::<Vec<_>>().join(" ")
}

fn plain_word(word: &str) -> String {
    let core = word.trim_end_matches([',', ';', ':']);
    let tail = &word[core.len()..];
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if core.len() == 13 && core.ends_with('Z') && core.matches(':').count() == 2 {
        return format!("TIME{tail}");
    }
    if core.len() == 32 && core.bytes().all(|b| b.is_ascii_hexdigit()) {
        return format!("ID{tail}");
    }
    // A duration, unless it is one that was agreed: those are whole seconds.
    if let Some(number) = core.strip_suffix("ms").or_else(|| core.strip_suffix('s'))
        && digits(&number.replacen('.', "", 1))
        && (core.ends_with("ms") || number.contains('.'))
    {
        return format!("DURATION{tail}");
    }
    match core.rsplit_once(':') {
        Some((host, port)) if host.ends_with("127.0.0.1") && digits(port) => format!("{host}:PORT{tail}"),
        _ => word.to_owned(),
    }
}

/// The blocks of code between the README's markers.
fn transcript() -> Vec<Block> {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- transcript").expect("the beginning of the transcript");
    let (text, _) = rest.split_once("<!-- /transcript -->").expect("the end of the transcript");
    let blocks = text.split("```").skip(1).step_by(2);
    let read = |block: &str| {
        let mut lines: Vec<String> = block.lines().skip(1).map(str::to_owned).collect();
        let command = lines.first().and_then(|line| line.strip_prefix("$ ")).map(str::to_owned);
        if command.is_some() {
            lines.remove(0);
        }
        Block { command, lines }
    };
    blocks.map(read).collect()
}

/// Words as a shell makes them of a line that has single quotes only.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
