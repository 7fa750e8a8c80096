//! An attempt that was turned away, as its listener tells it.
//!
//! Owns: which of the names that a device gives may be told. Does not own: which attempts become which event (`refusals`).

use std::borrow::Cow;
use std::net::SocketAddr;

use landfall_event::{DeviceId, RefusedCause, TenantId, Transport};

/// An attempt that was turned away: what is known of it. See [`crate::Hub::refused`].
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    pub(crate) cause: RefusedCause,
    pub(crate) transport: Transport,
    pub(crate) remote: SocketAddr,
    pub(crate) device: Option<(TenantId, DeviceId)>,
    pub(crate) claimed: Option<Cow<'a, str>>,
    pub(crate) topic: Option<&'a str>,
    pub(crate) detail: Option<&'static str>,
}

impl<'a> Attempt<'a> {
    /// One of which no more is known than why it was turned away, how it came, and where from.
    pub fn new(cause: RefusedCause, transport: Transport, remote: SocketAddr) -> Self {
        Self { cause, transport, remote, device: None, claimed: None, topic: None, detail: None }
    }

    /// It has proven that it is this device.
    #[must_use]
    pub fn of(self, tenant: &TenantId, device: &DeviceId) -> Self {
        Self { device: Some((tenant.clone(), device.clone())), ..self }
    }

    /// It calls itself that, and has proven nothing. Empty is no name.
    #[must_use]
    pub fn claiming(self, name: Option<impl Into<Cow<'a, str>>>) -> Self {
        Self { claimed: name.map(Into::into).filter(|name| !name.is_empty()), ..self }
    }

    /// It was about this topic or topic filter.
    #[must_use]
    pub fn about(self, topic: &'a str) -> Self {
        Self { topic: Some(topic), ..self }
    }

    /// What was wrong: a word of [`landfall_event::RefusedDetail`], or a rule of the protocol. Nothing of it comes from the device.
    #[must_use]
    pub fn with_detail(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }
}

/// The name of a device that names itself, `device` or `device@tenant`, as it may be told beside the `secret` that came with it. What is
/// the same as the secret is left out: somebody has mistaken one for the other.
pub fn claimed_name<'a>(
    device: &'a DeviceId,
    tenant: Option<&TenantId>,
    secret: Option<&[u8]>,
) -> Option<Cow<'a, str>> {
    let is_secret = |text: &str| secret.is_some_and(|secret| secret == text.as_bytes());
    let device = Some(device.as_str()).filter(|device| !is_secret(device))?;
    Some(match tenant.filter(|tenant| !is_secret(tenant.as_str())) {
        None => device.into(),
        Some(tenant) => Some(format!("{device}@{tenant}")).filter(|both| !is_secret(both))?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_the_secret_is_not_told() {
        let (device, tenant) = ("d".parse().unwrap(), "t".parse().unwrap());
        let told = |tenant, secret: Option<&str>| {
            claimed_name(&device, tenant, secret.map(str::as_bytes)).map(Cow::into_owned)
        };
        assert_eq!(told(None, None).as_deref(), Some("d"));
        assert_eq!(told(Some(&tenant), Some("x")).as_deref(), Some("d@t"));
        assert_eq!(told(Some(&tenant), Some("t")).as_deref(), Some("d"));
        assert_eq!(told(Some(&tenant), Some("d")), None);
        assert_eq!(told(Some(&tenant), Some("d@t")), None);
        assert_eq!(told(None, Some("d")), None);
    }
}
