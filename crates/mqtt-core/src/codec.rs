//! Bytes to packets, by `rmqtt-codec`. The only file that names it.
//!
//! Owns: the conversion, and the two places where the codec refuses what MQTT 5.0 allows. Does not own: checks
//! ([`crate::guard`] has walked the packet before), or writing packets ([`crate::encode`]).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::{types, v3, v5};
use tokio_util::codec::Decoder;

use crate::action::{ConnectRequest, Inbound, Will};
use crate::fault::{Broken, Violation};
use crate::guard::{self, Header, Notes};
use crate::packet::{AckKind, Asked, Connect, Disconnect, Packet, Publish, Subscribe, Unsubscribe};
use crate::{QoS, Token, UserProperties, Version};

/// Takes the complete CONNECT at the front of `input`.
pub(crate) fn decode_connect(
    input: &mut BytesMut,
    header: Header,
    version: Version,
    notes: Notes,
) -> Result<Connect, Broken> {
    let flags = header.length + guard::connect_flags_at(version);
    let mut connect = match version {
        Version::V31 | Version::V311 => {
            // The codec knows no bridges.
            if let Some([level, flags]) = input.get_mut(flags - 1..=flags) {
                *level &= !guard::BRIDGE;
                *flags &= !notes.missing;
            }
            match decode_v3(input)? {
                v3::Packet::Connect(connect) => connect_v3(*connect, version),
                _ => return Err(unexpected()),
            }
        }
        Version::V5 => {
            // The codec refuses an empty client id without Clean Start, which section 3.1.3.1 allows.
            if let Some(flags) = input.get_mut(flags) {
                *flags |= 0b10;
            }
            feign_expiry(input, notes.zero_will_expiry);
            match decode_v5(input)? {
                v5::Packet::Connect(connect) => connect_v5(*connect),
                _ => return Err(unexpected()),
            }
        }
    };
    connect.request.clean_start = notes.clean_start;
    if let (Some(will), Some(_)) = (&mut connect.request.will, notes.zero_will_expiry) {
        will.message_expiry = Some(0);
    }
    Ok(connect)
}

/// Takes the complete packet at the front of `input`. `recent` is the last topic, shared when it comes again.
pub(crate) fn decode(
    input: &mut BytesMut,
    version: Version,
    notes: Notes,
    recent: &Option<Arc<str>>,
) -> Result<Packet, Broken> {
    match version {
        Version::V31 | Version::V311 => {
            if let Some(first) = input.first_mut().filter(|first| **first >> 4 != guard::kind::PUBLISH) {
                // DUP, which 3.1 allows where the codec does not; everywhere else the guard has seen that it is not set.
                *first &= !0b1000;
            }
            packet_v3(decode_v3(input)?, recent)
        }
        Version::V5 => {
            feign_expiry(input, notes.zero_expiry);
            let mut packet = packet_v5(decode_v5(input)?, recent)?;
            if let (Packet::Publish(publish), Some(_)) = (&mut packet, notes.zero_expiry) {
                publish.message.message_expiry = Some(0);
            }
            Ok(packet)
        }
    }
}

fn decode_v3(input: &mut BytesMut) -> Result<v3::Packet, Broken> {
    let decoded = v3::Codec::new(0).decode(input);
    decoded.map_err(|error| broken(&error))?.map(|(packet, _)| packet).ok_or_else(unexpected)
}

fn decode_v5(input: &mut BytesMut) -> Result<v5::Packet, Broken> {
    let decoded = v5::Codec::new(0, 0).decode(input);
    decoded.map_err(|error| broken(&error))?.map(|(packet, _)| packet).ok_or_else(unexpected)
}

/// Writes 1 over a Message Expiry Interval of 0: the codec knows no 0, and the caller puts it back.
fn feign_expiry(input: &mut BytesMut, at: Option<usize>) {
    if let Some(last) = at.and_then(|at| input.get_mut(at + 3)) {
        *last = 1;
    }
}

fn unexpected() -> Broken {
    Broken::malformed("a packet that the codec reads as another")
}

fn broken(error: &DecodeError) -> Broken {
    match error {
        DecodeError::Utf8Error => Broken::malformed("a text that is not UTF-8"),
        DecodeError::InvalidTopicName => Broken::new(Violation::TopicNameInvalid, "an invalid topic name"),
        _ => Broken::malformed("a packet that the codec refuses"),
    }
}

