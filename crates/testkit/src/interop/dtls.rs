//! Other people's DTLS stacks as processes: OpenSSL, GnuTLS, Mbed TLS and tinydtls, each bare or under a CoAP client.
//!
//! Owns: their command lines. Does not own: what they should do to the gateway (the tests say).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::paths;
use crate::pki::{Identity, Pki};
use crate::process::Process;

/// What a client proves itself with.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// A pre-shared key under an identity.
    Psk(&'a str, &'a [u8]),
    /// A certificate; the server's is held against this authority.
    Certificate(&'a Identity, &'a Pki),
    /// Nothing; the server's certificate is held against this authority.
    Nothing(&'a Pki),
}

/// The suites that the gateway speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// TLS_PSK_WITH_AES_128_CCM_8.
    PskCcm8,
    /// TLS_PSK_WITH_AES_128_CCM.
    PskCcm,
    /// TLS_PSK_WITH_AES_128_GCM_SHA256.
    PskGcm,
    /// TLS_PSK_WITH_AES_256_CCM_8.
    Psk256Ccm8,
    /// TLS_PSK_WITH_AES_256_CCM.
    Psk256Ccm,
    /// TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8.
    EcdheCcm8,
    /// TLS_ECDHE_ECDSA_WITH_AES_128_CCM.
    EcdheCcm,
    /// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256.
    EcdheGcm,
    /// TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8.
    Ecdhe256Ccm8,
    /// TLS_ECDHE_ECDSA_WITH_AES_256_CCM.
    Ecdhe256Ccm,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::PskCcm8,
        Self::PskCcm,
        Self::PskGcm,
        Self::Psk256Ccm8,
        Self::Psk256Ccm,
        Self::EcdheCcm8,
        Self::EcdheCcm,
        Self::EcdheGcm,
        Self::Ecdhe256Ccm8,
        Self::Ecdhe256Ccm,
    ];

    /// True for those with a pre-shared key.
    pub fn is_psk(self) -> bool {
        self.mbedtls().starts_with("TLS-PSK")
    }

    /// OpenSSL's name.
    pub fn openssl(self) -> &'static str {
        match self {
            Self::PskCcm8 => "PSK-AES128-CCM8",
            Self::PskCcm => "PSK-AES128-CCM",
            Self::PskGcm => "PSK-AES128-GCM-SHA256",
            Self::Psk256Ccm8 => "PSK-AES256-CCM8",
            Self::Psk256Ccm => "PSK-AES256-CCM",
            Self::EcdheCcm8 => "ECDHE-ECDSA-AES128-CCM8",
            Self::EcdheCcm => "ECDHE-ECDSA-AES128-CCM",
            Self::EcdheGcm => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::Ecdhe256Ccm8 => "ECDHE-ECDSA-AES256-CCM8",
            Self::Ecdhe256Ccm => "ECDHE-ECDSA-AES256-CCM",
        }
    }

    /// Mbed TLS's name.
    pub fn mbedtls(self) -> &'static str {
        match self {
            Self::PskCcm8 => "TLS-PSK-WITH-AES-128-CCM-8",
            Self::PskCcm => "TLS-PSK-WITH-AES-128-CCM",
            Self::PskGcm => "TLS-PSK-WITH-AES-128-GCM-SHA256",
            Self::Psk256Ccm8 => "TLS-PSK-WITH-AES-256-CCM-8",
            Self::Psk256Ccm => "TLS-PSK-WITH-AES-256-CCM",
            Self::EcdheCcm8 => "TLS-ECDHE-ECDSA-WITH-AES-128-CCM-8",
            Self::EcdheCcm => "TLS-ECDHE-ECDSA-WITH-AES-128-CCM",
            Self::EcdheGcm => "TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256",
            Self::Ecdhe256Ccm8 => "TLS-ECDHE-ECDSA-WITH-AES-256-CCM-8",
            Self::Ecdhe256Ccm => "TLS-ECDHE-ECDSA-WITH-AES-256-CCM",
        }
    }

    /// GnuTLS's priority string that leaves this suite alone.
    pub fn gnutls(self) -> String {
        let cipher = match self {
            Self::PskCcm8 | Self::EcdheCcm8 => "AES-128-CCM-8",
            Self::PskCcm | Self::EcdheCcm => "AES-128-CCM",
            Self::PskGcm | Self::EcdheGcm => "AES-128-GCM",
            Self::Psk256Ccm8 | Self::Ecdhe256Ccm8 => "AES-256-CCM-8",
            Self::Psk256Ccm | Self::Ecdhe256Ccm => "AES-256-CCM",
        };
        let (exchange, more) = if self.is_psk() { ("PSK", "") } else { ("ECDHE-ECDSA", ":+CTYPE-ALL") };
        format!("NONE:+VERS-DTLS1.2:+{exchange}:+{cipher}:+AEAD:+SIGN-ALL:+COMP-NULL:+GROUP-ALL{more}")
    }
}

