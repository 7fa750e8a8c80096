//! How a will is written where it is kept.
//!
//! Owns: the stored form and reading it back. Does not own: where that is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use landfall_event::{
    DeviceId, Epoch, Identity, PublishProperties, SessionId, SessionInfo, TenantId, Transport, UnixMs,
};
use serde::{Deserialize, Serialize};

use super::{KeptWill, Owed};
use crate::session::Uplink;

/// A will as JSON. Fields that are added later have a default.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    tenant: TenantId,
    device: DeviceId,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    app_version: String,
    session: SessionId,
    epoch: Epoch,
    transport: Transport,
    topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    retain: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    properties: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiry_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_utf8: bool,
    /// Base64.
    payload: String,
    delay_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at: Option<UnixMs>,
}

impl From<KeptWill> for Record {
    fn from(will: KeptWill) -> Self {
        let KeptWill { info, uplink, delay_ms, owed } = will;
        let publish = uplink.publish.map(|publish| *publish).unwrap_or_default();
        Self {
            app_version: info.app_version.to_string(),
            session: info.session(),
            epoch: info.epoch(),
            transport: info.transport,
            tenant: info.tenant,
            device: info.device,
            topic: uplink.topic.to_string(),
            qos: uplink.qos,
            retain: uplink.retain,
            content_type: uplink.content_type.map(|text| text.to_string()),
            properties: uplink
                .properties
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            response_topic: publish.response_topic.map(|text| text.to_string()),
            correlation_data: publish.correlation_data.map(|data| STANDARD.encode(data)),
            expiry_ms: publish.expiry_ms,
            is_utf8: publish.is_utf8,
            payload: STANDARD.encode(&uplink.payload),
            delay_ms,
            seq: owed.map(|owed| owed.seq),
            due_at: owed.map(|owed| owed.due_at),
        }
    }
}

impl TryFrom<Record> for KeptWill {
    type Error = base64::DecodeError;

    fn try_from(record: Record) -> Result<Self, Self::Error> {
        let identity = Identity::new(record.session, record.epoch);
        let correlation_data = record.correlation_data.map(|data| STANDARD.decode(data)).transpose()?;
        let publish = PublishProperties {
            response_topic: record.response_topic.map(Into::into),
            correlation_data: correlation_data.map(Into::into),
            expiry_ms: record.expiry_ms,
            is_utf8: record.is_utf8,
        };
        Ok(Self {
            info: SessionInfo {
                tenant: record.tenant,
                device: record.device,
                app_version: record.app_version.into(),
                identity,
                transport: record.transport,
            },
            uplink: Uplink {
                topic: record.topic.into(),
                qos: record.qos,
                retain: record.retain,
                content_type: record.content_type.map(Into::into),
                properties: record
                    .properties
                    .into_iter()
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
                publish: publish.said(),
                payload: STANDARD.decode(record.payload)?.into(),
            },
            delay_ms: record.delay_ms,
            owed: record.seq.zip(record.due_at).map(|(seq, due_at)| Owed { seq, due_at }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_will_reads_back_as_it_was_kept() {
        let mut will = KeptWill {
            info: SessionInfo {
                tenant: "t".parse().unwrap(),
                device: "ü \"d\"".parse().unwrap(),
                app_version: "v1".into(),
                identity: Identity::new(SessionId::new(7, [1; 10]), Epoch(9)),
                transport: Transport::Mqtts,
            },
            uplink: Uplink {
                topic: "a/b".into(),
                qos: Some(2),
                retain: true,
                content_type: Some("text/plain".into()),
                properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
                publish: PublishProperties {
                    response_topic: Some("r".into()),
                    correlation_data: Some(vec![0, 9].into()),
                    expiry_ms: Some(5),
                    is_utf8: true,
                }
                .said(),
                payload: vec![0, 255, 7].into(),
            },
            delay_ms: 30_000,
            owed: None,
        };
        for owed in [None, Some(Owed { seq: 3, due_at: 4 })] {
            will.owed = owed;
            let written = serde_json::to_vec(&will).unwrap();
            assert_eq!(serde_json::from_slice::<KeptWill>(&written).unwrap(), will);
        }
        assert!(serde_json::from_str::<KeptWill>("{}").is_err());
    }
}
