//! The way from a command to a running gateway.
//!
//! Owns: finding NATS and the instance, connecting within a few seconds or saying in one sentence what to do, asking every
//! replica. Does not own: what is asked.

use std::time::Duration;

use async_nats::{Client, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use landfall_event::InstanceName;
use landfall_event::subject::{self, AdminCall};
use landfall_nats::{ConnectSettings, Target};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::ClientArgs;
use crate::Failure;
use crate::runfile::RunFile;
use crate::settings::{NatsTarget, NatsUrl, Settings};

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the first replica has for its answer.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long the other replicas have for theirs.
const ALL_ANSWERS: Duration = Duration::from_millis(500);

/// A connection to the NATS of a gateway.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) instance: InstanceName,
    /// Where it leads to, without credentials.
    pub(super) place: String,
    urls: Vec<NatsUrl>,
    /// There can be one replica only.
    alone: bool,
}

/// Where a command is to connect.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    urls: Vec<NatsUrl>,
    instance: InstanceName,
    alone: bool,
}

fn place(args: &ClientArgs, settings: &Settings) -> Result<Place, Failure> {
    let bad_instance =
        |error| Failure::Usage(format!("--instance {error}: it must be 1 to 128 of [A-Za-z0-9_~-]"));
    let named = args.instance.as_deref().map(str::parse).transpose().map_err(bad_instance)?;
    let instance = |other: &InstanceName| named.clone().unwrap_or_else(|| other.clone());
    if let Some(text) = &args.nats {
        let Ok(NatsTarget::Servers(urls)) = text.parse() else {
            return Err(Failure::Usage(
                "--nats: must be nats://[user:password@]host[:port] or tls://…, several between commas"
                    .to_owned(),
            ));
        };
        return Ok(Place { urls, instance: instance(&settings.instance.name), alone: false });
    }
    if let NatsTarget::Servers(urls) = &settings.nats.url {
        return Ok(Place { urls: urls.clone(), instance: instance(&settings.instance.name), alone: false });
    }
    let path = RunFile::path(&settings.nats.store_dir);
    let run = RunFile::read(&settings.nats.store_dir).map_err(|error| {
        Failure::Runtime(format!(
            "no running gateway was found: {} cannot be read ({error}); start one with `landfall run`, or say where NATS is \
             with --nats URL",
            path.display()
        ))
    })?;
    let unusable = || Failure::Runtime(format!("{} is not usable; start the gateway again", path.display()));
    let url = run.nats.parse().map_err(|_| unusable())?;
    let theirs = run.instance.parse().map_err(|_| unusable())?;
    Ok(Place { urls: vec![url], instance: instance(&theirs), alone: true })
}

/// Connects, or says what was tried and what to do.
pub(super) async fn connect(
    args: &ClientArgs,
    settings: &Settings,
    what: &str,
) -> Result<Connection, Failure> {
    let Place { urls, instance, alone } = place(args, settings)?;
    let place = shown(&urls, alone);
    reach(&urls, &place, alone).await?;
    let nats = &settings.nats;
    let target = Target::new(ConnectSettings {
        urls: urls.iter().map(NatsUrl::expose).collect(),
        credentials: nats.creds.clone(),
        ca: nats.ca.clone(),
        certificate: nats.cert.clone().zip(nats.key.clone()),
        name: format!("landfall {what}"),
    })
    .map_err(Failure::runtime)?;
    let client = target.client().await.map_err(Failure::runtime)?;
    match timeout(CONNECT, settle(&client)).await {
        Ok(Ok(())) => Ok(Connection { client, instance, place, urls, alone }),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::Runtime(format!(
            "NATS at {place} was reached but let nobody in within {} s: check the credentials (in --nats, nats.url or \
             nats.creds) and, for tls://, nats.ca",
            CONNECT.as_secs()
        ))),
    }
}

/// Is the gateway's NATS elsewhere by now, or has it another password, and can it be reached? Only an embedded one changes, when its
/// gateway starts again.
pub(super) async fn has_moved(args: &ClientArgs, settings: &Settings, connection: &Connection) -> bool {
    let Ok(now) = self::place(args, settings) else { return false };
    let there = shown(&now.urls, now.alone);
    now.alone && now.urls != connection.urls && reach(&now.urls, &there, true).await.is_ok()
}

/// Where NATS is, with the credentials that are needed there.
pub(super) fn servers(args: &ClientArgs, settings: &Settings) -> Result<Vec<NatsUrl>, Failure> {
    Ok(place(args, settings)?.urls)
}

/// The addresses for people. That an embedded server has a password goes without saying.
fn shown(urls: &[NatsUrl], embedded: bool) -> String {
    match urls {
        [one] if embedded => one.parts().0,
        many => NatsTarget::Servers(many.to_vec()).to_string(),
    }
}

/// Is anything listening there? The client library would go on trying, and never say why.
async fn reach(urls: &[NatsUrl], place: &str, embedded: bool) -> Result<(), Failure> {
    let mut why = String::new();
    for url in urls {
        match timeout(CONNECT, TcpStream::connect(url.address())).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = format!("no answer within {} s", CONNECT.as_secs()),
        }
    }
    let cure = if embedded {
        "its gateway has ended, or is starting its server again; `landfall run` starts one"
    } else {
        "start that NATS, or name another with --nats URL"
    };
    Err(Failure::Runtime(format!("NATS at {place} cannot be reached ({why}): {cure}")))
}

