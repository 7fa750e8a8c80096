//! A command on its way to a device, as the bus hands it over and as the hub has checked it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use landfall_event::{CommandId, CommandName, DeviceId, TenantId, UnixMs, check_topic_name};
use serde::{Deserialize, Serialize};

use crate::router::{default_name, made_id};

/// A command as it came, its texts unchecked.
#[derive(Clone, Debug)]
pub struct CommandRequest {
    /// The device's tenant, from the subject.
    pub tenant: TenantId,
    /// The device, from the subject.
    pub device: DeviceId,
    /// `Command-Id`; made when absent.
    pub id: Option<String>,
    /// `Command-Name`; "command" when absent.
    pub name: Option<String>,
    /// `Command-Ttl` in milliseconds; 10 000 when absent.
    pub ttl: Option<String>,
    /// `Command-Wait`; `delivered` when absent.
    pub wait: Option<String>,
    /// `Topic`: the MQTT topic to use instead of the command topic.
    pub topic: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Correlation-Data`: bytes in Base64.
    pub correlation_data: Option<String>,
    /// The payload.
    pub payload: Bytes,
    /// Where the outcome is told.
    pub reply: Option<String>,
}

/// What a requester waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// Written to the device's transport.
    Delivered,
    /// Acknowledged by the device's protocol.
    Acknowledged,
    /// Answered by the device.
    Answered,
}

/// A checked command.
#[derive(Clone, Debug)]
pub struct Command {
    /// The device's tenant.
    pub tenant: TenantId,
    /// The device.
    pub device: DeviceId,
    /// The command's id.
    pub id: CommandId,
    /// Its name.
    pub name: CommandName,
    /// What the requester waits for.
    pub wait: Wait,
    /// The MQTT topic to use instead of the command topic.
    pub topic: Option<Arc<str>>,
    /// The payload's content type.
    pub content_type: Option<Arc<str>>,
    /// MQTT 5: what the message brings with it, such as a device's request named it.
    pub correlation_data: Option<Bytes>,
    /// The payload.
    pub payload: Bytes,
    /// Where the outcome is told.
    pub reply: Option<Arc<str>>,
    /// When it came.
    pub received_at: UnixMs,
    /// When it expires.
    pub expires_at: UnixMs,
}

/// A command, and what is wrong with it, if anything is: a wrong one still needs an id and a name for its outcome.
#[derive(Debug)]
pub(crate) struct CheckedCommand {
    pub(crate) command: Command,
    pub(crate) fault: Option<&'static str>,
}

const DEFAULT_TTL_MS: u64 = 10_000;

impl CommandRequest {
    /// Checks the texts. What is wrong is named as the header that is, for the outcome's `status`.
    pub(crate) fn check(self, now: UnixMs, max_ttl: Duration) -> CheckedCommand {
        let mut fault = None;
        let id = match self.id.as_deref().map(str::parse) {
            None => made_id(),
            Some(Ok(id)) => id,
            Some(Err(_)) => {
                fault = Some("bad-command-id");
                made_id()
            }
        };
        let name = self.name.as_deref().map_or_else(|| Ok(default_name()), str::parse).unwrap_or_else(|_| {
            fault = Some("bad-command-name");
            default_name()
        });
        let wait = match self.wait.as_deref() {
            None | Some("delivered") => Wait::Delivered,
            Some("acknowledged") => Wait::Acknowledged,
            Some("answered") => Wait::Answered,
            Some(_) => {
                fault = Some("bad-command-wait");
                Wait::Delivered
            }
        };
        let max_ttl_ms = u64::try_from(max_ttl.as_millis()).unwrap_or(u64::MAX);
        let ttl = self.ttl.as_deref().map_or(Ok(DEFAULT_TTL_MS), str::parse).unwrap_or_else(|_| {
            fault = Some("bad-command-ttl");
            DEFAULT_TTL_MS
        });
        if self.topic.as_deref().is_some_and(|topic| check_topic_name(topic).is_err()) {
            fault = Some("bad-topic");
        }
        let correlation_data =
            self.correlation_data.as_deref().map(|text| STANDARD.decode(text).map(Bytes::from));
        let correlation_data = match correlation_data {
            Some(Ok(data)) if data.len() <= usize::from(u16::MAX) => Some(data),
            None => None,
            Some(_) => {
                fault = Some("bad-correlation-data");
                None
            }
        };
        let command = Command {
            tenant: self.tenant,
            device: self.device,
            id,
            name,
            wait,
            topic: self.topic.map(Into::into),
            content_type: self.content_type.map(Into::into),
            correlation_data,
            payload: self.payload,
            reply: self.reply.map(Into::into),
            received_at: now,
            expires_at: now.saturating_add(ttl.min(max_ttl_ms)),
        };
        CheckedCommand { command, fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CommandRequest {
        CommandRequest {
            tenant: "default".parse().unwrap(),
            device: "pump".parse().unwrap(),
            id: None,
            name: None,
            ttl: None,
            wait: None,
            topic: None,
            content_type: None,
            correlation_data: None,
            payload: Bytes::new(),
            reply: None,
        }
    }

    #[test]
    fn absent_headers_have_defaults() {
        let CheckedCommand { command, fault } = request().check(1_000, Duration::from_secs(60));
        assert_eq!((fault, command.name.as_str(), command.wait), (None, "command", Wait::Delivered));
        assert_eq!(command.expires_at, 11_000);
        assert_eq!(command.id.as_str().len(), 32);
    }

    #[test]
    fn a_wrong_header_is_named() {
        type Change = fn(&mut CommandRequest);
        let wrong: [(Change, &str); 6] = [
            (|r| r.id = Some("a/b".into()), "bad-command-id"),
            (|r| r.name = Some("#".into()), "bad-command-name"),
            (|r| r.ttl = Some("-1".into()), "bad-command-ttl"),
            (|r| r.wait = Some("forever".into()), "bad-command-wait"),
            (|r| r.topic = Some("a/+".into()), "bad-topic"),
            (|r| r.correlation_data = Some("a".into()), "bad-correlation-data"),
        ];
        for (change, status) in wrong {
            let mut r = request();
            change(&mut r);
            assert_eq!(r.check(0, Duration::from_secs(60)).fault, Some(status));
        }
    }

    #[test]
    fn a_time_to_live_is_bounded() {
        let r = CommandRequest { ttl: Some(u64::MAX.to_string()), ..request() };
        assert_eq!(r.check(5, Duration::from_secs(60)).command.expires_at, 60_005);
    }
}
