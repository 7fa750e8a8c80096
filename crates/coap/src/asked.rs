//! What a request asks for: which resource, and what its queries say.
//!
//! Owns: the resources' paths and methods, the grammar of the queries. Does not own: who the device is (`admission.rs`), what
//! a resource does (`resources.rs`). Pure.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use landfall_channel::Via;
use landfall_coap_core::{Code, ExchangeId, Method, Request, uri};
use landfall_event::{CommandId, DeviceId, TenantId, topic_of};
use landfall_hub::{Secret, claimed_name};

/// The longest status of an answer to a command, in bytes.
const MAX_STATUS: usize = 64;

/// What the gateway offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `GET /.well-known/core`: what there is.
    Core,
    /// `POST /rd` (RFC 9176, section 5).
    Register,
    /// `POST /rd/{id}`.
    Refresh(String),
    /// `DELETE /rd/{id}`.
    Deregister(String),
    /// `GET /command`.
    Command,
    /// `POST /command/res/{id}`.
    Answer(CommandId, Arc<str>),
    /// POST and PUT on any other path, which is the message's topic.
    Upstream(Arc<str>),
}

/// The names of the queries that mean something here.
pub(crate) const OWN_QUERIES: [&str; 6] = ["ep", "t", "key", "lt", "ttd", "sleep"];

/// What the queries say; whatever else is in them says nothing.
#[derive(Debug, Default)]
pub(crate) struct Says {
    /// `ep`: the device.
    pub(crate) device: Option<DeviceId>,
    /// `t`: its tenant.
    pub(crate) tenant: Option<TenantId>,
    /// `key`.
    pub(crate) key: Option<Secret>,
    /// `lt`: the silence that ends the session, in seconds.
    pub(crate) lifetime_s: Option<u32>,
    /// `ttd`: how long the device waits for a command, in seconds.
    pub(crate) ttd_s: Option<u32>,
    /// `sleep`: how long it sleeps then, in seconds.
    pub(crate) sleep_s: Option<u32>,
}

impl Says {
    /// What the device calls itself, as it may be told: without what is its key too.
    pub(crate) fn claims(&self) -> Option<Cow<'_, str>> {
        claimed_name(self.device.as_ref()?, self.tenant.as_ref(), self.key.as_ref().map(Secret::expose))
    }
}

/// A request that can be understood.
pub(crate) struct Asked {
    pub(crate) exchange: ExchangeId,
    pub(crate) via: Via,
    pub(crate) resource: Resource,
    pub(crate) says: Says,
    pub(crate) request: Request,
}

/// The resource is left out: the name of a registration is as good as a key.
impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("exchange", &self.exchange)
            .field("via", &self.via)
            .field("says", &self.says)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl Asked {
    /// # Errors
    /// The code of the answer: 4.00, 4.04 or 4.05.
    pub(crate) fn read(exchange: ExchangeId, via: Via, request: Request) -> Result<Box<Self>, Code> {
        let resource = resource(&request)?;
        let says = Says::read(&request.queries)?;
        Ok(Box::new(Self { exchange, via, resource, says, request }))
    }
}

fn resource(request: &Request) -> Result<Resource, Code> {
    let segments: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let method = request.method;
    let only = |allowed: Method, resource| {
        if method == allowed { Ok(resource) } else { Err(Code::METHOD_NOT_ALLOWED) }
    };
    match *segments.as_slice() {
        [".well-known", "core"] => only(Method::Get, Resource::Core),
        ["rd"] => only(Method::Post, Resource::Register),
        ["rd", id] if method == Method::Delete => Ok(Resource::Deregister(id.to_owned())),
        ["rd", id] => only(Method::Post, Resource::Refresh(id.to_owned())),
        ["command"] => only(Method::Get, Resource::Command),
        ["command", "res", id] => {
            let resource = Resource::Answer(id.parse().map_err(|_| Code::NOT_FOUND)?, status(request)?);
            only(Method::Post, resource)
        }
        // One rule for all protocols: what no MQTT device can say is no topic.
        _ if matches!(method, Method::Post | Method::Put) => match topic_of(segments) {
            Ok(topic) => Ok(Resource::Upstream(topic.into())),
            Err(_) => Err(Code::BAD_REQUEST),
        },
        _ => Err(Code::METHOD_NOT_ALLOWED),
    }
}

