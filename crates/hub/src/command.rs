//! A command on its way to a device, as the bus hands it over and as the hub has checked it.

use std::sync::Arc;

use bytes::Bytes;
use landfall_event::{CommandId, CommandName, DeviceId, TenantId, UnixMs};
use serde::{Deserialize, Serialize};

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
    /// The payload.
    pub payload: Bytes,
    /// Where the outcome is told.
    pub reply: Option<Arc<str>>,
    /// When it came.
    pub received_at: UnixMs,
    /// When it expires.
    pub expires_at: UnixMs,
}
