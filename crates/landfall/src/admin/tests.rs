//! The admin interface over a real socket, with an overview made up for the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use landfall_event::subject::AdminCall;
use landfall_event::{DeviceId, TenantId};
use landfall_hub::SessionView;
use landfall_nats::Cause;
use landfall_net::{Endpoint, Listener, Scope};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{AdminServer, NotReady, Overview, SessionQuery, StoreTrouble, answer, register_process};
use crate::reloads::Broken;

#[derive(Default)]
struct Made {
    phase: Mutex<Option<NotReady>>,
    store: Mutex<Option<StoreTrouble>>,
    broken: Mutex<Vec<Broken>>,
    refuses: bool,
    sessions: Vec<SessionView>,
}

impl Overview for Made {
    fn phase(&self) -> Option<NotReady> {
        *self.phase.lock()
    }

    fn admits(&self) -> bool {
        !self.refuses || self.store.lock().is_none()
    }

    fn store(&self) -> Option<StoreTrouble> {
        self.store.lock().clone()
    }

    fn broken(&self) -> Vec<Broken> {
        self.broken.lock().clone()
    }

    fn session_count(&self, query: &SessionQuery) -> u64 {
        self.sessions.iter().filter(|session| query.wants(session)).count() as u64
    }

    fn sessions(&self, query: &SessionQuery) -> Vec<SessionView> {
        self.sessions.iter().filter(|s| query.wants(s)).take(query.limit).cloned().collect()
    }

    fn kick(&self, tenant: &TenantId, device: &DeviceId) -> usize {
        let theirs = |s: &&SessionView| s.tenant == tenant.as_str() && s.endpoint_id == device.as_str();
        self.sessions.iter().filter(theirs).count()
    }
}

fn session(tenant: &str, device: &str) -> SessionView {
    SessionView {
        tenant: tenant.into(),
        endpoint_id: device.into(),
        session_id: "01991234-5678-7fff-bfff-ffffffffffff".into(),
        epoch: 1,
        transport: "mqtt".into(),
        protocol: "MQTT/5.0".into(),
        remote_id: device.into(),
        remote_address: "127.0.0.1:5".into(),
        identified_by: "anonymous".into(),
        keep_alive_ms: Some(90_000),
        dormant: None,
        connected_at: 1,
        last_seen_at: 2,
        messages_in: 0,
        messages_out: 0,
        bytes_in: 0,
        bytes_out: 0,
    }
}

struct Served {
    scope: Scope,
    at: SocketAddr,
}

async fn serve(overview: &Arc<Made>) -> Served {
    let scope = Scope::new();
    let endpoint: Endpoint = "tcp://127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(&endpoint, None).await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut registry = Registry::default();
    registry.register("landfall_test", "A counter", Counter::<u64>::default());
    register_process(&mut registry);
    let hosts = vec!["gateway.internal".to_owned()];
    AdminServer::start(listener, &scope, Arc::clone(overview) as Arc<dyn Overview>, registry, hosts);
    Served { scope, at }
}

impl Served {
    async fn raw(&self, request: &[u8]) -> String {
        let play = async {
            let mut stream = TcpStream::connect(self.at).await.unwrap();
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            // A server that has said its no may close before it has read everything.
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::time::timeout(Duration::from_secs(20), play).await.expect("an answer in time")
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, &format!("Host: {}\r\n", self.at)).await
    }

