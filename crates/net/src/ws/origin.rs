//! Which web pages may open a WebSocket.
//!
//! Owns: what the `Origin` of a request is held against. Does not own: reading the request (`upgrade`).
//!
//! A browser lets every page open a WebSocket to every host and says in `Origin` whose page it is. A client that is no browser
//! sends none.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One origin of the settings: `https://app.example`, or `*` for every one. In lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Box<str>);

/// A text that is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no origin, such as https://app.example or http://localhost:3000; * is every one")]
pub struct OriginError;

impl Origin {
    /// Is it every origin there is?
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            return Ok(Self(text.into()));
        }
        let (scheme, authority) = text.split_once("://").ok_or(OriginError)?;
        let names = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let plain = authority.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@\\".contains(&b));
        if scheme.is_empty() || authority.is_empty() || !names || !plain {
            return Err(OriginError);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rule of a listener. The default admits pages of the host that they connect to, and whoever is no page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// These are admitted too.
    pub allowed: Vec<Origin>,
    /// A page's own host counts only by address or as `localhost`: who believes whatever a device calls itself must not
    /// believe a name that somebody made to lead here either (DNS rebinding).
    pub local_only: bool,
}

impl Origins {
    /// May a request with these headers become a WebSocket?
    pub(super) fn admit(
        &self,
        mut origins: impl Iterator<Item = Option<String>>,
        host: Option<&str>,
    ) -> bool {
        let Some(origin) = origins.next() else { return true };
        let Some(origin) = origin.filter(|_| origins.next().is_none()) else { return false };
        let origin = origin.to_ascii_lowercase();
        if self.allowed.iter().any(|allowed| allowed.is_any() || *allowed.0 == *origin) {
            return true;
        }
        let Some((scheme, page)) = origin.split_once("://") else { return false };
        let Some(host) = host.map(str::to_ascii_lowercase) else { return false };
        let default = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => return false,
        };
        let bare = |authority: &str| authority.strip_suffix(default).unwrap_or(authority).to_owned();
        bare(page) == bare(&host) && (!self.local_only || is_local(&host))
    }
}

/// Is this the address of a host, or `localhost`: nothing that a name server could lead elsewhere?
fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(origins: &Origins, sent: &[&str], host: &str) -> bool {
        origins.admit(sent.iter().map(|origin| Some((*origin).to_owned())), Some(host))
    }

    #[test]
    fn a_page_of_the_same_host_and_what_is_no_page_are_admitted() {
        let rule = Origins::default();
        assert!(admits(&rule, &[], "gateway.example"));
        for (origin, host) in [
            ("https://gateway.example", "gateway.example"),
            ("https://gateway.example", "gateway.example:443"),
            ("HTTP://Gateway.Example", "gateway.example:80"),
            ("http://127.0.0.1:8083", "127.0.0.1:8083"),
            ("http://[::1]:8083", "[::1]:8083"),
        ] {
            assert!(admits(&rule, &[origin], host), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://evil.example", "gateway.example"),
            ("https://gateway.example.evil.example", "gateway.example"),
            ("https://gateway.example:8443", "gateway.example"),
            ("http://gateway.example", "gateway.example:443"),
            ("null", "gateway.example"),
            ("file://", ""),
            ("", ""),
        ] {
            assert!(!admits(&rule, &[origin], host), "{origin} {host}");
        }
        assert!(!admits(&rule, &["http://a", "http://a"], "a"), "two of them");
        assert!(!rule.admit([None].into_iter(), Some("a")), "no text");
        assert!(!rule.admit([Some("http://a".to_owned())].into_iter(), None), "no host");
    }

    #[test]
    fn origins_are_admitted_by_name() {
        let allowed = |text: &str| Origins { allowed: vec![text.parse().unwrap()], local_only: true };
        assert!(admits(&allowed("https://App.example"), &["https://app.example"], "gateway.example"));
        assert!(!admits(&allowed("https://app.example"), &["https://app.example:8443"], "gateway.example"));
        assert!(admits(&allowed("*"), &["null"], "gateway.example"));
        for text in ["", "app.example", "https://", "https://a/b", "https://a b", "://a", "https://u@a"] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }

    /// A name that is made to lead to this host makes its page one of the same host.
    #[test]
    fn a_name_that_was_made_to_lead_here_does_not_make_a_page_local() {
        let rule = Origins { local_only: true, ..Origins::default() };
        for host in ["127.0.0.1:8083", "localhost:8083", "[::1]:8083"] {
            assert!(admits(&rule, &[&format!("http://{host}")], host), "{host}");
        }
        assert!(!admits(&rule, &["http://rebound.example:8083"], "rebound.example:8083"));
    }
}