fn connect_v3(connect: v3::Connect, version: Version) -> Connect {
    let will = connect.last_will.map(|will| Will {
        topic: shared(&will.topic),
        payload: copied(&will.message),
        qos: qos(will.qos),
        retain: will.retain,
        delay: 0,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        message_expiry: None,
        payload_is_utf8: false,
    });
    Connect {
        request: ConnectRequest {
            version,
            client_id: shared(&connect.client_id),
            clean_start: connect.clean_session,
            keep_alive: connect.keep_alive,
            username: connect.username.as_deref().map(shared),
            password: connect.password,
            will,
            session_expiry: if connect.clean_session { 0 } else { u32::MAX },
            user_properties: Vec::new(),
        },
        has_auth_method: false,
        problem_information: true,
        receive_maximum: u16::MAX,
        maximum_packet_size: u32::MAX,
    }
}

fn connect_v5(connect: v5::Connect) -> Connect {
    let will = connect.last_will.map(|will| Will {
        topic: shared(&will.topic),
        payload: copied(&will.message),
        qos: qos(will.qos),
        retain: will.retain,
        delay: will.will_delay_interval_sec.unwrap_or(0),
        content_type: will.content_type.as_deref().map(shared),
        response_topic: will.response_topic.as_deref().map(shared),
        correlation_data: will.correlation_data.as_ref().map(copied),
        user_properties: user_properties(&will.user_properties),
        message_expiry: will.message_expiry_interval.map(u32::from),
        payload_is_utf8: will.is_utf8_payload.unwrap_or(false),
    });
    Connect {
        request: ConnectRequest {
            version: Version::V5,
            client_id: shared(&connect.client_id),
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            username: connect.username.as_deref().map(shared),
            password: connect.password,
            will,
            session_expiry: connect.session_expiry_interval_secs,
            user_properties: user_properties(&connect.user_properties),
        },
        has_auth_method: connect.auth_method.is_some(),
        problem_information: connect.request_problem_info,
        receive_maximum: connect.receive_max.map_or(u16::MAX, u16::from),
        maximum_packet_size: connect.max_packet_size.map_or(u32::MAX, u32::from),
    }
}

fn packet_v3(packet: v3::Packet, recent: &Option<Arc<str>>) -> Result<Packet, Broken> {
    Ok(match packet {
        v3::Packet::Publish(message) => Packet::Publish(publish(*message, recent)),
        v3::Packet::PublishAck { packet_id } => Packet::Ack(AckKind::Ack, packet_id.get(), 0),
        v3::Packet::PublishReceived { packet_id } => Packet::Ack(AckKind::Rec, packet_id.get(), 0),
        v3::Packet::PublishRelease { packet_id } => Packet::Ack(AckKind::Rel, packet_id.get(), 0),
        v3::Packet::PublishComplete { packet_id } => Packet::Ack(AckKind::Comp, packet_id.get(), 0),
        v3::Packet::Subscribe { packet_id, topic_filters } => Packet::Subscribe(Subscribe {
            packet_id: packet_id.get(),
            id: None,
            filters: topic_filters
                .iter()
                .map(|(filter, level)| Asked {
                    filter: filter.to_string(),
                    qos: qos(*level),
                    no_local: false,
                    retain_as_published: false,
                })
                .collect(),
        }),
        v3::Packet::Unsubscribe { packet_id, topic_filters } => Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id.get(),
            filters: topic_filters.iter().map(ToString::to_string).collect(),
        }),
        v3::Packet::PingRequest => Packet::PingRequest,
        v3::Packet::Disconnect => Packet::Disconnect(Disconnect { code: 0, session_expiry: None }),
        _ => return Err(unexpected()),
    })
}

fn packet_v5(packet: v5::Packet, recent: &Option<Arc<str>>) -> Result<Packet, Broken> {
    Ok(match packet {
        v5::Packet::Publish(message) => Packet::Publish(publish(*message, recent)),
        v5::Packet::PublishAck(ack) => Packet::Ack(AckKind::Ack, ack.packet_id.get(), ack.reason_code.into()),
        v5::Packet::PublishReceived(ack) => {
            Packet::Ack(AckKind::Rec, ack.packet_id.get(), ack.reason_code.into())
        }
        v5::Packet::PublishRelease(ack) => {
            Packet::Ack(AckKind::Rel, ack.packet_id.get(), ack.reason_code.into())
        }
        v5::Packet::PublishComplete(ack) => {
            Packet::Ack(AckKind::Comp, ack.packet_id.get(), ack.reason_code.into())
        }
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe(Subscribe {
            packet_id: subscribe.packet_id.get(),
            id: subscribe.id,
            filters: subscribe
                .topic_filters
                .iter()
                .map(|(filter, options)| Asked {
                    filter: filter.to_string(),
                    qos: qos(options.qos),
                    no_local: options.no_local,
                    retain_as_published: options.retain_as_published,
                })
                .collect(),
        }),
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe {
            packet_id: unsubscribe.packet_id.get(),
            filters: unsubscribe.topic_filters.iter().map(ToString::to_string).collect(),
        }),
        v5::Packet::PingRequest => Packet::PingRequest,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect(Disconnect {
            code: disconnect.reason_code.into(),
            session_expiry: disconnect.session_expiry_interval_secs,
        }),
        _ => return Err(unexpected()),
    })
}