/// A pre-shared key as most programs want it.
pub fn hex(key: &[u8]) -> String {
    key.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `openssl s_client` over DTLS 1.2 with this suite and further arguments; `None` when it is not installed and need not be.
/// Each line that is said to it is a record; its end of input is a close_notify.
pub fn openssl(address: SocketAddr, shown: Shown<'_>, suite: Suite, more: &[&str]) -> Option<Process> {
    openssl_listing(address, shown, suite.openssl(), more)
}

/// The same with the suites of an expression of OpenSSL's (`ALL:PSK`), in OpenSSL's order.
pub fn openssl_listing(
    address: SocketAddr,
    shown: Shown<'_>,
    suites: &str,
    more: &[&str],
) -> Option<Process> {
    let mut command = Command::new(paths::interop("openssl", paths::program("openssl"))?);
    command.args(["s_client", "-dtls1_2", "-connect", &address.to_string()]);
    // CCM_8 is below what OpenSSL takes by itself.
    command.args(["-cipher", &format!("{suites}:@SECLEVEL=0"), "-timeout"]);
    match shown {
        Shown::Psk(identity, key) => {
            command.args(["-psk_identity", identity, "-psk", &hex(key)]);
        }
        Shown::Certificate(identity, pki) => {
            command.arg("-cert").arg(&identity.certificate).arg("-key").arg(&identity.key);
            // Those behind the first in the file are its chain.
            command.arg("-cert_chain").arg(&identity.certificate);
            trust(&mut command, "-CAfile", pki.authority());
        }
        Shown::Nothing(pki) => trust(&mut command, "-CAfile", pki.authority()),
    }
    if !matches!(shown, Shown::Psk(..)) {
        command.args(["-verify_return_error", "-verify_ip", &address.ip().to_string()]);
    }
    command.args(more);
    Some(Process::spawn_listening("openssl s_client", command))
}

/// `gnutls-cli` over DTLS 1.2 with this suite and further words of its priority string (`":%NO_SESSION_HASH"`); `None` when it
/// is not installed and need not be. Each line that is said to it is a record; its end of input is a close_notify.
pub fn gnutls(address: SocketAddr, shown: Shown<'_>, suite: Suite, more: &str) -> Option<Process> {
    let mut command = Command::new(paths::interop("gnutls-cli", paths::program("gnutls-cli"))?);
    command.args(["--udp", "--disable-sni", "--port", &address.port().to_string()]);
    command.args(["--priority", &format!("{}{more}", suite.gnutls())]);
    match shown {
        Shown::Psk(identity, key) => {
            command.args(["--pskusername", identity, "--pskkey", &hex(key)]);
        }
        Shown::Certificate(identity, pki) => {
            command.arg("--x509certfile").arg(&identity.certificate);
            command.arg("--x509keyfile").arg(&identity.key);
            trust(&mut command, "--x509cafile", pki.authority());
        }
        Shown::Nothing(pki) => trust(&mut command, "--x509cafile", pki.authority()),
    }
    command.arg(address.ip().to_string());
    Some(Process::spawn_listening("gnutls-cli", command))
}

/// What libcoap was built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// OpenSSL.
    OpenSsl,
    /// GnuTLS.
    GnuTls,
}

impl Build {
    fn program(self, name: &str) -> String {
        match self {
            Self::OpenSsl => format!("{name}-openssl"),
            Self::GnuTls => format!("{name}-gnutls"),
        }
    }
}

