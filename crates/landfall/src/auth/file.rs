//! The file of devices: `[[device]]` and `[[tenant]]` tables, read strictly.
//!
//! Owns: its keys and their ranges, what `%d` becomes, what a device has from its tenant, and that no two devices answer to
//! the same name or certificate. Does not own: verifying what a device shows (`super::devices`).

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::Params;
use landfall_event::{DeviceId, TenantId, TopicFilter};
use landfall_hub::{Acl, Secret};

use super::password::{self, Digest, StoredPassword};
use crate::document::{self, Entry, Value};
use crate::settings::{Problem, Problems, parse_duration};

/// Larger files are not read.
const MOST_BYTES: u64 = 64 << 20;
/// Pre-shared keys of fewer bytes are warned of.
const LEAST_KEY: usize = 16;
/// More problems than these are only counted.
const MOST_PROBLEMS: usize = 20;
const KEYS: [&str; 10] = [
    "id",
    "tenant",
    "password",
    "psk",
    "psk_identity",
    "certificate",
    "app_version",
    "keep_alive",
    "publish",
    "subscribe",
];
const TENANT_KEYS: [&str; 2] = ["id", "keep_alive"];

/// How a certificate is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CertificateName {
    /// By its subject's common name.
    CommonName(String),
    /// By its SHA-256, in lower-case hex.
    Fingerprint(String),
}

/// What the file says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) tenant: TenantId,
    pub(super) id: DeviceId,
    pub(super) password: Option<StoredPassword>,
    /// The pre-shared key, for DTLS.
    pub(super) psk: Option<Secret>,
    /// What the device calls itself when it shows that key, where that is not its name.
    psk_identity: Option<String>,
    certificate: Option<CertificateName>,
    pub(super) app_version: String,
    /// The device's own, else its tenant's.
    pub(super) keep_alive: Option<Duration>,
    acl: Acl,
}

/// A device of the file.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) spec: Spec,
    /// This entry's own: a principal that holds it was made from this very entry.
    pub(super) acl: Arc<Acl>,
    /// The password that was found right, as a keyed digest: a device that comes back costs no argon2.
    pub(super) verified: OnceLock<Digest>,
    /// The operator has been told that this entry cannot verify signatures.
    pub(super) told_unsignable: AtomicBool,
}

/// The devices of one state of the file.
#[derive(Debug, Default)]
pub(super) struct Table {
    devices: HashMap<(TenantId, DeviceId), Arc<Device>>,
    users: HashMap<String, Arc<Device>>,
    /// By PSK identity; of devices that have a key.
    identities: HashMap<String, Arc<Device>>,
    certificates: HashMap<CertificateName, Arc<Device>>,
    /// The costliest parameters of the file's hashes: what a decoy must cost.
    pub(super) decoy: Option<Params>,
}

impl Table {
    /// The device of a user name: `device@tenant`, or `device` in the tenant `default`.
    pub(super) fn user(&self, name: &str) -> Option<&Arc<Device>> {
        self.users.get(name)
    }

    /// The device of a PSK identity, and its key: the identity of its entry, else its user name.
    pub(super) fn identity(&self, identity: &str) -> Option<(&Arc<Device>, &Secret)> {
        let device = self.identities.get(identity)?;
        device.spec.psk.as_ref().map(|key| (device, key))
    }

    /// The device of a certificate.
    pub(super) fn certificate(&self, name: &CertificateName) -> Option<&Arc<Device>> {
        self.certificates.get(name)
    }

    /// The device of a tenant and an id.
    pub(super) fn device(&self, tenant: &TenantId, id: &DeviceId) -> Option<&Arc<Device>> {
        self.devices.get(&(tenant.clone(), id.clone()))
    }

    /// How many devices there are.
    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    /// How many devices have a pre-shared key that is short: whoever records a handshake can try keys on it at leisure
    /// (RFC 4279, section 7.2).
    pub(super) fn short_keys(&self) -> usize {
        let keys = self.devices.values().filter_map(|device| device.spec.psk.as_ref());
        keys.filter(|key| key.expose().len() < LEAST_KEY).count()
    }

