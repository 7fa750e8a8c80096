//! The closed lists of the wire: why a session ended, who ended it, why an attempt was turned away.

use serde::de::Unexpected;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// Every member, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire and in metric labels.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// Reads a name of the wire.
            pub fn from_wire(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let expected = || concat!("a member of the closed list ", stringify!($name));
                Self::from_wire(&text)
                    .ok_or_else(|| serde::de::Error::invalid_value(Unexpected::Str(&text), &expected()))
            }
        }
    };
}

closed_list! {
    /// Why a session ended.
    Reason {
        /// The device said goodbye: MQTT DISCONNECT, UDP `bye`.
        ClientClosed = "client-closed",
        /// The transport broke without a goodbye.
        ConnectionLost = "connection-lost",
        /// An MQTT client was silent for 1.5 times its keep-alive.
        KeepAliveTimeout = "keep-alive-timeout",
        /// A stateless device was silent for longer than agreed.
        IdleTimeout = "idle-timeout",
        /// The lifetime that the device announced (`lt`), with a registration or any other request, ran out.
        LifetimeExpired = "lifetime-expired",
        /// The device removed its registration.
        Deregistered = "deregistered",
        /// A newer session of the same device and family began.
        TakenOver = "taken-over",
        /// The device broke its protocol's rules.
        ProtocolError = "protocol-error",
        /// The device did what its ACL forbids.
        NotAuthorized = "not-authorized",
        /// The device's credentials were withdrawn.
        CredentialsRevoked = "credentials-revoked",
        /// The device's credentials ran out.
        CredentialsExpired = "credentials-expired",
        /// An operator ended the session.
        Kicked = "kicked",
        /// The device sent faster than it may.
        RateLimited = "rate-limited",
        /// The device did not read what was sent to it.
        SlowConsumer = "slow-consumer",
        /// TLS or DTLS was closed under the session.
        SecureChannelClosed = "secure-channel-closed",
        /// The gateway took its admission back: nothing could store the session's beginning in time. The device was told no.
        NotAdmitted = "not-admitted",
        /// This gateway is shutting down in order.
        GatewayDraining = "gateway-draining",
        /// The gateway that held the session is gone.
        GatewayLost = "gateway-lost",
    }
}

closed_list! {
    /// Who ended a session.
    Initiator {
        /// The device itself.
        Device = "device",
        /// The gateway, by a rule of the protocol or of its settings.
        Gateway = "gateway",
        /// A person or program at the admin interface.
        Operator = "operator",
        /// Nobody: the path between them broke.
        Network = "network",
    }
}

closed_list! {
    /// How a device reached the gateway.
    Transport {
        /// MQTT over TCP.
        Mqtt = "mqtt",
        /// MQTT over TLS.
        Mqtts = "mqtts",
        /// MQTT over WebSocket.
        MqttWs = "mqtt-ws",
        /// MQTT over WebSocket over TLS.
        MqttWss = "mqtt-wss",
        /// CoAP over UDP.
        Coap = "coap",
        /// CoAP over DTLS.
        Coaps = "coaps",
        /// The `LF1` line over UDP.
        Udp = "udp",
        /// Datagrams over DTLS.
        Dtls = "dtls",
    }
}

closed_list! {
    /// A device has at most one session in each family at a time.
    Family {
        /// MQTT, whatever carries it.
        Mqtt = "mqtt",
        /// CoAP and CoAPS.
        Coap = "coap",
        /// UDP lines, plain or under DTLS.
        Udp = "udp",
    }
}

closed_list! {
    /// What a device's identity rests on.
    IdentifiedBy {
        /// Its own word, unproven.
        Anonymous = "anonymous",
        /// A password.
        Password = "password",
        /// A token.
        Token = "token",
        /// An X.509 certificate.
        Certificate = "certificate",
        /// A pre-shared key.
        Psk = "psk",
        /// The address that it sends from.
        Address = "address",
    }
}

closed_list! {
    /// Why an attempt was turned away.
    RefusedCause {
        /// The secret does not match.
        BadCredentials = "bad-credentials",
        /// Nobody of that name is known.
        UnknownDevice = "unknown-device",
        /// The device is known and may not do that.
        NotAuthorized = "not-authorized",
        /// The bytes are not the protocol's.
        Malformed = "malformed",
        /// The TLS or DTLS handshake failed.
        TlsFailed = "tls-failed",
        /// Too many attempts.
        RateLimited = "rate-limited",
        /// A configured limit is reached.
        LimitReached = "limit-reached",
        /// A protocol version that is not served.
        UnsupportedVersion = "unsupported-version",
    }
}

