//! The fields of the wire, each named once, and the two places where they are written: a JSON object or NATS headers.
//!
//! Owns: names, and what a name becomes as a header. Does not own: which event carries which field ([`crate::json`]).

/// How a field's value is written; a reader of headers needs it to tell a text from a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Flag,
    /// A JSON value of its own.
    Json,
    /// A JSON value that no header repeats: the body says the same already.
    Body,
}

/// One field of the wire.
#[derive(Debug)]
pub(crate) struct Field {
    /// The name in JSON.
    pub(crate) name: &'static str,
    /// The name with its quotes and colon, as written.
    pub(crate) label: &'static str,
    /// The name as a NATS header.
    pub(crate) header: &'static str,
    /// What its value is.
    pub(crate) kind: Kind,
}

macro_rules! fields {
    ($($field:ident = $name:literal, $header:literal, $kind:ident;)+) => {
        $(pub(crate) const $field: Field = Field {
            name: $name,
            label: concat!("\"", $name, "\":"),
            header: concat!("Landfall-", $header),
            kind: Kind::$kind,
        };)+

        /// Every field of every event.
        pub(crate) const ALL: &[Field] = &[$($field,)+];
    };
}

fields! {
    TYPE = "type", "Type", Text;
    ID = "id", "Id", Text;
    CORRELATION_ID = "correlationId", "Correlation-Id", Text;
    TIMESTAMP = "timestamp", "Timestamp", Number;
    TIMEOUT = "timeout", "Timeout", Number;
    ORIGINATOR_REPLICA_ID = "originatorReplicaId", "Originator-Replica-Id", Text;
    INCARNATION = "incarnation", "Incarnation", Text;
    TENANT = "tenant", "Tenant", Text;
    ENDPOINT_ID = "endpointId", "Endpoint-Id", Text;
    APP_VERSION_NAME = "appVersionName", "App-Version-Name", Text;
    SESSION_ID = "sessionId", "Session-Id", Text;
    EPOCH = "epoch", "Epoch", Number;
    SEQ = "seq", "Seq", Number;
    TRANSPORT = "transport", "Transport", Text;
    PROTOCOL = "protocol", "Protocol", Text;
    REMOTE_ID = "remoteId", "Remote-Id", Text;
    REMOTE_ADDRESS = "remoteAddress", "Remote-Address", Text;
    PREVIOUS_ADDRESS = "previousAddress", "Previous-Address", Text;
    IDENTIFIED_BY = "identifiedBy", "Identified-By", Text;
    KEEP_ALIVE_MS = "keepAliveMs", "Keep-Alive-Ms", Number;
    INFERRED = "inferred", "Inferred", Flag;
    CLEAN_START = "cleanStart", "Clean-Start", Flag;
    ENDPOINT_IDS = "endpointIds", "Endpoint-Ids", Body;
    REASON = "reason", "Reason", Text;
    INITIATOR = "initiator", "Initiator", Text;
    CONNECTED_AT = "connectedAt", "Connected-At", Number;
    LAST_SEEN_AT = "lastSeenAt", "Last-Seen-At", Number;
    DURATION_MS = "durationMs", "Duration-Ms", Number;
    MESSAGES_IN = "messagesIn", "Messages-In", Number;
    MESSAGES_OUT = "messagesOut", "Messages-Out", Number;
    BYTES_IN = "bytesIn", "Bytes-In", Number;
    BYTES_OUT = "bytesOut", "Bytes-Out", Number;
    EVIDENCE = "evidence", "Evidence", Json;
    DETAIL = "detail", "Detail", Text;
    INTERVAL_MS = "intervalMs", "Interval-Ms", Number;
    SILENT_MS = "silentMs", "Silent-Ms", Number;
    PHI = "phi", "Phi", Number;
    SLEEP_MS = "sleepMs", "Sleep-Ms", Number;
    WAKE_BY = "wakeBy", "Wake-By", Number;
    DORMANT_MS = "dormantMs", "Dormant-Ms", Number;
    SESSIONS = "sessions", "Sessions", Json;
    OPEN_SESSIONS = "sessions", "Open-Sessions", Number;
    MESSAGE_ID = "messageId", "Message-Id", Text;
    TOPIC = "topic", "Topic", Text;
    QOS = "qos", "Qos", Number;
    RETAIN = "retain", "Retain", Flag;
    WILL = "will", "Will", Flag;
    CONTENT_TYPE = "contentType", "Content-Type", Text;
    USER_PROPERTIES = "userProperties", "User-Properties", Json;
    RESPONSE_TOPIC = "responseTopic", "Response-Topic", Text;
    CORRELATION_DATA = "correlationData", "Correlation-Data", Text;
    MESSAGE_EXPIRY_MS = "messageExpiryMs", "Message-Expiry-Ms", Number;
    PAYLOAD_FORMAT = "payloadFormat", "Payload-Format", Text;
    PAYLOAD = "payload", "Payload", Body;
    PAYLOAD_ENCODING = "payloadEncoding", "Payload-Encoding", Text;
    COMMAND_ID = "commandId", "Command-Id", Text;
    NAME = "name", "Name", Text;
    OUTCOME = "outcome", "Outcome", Text;
    LATENCY_MS = "latencyMs", "Latency-Ms", Number;
    ATTEMPTS = "attempts", "Attempts", Number;
    STATUS = "status", "Status", Text;
    RESPONSE = "response", "Response", Body;
    RESPONSE_ENCODING = "responseEncoding", "Response-Encoding", Text;
    CAUSE = "cause", "Cause", Text;
    CLAIMED_ID = "claimedId", "Claimed-Id", Text;
    OTHER_CLAIMS = "otherClaims", "Other-Claims", Number;
    OTHER_TOPICS = "otherTopics", "Other-Topics", Number;
    COUNT = "count", "Count", Number;
    FIRST_AT = "firstAt", "First-At", Number;
    LAST_AT = "lastAt", "Last-At", Number;
    VERSION = "version", "Version", Text;
    STARTED_AT = "startedAt", "Started-At", Number;
    DROPPED_SESSIONS = "sessions", "Dropped-Sessions", Number;
    DROPPED_MESSAGES = "messages", "Dropped-Messages", Number;
    GAPS = "gaps", "Gaps", Json;
    FROM = "from", "From", Number;
    TO = "to", "To", Number;
}

/// The header of an event that is written so, as a name that lives for ever.
pub fn header_name(name: &str) -> Option<&'static str> {
    let own = [crate::format::FORMAT_HEADER, crate::format::RECORD_HEADER];
    let all = ALL.iter().map(|field| field.header).chain(own);
    all.into_iter().find(|header| *header == name)
}

/// Takes an event's fields one by one, in order.
pub(crate) trait Fields {
    /// A text; escaped as its place asks.
    fn text(&mut self, field: &Field, value: &str);
    /// A whole number.
    fn number(&mut self, field: &Field, value: u64);
    /// True or false.
    fn flag(&mut self, field: &Field, value: bool);
    /// A JSON value that is written already.
    fn json(&mut self, field: &Field, value: &[u8]);
}
