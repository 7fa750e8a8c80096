//! The HTTP request that turns a connection into a WebSocket.
//!
//! Owns: reading it within its bounds, what it must say, the answer. Does not own: its deadline (`accept`).

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use landfall_event::RefusedDetail;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::{MAX_REQUEST, Origins, WsStream};
use crate::{Stream, close, receive};

/// Where upgrades are taken when the listen address names no path.
const PATHS: [&str; 2] = ["/mqtt", "/"];

/// The subprotocols: the client must offer one of them, and is answered the first that it offers [MQTT-6.0.0-3],
/// [MQTT-6.0.0-4]. The second is what clients of MQTT 3.1 offer, and some that have learned more since.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// How long a client has to take the answer that turns it away.
const ANSWER_LINGER: Duration = Duration::from_secs(1);

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{why}")]
struct Rejected {
    status: &'static str,
    why: &'static str,
    detail: RefusedDetail,
}

impl Rejected {
    const fn new(status: &'static str, why: &'static str, detail: RefusedDetail) -> Self {
        Self { status, why, detail }
    }
}

const TOO_LARGE: Rejected = Rejected::new(
    "431 Request Header Fields Too Large",
    "the request's head is too long",
    RefusedDetail::RequestTooLarge,
);
const NO_UPGRADE: Rejected =
    Rejected::new("400 Bad Request", "this is no WebSocket upgrade", RefusedDetail::NoUpgrade);
const NO_PATH: Rejected =
    Rejected::new("404 Not Found", "MQTT is not served at this path", RefusedDetail::NoPath);
const NO_VERSION: Rejected =
    Rejected::new("426 Upgrade Required", "WebSocket version 13 is needed", RefusedDetail::WebSocketVersion);
const NO_SUBPROTOCOL: Rejected = Rejected::new(
    "400 Bad Request",
    "neither subprotocol, mqtt or mqttv3.1, was offered",
    RefusedDetail::NoSubprotocol,
);
const NO_ORIGIN: Rejected = Rejected::new(
    "403 Forbidden",
    "pages of this origin are not admitted (mqtt.allowed_origins)",
    RefusedDetail::NoOrigin,
);

/// The word for what ended an upgrade.
pub(crate) fn detail_of(error: &io::Error) -> RefusedDetail {
    match error.get_ref().and_then(|error| error.downcast_ref::<Rejected>()) {
        Some(rejected) => rejected.detail,
        None if error.kind() == io::ErrorKind::TimedOut => RefusedDetail::TimedOut,
        None if error.kind() == io::ErrorKind::UnexpectedEof => RefusedDetail::Closed,
        None => RefusedDetail::NoUpgrade,
    }
}

/// Reads the request and answers it. `path` is the only path to serve; without one, `/mqtt` and `/`. Has no deadline of
/// its own.
///
/// # Errors
/// `PermissionDenied` for a page of an origin that is not admitted, `InvalidData` for another request that is turned away
/// (it has been told why), else the stream's error.
pub async fn upgrade<S: Stream>(
    mut stream: S,
    path: Option<&str>,
    origins: &Origins,
) -> io::Result<WsStream<S>> {
    let mut buffer = BytesMut::new();
    match read_request(&mut stream, &mut buffer, path, origins).await? {
        Ok(answer) => {
            stream.write_all(&answer).await?;
            stream.flush().await?;
            Ok(WsStream::new(stream, buffer.freeze()))
        }
        Err(rejected) => {
            let Rejected { status, why, detail } = rejected;
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\nContent-Type: text/plain\r\n\
                 Content-Length: {}\r\n\r\n{why}\n",
                why.len() + 1
            );
            if stream.write_all(answer.as_bytes()).await.is_ok() {
                close(stream, ANSWER_LINGER).await;
            }
            let is_origin = detail == RefusedDetail::NoOrigin;
            let kind = if is_origin { io::ErrorKind::PermissionDenied } else { io::ErrorKind::InvalidData };
            Err(io::Error::new(kind, rejected))
        }
    }
}

/// Reads to the end of the head and takes it from `buffer`; what follows stays there. Returns the answer to write.
async fn read_request<S: Stream>(
    stream: &mut S,
    buffer: &mut BytesMut,
    path: Option<&str>,
    origins: &Origins,
) -> io::Result<Result<Vec<u8>, Rejected>> {
    let mut looked = 0;
    loop {
        if receive(stream, buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Parsing waits for the end of the head, so that a request that comes byte by byte is parsed once.
        let unseen = buffer.get(looked..).unwrap_or_default();
        if let Some(at) = unseen.windows(4).position(|w| w == b"\r\n\r\n") {
            if looked + at + 4 > MAX_REQUEST {
                return Ok(Err(TOO_LARGE));
            }
            let head = buffer.split_to(looked + at + 4);
            return Ok(answer(&head, path, origins));
        }
        if buffer.len() > MAX_REQUEST {
            return Ok(Err(TOO_LARGE));
        }
        looked = buffer.len().saturating_sub(3);
    }
}

fn answer(head: &[u8], path: Option<&str>, origins: &Origins) -> Result<Vec<u8>, Rejected> {
    let Ok(Some((_, request))) = Request::try_parse(head) else { return Err(NO_UPGRADE) };
    let asked = request.uri().path();
    if !path.map_or(PATHS.contains(&asked), |only| only == asked) {
        return Err(NO_PATH);
    }
    let pages = request.headers().get_all("Origin").iter().map(|page| page.to_str().ok().map(str::to_owned));
    if !origins.admit(pages, request.headers().get("Host").and_then(|host| host.to_str().ok())) {
        return Err(NO_ORIGIN);
    }
    if request.headers().get("Sec-WebSocket-Version").is_some_and(|version| version != "13") {
        return Err(NO_VERSION);
    }
    let mut response = create_response(&request).map_err(|_| NO_UPGRADE)?;
    let offered = request.headers().get_all("Sec-WebSocket-Protocol").iter();
    let mut offered = offered.filter_map(|h| h.to_str().ok()).flat_map(|h| h.split(',')).map(str::trim);
    let served = offered.find_map(|offer| SUBPROTOCOLS.into_iter().find(|served| *served == offer));
    let Some(served) = served else { return Err(NO_SUBPROTOCOL) };
    response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(served));
    let mut text = Vec::new();
    write_response(&mut text, &response).map_err(|_| NO_UPGRADE)?;
    Ok(text)
}