closed_list! {
    /// What was wrong with an attempt that came to nothing before its protocol began: words for an operator, none of them from the
    /// other side.
    RefusedDetail {
        /// What came on the port of TLS or DTLS is neither.
        PlainBytes = "no TLS: plain bytes",
        /// What came on a port without TLS is a TLS handshake.
        TlsBytes = "TLS on a port without TLS",
        /// No version that both sides have.
        ProtocolVersion = "protocol version",
        /// No cipher suite that both sides have; under DTLS also no group or signature scheme.
        NoCommonSuite = "no common cipher suite",
        /// No group, signature scheme or extension that both sides have.
        NoCommonParameters = "no common group or signature scheme",
        /// The client showed none, and one is required.
        NoCertificate = "no certificate",
        /// The client's certificate leads to no authority of `client_ca`.
        UnknownAuthority = "unknown certificate authority",
        /// The client's certificate is over.
        CertificateExpired = "certificate expired",
        /// The client's certificate has not begun: or its clock, or ours, is wrong.
        CertificateNotYetValid = "certificate not yet valid",
        /// It cannot be read, is not for clients, or its signature or the proof of its key is wrong.
        CertificateInvalid = "certificate not valid",
        /// The client's alert says that it does not know who issued the gateway's certificate.
        DeviceKnowsNoAuthority = "alert of the device: unknown certificate authority",
        /// The client's alert says that the gateway's certificate is over: often its clock is wrong.
        DeviceFindsExpired = "alert of the device: certificate expired",
        /// Another alert of the client about the gateway's certificate, such as another name than it asked for.
        DeviceRefusesCertificate = "alert of the device: certificate not accepted",
        /// Any other alert of the client.
        DeviceAlert = "alert of the device",
        /// The client closed the connection.
        Closed = "closed by the device",
        /// It took longer than it may.
        TimedOut = "not finished in time",
        /// A message of the handshake that cannot be read or has no place.
        HandshakeMalformed = "malformed handshake",
        /// The messages of the handshake are larger than what is held.
        HandshakeTooLarge = "handshake too large",
        /// Who it is could not be found out.
        LookupFailed = "identity could not be looked up",
        /// Data on a DTLS channel that is gone.
        ChannelGone = "data on a channel that is gone",
        /// A balancer sent no PROXY header, or none that can be read.
        NoProxyHeader = "no PROXY header",
        /// The request is no WebSocket upgrade.
        NoUpgrade = "no WebSocket upgrade",
        /// The head of the request is too large.
        RequestTooLarge = "request head too large",
        /// MQTT is not served at the path.
        NoPath = "path not served",
        /// A page of an origin that is not admitted.
        NoOrigin = "origin not admitted",
        /// Another version of WebSocket than 13.
        WebSocketVersion = "WebSocket version",
        /// None of MQTT's subprotocols is offered.
        NoSubprotocol = "no MQTT subprotocol",
    }
}

closed_list! {
    /// A command's one final outcome.
    Outcome {
        /// Written to the device's transport, or acknowledged there where that is told anyway (CoAP notifications).
        Delivered = "delivered",
        /// The device's protocol acknowledged it (PUBACK, PUBCOMP, CoAP ACK).
        Acknowledged = "acknowledged",
        /// The device answered it.
        Answered = "answered",
        /// Its time to live ran out first.
        Expired = "expired",
        /// The device is not here and nothing waits for it.
        NotConnected = "not-connected",
        /// The device's queue is full.
        Busy = "busy",
        /// The command is invalid, or the device does not take it.
        Rejected = "rejected",
        /// It was under way when its session died.
        Failed = "failed",
    }
}

impl Transport {
    /// True when TLS or DTLS lies under the protocol.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Mqtts | Self::MqttWss | Self::Coaps | Self::Dtls)
    }

    /// The family that shares one session per device.
    pub fn family(self) -> Family {
        match self {
            Self::Mqtt | Self::Mqtts | Self::MqttWs | Self::MqttWss => Family::Mqtt,
            Self::Coap | Self::Coaps => Family::Coap,
            Self::Udp | Self::Dtls => Family::Udp,
        }
    }
}

impl RefusedDetail {
    /// What the alert with this code says, with which a client ended a TLS or DTLS handshake (RFC 8446, section 6.2).
    pub fn of_alert(code: u8) -> Self {
        match code {
            48 => Self::DeviceKnowsNoAuthority,
            45 => Self::DeviceFindsExpired,
            41..=44 | 46 => Self::DeviceRefusesCertificate,
            _ => Self::DeviceAlert,
        }
    }
}

impl Reason {
    /// Who ends a session for this reason.
    pub fn initiator(self) -> Initiator {
        match self {
            Self::ClientClosed | Self::Deregistered | Self::TakenOver => Initiator::Device,
            Self::ConnectionLost => Initiator::Network,
            Self::SecureChannelClosed => Initiator::Device,
            Self::Kicked | Self::CredentialsRevoked => Initiator::Operator,
            Self::KeepAliveTimeout
            | Self::IdleTimeout
            | Self::LifetimeExpired
            | Self::ProtocolError
            | Self::NotAuthorized
            | Self::CredentialsExpired
            | Self::RateLimited
            | Self::SlowConsumer
            | Self::NotAdmitted
            | Self::GatewayDraining
            | Self::GatewayLost => Initiator::Gateway,
        }
    }
}
