//! The admin interface over a real socket, with an overview made up for the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use landfall_event::subject::AdminCall;
use landfall_event::{DeviceId, TenantId};
use landfall_hub::SessionView;
use landfall_net::{Endpoint, Listener, Scope};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{AdminServer, NotReady, Overview, SessionQuery, answer, register_process};

#[derive(Default)]
struct Made {
    not_ready: Mutex<Vec<NotReady>>,
    sessions: Vec<SessionView>,
}

impl Overview for Made {
    fn not_ready(&self) -> Vec<NotReady> {
        self.not_ready.lock().clone()
    }

    fn session_count(&self) -> u64 {
        self.sessions.len() as u64
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
    AdminServer::start(listener, &scope, Arc::clone(overview) as Arc<dyn Overview>, registry);
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
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
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

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let overview = Arc::new(Made::default());
    let served = serve(&overview).await;
    assert_eq!(served.json("/livez").await.0, 200);
    assert_eq!(served.json("/readyz").await.0, 200);
    *overview.not_ready.lock() = vec![NotReady::NatsNotConnected, NotReady::Draining];
    let (status, body) = served.json("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body["reasons"], serde_json::json!(["nats-not-connected", "draining"]));
    assert_eq!(served.json("/livez").await.0, 200, "a gateway that is not ready lives");
    served.close().await;
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let served = serve(&Arc::new(Made::default())).await;
    let (status, body) = served.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("landfall_test_total 0") && body.ends_with("# EOF\n"), "{body}");
    assert!(body.contains("landfall_build_info{version=\""), "{body}");
    for name in ["process_resident_memory_bytes ", "process_threads ", "process_open_fds "] {
        assert!(body.lines().any(|line| line.starts_with(name)), "{body}");
    }
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
    assert_eq!(names(&served.json("/v1/sessions?device=a").await.1), ["a@default", "a@acme"]);
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
        .raw(b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
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
    let body = answer(&AdminCall::Sessions, &replica, &overview);
    assert!(body.len() <= 900_000);
    let reply: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((reply["replica"].as_str(), reply["total"].as_u64()), (Some("a1"), Some(5_000)));
    assert!(!reply["sessions"].as_array().unwrap().is_empty());
    let kick = |device: &str| {
        let call = AdminCall::Kick { tenant: "default".parse().unwrap(), device: device.parse().unwrap() };
        answer(&call, &replica, &overview)
    };
    assert_eq!(kick(&format!("{long}7")), "{\"kicked\":1}");
    assert_eq!(kick("nobody"), "{\"kicked\":0}");
}