fn publish(publish: types::Publish, recent: &Option<Arc<str>>) -> Publish {
    let mut read = Publish {
        packet_id: publish.packet_id.map_or(0, u16::from),
        has_topic: !publish.topic.is_empty(),
        alias: None,
        message: Inbound {
            token: Token::NONE,
            topic: topic(&publish.topic, recent),
            payload: publish.payload,
            qos: qos(publish.qos),
            retain: publish.retain,
            dup: publish.dup,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            message_expiry: None,
            payload_is_utf8: false,
        },
    };
    if let Some(properties) = publish.properties {
        read.alias = properties.topic_alias.map(u16::from);
        read.message.content_type = properties.content_type.as_deref().map(shared);
        read.message.response_topic = properties.response_topic.as_deref().map(shared);
        read.message.correlation_data = properties.correlation_data;
        read.message.user_properties = user_properties(&properties.user_properties);
        read.message.message_expiry = properties.message_expiry_interval.map(u32::from);
        read.message.payload_is_utf8 = properties.is_utf8_payload;
    }
    read
}

/// The topic as a shared text: the recent one when it is the same, as it mostly is. An empty one is filled in later.
fn topic(text: &str, recent: &Option<Arc<str>>) -> Arc<str> {
    match recent {
        Some(recent) if text.is_empty() || **recent == *text => Arc::clone(recent),
        _ => shared(text),
    }
}

fn shared(text: &str) -> Arc<str> {
    Arc::from(text)
}

/// A copy that does not keep the input buffer alive: a will is kept as long as its session.
fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn user_properties(properties: &v5::UserProperties) -> UserProperties {
    properties.iter().map(|(name, value)| (shared(name), shared(value))).collect()
}

