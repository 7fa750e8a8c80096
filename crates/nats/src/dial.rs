//! Making a connection that publishes: TCP, TLS where it is asked for, and who the gateway is.
//!
//! Owns: the exchange up to the first `PONG`. Does not own: where the servers are and who the gateway is to them
//! ([`crate::connect`]), what is said afterwards ([`crate::line`]).

use std::path::Path;
use std::sync::Arc;

use async_nats::ServerAddr;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::BytesMut;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::connect::{ConnectError, Target, User};
use crate::protocol::{self, ServerOp};

/// A connection, both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// What a server says of itself that matters here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Info {
    /// The largest message that it takes, headers and body.
    #[serde(default = "usual_payload")]
    pub(crate) max_payload: usize,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    nonce: String,
}

/// The server's own default.
fn usual_payload() -> usize {
    1 << 20
}

#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'a str,
    version: &'a str,
    protocol: u8,
    echo: bool,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// Connects to one server and proves who the gateway is. Takes as long as the network does: the caller has the clock.
pub(crate) async fn dial(
    target: &Target,
    address: &ServerAddr,
) -> Result<(Box<dyn Stream>, BytesMut, Info), ConnectError> {
    let refused = |why: String| ConnectError::Refused { to: address.as_url_str().to_owned(), why };
    let broken = |error: std::io::Error| refused(error.to_string());
    let host = address.host().trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((host, address.port())).await.map_err(broken)?;
    tcp.set_nodelay(true).map_err(broken)?;
    let mut stream: Box<dyn Stream> = Box::new(tcp);
    let mut input = BytesMut::with_capacity(4096);
    let mut info = read_info(&mut stream, &mut input).await.map_err(refused)?;
    let tls_required = address.tls_required() || info.tls_required;
    if tls_required {
        // Whatever stands behind it was not said by who shows the certificate.
        if !input.is_empty() {
            return Err(refused("it says more than it may before TLS".to_owned()));
        }
        let config = target.client_config()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| refused(error.to_string()))?;
        let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(broken)?;
        stream = Box::new(secured);
    }
    let hello = target.hello(tls_required, &info.nonce)?;
    stream.write_all(&hello).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let heard = |op: &ServerOp<'_>| match op {
        ServerOp::Pong => Some(Ok(())),
        ServerOp::Error(said) => Some(Err(format!("it says {}", String::from_utf8_lossy(said)))),
        ServerOp::Info(json) => {
            // Who has been told from the others may send less.
            info = serde_json::from_slice(json).unwrap_or(info.clone());
            None
        }
        _ => None,
    };
    until(&mut stream, &mut input, heard).await.and_then(|heard| heard).map_err(refused)?;
    Ok((stream, input, info))
}

async fn read_info(stream: &mut Box<dyn Stream>, input: &mut BytesMut) -> Result<Info, String> {
    let info = |op: &ServerOp<'_>| match op {
        ServerOp::Info(json) => Some(serde_json::from_slice(json).map_err(|error| error.to_string())),
        _ => Some(Err("it does not begin as a NATS server does".to_owned())),
    };
    until(stream, input, info).await?
}

