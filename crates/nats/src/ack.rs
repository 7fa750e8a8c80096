//! What JetStream answers to a publish.
//!
//! Owns: telling stored, refused for now and refused for good apart. Does not own: what is done about it
//! ([`crate::window`]).

use async_nats::Message;
use serde::Deserialize;

use crate::window::Verdict;

/// The server's answer to one publish.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    /// Its place in the stream; 0 when it is not stored.
    pub(crate) sequence: u64,
    /// The stream is kept on several servers and takes one message of a fence at a time; this one came beside another.
    pub(crate) is_beside_another: bool,
    /// Why it is not stored; empty when it is.
    pub(crate) why: String,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    stream: Option<&'a str>,
    seq: Option<u64>,
    error: Option<ServerError>,
}

#[derive(Deserialize)]
struct ServerError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Client errors (code 400) that are not about the message but about the state of the server, which an operator can mend:
/// the account's limits are reached (10002), the subject belongs to another stream (10060), the stream is sealed (10109).
const MENDABLE: [u32; 3] = [10002, 10060, 10109];

/// "Wrong last sequence: N": the message expected another newest message of some subject than there is. A replicated stream
/// says 10164 instead while a message that expects the same is on its way; that one says nothing, and passes.
const WRONG_LAST_SEQUENCE: u32 = 10071;
const NOT_NOW: u32 = 10164;

impl Answer {
    pub(crate) fn stored(sequence: u64) -> Self {
        Self { verdict: Verdict::Stored, sequence, is_beside_another: false, why: String::new() }
    }

    fn passing(why: &str) -> Self {
        Self { verdict: Verdict::Passing, sequence: 0, is_beside_another: false, why: why.to_owned() }
    }
}

/// The status of a message that says that nobody has taken the other one.
const NO_RESPONDERS: u16 = 503;

/// Reads an answer.
pub(crate) fn read(message: &Message) -> Answer {
    answer(message.status.map(|status| status.as_u16()), &message.payload)
}

/// Reads an answer of this status and body.
pub(crate) fn answer(status: Option<u16>, body: &[u8]) -> Answer {
    if status == Some(NO_RESPONDERS) {
        return Answer::passing("no stream takes the subject");
    }
    match plain_sequence(body) {
        Some(sequence) => Answer::stored(sequence),
        None => read_body(body),
    }
}

/// Reads the server's usual answer, `{"stream":"NAME", "seq":17}`, without parsing JSON. Whatever looks different in any
/// way gives `None` and is parsed.
fn plain_sequence(body: &[u8]) -> Option<u64> {
    let rest = body.strip_prefix(br#"{"stream":""#)?;
    let end = rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    let rest = rest.get(end..)?.strip_prefix(b"\",")?.trim_ascii_start();
    let digits = rest.strip_prefix(br#""seq":"#)?.strip_suffix(b"}")?;
    // JSON has no plus sign and no leading zero, which `parse` would take.
    let plain = matches!(digits, [b'1'..=b'9', more @ ..] if more.iter().all(u8::is_ascii_digit));
    if plain && end > 0 { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

fn read_body(body: &[u8]) -> Answer {
    match serde_json::from_slice::<Body<'_>>(body) {
        Ok(Body { error: Some(error), .. }) => judge(&error),
        Ok(Body { stream: Some(stream), seq: Some(seq), error: None }) if !stream.is_empty() && seq > 0 => {
            Answer::stored(seq)
        }
        _ => Answer::passing("an answer that is none of JetStream's"),
    }
}

/// A refusal is final only if it is about this message. Whatever may be about the server, the stream or the account
/// passes: losing an event is worse than waiting for an operator.
fn judge(error: &ServerError) -> Answer {
    let passing = error.code != 400 || error.err_code == NOT_NOW || MENDABLE.contains(&error.err_code);
    let verdict = match error.err_code {
        WRONG_LAST_SEQUENCE => Verdict::Fenced,
        _ if passing => Verdict::Passing,
        _ => Verdict::Final,
    };
    let is_beside_another = error.err_code == NOT_NOW;
    Answer {
        verdict,
        sequence: 0,
        is_beside_another,
        why: format!("{} ({})", error.description, error.err_code),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict(body: &str) -> Verdict {
        read_body(body.as_bytes()).verdict
    }

    #[test]
    fn the_usual_answer_is_read_at_once() {
        assert_eq!(plain_sequence(br#"{"stream":"LANDFALL_MESSAGES", "seq":170}"#), Some(170));
        assert_eq!(plain_sequence(br#"{"stream":"LANDFALL_MESSAGES","seq":1}"#), Some(1));
        for other in [
            r#"{"stream":"S", "seq":0}"#,
            r#"{"stream":"S", "seq":}"#,
            r#"{"stream":"S", "seq":+1}"#,
            r#"{"stream":"", "seq":1}"#,
            r#"{"stream":"S", "seq":1,"error":{}}"#,
            r#"{"stream":"S\",\"seq":1}"#,
            r#"{"stream":"S", "seq":99999999999999999999}"#,
            r#"{"stream":"S", "seq":1"#,
            "",
        ] {
            assert_eq!(plain_sequence(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn stored_needs_a_stream_and_a_sequence() {
        assert_eq!(read_body(br#"{"stream":"S", "seq":7,"duplicate": true}"#), Answer::stored(7));
        assert_eq!(read_body(br#"{"stream":"S","domain":"d","seq":7}"#), Answer::stored(7));
        for none in ["", "{}", "[]", "+OK", r#"{"stream":"","seq":0}"#, r#"{"seq":1}"#, r#"{"stream":"S"}"#] {
            assert_eq!(verdict(none), Verdict::Passing, "{none}");
        }
    }

    #[test]
    fn only_refusals_of_the_message_itself_are_final() {
        let error = |code: u16, err_code: u32| {
            format!(
                r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"x"}},"stream":"S","seq":0}}"#
            )
        };
        assert_eq!(verdict(&error(400, 10054)), Verdict::Final, "message size exceeds maximum allowed");
        assert_eq!(verdict(&error(400, 10097)), Verdict::Final, "header size exceeds maximum allowed");
        assert_eq!(verdict(&error(400, 10071)), Verdict::Fenced, "wrong last sequence: 7");
        let beside = |code| read_body(error(400, code).as_bytes()).is_beside_another;
        assert!(beside(10164) && !beside(10071) && !beside(10002));
        let passing = [
            (503, 10077),
            (503, 10023),
            (500, 10118),
            (429, 10167),
            (409, 10158),
            (400, 10002),
            (400, 10060),
            (400, 10109),
            (400, 10164),
        ];
        for (code, err_code) in passing {
            assert_eq!(verdict(&error(code, err_code)), Verdict::Passing, "{err_code}");
        }
    }

    proptest! {
        #[test]
        fn the_short_way_says_what_the_long_way_says(body in r#"\{"stream":"[A-Z"\\]{0,3}", {0,2}"seq":[0-9+. ]{0,3}[,}"]{1,2}"#) {
            if let Some(sequence) = plain_sequence(body.as_bytes()) {
                prop_assert_eq!(read_body(body.as_bytes()), Answer::stored(sequence));
            }
        }

        #[test]
        fn no_answer_panics(body in prop::collection::vec(any::<u8>(), 0..80)) {
            plain_sequence(&body);
            read_body(&body);
        }
    }
}
