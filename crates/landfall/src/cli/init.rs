//! `landfall init`: what a board on the bench needs to come in over TLS and DTLS, made in one step.
//!
//! Owns: an authority, the gateway's certificate, one device with its secrets, a settings file that names them, and what to
//! type next. Does not own: the form of the settings and of the file of devices, which both read what is written here.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use landfall_event::DeviceId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::output::Output;
use crate::Failure;
use crate::auth;

/// An address of TEST-NET-1 (RFC 5737): nothing is sent there, the system is only asked which way it would take.
const SOMEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The folder to make it in; it may exist, and must hold none of the files.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// A name or an IP address by which the device reaches this machine, for the certificate; several by saying it again. The
    /// first one stands in what is printed. Default: this machine's address on the network.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// The device's id.
    #[arg(long, default_value = "board-1")]
    device: DeviceId,
}

/// What is made for one device.
struct Secrets {
    password: String,
    /// Letters and digits: tools like libcoap's take a key as text.
    psk: String,
}

/// A file that is written once and never over another.
struct NewFile {
    name: &'static str,
    text: String,
    is_secret: bool,
}

pub(super) fn init(args: &InitArgs, out: &mut Output) -> Result<(), Failure> {
    let hosts = if args.host.is_empty() { vec![own_address().to_string()] } else { args.host.clone() };
    let secrets = Secrets { password: random_hex::<12>(), psk: random_hex::<16>() };
    let files = files(args, &hosts, &secrets)?;
    let paths: Vec<PathBuf> = files.iter().map(|file| args.folder.join(file.name)).collect();
    if let Some(there) = paths.iter().find(|path| path.exists()) {
        return Err(Failure::Runtime(format!("{} is there already: nothing was written", there.display())));
    }
    fs::create_dir_all(&args.folder).map_err(|error| unwritten(&args.folder, &error))?;
    for (file, path) in files.iter().zip(&paths) {
        write_new(path, file).map_err(|error| unwritten(path, &error))?;
    }
    out.text(&next_steps(args, &hosts, &secrets))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Runtime(format!("{} cannot be written: {error}", path.display()))
}

fn write_new(path: &Path, file: &NewFile) -> std::io::Result<()> {
    let mode = if file.is_secret { 0o600 } else { 0o644 };
    let mut written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    written.write_all(file.text.as_bytes())
}

/// The address that this machine has towards the network; loopback where there is none.
fn own_address() -> IpAddr {
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(SOMEWHERE).and_then(|()| socket.local_addr()));
    asked.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn random_hex<const BYTES: usize>() -> String
where
    rand::distr::StandardUniform: rand::distr::Distribution<[u8; BYTES]>,
{
    hex(&rand::random::<[u8; BYTES]>())
}

/// A word for a shell, quoted where it has to be.
fn shell(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/:".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn files(args: &InitArgs, hosts: &[String], secrets: &Secrets) -> Result<Vec<NewFile>, Failure> {
    let folder = fs::canonicalize(&args.folder).or_else(|_| std::path::absolute(&args.folder));
    let folder = folder.map_err(|error| unwritten(&args.folder, &error))?;
    let (ca, server, key) = certificates(hosts)?;
    let hash = auth::hash_password(secrets.password.as_bytes())
        .ok_or_else(|| Failure::Runtime("the password cannot be hashed".to_owned()))?;
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let place = |name: &str| quoted(&folder.join(name).to_string_lossy());
    let devices = format!(
        "# One table for each device; looked at again whenever it changes.\n\n[[device]]\nid = {}\npassword = {}\npsk = {}\n",
        quoted(args.device.as_str()),
        quoted(&hash),
        quoted(&hex(secrets.psk.as_bytes())),
    );
    let settings = format!(
        "# For a bench: devices of the network come in over TLS and DTLS, with what stands in devices.toml.\n\n\
         [mqtt]\nlisten = [\"tls://0.0.0.0:8883\"]\n\n\
         [coap]\nlisten = [\"dtls://0.0.0.0:5684\"]\n\n\
         [udp]\nlisten = [\"dtls://0.0.0.0:7684\"]\n\n\
         [tls]\ncert = {}\nkey = {}\n\n\
         [auth]\nmode = \"devices\"\ndevices = {}\n\n\
         [nats]\nstore_dir = {}\nspool_dir = {}\n",
        place("server.pem"),
        place("server.key"),
        place("devices.toml"),
        place("nats"),
        place("spool"),
    );
    let open = |name, text| NewFile { name, text, is_secret: false };
    let secret = |name, text| NewFile { name, text, is_secret: true };
    Ok(vec![
        secret("landfall.toml", settings),
        secret("devices.toml", devices),
        open("ca.pem", ca),
        open("server.pem", server),
        secret("server.key", key),
    ])
}

/// An authority, whose key is forgotten at once, and what it has signed: its certificate, the gateway's, and the gateway's key, as PEM.
fn certificates(hosts: &[String]) -> Result<(String, String, String), Failure> {
    let failed = |error: rcgen::Error| Failure::Runtime(format!("the certificate cannot be made: {error}"));
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "Landfall on the bench");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate().map_err(failed)?;
    let ca = authority.self_signed(&authority_key).map_err(failed)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let mut names = hosts.to_vec();
    names.extend(
        ["localhost", "127.0.0.1"].map(str::to_owned).into_iter().filter(|name| !hosts.contains(name)),
    );
    let mut server = CertificateParams::new(names).map_err(failed)?;
    server.distinguished_name.push(DnType::CommonName, hosts.first().map_or("localhost", String::as_str));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = server.signed_by(&key, &issuer).map_err(failed)?.pem();
    Ok((ca, certificate, key.serialize_pem()))
}

/// What somebody with a board types next.
fn next_steps(args: &InitArgs, hosts: &[String], secrets: &Secrets) -> String {
    let host = hosts.first().map_or("localhost", String::as_str);
    let device = args.device.as_str();
    let at = |name: &str| shell(&args.folder.join(name).display().to_string());
    let Secrets { password, psk } = secrets;
    let (settings, devices, ca) = (at("landfall.toml"), at("devices.toml"), at("ca.pem"));
    let (word, names, hex_psk) = (shell(device), hosts.join(", "), hex(psk.as_bytes()));
    format!(
        "made {settings}, {devices} and a certificate for {names}. The password is shown this once.\n\n\
         Start the gateway, and watch it from a second terminal:\n  \
         landfall run --config {settings}\n  \
         landfall watch --config {settings}\n\n\
         From the device, or in its place:\n  \
         mosquitto_pub -h {host} -p 8883 --cafile {ca} -i {word} -u {word} -P {password} -q 1 -t hello -m world\n  \
         coap-client-openssl -u {word} -k {psk} -m post -e world coaps://{host}:5684/hello\n\n\
         MQTT: TLS on port 8883, the authority is {ca}; user name {device}, password {password}\n\
         CoAP and UDP: DTLS 1.2 on ports 5684 and 7684; PSK identity {device}, key {psk}, in hex {hex_psk}\n"
    )
}