/// Waits until the server has taken everything that was sent so far, by sending something to ourselves.
pub(super) async fn settle(client: &Client) -> Result<(), Failure> {
    let lost = |_| Failure::Runtime("the connection to NATS broke".to_owned());
    let inbox = client.new_inbox();
    let mut echo =
        client.subscribe(inbox.clone()).await.map_err(|error| Failure::runtime(error.to_string()))?;
    client.publish(inbox, Bytes::new()).await.map_err(|error| lost(error.to_string()))?;
    echo.next().await.map(drop).ok_or_else(|| lost(String::new()))
}

impl Connection {
    /// Asks every replica; the answers in the order in which they came, at least one.
    pub(super) async fn ask(&self, call: &AdminCall, body: Vec<u8>) -> Result<Vec<Message>, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::Runtime(format!("NATS at {}: {error}", self.place));
        let inbox = self.client.new_inbox();
        let mut replies = self.client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
        let subject = subject::admin_subject(&self.instance, call);
        self.client.publish_with_reply(subject, inbox, body.into()).await.map_err(|error| failed(&error))?;
        let asked = Instant::now();
        let first = timeout(FIRST_ANSWER, replies.next()).await.map_err(|_| self.silent())?;
        let first = first
            .filter(|message| message.status != Some(StatusCode::NO_RESPONDERS))
            .ok_or_else(|| self.nobody())?;
        let mut answers = vec![first];
        while !self.alone
            && let Ok(Some(message)) = timeout_at(asked + ALL_ANSWERS, replies.next()).await
        {
            answers.push(message);
        }
        Ok(answers)
    }

    /// Nobody has subscribed to what was asked.
    pub(super) fn nobody(&self) -> Failure {
        Failure::Runtime(format!(
            "no gateway of the instance \"{}\" is connected to NATS at {}: start it, or name another with --instance",
            self.instance, self.place
        ))
    }

    fn silent(&self) -> Failure {
        Failure::Runtime(format!(
            "no gateway of the instance \"{}\" answered within {} s over NATS at {}: try again, or look at its log",
            self.instance,
            FIRST_ANSWER.as_secs(),
            self.place
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::Environment;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::load(None, &Environment::of(variables.iter().copied())).unwrap()
    }

    fn args(nats: Option<&str>, instance: Option<&str>) -> ClientArgs {
        ClientArgs { nats: nats.map(str::to_owned), instance: instance.map(str::to_owned) }
    }

    #[test]
    fn an_argument_goes_before_the_settings() {
        let settings = settings(&[("LANDFALL_NATS__URL", "nats://a"), ("LANDFALL_INSTANCE__NAME", "north")]);
        let found = place(&args(None, None), &settings).unwrap();
        assert_eq!(
            (found.urls[0].to_string(), found.instance.as_str()),
            ("nats://a:4222".to_owned(), "north")
        );
        let found = place(&args(Some("nats://b:1"), Some("south")), &settings).unwrap();
        assert_eq!((found.urls[0].to_string(), found.instance.as_str()), ("nats://b:1".to_owned(), "south"));
        for bad in [args(Some("embedded"), None), args(Some("b:1"), None), args(None, Some("a.b"))] {
            assert_eq!(place(&bad, &settings).unwrap_err().status(), 64);
        }
    }

    #[test]
    fn with_the_embedded_server_the_run_file_says_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&[("LANDFALL_NATS__STORE_DIR", directory.path().to_str().unwrap())]);
        let missing = place(&args(None, None), &settings).unwrap_err();
        assert_eq!(missing.status(), 1);
        assert!(
            missing.to_string().contains("landfall.run.json") && missing.to_string().contains("landfall run"),
            "{missing}"
        );
        let run = RunFile {
            pid: 1,
            instance: "north".into(),
            replica: "a1".into(),
            incarnation: "i".into(),
            nats: "nats://127.0.0.1:7000".into(),
            admin: None,
            listeners: BTreeMap::new(),
            serving: false,
        };
        let _announced = run.announce(directory.path()).unwrap();
        let found = place(&args(None, None), &settings).unwrap();
        assert_eq!(
            (found.urls[0].to_string(), found.instance.as_str()),
            ("nats://127.0.0.1:7000".to_owned(), "north")
        );
        assert!(found.alone);
    }

    #[tokio::test]
    async fn a_nats_that_is_not_there_is_told_in_one_sentence() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("nats://u:hunter2@{}", free.local_addr().unwrap());
        drop(free);
        let failure = connect(&args(Some(&url), None), &settings(&[]), "watch").await.unwrap_err();
        let text = failure.to_string();
        assert_eq!(failure.status(), 1);
        assert!(text.contains("cannot be reached") && text.contains("--nats URL"), "{text}");
        assert!(!text.contains("hunter2") && text.lines().count() == 1, "{text}");
    }
}
