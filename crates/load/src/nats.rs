//! The NATS that events are read from and commands are sent to.
//!
//! Owns: connecting with what the URL says of the user, which the client library leaves to its caller, and keeping that out of errors.

use async_nats::{Client, ConnectOptions, ServerAddr};

/// Connects to a server.
pub(crate) async fn connect(url: &str) -> Result<Client, String> {
    let failed = |error: &dyn std::fmt::Display| format!("NATS at {}: {error}", shown(url));
    let address: ServerAddr = url.parse().map_err(|error| failed(&error))?;
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        (Some(token), None) => ConnectOptions::with_token(token.to_owned()),
        (None, _) => ConnectOptions::new(),
    };
    options.connect(address).await.map_err(|error| failed(&error))
}

/// The URL without what it says of the user.
pub(crate) fn shown(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_in_no_error() {
        let error = connect("nats://a:hunter2@127.0.0.1:0").await.unwrap_err();
        assert!(error.starts_with("NATS at nats://127.0.0.1:0: ") && !error.contains("hunter2"), "{error}");
        assert_eq!(shown("nats://n:1"), "nats://n:1");
    }
}