/// Reads until `find` has found something.
async fn until<T>(
    stream: &mut Box<dyn Stream>,
    input: &mut BytesMut,
    mut find: impl FnMut(&ServerOp<'_>) -> Option<T>,
) -> Result<T, String> {
    loop {
        while let Some((op, taken)) = protocol::read(input).map_err(|error| error.to_string())? {
            let found = find(&op);
            let _ = input.split_to(taken);
            if let Some(found) = found {
                return Ok(found);
            }
        }
        match stream.read_buf(input).await {
            Ok(0) => return Err("it closed the connection".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

impl Target {
    /// `CONNECT`, and a `PING` that is answered when the server agrees.
    pub(crate) fn hello(&self, tls_required: bool, nonce: &str) -> Result<Vec<u8>, ConnectError> {
        let credentials =
            self.settings.credentials.as_ref().map(|path| Credentials::read(path)).transpose()?;
        let sig = credentials.as_ref().map(|credentials| credentials.sign(nonce)).transpose()?;
        let (user, pass, auth_token) = match &self.user {
            Some(User::Password(user, password)) => (Some(&**user), Some(&**password), None),
            Some(User::Token(token)) => (None, None, Some(&**token)),
            None => (None, None, None),
        };
        let connect = Connect {
            verbose: false,
            pedantic: false,
            tls_required,
            name: &self.settings.name,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            protocol: 1,
            echo: false,
            headers: true,
            no_responders: true,
            user,
            pass,
            auth_token,
            jwt: credentials.as_ref().map(|credentials| &*credentials.jwt),
            sig,
        };
        let json = serde_json::to_vec(&connect).unwrap_or_default();
        Ok([b"CONNECT ".as_slice(), &json, b"\r\nPING\r\n"].concat())
    }

    /// The files are read anew for each connection, so that renewed ones are taken up.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, ConnectError> {
        let mut roots = RootCertStore::empty();
        match &self.settings.ca {
            Some(path) => {
                for certificate in read_certificates(path)? {
                    roots.add(certificate).map_err(|error| unusable(path, error))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let misfit =
            |error: rustls::Error| ConnectError::Refused { to: self.to_string(), why: error.to_string() };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(misfit)?
            .with_root_certificates(roots);
        match &self.settings.certificate {
            Some((certificate, key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
                builder.with_client_auth_cert(read_certificates(certificate)?, private).map_err(misfit)
            }
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| unusable(path, error))?;
    if found.is_empty() { Err(unusable(path, "it holds no certificate")) } else { Ok(found) }
}

fn unusable(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConnectError {
    ConnectError::File { path: path.to_path_buf(), source: std::io::Error::other(error) }
}

/// A NATS credentials file: a token that says who the user is, and the seed of the key that proves it.
struct Credentials {
    jwt: String,
    seed: String,
}

impl Credentials {
    fn read(path: &Path) -> Result<Self, ConnectError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConnectError::File { path: path.to_path_buf(), source })?;
        let parts = block(&text, "NATS USER JWT").zip(block(&text, "USER NKEY SEED"));
        let (jwt, seed) = parts.ok_or_else(|| unusable(path, "it holds no user's JWT and seed"))?;
        Ok(Self { jwt, seed })
    }

    fn sign(&self, nonce: &str) -> Result<String, ConnectError> {
        let signed = nkeys::KeyPair::from_seed(&self.seed).and_then(|key| key.sign(nonce.as_bytes()));
        // What the library says may name the seed.
        let signed = signed.map_err(|_| ConnectError::Refused {
            to: "the server".to_owned(),
            why: "the seed of the credentials file signs nothing".to_owned(),
        })?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(signed))
    }
}

/// What stands between `-----BEGIN {name}-----` and the next line of dashes; how many dashes there are differs.
fn block(text: &str, name: &str) -> Option<String> {
    let is_begin = |line: &str| line.trim().trim_matches('-') == format!("BEGIN {name}");
    let mut lines = text.lines().skip_while(|line| !is_begin(line)).skip(1);
    let value: String = lines.by_ref().map(str::trim).take_while(|line| !line.starts_with("---")).collect();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made up, and of nobody.
    const FILE: &str = "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.e30.c2ln\n------END NATS USER JWT------\n\n\
        ************************* IMPORTANT *************************\nkeep it secret\n\n\
        -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n";

    #[test]
    fn a_credentials_file_signs_what_the_server_asks() {
        let key = nkeys::KeyPair::new_user();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.creds");
        std::fs::write(&path, FILE.replace("{seed}", &key.seed().unwrap())).unwrap();
        let credentials = Credentials::read(&path).unwrap();
        assert_eq!(credentials.jwt, "eyJ0eXAiOiJKV1QifQ.e30.c2ln");
        let signature = BASE64_URL_SAFE_NO_PAD.decode(credentials.sign("nonce").unwrap()).unwrap();
        key.verify(b"nonce", &signature).unwrap();
        std::fs::write(&path, "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n").unwrap();
        let error = Credentials::read(&path).err().unwrap();
        assert!(error.to_string().contains("gateway.creds"), "{error}");
    }
}