fn qos(qos: types::QoS) -> QoS {
    match qos {
        types::QoS::AtMostOnce => QoS::AtMostOnce,
        types::QoS::AtLeastOnce => QoS::AtLeastOnce,
        types::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// What [`crate::encode`] writes, read by the codec as a client would.
#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::encode::{self, ConnAck, Sending};
    use crate::{Message, packet};

    fn as_v5(out: &mut BytesMut) -> v5::Packet {
        let packet = v5::Codec::new(0, 0).decode(out).unwrap().unwrap().0;
        assert!(out.is_empty(), "bytes behind the packet");
        packet
    }

    fn as_v3(out: &mut BytesMut) -> v3::Packet {
        let packet = v3::Codec::new(0).decode(out).unwrap().unwrap().0;
        assert!(out.is_empty(), "bytes behind the packet");
        packet
    }

    #[test]
    fn connack_reads_back() {
        let mut out = BytesMut::new();
        let ack = ConnAck {
            session_present: true,
            session_expiry: Some(7),
            receive_maximum: Some(9),
            maximum_packet_size: Some(70_000),
            assigned_client_id: Some("auto"),
            topic_alias_maximum: 3,
            server_keep_alive: Some(30),
            no_shared_subscriptions: true,
            retain_available: true,
        };
        encode::connack(&ack, Version::V5, &mut out);
        let v5::Packet::ConnectAck(read) = as_v5(&mut out) else { panic!() };
        assert!(read.session_present && read.reason_code == v5::ConnectAckReason::Success);
        assert_eq!((read.session_expiry_interval_secs, read.receive_max.get()), (Some(7), 9));
        assert_eq!((read.max_packet_size, read.max_qos), (Some(70_000), types::QoS::ExactlyOnce));
        assert_eq!(read.assigned_client_id.as_deref(), Some("auto"));
        assert_eq!((read.topic_alias_max, read.server_keepalive_sec), (3, Some(30)));
        assert!(read.retain_available && read.wildcard_subscription_available);
        assert!(read.subscription_identifiers_available && !read.shared_subscription_available);

        encode::connack(&ack, Version::V311, &mut out);
        let v3::Packet::ConnectAck(read) = as_v3(&mut out) else { panic!() };
        assert!(read.session_present && read.return_code == v3::ConnectAckReason::ConnectionAccepted);

        encode::connack_refusal(0x8C, Some("why"), Version::V5, &mut out);
        let v5::Packet::ConnectAck(read) = as_v5(&mut out) else { panic!() };
        assert_eq!(read.reason_code, v5::ConnectAckReason::BadAuthenticationMethod);
        assert_eq!(read.reason_string.as_deref(), Some("why"));
    }

    #[test]
    fn answers_read_back() {
        let mut out = BytesMut::new();
        for code in [0, 0x10, 0x91] {
            encode::ack(AckKind::Ack, 300, code, &mut out);
            let v5::Packet::PublishAck(read) = as_v5(&mut out) else { panic!() };
            assert_eq!((read.packet_id.get(), u8::from(read.reason_code)), (300, code));
        }
        encode::ack(AckKind::Comp, 1, 0x92, &mut out);
        let v5::Packet::PublishComplete(read) = as_v5(&mut out) else { panic!() };
        assert_eq!(read.reason_code, v5::PublishAck2Reason::PacketIdNotFound);
        encode::ack(AckKind::Rel, 1, 0, &mut out);
        assert!(matches!(as_v3(&mut out), v3::Packet::PublishRelease { .. }));
        encode::suback(2, &[0, 2, 0x9E], Version::V5, &mut out);
        assert_eq!(out.len(), encode::suback_size(3, Version::V5));
        let v5::Packet::SubscribeAck(read) = as_v5(&mut out) else { panic!() };
        assert_eq!(read.status[2], v5::SubscribeAckReason::SharedSubscriptionNotSupported);
        encode::unsuback(2, &[0, 0x11], Version::V5, &mut out);
        let v5::Packet::UnsubscribeAck(read) = as_v5(&mut out) else { panic!() };
        assert_eq!(read.status[1], v5::UnsubscribeAckReason::NoSubscriptionExisted);
        encode::disconnect(0x8B, "going", 100, &mut out);
        let v5::Packet::Disconnect(read) = as_v5(&mut out) else { panic!() };
        assert_eq!(read.reason_string.as_deref(), Some("going"));
        encode::disconnect(0x8B, "going", 11, &mut out);
        let v5::Packet::Disconnect(read) = as_v5(&mut out) else { panic!() };
        assert_eq!(read.reason_string, None, "it would not fit");
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let text = "[^\0]{0,40}";
        let options = (any::<Option<u32>>(), any::<bool>(), proptest::option::of(text));
        let properties = proptest::collection::vec((text, text), 0..4);
        (proptest::collection::vec(any::<u8>(), 0..300), properties, options, 0_u8..3).prop_map(
            |(payload, properties, (expiry, utf8, content_type), qos)| Message {
                content_type: content_type.map(Arc::from),
                correlation_data: expiry.map(|e| Bytes::copy_from_slice(&e.to_be_bytes())),
                user_properties: properties.into_iter().map(|(n, v)| (n.into(), v.into())).collect(),
                message_expiry: expiry,
                payload_is_utf8: utf8,
                ..Message::new("a/topic", payload, QoS::from_level(qos).unwrap())
            },
        )
    }

    proptest! {
        #[test]
        fn a_publish_reads_back(
            message in any_message(),
            dup: bool,
            ids in proptest::collection::vec(1_u32..268_435_455, 0..4),
        ) {
            let (qos, mut out) = (message.qos, BytesMut::new());
            let packet_id = if qos == QoS::AtMostOnce { 0 } else { 77 };
            let dup = dup && packet_id != 0;
            for version in [Version::V5, Version::V311] {
                let how = Sending { version, qos, packet_id, dup, limit: u32::MAX };
                let list = || ids.iter().filter_map(|id| NonZeroU32::new(*id));
                prop_assert!(encode::publish(&message, how, list, &mut out));
                let size = u32::try_from(out.len()).unwrap();
                let mut nothing = BytesMut::new();
                let smaller = Sending { limit: size - 1, ..how };
                prop_assert!(!encode::publish(&message, smaller, list, &mut nothing));
                prop_assert!(nothing.is_empty());
                let packet = match version {
                    Version::V5 => packet_v5(as_v5(&mut out), &None).unwrap(),
                    Version::V31 | Version::V311 => packet_v3(as_v3(&mut out), &None).unwrap(),
                };
                let packet::Packet::Publish(read) = packet else { panic!() };
                prop_assert_eq!((read.packet_id, read.message.dup, read.message.qos), (packet_id, dup, qos));
                prop_assert_eq!(&read.message.payload, &message.payload);
                prop_assert_eq!(&read.message.topic, &message.topic);
                if version == Version::V5 {
                    prop_assert_eq!(&read.message.user_properties, &message.user_properties);
                    prop_assert_eq!(read.message.message_expiry, message.message_expiry.map(|e| e.max(1)));
                    prop_assert_eq!(&read.message.content_type, &message.content_type);
                    prop_assert_eq!(&read.message.correlation_data, &message.correlation_data);
                    prop_assert_eq!(read.message.payload_is_utf8, message.payload_is_utf8);
                }
            }
        }
    }
}
