//! Whose identity is it: the question to the authenticator, and its answer.
//!
//! Owns: what the question says, its time, a defect of whoever answers. Does not own: the answer's effect (`channels.rs`).

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, Abortable, Aborted};
use landfall_dtls::{Identity, Key};
use landfall_event::{RefusedCause, Transport};
use landfall_hub::{AuthError, Authenticator, Credentials, Principal, Secret};
use landfall_net::{Path, PeerCertificate};

/// Who it is; and the key that it must have, where it has one.
pub(crate) type Verdict = Result<(Option<Secret>, Principal), AuthError>;

/// A question that takes its time. Ends without an answer when its handshake has ended.
pub(crate) type Lookup = Pin<Box<dyn Future<Output = Result<(Key, Verdict), Aborted>> + Send>>;

type Asking = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// What came of a question at once.
pub(crate) enum Asked {
    Answered(Verdict),
    Waits(Lookup, AbortHandle),
}

/// Asks. Nearly always the answer is there at once; where it is not, the future gets a waker when it is polled again.
pub(crate) fn ask(
    auth: &Arc<dyn Authenticator>,
    (key, identity): (Key, &Identity),
    (transport, path): (Transport, Path),
    within: Duration,
) -> Asked {
    // A certificate is read there, which is a device's own.
    let shown = std::panic::catch_unwind(|| credentials(identity, (transport, path)));
    let (shown, is_psk) = match shown {
        Ok(Some(shown)) => shown,
        Ok(None) => return Asked::Answered(Err(AuthError::Refused(RefusedCause::UnknownDevice))),
        Err(defect) => return Asked::Answered(met_defect(&*defect)),
    };
    let auth = Arc::clone(auth);
    let mut asking: Asking = Box::pin(async move {
        let asked = async {
            if is_psk {
                auth.psk(&shown).await.map(|(key, principal)| (Some(key), principal))
            } else {
                auth.authenticate(&shown).await.map(|principal| (None, principal))
            }
        };
        AssertUnwindSafe(asked).catch_unwind().await.unwrap_or_else(|defect| met_defect(&*defect))
    });
    match asking.poll_unpin(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verdict) => Asked::Answered(verdict),
        Poll::Pending => {
            let (handle, registration) = AbortHandle::new_pair();
            let asking = async move {
                let verdict = tokio::time::timeout(within, asking).await;
                (key, verdict.unwrap_or(Err(AuthError::Unavailable)))
            };
            Asked::Waits(Box::pin(Abortable::new(asking, registration)), handle)
        }
    }
}

/// One device's question must not cost all others their listener.
fn met_defect(_: &(dyn Any + Send)) -> Verdict {
    tracing::error!("the authenticator met a defect; one handshake is given up");
    Err(AuthError::Unavailable)
}

/// What is shown, and whether that is a PSK identity. `None` for one that is no text, and so nobody's.
fn credentials(identity: &Identity, (transport, path): (Transport, Path)) -> Option<(Credentials, bool)> {
    let shown = |client_id, username, certificate| Credentials {
        transport,
        remote_address: path.remote,
        client_id,
        username,
        password: None,
        signature: None,
        certificate,
    };
    match identity {
        Identity::Psk(identity) => {
            let name: Arc<str> = std::str::from_utf8(identity).ok()?.into();
            Some((shown(Arc::clone(&name), Some(name), None), true))
        }
        Identity::Certificate(der) => {
            let PeerCertificate { common_name, fingerprint } = PeerCertificate::read(der);
            let name = common_name.as_deref().unwrap_or(&fingerprint).into();
            let certificate = landfall_hub::PeerCertificate { common_name, fingerprint };
            Some((shown(name, None, Some(certificate)), false))
        }
    }
}

/// What a device calls itself.
pub(crate) fn remote_id(identity: Option<&Identity>) -> Arc<str> {
    match identity {
        None => "".into(),
        Some(Identity::Psk(identity)) => String::from_utf8_lossy(identity).into(),
        Some(Identity::Certificate(der)) => {
            let certificate = PeerCertificate::read(der);
            certificate.common_name.unwrap_or(certificate.fingerprint).into()
        }
    }
}