/// The status of an answer: as one level of an MQTT topic, so that it is the same on either way. "" where it names none.
fn status(request: &Request) -> Result<Arc<str>, Code> {
    let Some(status) = request.query("status") else { return Ok("".into()) };
    let valid = (1..=MAX_STATUS).contains(&status.len())
        && !status.contains(['/', '+', '#'])
        && !status.chars().any(char::is_control);
    if valid { Ok(status.into()) } else { Err(Code::BAD_REQUEST) }
}

impl Says {
    /// # Errors
    /// 4.00: a query that cannot be meant.
    pub(crate) fn read(queries: &[String]) -> Result<Self, Code> {
        let mut says = Self::default();
        for query in queries {
            let (name, value) = uri::pair(query);
            match name {
                "ep" => once(&mut says.device, parsed(value)?)?,
                "t" => once(&mut says.tenant, parsed(value)?)?,
                "key" => once(&mut says.key, Secret::new(Bytes::copy_from_slice(value.as_bytes())))?,
                "lt" => once(&mut says.lifetime_s, seconds(value)?)?,
                "ttd" => once(&mut says.ttd_s, seconds(value)?)?,
                "sleep" => once(&mut says.sleep_s, seconds(value)?)?,
                _ => {}
            }
        }
        Ok(says)
    }
}

/// A query that comes twice says two things.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Code> {
    if place.replace(value).is_some() { Err(Code::BAD_REQUEST) } else { Ok(()) }
}

fn parsed<T: FromStr>(value: &str) -> Result<T, Code> {
    value.parse().map_err(|_| Code::BAD_REQUEST)
}

