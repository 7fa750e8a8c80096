//! Commands as MQTT messages: which topic one goes to, and what the message carries.
//!
//! Owns: the choice of the topic. Does not own: the grammar of the topics (`landfall_mqtt_core::commands`).

use std::sync::Arc;

use bytes::Bytes;
use landfall_event::UnixMs;
use landfall_hub::Command;
use landfall_mqtt_core::commands::{RequestForm, request_form, request_topic, response_topic};
use landfall_mqtt_core::{Message, QoS};

/// The topic on which the session takes this command: the one that it names, else the long form of the command topic, else
/// the short one; `None` when the session has subscribed to none of them.
pub(crate) fn command_topic(command: &Command, subscribed: impl Fn(&str) -> bool) -> Option<Arc<str>> {
    if let Some(topic) = &command.topic {
        return subscribed(topic).then(|| Arc::clone(topic));
    }
    let form = request_form(&command.id, &command.name, subscribed)?;
    Some(request_topic(form, &command.id, &command.name).into())
}

/// The message that carries a command to `topic`. QoS 2 is the most that a subscription can make of it.
pub(crate) fn command_message(command: &Command, topic: Arc<str>, now: UnixMs) -> Message {
    let left_s = command.expires_at.saturating_sub(now).div_ceil(1000);
    let answerable = command.topic.is_none();
    // What answers a device's own request brings with it what the device asked for.
    let own_id = || answerable.then(|| Bytes::copy_from_slice(command.id.as_str().as_bytes()));
    Message {
        content_type: command.content_type.clone(),
        response_topic: answerable.then(|| response_topic(RequestForm::Long, &command.id, "200").into()),
        correlation_data: command.correlation_data.clone().or_else(own_id),
        message_expiry: Some(u32::try_from(left_s).unwrap_or(u32::MAX)),
        expires_at: Some(command.expires_at),
        ..Message::new(topic, command.payload.clone(), QoS::ExactlyOnce)
    }
}
