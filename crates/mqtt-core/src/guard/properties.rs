//! The properties of MQTT 5.0 (section 2.2.2): which packet may carry which, how often, with which values.

use super::walk::Walk;
use crate::Limits;
use crate::fault::{Broken, Violation};

/// The packets of a client that carry properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    Connect,
    Will,
    Publish,
    Ack,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

const PAYLOAD_FORMAT: u8 = 0x01;
const MESSAGE_EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const SUBSCRIPTION_ID: u8 = 0x0B;
const SESSION_EXPIRY: u8 = 0x11;
const AUTH_METHOD: u8 = 0x15;
const AUTH_DATA: u8 = 0x16;
const PROBLEM_INFORMATION: u8 = 0x17;
const WILL_DELAY: u8 = 0x18;
const RESPONSE_INFORMATION: u8 = 0x19;
const SERVER_REFERENCE: u8 = 0x1C;
const REASON_STRING: u8 = 0x1F;
const RECEIVE_MAXIMUM: u8 = 0x21;
const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
const TOPIC_ALIAS: u8 = 0x23;
const USER_PROPERTY: u8 = 0x26;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;

fn bit(id: u8) -> u64 {
    if id < 64 { 1 << id } else { 0 }
}

fn bits(ids: &[u8]) -> u64 {
    ids.iter().fold(bit(USER_PROPERTY), |set, id| set | bit(*id))
}

impl Set {
    /// The identifiers that this packet may carry (section 2.2.2.2, table 2-4).
    fn allowed(self) -> u64 {
        const MESSAGE: [u8; 5] =
            [PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA];
        match self {
            Self::Connect => bits(&[
                SESSION_EXPIRY,
                AUTH_METHOD,
                AUTH_DATA,
                PROBLEM_INFORMATION,
                RESPONSE_INFORMATION,
                RECEIVE_MAXIMUM,
                TOPIC_ALIAS_MAXIMUM,
                MAXIMUM_PACKET_SIZE,
            ]),
            Self::Will => bits(&MESSAGE) | bit(WILL_DELAY),
            Self::Publish => bits(&MESSAGE) | bit(TOPIC_ALIAS) | bit(SUBSCRIPTION_ID),
            Self::Ack => bits(&[REASON_STRING]),
            Self::Subscribe => bits(&[SUBSCRIPTION_ID]),
            Self::Unsubscribe => bits(&[]),
            Self::Disconnect => bits(&[SESSION_EXPIRY, REASON_STRING, SERVER_REFERENCE]),
        }
    }
}

/// What the walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) payload_is_utf8: bool,
    pub(crate) topic_alias: bool,
    pub(crate) auth_method: bool,
    pub(crate) auth_data: bool,
    /// Where a Message Expiry Interval of zero stands.
    pub(crate) zero_expiry: Option<usize>,
}

/// Walks one set of properties, its length included.
pub(super) fn walk_properties(walk: &mut Walk<'_>, set: Set, limits: &Limits) -> Result<Found, Broken> {
    let length = usize::try_from(walk.variable()?).unwrap_or(usize::MAX);
    if length > walk.rest().len() {
        return Err(Broken::malformed("properties that end behind their packet"));
    }
    // Nothing is read behind the set: what stands there is another part's, whatever it would be here.
    let mut inside = walk.part(length)?;
    let walk = &mut inside;
    let allowed = set.allowed();
    let mut found = Found::default();
    let mut seen = 0_u64;
    let mut user_properties = 0;
    while !walk.is_at_end() {
        let id = walk.u8()?;
        if allowed & bit(id) == 0 {
            return Err(Broken::malformed("a property that its packet cannot have"));
        }
        if id == USER_PROPERTY {
            user_properties += 1;
            if user_properties > limits.max_user_properties {
                return Err(Broken::new(Violation::QuotaExceeded, "more user properties than the maximum"));
            }
            walk.text()?;
            walk.text()?;
        } else {
            if seen & bit(id) != 0 {
                return Err(Broken::protocol("a property that is there twice"));
            }
            seen |= bit(id);
            value(walk, id, set, limits, &mut found)?;
        }
    }
    Ok(found)
}

fn value(walk: &mut Walk<'_>, id: u8, set: Set, limits: &Limits, found: &mut Found) -> Result<(), Broken> {
    match id {
        PAYLOAD_FORMAT => found.payload_is_utf8 = flag(walk)?,
        PROBLEM_INFORMATION | RESPONSE_INFORMATION => {
            flag(walk)?;
        }
        MESSAGE_EXPIRY => {
            let at = walk.at();
            if walk.u32()? == 0 {
                found.zero_expiry = Some(at);
            }
        }
        SESSION_EXPIRY | WILL_DELAY => {
            walk.u32()?;
        }
        MAXIMUM_PACKET_SIZE => {
            if walk.u32()? == 0 {
                return Err(Broken::protocol("a maximum packet size of 0"));
            }
        }
        RECEIVE_MAXIMUM => {
            if walk.u16()? == 0 {
                return Err(Broken::protocol("a receive maximum of 0"));
            }
        }
        TOPIC_ALIAS_MAXIMUM => {
            walk.u16()?;
        }
        TOPIC_ALIAS => {
            found.topic_alias = true;
            let alias = walk.u16()?;
            if alias == 0 || alias > limits.topic_alias_maximum {
                return Err(Broken::new(
                    Violation::TopicAliasInvalid,
                    "a topic alias of 0 or above the maximum",
                ));
            }
        }
        SUBSCRIPTION_ID => match (walk.variable()?, set) {
            (_, Set::Publish) => return Err(Broken::protocol("a subscription identifier from a client")),
            (0, _) => return Err(Broken::protocol("a subscription identifier of 0")),
            _ => {}
        },
        RESPONSE_TOPIC => super::topic_name(walk.text()?, limits)?,
        AUTH_METHOD => {
            found.auth_method = true;
            walk.text()?;
        }
        AUTH_DATA => {
            found.auth_data = true;
            walk.binary()?;
        }
        CORRELATION_DATA => {
            walk.binary()?;
        }
        // CONTENT_TYPE, SERVER_REFERENCE, REASON_STRING: the set has ruled out every other.
        _ => {
            walk.text()?;
        }
    }
    Ok(())
}

/// A byte that may be 0 or 1.
fn flag(walk: &mut Walk<'_>) -> Result<bool, Broken> {
    match walk.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Broken::protocol("a property of 0 or 1 that is neither")),
    }
}