    async fn get_as(&self, path: &str, host: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let answer = self.raw(request.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn close(self) {
        assert!(self.scope.drain(Duration::from_secs(20)).await.is_clean());
    }
}

fn trouble(cause: Cause) -> StoreTrouble {
    StoreTrouble { cause, error: "as it was said".into(), since: Some(7) }
}

#[tokio::test]
async fn ready_to_admit_and_ready_to_store_are_two_answers() {
    let overview = Arc::new(Made::default());
    let served = serve(&overview).await;
    for path in ["/livez", "/readyz", "/readyz?store", "/readyz?config", "/readyz?store&config"] {
        assert_eq!(served.json(path).await.0, 200, "{path}");
    }
    *overview.store.lock() = Some(trouble(Cause::LoginRefused));
    let (status, body) = served.json("/readyz").await;
    assert_eq!((status, body["status"].as_str()), (200, Some("ok")), "devices are let in: {body}");
    assert_eq!(body["store"]["cause"], "nats-login-refused", "and it is said all the same");
    let (status, body) = served.json("/readyz?store").await;
    assert_eq!((status, &body["reasons"]), (503, &serde_json::json!(["nats-login-refused"])));
    assert_eq!((&body["store"]["error"], &body["store"]["since"]), (&"as it was said".into(), &7.into()));
    *overview.phase.lock() = Some(NotReady::Draining);
    let (status, body) = served.json("/readyz").await;
    assert_eq!((status, &body["reasons"]), (503, &serde_json::json!(["draining"])));
    assert_eq!(served.json("/livez").await.0, 200, "a gateway that is not ready lives");
    for bad in ["/readyz?stor", "/readyz?store&store", "/readyz?nope=1"] {
        assert_eq!(served.json(bad).await.0, 400, "{bad}");
    }
    served.close().await;
}

#[tokio::test]
async fn who_refuses_devices_while_nats_is_away_is_not_ready_then() {
    let overview = Arc::new(Made { refuses: true, ..Made::default() });
    let served = serve(&overview).await;
    assert_eq!(served.json("/readyz").await.0, 200);
    *overview.store.lock() = Some(trouble(Cause::StoreFull));
    let (status, body) = served.json("/readyz").await;
    assert_eq!((status, &body["reasons"]), (503, &serde_json::json!(["store-full"])));
    served.close().await;
}

#[tokio::test]
async fn a_broken_file_is_an_answer_of_its_own() {
    let overview = Arc::new(Made::default());
    let served = serve(&overview).await;
    let broken = Broken { file: "auth.devices", error: "devices.toml:3: what".into(), since: 9 };
    *overview.broken.lock() = vec![broken];
    assert_eq!(served.json("/readyz").await.0, 200);
    let (status, body) = served.json("/readyz?config").await;
    assert_eq!((status, &body["reasons"]), (503, &serde_json::json!(["config-broken"])));
    assert_eq!(body["config"][0]["file"], "auth.devices");
    served.close().await;
}

#[tokio::test]
async fn metrics_are_in_the_format_that_is_asked_for() {
    let served = serve(&Arc::new(Made::default())).await;
    let (status, body) = served.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("# TYPE landfall_test_total counter\nlandfall_test_total 0\n"), "{body}");
    assert!(body.contains("landfall_build_info{version=\"") && !body.contains("# EOF"), "{body}");
    for name in ["process_resident_memory_bytes ", "process_threads ", "process_open_fds "] {
        assert!(body.lines().any(|line| line.starts_with(name)), "{body}");
    }
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let plain = served.raw(format!("{head}\r\n").as_bytes()).await;
    assert!(plain.contains("content-type: text/plain; version=0.0.4"), "{plain}");
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let open = served.raw(format!("{head}{accept}\r\n").as_bytes()).await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.contains("# TYPE landfall_test counter\n") && open.contains("# EOF"), "{open}");
    served.close().await;
}

#[tokio::test]
async fn sessions_are_filtered_and_bounded() {
    let sessions = vec![session("default", "a"), session("default", "b/ä"), session("acme", "a")];
    let served = serve(&Arc::new(Made { sessions, ..Made::default() })).await;
    let names = |body: &Value| -> Vec<String> {
        let all = body["sessions"].as_array().unwrap().iter();
        all.map(|s| format!("{}@{}", s["endpointId"].as_str().unwrap(), s["tenant"].as_str().unwrap()))
            .collect()
    };
    let (status, body) = served.json("/v1/sessions").await;
    assert_eq!((status, names(&body).len(), body["total"].as_u64()), (200, 3, Some(3)));
    let (_, body) = served.json("/v1/sessions?device=a").await;
    assert_eq!((names(&body), body["total"].as_u64()), (vec!["a@default".into(), "a@acme".into()], Some(2)));
    let (_, body) = served.json("/v1/sessions?device=a&limit=1").await;
    assert_eq!((names(&body).len(), body["total"].as_u64()), (1, Some(2)), "the total is of what is wanted");
    assert_eq!(names(&served.json("/v1/sessions?tenant=acme&device=a").await.1), ["a@acme"]);
    assert_eq!(names(&served.json("/v1/sessions?device=b%2F%C3%A4").await.1), ["b/ä@default"]);
    let (_, body) = served.json("/v1/sessions?limit=1").await;
    assert_eq!((names(&body).len(), body["total"].as_u64()), (1, Some(3)));
    for bad in ["limit=0", "limit=10001", "limit=x", "limit=-1", "nope=1", "limit=1&limit=2"] {
        let (status, body) = served.json(&format!("/v1/sessions?{bad}")).await;
        assert_eq!(status, 400, "{bad}");
        assert!(body["error"].as_str().unwrap().contains("limit"), "{body}");
    }
    served.close().await;
}