    /// Takes over the entries of `old` that say the same, so that their principals stay valid. Returns how many entries of
    /// `old` are gone or say something else now.
    pub(super) fn inherit(&mut self, old: &Self) -> usize {
        let mut lost = 0;
        for (key, device) in &old.devices {
            match self.devices.get_mut(key) {
                Some(new) if new.spec == device.spec => *new = Arc::clone(device),
                _ => lost += 1,
            }
        }
        let users = self.users.values_mut().chain(self.identities.values_mut());
        for index in users.chain(self.certificates.values_mut()) {
            if let Some(kept) = self.devices.get(&(index.spec.tenant.clone(), index.spec.id.clone())) {
                *index = Arc::clone(kept);
            }
        }
        lost
    }
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Table, Problems> {
    let wrong = |error: &dyn Display| {
        Problems(vec![Problem(format!("the file of devices {} cannot be read: {error}", path.display()))])
    };
    let size = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if size > MOST_BYTES {
        return Err(wrong(&format_args!("it is larger than {MOST_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Table, Problems> {
    let mut parser = Parser {
        path,
        problems: Vec::new(),
        table: Table::default(),
        tenants: HashMap::new(),
        lines: HashMap::new(),
    };
    match document::parse(text) {
        Ok(entries) => {
            // A device has some of its values from its tenant, wherever the two stand.
            let (tenants, others): (Vec<_>, _) =
                entries.into_iter().partition(|entry| entry.name == "tenant");
            tenants.into_iter().chain(others).for_each(|entry| parser.top_level(entry));
        }
        Err(error) => parser.problems.push(Problem(format!("{} is no TOML: {error}", path.display()))),
    }
    parser.finish()
}

struct Parser<'a> {
    path: &'a Path,
    problems: Vec<Problem>,
    table: Table,
    /// What the file says of each tenant, and where.
    tenants: HashMap<TenantId, (Option<Duration>, usize)>,
    /// Where each name that a device answers to was first given.
    lines: HashMap<String, usize>,
}

impl Parser<'_> {
    fn wrong(&mut self, line: usize, text: impl Display) {
        self.problems.push(Problem(format!("{}:{line}: {text}", self.path.display())));
    }

    fn finish(mut self) -> Result<Table, Problems> {
        if self.problems.is_empty() {
            return Ok(self.table);
        }
        let more = self.problems.len().saturating_sub(MOST_PROBLEMS);
        self.problems.truncate(MOST_PROBLEMS);
        if more > 0 {
            self.problems.push(Problem(format!("{}: and {more} more problems", self.path.display())));
        }
        Err(Problems(self.problems))
    }

    fn top_level(&mut self, entry: Entry) {
        let Entry { name, line, value, .. } = entry;
        let read = match name.as_str() {
            "device" => Self::device,
            "tenant" => Self::tenant,
            other => {
                let other = other.escape_debug();
                let text = format!("unknown key `{other}`: only [[device]] and [[tenant]] are allowed");
                return self.wrong(line, text);
            }
        };
        match value {
            Value::List(items) => items.into_iter().for_each(|item| match item {
                Value::Table(entries) => read(self, line, entries),
                other => self.no_tables(&name, line, &other),
            }),
            other => self.no_tables(&name, line, &other),
        }
    }

    fn no_tables(&mut self, name: &str, line: usize, value: &Value) {
        self.wrong(line, format_args!("`{name}` = {}: must be tables, [[{name}]]", value.shown()));
    }

    fn tenant(&mut self, at: usize, entries: Vec<Entry>) {
        let at = entries.iter().map(|entry| entry.line).min().unwrap_or(at);
        let before = self.problems.len();
        let (mut id, mut silence) = (None, None);
        for Entry { name, line, value, .. } in entries {
            let shown = value.shown();
            let allowed = match name.as_str() {
                "id" => {
                    id = text(&value).and_then(|text| text.parse().ok());
                    id.is_none().then_some(ID_ALLOWED)
                }
                "keep_alive" => {
                    silence = keep_alive(&value);
                    silence.is_none().then_some(KEEP_ALIVE_ALLOWED)
                }
                _ => {
                    let keys = TENANT_KEYS.join(", ");
                    let text =
                        format!("unknown key `{}`: the keys of a tenant are {keys}", name.escape_debug());
                    self.wrong(line, text);
                    None
                }
            };
            if let Some(allowed) = allowed {
                self.wrong(line, format_args!("`{name}` = {shown}: must be {allowed}"));
            }
        }
        if self.problems.len() > before {
            return;
        }
        let Some(id): Option<TenantId> = id else {
            return self.wrong(at, format_args!("`id` is missing: it must be {ID_ALLOWED}"));
        };
        if let Some((_, first)) = self.tenants.get(&id) {
            let text =
                format!("the tenant {:?} is that of line {first}; each must be there once", id.as_str());
            return self.wrong(at, text);
        }
        self.tenants.insert(id, (silence, at));
    }

    fn device(&mut self, at: usize, entries: Vec<Entry>) {
        let at = entries.iter().map(|entry| entry.line).min().unwrap_or(at);
        let before = self.problems.len();
        let mut fields = Fields::default();
        entries.into_iter().for_each(|entry| self.field(&mut fields, entry));
        if fields.id.is_none() && self.problems.len() == before {
            self.wrong(at, format_args!("`id` is missing: it must be {ID_ALLOWED}"));
        }
        if fields.psk_identity.is_some() && fields.psk.is_none() && self.problems.len() == before {
            self.wrong(at, "`psk_identity` names a key that is not there: `psk` is missing");
        }
        let Some(id) = fields.id.take() else { return };
        let acl = match fields.acl(&id) {
            Ok(acl) => acl,
            Err(problem) => return self.wrong(at, problem),
        };
        if self.problems.len() == before {
            let tenant = fields.tenant.unwrap_or_default();
            let of_tenant = self.tenants.get(&tenant).and_then(|(silence, _)| *silence);
            let spec = Spec {
                tenant,
                id,
                password: fields.password,
                psk: fields.psk,
                psk_identity: fields.psk_identity,
                certificate: fields.certificate,
                app_version: fields.app_version.unwrap_or_default(),
                keep_alive: fields.keep_alive.or(of_tenant),
                acl,
            };
            self.enter(at, spec);
        }
    }

    fn field(&mut self, fields: &mut Fields, entry: Entry) {
        let Entry { name, line, value, .. } = entry;
        let secret = matches!(name.as_str(), "password" | "psk");
        let shown = if secret { "***".to_owned() } else { value.shown() };
        if let Err(allowed) = fields.set(&name, value) {
            match KEYS.contains(&name.as_str()) {
                true => self.wrong(line, format_args!("`{name}` = {shown}: must be {allowed}")),
                false => self.wrong(line, format_args!("unknown key `{}`: {allowed}", name.escape_debug())),
            }
        }
    }

    /// Enters a device under every name that it answers to; none of them may be taken.
    fn enter(&mut self, at: usize, spec: Spec) {
        let key = (spec.tenant.clone(), spec.id.clone());
        let mut users = vec![format!("{}@{}", spec.id, spec.tenant)];
        if spec.tenant.as_str() == TenantId::DEFAULT {
            users.push(spec.id.to_string());
        }
        // No device's identity is another's name, though that one may have no key yet.
        let identities = spec.psk_identity.clone().map_or_else(|| users.clone(), |own| vec![own]);
        let named = |what: &'static str| move |name: &String| format!("the {what} {name:?}");
        let names = users.iter().map(named("user name"));
        let names = names.chain(identities.iter().map(named("PSK identity")));
        let names: Vec<_> =
            names.chain(spec.certificate.iter().map(|name| format!("the certificate {name:?}"))).collect();
        let taken =
            names.iter().find_map(|name| self.lines.get(name).map(|line| format!("{name} of line {line}")));
        if let Some(taken) = taken {
            return self.wrong(at, format_args!("device {:?} would answer to {taken} too", spec.id.as_str()));
        }
        self.lines.extend(names.into_iter().map(|name| (name, at)));
        if let Some(params) = spec.password.as_ref().and_then(StoredPassword::params) {
            let cost = |p: &Params| u64::from(p.m_cost()) * u64::from(p.t_cost());
            if self.table.decoy.as_ref().is_none_or(|decoy| cost(decoy) < cost(&params)) {
                self.table.decoy = Some(params);
            }
        }
        let acl = Arc::new(spec.acl.clone());
        let device = Arc::new(Device {
            spec,
            acl,
            verified: OnceLock::new(),
            told_unsignable: AtomicBool::new(false),
        });
        self.table.users.extend(users.into_iter().map(|user| (user, Arc::clone(&device))));
        if device.spec.psk.is_some() {
            let identities = identities.into_iter().map(|identity| (identity, Arc::clone(&device)));
            self.table.identities.extend(identities);
        }
        if let Some(name) = &device.spec.certificate {
            self.table.certificates.insert(name.clone(), Arc::clone(&device));
        }
        self.table.devices.insert(key, device);
    }
}

/// The fields of one device as they come.
#[derive(Default)]
struct Fields {
    id: Option<DeviceId>,
    tenant: Option<TenantId>,
    password: Option<StoredPassword>,
    psk: Option<Secret>,
    psk_identity: Option<String>,
    certificate: Option<CertificateName>,
    app_version: Option<String>,
    keep_alive: Option<Duration>,
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
}

const ID_ALLOWED: &str = "1 to 128 bytes without control characters";
const KEEP_ALIVE_ALLOWED: &str = "a duration from \"1s\" to \"30d\"";
const FILTERS_ALLOWED: &str = "a list of MQTT topic filters, `%d` in them being the device's id";

impl Fields {
    /// Sets one field; the error says what is allowed.
    fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        let allowed = |what: &str| what.to_owned();
        match (name, value) {
            ("id", Value::Text(text)) => self.id = Some(text.parse().map_err(|_| allowed(ID_ALLOWED))?),
            ("tenant", Value::Text(text)) => {
                self.tenant = Some(text.parse().map_err(|_| allowed(ID_ALLOWED))?);
            }
            ("id" | "tenant", _) => return Err(allowed(ID_ALLOWED)),
            ("password", Value::Text(text)) => {
                self.password = Some(StoredPassword::parse(&text).ok_or(password::ALLOWED)?);
            }
            ("password", _) => return Err(allowed(password::ALLOWED)),
            ("psk", value) => self.psk = Some(psk(&value).ok_or("1 to 64 bytes in hex")?),
            ("psk_identity", value) => {
                self.psk_identity =
                    Some(text(&value).filter(|text| is_identity(text)).map(str::to_owned).ok_or(ID_ALLOWED)?);
            }
            ("certificate", value) => {
                self.certificate =
                    Some(certificate(&value).ok_or("a subject CN, or a SHA-256 fingerprint in hex")?);
            }
            ("app_version", Value::Text(text))
                if text.len() <= 256 && !text.chars().any(char::is_control) =>
            {
                self.app_version = Some(text);
            }
            ("app_version", _) => return Err(allowed("at most 256 bytes without control characters")),
            ("keep_alive", value) => {
                self.keep_alive = Some(keep_alive(&value).ok_or(KEEP_ALIVE_ALLOWED)?);
            }
            ("publish", value) => self.publish = Some(filters(value).ok_or(FILTERS_ALLOWED)?),
            ("subscribe", value) => self.subscribe = Some(filters(value).ok_or(FILTERS_ALLOWED)?),
            _ => return Err(format!("the keys of a device are {}", KEYS.join(", "))),
        }
        Ok(())
    }

    /// The ACL for this id. A list that is there and empty allows nothing; one that is absent has a default.
    fn acl(&mut self, id: &DeviceId) -> Result<Acl, String> {
        let default = |list: &[&str]| list.iter().map(|f| (*f).to_owned()).collect();
        let publish = self.publish.take().unwrap_or_else(|| default(&["#"]));
        let subscribe = self.subscribe.take().unwrap_or_else(|| default(&["command/#", "c/#"]));
        Ok(Acl { publish: for_device(publish, id)?, subscribe: for_device(subscribe, id)? })
    }
}

/// Puts the id in the place of `%d`. An id that holds a separator or a wildcard would widen the filter, so such filters
/// match nothing for it.
fn for_device(filters: Vec<String>, id: &DeviceId) -> Result<Vec<TopicFilter>, String> {
    let harmless = !id.as_str().contains(['/', '+', '#']);
    let usable = filters.into_iter().filter(|filter| harmless || !filter.contains("%d"));
    usable
        .map(|filter| {
            let filled = filter.replace("%d", id.as_str());
            filled.parse().map_err(|error| format!("the filter {filter:?} with this id {error}"))
        })
        .collect()
}

fn filters(value: Value) -> Option<Vec<String>> {
    const MOST: usize = 64;
    let Value::List(items) = value else { return None };
    if items.len() > MOST {
        return None;
    }
    let valid = |item| match item {
        Value::Text(text) if text.parse::<TopicFilter>().is_ok() => Some(text),
        _ => None,
    };
    items.into_iter().map(valid).collect()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let nibbles: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let nibbles = nibbles.filter(|n| n.len() % 2 == 0)?;
    Some(
        nibbles
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |byte, nibble| (byte << 4) | nibble))
            .collect(),
    )
}

fn psk(value: &Value) -> Option<Secret> {
    let Value::Text(text) = value else { return None };
    hex(text).filter(|key| (1..=64).contains(&key.len())).map(|key| Secret::new(key.into()))
}

/// As long as an id may be, which is as long as anybody is asked about (`landfall-dtls`).
fn is_identity(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn certificate(value: &Value) -> Option<CertificateName> {
    let Value::Text(text) = value else { return None };
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.len() == 64 && hex(&digits).is_some() {
        return Some(CertificateName::Fingerprint(digits.to_ascii_lowercase()));
    }
    let valid = !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
    valid.then(|| CertificateName::CommonName(text.clone()))
}

/// As long as `presence.idle_timeout` may be. MQTT knows at most 65 535 s and takes that for anything longer.
fn keep_alive(value: &Value) -> Option<Duration> {
    const LEAST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(30 * 24 * 3600);
    text(value).and_then(parse_duration).filter(|duration| (LEAST..=MOST).contains(duration))
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}
