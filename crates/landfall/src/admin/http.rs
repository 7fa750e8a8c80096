//! `/livez`, `/readyz`, `/metrics`, `/v1/sessions`.
//!
//! Owns: routes, who may ask by which name, bounds of a request in size and time. Does not own: what the answers say
//! ([`super::Overview`]), places for connections ([`super::places`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use landfall_net::{
    AcceptSettings, Accepted, Gate, Limits, Listener, Refusal, Scope, Serve, Stream, StreamKind,
};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::exposition::{self, Format};
use super::places::{Place, Places};
use super::{DEFAULT_SESSIONS, MOST_SESSIONS, NotReady, Overview, SessionQuery, StoreTrouble};
use crate::reloads::Broken;

/// The most bytes of a request's head.
const MOST_HEAD: usize = 16 * 1024;
/// How long a request's head may take to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last, idle or not.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the request that is under way then, or at the gateway's end, may still take.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// How long a connection beside the bound may last, its one request included.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

struct Shared {
    overview: Arc<dyn Overview>,
    registry: Registry,
    hosts: Vec<String>,
}

/// Serves the operator's interface.
pub struct AdminServer {
    router: Router,
    /// For connections beside the bound.
    probes: Router,
    places: Arc<Places>,
    scope: Scope,
}

impl AdminServer {
    /// Serves on this listener, in this scope, until the scope is cancelled. Beside addresses and `localhost` it answers to the
    /// names in `hosts`, in lower case.
    pub fn start(
        listener: Listener,
        scope: &Scope,
        overview: Arc<dyn Overview>,
        registry: Registry,
        hosts: Vec<String>,
    ) {
        let shared = Arc::new(Shared { overview, registry, hosts });
        let probes = probes().fallback(no_place).with_state(Arc::clone(&shared));
        let (router, scope_of_all) = (router(shared), scope.clone());
        let server = Arc::new(Self { router, probes, places: Places::new(), scope: scope_of_all });
        let gate = Gate::new(Limits { connections: Places::MOST, per_address: 0 });
        listener.run(scope, server, gate, AcceptSettings::default());
    }
}

impl Serve for AdminServer {
    async fn serve<S: Stream>(self: Arc<Self>, accepted: Accepted<S>) {
        let Accepted { stream, remote, permit, .. } = accepted;
        let place = self.places.take();
        let (router, head, lasts) = match &place {
            Place::Ordinary(_) => (&self.router, HEAD_TIMEOUT, CONNECTION_TIMEOUT),
            Place::Beside(_) => (&self.probes, PROBE_TIMEOUT, PROBE_TIMEOUT),
        };
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(MOST_HEAD);
        builder.keep_alive(matches!(place, Place::Ordinary(_)));
        let service = TowerToHyperService::new(router.clone());
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.scope.cancelled() => None,
            () = place.wanted() => return,
            () = tokio::time::sleep(lasts) => None,
        };
        if ended.is_none() {
            connection.as_mut().graceful_shutdown();
            ended = tokio::time::timeout(LAST_REQUEST, connection).await.ok();
        }
        if let Some(Err(error)) = ended {
            tracing::debug!(%remote, %error, "a connection to the admin interface broke");
        }
        drop((permit, place));
    }

    fn refused(&self, remote: SocketAddr, _kind: StreamKind, why: Refusal) {
        tracing::debug!(%remote, ?why, "a connection to the admin interface was refused");
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let named = Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/sessions", get(sessions))
        .fallback(nothing)
        .layer(from_fn_with_state(Arc::clone(&shared), asked_by_name));
    probes().merge(named).with_state(shared)
}

/// What machines ask that look after the gateway, by whatever name; there is nothing in it that a web page must not see.
fn probes() -> Router<Arc<Shared>> {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

/// A web page whose name was made to lead here (DNS rebinding) asks by that name: so only addresses and known names are
/// answered.
async fn asked_by_name(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if is_known(request.headers(), &shared.hosts) {
        return next.run(request).await;
    }
    problem(
        StatusCode::MISDIRECTED_REQUEST,
        "this Host is not answered: ask by address or as localhost, or name it in admin.allowed_hosts",
    )
}

fn is_known(headers: &HeaderMap, hosts: &[String]) -> bool {
    let mut asked = headers.get_all(header::HOST).iter();
    // No browser leaves it out.
    let Some(host) = asked.next() else { return true };
    let Some(host) = host.to_str().ok().filter(|_| asked.next().is_none()) else { return false };
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => host.split_once(':').map_or(host, |(host, _)| host),
    };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.parse::<IpAddr>().is_ok() || hosts.contains(&host)
}

async fn no_place() -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "too many connections: only /livez and /readyz are answered now")
}

/// The process answers, so it lives.
async fn live() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// What is asked besides whether devices may come in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Are events stored?
    store: Option<String>,
    /// Is every file in use that was to be read again?
    config: Option<String>,
}

#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreTrouble>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    config: Vec<Broken>,
}

async fn ready(State(shared): State<Arc<Shared>>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let Ok(Query(asked)) = asked else {
        return problem(
            StatusCode::BAD_REQUEST,
            "allowed are `store` and `config`, each once, without a value",
        );
    };
    let overview = &shared.overview;
    let (store, broken) = (overview.store(), overview.broken());
    let mut reasons: Vec<&'static str> = overview.phase().map(NotReady::as_str).into_iter().collect();
    if let Some(trouble) = store.as_ref().filter(|_| asked.store.is_some() || !overview.admits()) {
        reasons.push(NotReady::Store(trouble.cause).as_str());
    }
    if asked.config.is_some() && !broken.is_empty() {
        reasons.push(NotReady::Config.as_str());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // What is wrong is told also where it is ready all the same.
    let body = Readiness {
        status: if reasons.is_empty() { "ok" } else { "not-ready" },
        reasons,
        store,
        config: broken,
    };
    (status, Json(body)).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accept: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::wanted(&accept.join(","));
    let mut text = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &shared.registry) {
        let text = format!("the metrics cannot be written: {error}");
        return problem(StatusCode::INTERNAL_SERVER_ERROR, &text);
    }
    if format == Format::Text {
        text = exposition::as_text(&text);
    }
    ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")], text).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    tenant: Option<String>,
    device: Option<String>,
    limit: Option<usize>,
}

async fn sessions(
    State(shared): State<Arc<Shared>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let Ok(Query(Wanted { tenant, device, limit })) = wanted else {
        let allowed =
            format!("allowed are tenant, device and limit (a number from 1 to {MOST_SESSIONS}), each once");
        return problem(StatusCode::BAD_REQUEST, &allowed);
    };
    let limit = limit.unwrap_or(DEFAULT_SESSIONS);
    if limit == 0 || limit > MOST_SESSIONS {
        return problem(
            StatusCode::BAD_REQUEST,
            &format!("limit = {limit}: must be a number from 1 to {MOST_SESSIONS}"),
        );
    }
    let query = SessionQuery { tenant, device, limit };
    let sessions = shared.overview.sessions(&query);
    Json(json!({ "total": shared.overview.session_count(&query), "sessions": sessions })).into_response()
}

async fn nothing() -> Response {
    problem(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics and /v1/sessions")
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}