/// libcoap's `coap-client` with one of its TLS libraries and further arguments, the last of which is usually the URI; `None`
/// when it is not installed and need not be. A pre-shared key is text to it.
///
/// # Panics
/// When the key is no text.
pub fn coap_client(build: Build, shown: Shown<'_>, more: &[&str]) -> Option<Process> {
    let name = build.program("coap-client");
    let mut command = Command::new(paths::interop(&name, paths::program(&name))?);
    match shown {
        Shown::Psk(identity, key) => {
            command.args(["-u", identity, "-k", std::str::from_utf8(key).expect("a key that is text")]);
        }
        Shown::Certificate(identity, pki) => {
            command.arg("-c").arg(&identity.certificate).arg("-j").arg(&identity.key);
            trust(&mut command, "-C", pki.authority());
        }
        Shown::Nothing(pki) => trust(&mut command, "-R", pki.authority()),
    }
    command.args(more);
    Some(Process::spawn(&name, command))
}

/// libcoap's `coap-server` with one of its TLS libraries and further arguments; its DTLS port is the one above `port`.
pub fn coap_server(build: Build, port: u16, more: &[&str]) -> Option<Process> {
    let name = build.program("coap-server");
    let mut command = Command::new(paths::interop(&name, paths::program(&name))?);
    command.args(["-A", "127.0.0.1", "-p", &port.to_string()]).args(more);
    Some(Process::spawn(&name, command))
}

/// `openssl s_server` over DTLS 1.2 on this port with further arguments: what it gets stands on its standard output, and
/// what is said to it goes to the client.
pub fn openssl_server(port: u16, more: &[&str]) -> Option<Process> {
    let mut command = Command::new(paths::interop("openssl", paths::program("openssl"))?);
    command.args(["s_server", "-dtls1_2", "-listen", "-accept", &format!("127.0.0.1:{port}")]).args(more);
    Some(Process::spawn_listening("openssl s_server", command))
}

/// The Mbed TLS script `tests/data/mbedtls_device.py`, which sends each line that is said to it as a record and prints each
/// record that comes; `None` when python-mbedtls is not installed and need not be.
pub fn mbedtls(address: SocketAddr, shown: Shown<'_>, suite: Suite) -> Option<Process> {
    mbedtls_listing(address, shown, &[suite])
}

/// The same with these suites in this order; with none, all that Mbed TLS has, as it lists them by itself.
pub fn mbedtls_listing(address: SocketAddr, shown: Shown<'_>, suites: &[Suite]) -> Option<Process> {
    let mut command = Command::new(paths::interop("python-mbedtls", paths::python("mbedtls"))?);
    command.arg(paths::repository().join("tests/data/mbedtls_device.py"));
    command.args(["--port", &address.port().to_string()]);
    command.args(suites.iter().flat_map(|suite| ["--suite", suite.mbedtls()]));
    match shown {
        Shown::Psk(identity, key) => {
            command.args(["--identity", identity, "--psk", &hex(key)]);
        }
        Shown::Certificate(identity, pki) => {
            command.arg("--cert").arg(&identity.certificate).arg("--key").arg(&identity.key);
            trust(&mut command, "--ca", pki.authority());
        }
        Shown::Nothing(pki) => trust(&mut command, "--ca", pki.authority()),
    }
    Some(Process::spawn_listening("python-mbedtls", command))
}

/// The aiocoap script `tests/data/aiocoap_device.py` over tinydtls, as the device of a pre-shared key; `None` when tinydtls
/// (as the package DTLSSocket) is not installed and need not be.
pub fn tinydtls(address: SocketAddr, (identity, key): (&str, &[u8]), more: &[&str]) -> Option<Process> {
    let mut command = Command::new(paths::interop("DTLSSocket", paths::python("DTLSSocket"))?);
    command.arg(paths::repository().join("tests/data/aiocoap_device.py"));
    command.args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--id", identity, "--psk", &hex(key)]).args(more);
    Some(Process::spawn("aiocoap over tinydtls", command))
}

fn trust(command: &mut Command, option: &str, authority: &Path) {
    command.arg(option).arg(authority);
}