/// 1 to 4,294,967,295, digits only (RFC 9176, section 5).
fn seconds(value: &str) -> Result<u32, Code> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if digits { value.parse().ok() } else { None };
    parsed.filter(|seconds| *seconds > 0).ok_or(Code::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use landfall_coap_core::{Endpoint, Output, Token};
    use landfall_net::Path;

    use super::*;

    fn request(method: Method, path: &str, queries: &[&str]) -> Request {
        Request {
            method,
            path: path.split('/').filter(|_| !path.is_empty()).map(str::to_owned).collect(),
            queries: queries.iter().map(|query| (*query).to_owned()).collect(),
            content_format: None,
            accept: None,
            observe: None,
            payload: Bytes::new(),
            is_partial: false,
            confirmable: true,
            no_response: 0,
            token: Token::default(),
            bytes: 0,
        }
    }

    #[test]
    fn a_path_and_a_method_name_a_resource() {
        use Method::{Delete, Get, Post, Put};
        let id: CommandId = "17".parse().unwrap();
        let not_allowed = Err(Code::METHOD_NOT_ALLOWED);
        for (method, path, expected) in [
            (Get, ".well-known/core", Ok(Resource::Core)),
            (Post, ".well-known/core", not_allowed.clone()),
            (Post, "rd", Ok(Resource::Register)),
            (Get, "rd", not_allowed.clone()),
            (Post, "rd/x", Ok(Resource::Refresh("x".into()))),
            (Delete, "rd/x", Ok(Resource::Deregister("x".into()))),
            (Put, "rd/x", not_allowed.clone()),
            (Get, "command", Ok(Resource::Command)),
            (Post, "command", not_allowed.clone()),
            (Post, "command/res/17", Ok(Resource::Answer(id.clone(), "".into()))),
            (Get, "command/res/17", not_allowed.clone()),
            (Post, "command/res/a+b", Err(Code::NOT_FOUND)),
            (Post, "telemetry", Ok(Resource::Upstream("telemetry".into()))),
            (Put, "a//b/", Ok(Resource::Upstream("a//b/".into()))),
            (Post, "", Ok(Resource::Upstream("".into()))),
            (Post, "rd/x/y", Ok(Resource::Upstream("rd/x/y".into()))),
            (Get, "telemetry", not_allowed.clone()),
            (Delete, "telemetry", not_allowed),
        ] {
            assert_eq!(resource(&request(method, path, &[])), expected, "{method:?} {path:?}");
        }
    }

    #[test]
    fn an_answer_names_its_status() {
        let of = |queries: &[&str]| resource(&request(Method::Post, "command/res/17", queries));
        let id: CommandId = "17".parse().unwrap();
        assert_eq!(of(&["status=not found"]), Ok(Resource::Answer(id, "not found".into())));
        for status in ["status=", "status=a/b", "status=a\nb", &format!("status={}", "9".repeat(65))] {
            assert_eq!(of(&[status]), Err(Code::BAD_REQUEST), "{status:?}");
        }
    }

    #[test]
    fn queries_say_who_and_how_long() {
        let queries =
            ["ep=pump 17", "t=acme", "key=a=b", "lt=4294967295", "ttd=1", "sleep=60", "other", "=x"];
        let said = Says::read(&queries.map(str::to_owned)).unwrap();
        assert_eq!(said.device.unwrap().as_str(), "pump 17");
        assert_eq!(said.tenant.unwrap().as_str(), "acme");
        assert_eq!(said.key.unwrap().expose(), b"a=b");
        assert_eq!((said.lifetime_s, said.ttd_s, said.sleep_s), (Some(u32::MAX), Some(1), Some(60)));
    }

    #[test]
    fn a_path_that_no_mqtt_device_could_say_is_no_topic() {
        let whole = |segments: &[&str]| {
            let path = segments.iter().map(|segment| (*segment).to_owned()).collect();
            resource(&Request { path, ..request(Method::Post, "", &[]) })
        };
        let many = ["x"; 129];
        for segments in [
            &["a", "b/c"][..],
            &["a\0"],
            &["a\r\n"],
            &["\u{1b}[2J"],
            &["+"],
            &["a#"],
            &["rd", "x", "#"],
            &many,
        ] {
            assert_eq!(whole(segments), Err(Code::BAD_REQUEST), "{segments:?}");
        }
        assert_eq!(whole(&["$SYS", "b c"]), Ok(Resource::Upstream("$SYS/b c".into())));
    }

    #[test]
    fn a_query_that_cannot_be_meant_is_refused() {
        let long = format!("ep={}", "x".repeat(129));
        for query in [
            "ep=",
            "ep",
            "ep=a\u{7f}b",
            "t=",
            "lt=0",
            "lt=4294967296",
            "lt=+5",
            "lt=",
            "ttd=1s",
            "sleep=-1",
            &long,
        ] {
            assert_eq!(Says::read(&[query.to_owned()]).err(), Some(Code::BAD_REQUEST), "{query:?}");
        }
        assert_eq!(Says::read(&["ep=a".to_owned(), "ep=b".to_owned()]).err(), Some(Code::BAD_REQUEST));
    }

    #[test]
    fn what_is_printed_tells_no_secret() {
        let via = Path { remote: ([127, 0, 0, 1], 4000).into(), local: None }.into();
        let says = Says::read(&["ep=pump".to_owned(), "key=s3cret".to_owned()]).unwrap();
        let request = request(Method::Post, "rd/s3cret", &["ep=pump", "key=s3cret"]);
        let mut exchanges = Endpoint::new(Arc::default(), &[0; 32]);
        // CON POST, message id 1, Uri-Path "a".
        exchanges.receive(0, &(), b"\x40\x02\0\x01\xb1a");
        let Some(Output::Request { exchange, .. }) = exchanges.poll() else { panic!("no request") };
        let asked = Asked { exchange, via, resource: Resource::Refresh("s3cret".into()), says, request };
        let printed = format!("{asked:?}");
        assert!(printed.contains("pump") && !printed.contains("s3cret"), "{printed}");
    }
}