#[tokio::test]
async fn what_is_not_served_is_refused() {
    let served = serve(&Arc::new(Made::default())).await;
    assert_eq!(served.json("/").await.0, 404);
    let post = served
        .raw(b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(64 * 1024));
    let refused = served.raw(long.as_bytes()).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 4"), "{refused}");
    let garbage = served.raw(b"\x16\x03\x01\x02\x00garbage\r\n\r\n").await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    assert_eq!(served.json("/livez").await.0, 200);
    served.close().await;
}

/// A page whose name was made to lead here asks by that name.
#[tokio::test]
async fn only_addresses_and_known_names_are_answered() {
    let served = serve(&Arc::new(Made::default())).await;
    for host in
        ["127.0.0.1", "127.0.0.1:1", "[::1]:8080", "LocalHost:8080", "gateway.internal:8080", "192.0.2.1"]
    {
        assert_eq!(served.get_as("/v1/sessions", &format!("Host: {host}\r\n")).await.0, 200, "{host}");
    }
    for host in ["rebound.example", "localhost.rebound.example:8080", "127.0.0.1.rebound.example", ""] {
        for path in ["/v1/sessions", "/metrics", "/nothing"] {
            assert_eq!(served.get_as(path, &format!("Host: {host}\r\n")).await.0, 421, "{host} {path}");
        }
        for path in ["/livez", "/readyz"] {
            assert_eq!(served.get_as(path, &format!("Host: {host}\r\n")).await.0, 200, "{host} {path}");
        }
    }
    let twice = "Host: localhost\r\nHost: rebound.example\r\n";
    assert_ne!(served.get_as("/metrics", twice).await.0, 200);
    served.close().await;
}

#[tokio::test]
async fn liveness_is_answered_while_slow_connections_hold_every_place() {
    let served = serve(&Arc::new(Made::default())).await;
    let mut slow = Vec::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        // The connections that make room for others may be gone already.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n").await;
        slow.push(stream);
        if slow.len() > 64 {
            assert_eq!(served.get("/livez").await.0, 200, "{} are there", slow.len());
        }
    }
    assert_eq!(served.get("/readyz").await.0, 200);
    assert_eq!(served.get("/metrics").await.0, 503, "all else has a bound");
    drop(slow);
    served.close().await;
}

#[tokio::test]
async fn silent_connections_do_not_keep_the_gateway_from_ending() {
    let served = serve(&Arc::new(Made::default())).await;
    let mut silent = TcpStream::connect(served.at).await.unwrap();
    silent.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    assert_eq!(served.json("/livez").await.0, 200, "others are served meanwhile");
    served.close().await;
}

#[test]
fn answers_over_nats_fit_into_a_message() {
    let long = "\u{1f600}".repeat(30);
    let heavy = |n| SessionView { remote_id: "x".repeat(2_000), ..session("default", &format!("{long}{n}")) };
    let sessions = (0..5_000).map(heavy).collect();
    let overview = Arc::new(Made { sessions, ..Made::default() });
    let replica = "a1".parse().unwrap();
    let body = answer((&AdminCall::Sessions, b""), &replica, &overview);
    assert!(body.len() <= 900_000);
    let reply: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((reply["replica"].as_str(), reply["total"].as_u64()), (Some("a1"), Some(5_000)));
    assert!(!reply["sessions"].as_array().unwrap().is_empty());
    let query = SessionQuery { device: Some(format!("{long}4999")), ..SessionQuery::default() };
    let query = serde_json::to_vec(&query).unwrap();
    let body = answer((&AdminCall::Sessions, &query), &replica, &overview);
    let reply: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((reply["total"].as_u64(), reply["sessions"].as_array().unwrap().len()), (Some(1), 1));
    let kick = |device: &str| {
        let call = AdminCall::Kick { tenant: "default".parse().unwrap(), device: device.parse().unwrap() };
        answer((&call, b""), &replica, &overview)
    };
    assert_eq!(kick(&format!("{long}7")), "{\"kicked\":1}");
    assert_eq!(kick("nobody"), "{\"kicked\":0}");
}
