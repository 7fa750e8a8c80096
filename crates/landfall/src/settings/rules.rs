//! Rules between keys: what each value alone cannot say.

use std::collections::HashSet;

use super::Settings;
use super::address::NatsTarget;
use super::keys::AuthMode;
use super::source::Reader;
use landfall_net::ClientAuth;
use landfall_net::ws::Origin;

pub(super) fn check(settings: &Settings, reader: &mut Reader) {
    let listeners = listeners(settings);
    if listeners.is_empty() {
        let text =
            "`mqtt.listen`, `coap.listen` and `udp.listen` are all []: one of them must have an address";
        reader.problem(text.to_owned());
    }
    open_stays_on_loopback(settings, &listeners, reader);
    listeners_differ(&listeners, reader);
    balancers_are_at_addresses(settings, reader);
    open_has_no_foreign_pages(settings, reader);
    certificates_come_in_pairs(settings, reader);
    dtls_can_prove_itself(settings, reader);
    client_certificates_can_be_verified(settings, reader);
    messages_fit_into_the_window(settings, reader);
    messages_fit_into_their_stream(settings, reader);
    silences_are_in_order(settings, reader);
    if settings.nats.url == NatsTarget::Embedded && settings.nats.replicas > 1 {
        let source = reader.source("nats.replicas");
        let replicas = settings.nats.replicas;
        reader.problem(format!(
            "`nats.replicas` = {replicas} ({source}): must be 1 with `nats.url` = \"embedded\", which is one server"
        ));
    }
}

/// One address that some section listens at.
struct Listener<'a> {
    key: &'static str,
    text: String,
    is_loopback: bool,
    /// TCP and UDP have ports of their own.
    is_datagram: bool,
    host: &'a str,
    port: u16,
}

fn listeners(settings: &Settings) -> Vec<Listener<'_>> {
    let streams = settings.mqtt.listen.iter().map(|listen| Listener {
        key: "mqtt.listen",
        text: listen.to_string(),
        is_loopback: listen.is_loopback(),
        is_datagram: false,
        host: listen.host(),
        port: listen.port(),
    });
    let coap = settings.coap.listen.iter().map(|listen| ("coap.listen", listen));
    let udp = settings.udp.listen.iter().map(|listen| ("udp.listen", listen));
    let datagrams = coap.chain(udp).map(|(key, listen)| Listener {
        key,
        text: listen.to_string(),
        is_loopback: listen.is_loopback(),
        is_datagram: true,
        host: listen.host(),
        port: listen.port(),
    });
    streams.chain(datagrams).collect()
}

fn open_stays_on_loopback(settings: &Settings, listeners: &[Listener<'_>], reader: &mut Reader) {
    if settings.auth.mode != AuthMode::Open {
        return;
    }
    for key in ["mqtt.listen", "coap.listen", "udp.listen"] {
        let away: Vec<_> = listeners
            .iter()
            .filter(|listener| listener.key == key && !listener.is_loopback)
            .take(4)
            .map(|listener| format!("\"{}\"", listener.text))
            .collect();
        if away.is_empty() {
            continue;
        }
        let (mode, listen) = (reader.source("auth.mode"), reader.source(key));
        reader.problem(format!(
            "`auth.mode` = \"open\" ({mode}) while `{key}` has {} ({listen}): \"open\" believes whatever a device calls \
             itself and is allowed on loopback addresses only (127.0.0.1, [::1], localhost); use `auth.mode` = \"devices\"",
            away.join(", ")
        ));
    }
}

fn listeners_differ(listeners: &[Listener<'_>], reader: &mut Reader) {
    let mut seen = HashSet::new();
    let twice = listeners.iter().find(|l| l.port != 0 && !seen.insert((l.is_datagram, l.host, l.port)));
    if let Some(Listener { key, text, .. }) = twice {
        let source = reader.source(key);
        reader.problem(format!(
            "`{key}` ({source}): host and port of \"{text}\" are there twice; each must be there once"
        ));
    }
}

fn balancers_are_at_addresses(settings: &Settings, reader: &mut Reader) {
    let mqtt = &settings.mqtt;
    if let Some(stray) = mqtt.proxy_protocol.iter().find(|at| !mqtt.listen.contains(at)) {
        let source = reader.source("mqtt.proxy_protocol");
        reader.problem(format!(
            "`mqtt.proxy_protocol` has \"{stray}\" ({source}): must be one of the addresses in `mqtt.listen`"
        ));
    }
    let (has, lacks) = match (mqtt.proxy_protocol.is_empty(), mqtt.proxy_networks.is_empty()) {
        (false, true) => ("mqtt.proxy_protocol", "mqtt.proxy_networks"),
        (true, false) => ("mqtt.proxy_networks", "mqtt.proxy_protocol"),
        _ => return,
    };
    let source = reader.source(has);
    reader.problem(format!("`{has}` is set ({source}) and `{lacks}` is not: they go together"));
}

fn open_has_no_foreign_pages(settings: &Settings, reader: &mut Reader) {
    if settings.auth.mode == AuthMode::Open && settings.mqtt.allowed_origins.iter().any(Origin::is_any) {
        let (mode, source) = (reader.source("auth.mode"), reader.source("mqtt.allowed_origins"));
        reader.problem(format!(
            "`mqtt.allowed_origins` has \"*\" ({source}) while `auth.mode` = \"open\" ({mode}): every web page could be every \
             device; name the origins, or use `auth.mode` = \"devices\""
        ));
    }
}

fn messages_fit_into_the_window(settings: &Settings, reader: &mut Reader) {
    let largest = [
        ("mqtt.max_packet_size", u64::from(settings.mqtt.max_packet_size)),
        ("coap.max_body", settings.coap.max_body as u64),
        ("udp.max_datagram", settings.udp.max_datagram as u64),
    ];
    for (key, _) in largest.into_iter().filter(|(_, size)| *size > settings.nats.publish_window_bytes as u64)
    {
        let (window, message) = (reader.source("nats.publish_window_bytes"), reader.source(key));
        reader.problem(format!(
            "`nats.publish_window_bytes` ({window}): must not be smaller than `{key}` ({message})"
        ));
    }
    if settings.coap.max_body > settings.coap.upload_memory {
        let (memory, body) = (reader.source("coap.upload_memory"), reader.source("coap.max_body"));
        reader.problem(format!(
            "`coap.upload_memory` ({memory}): must not be smaller than `coap.max_body` ({body})"
        ));
    }
}

/// A quarter of the stream and one event are written behind a fence at most, and an event is up to eight times its message.
const LARGEST_IN_STREAM: u64 = 16;

fn messages_fit_into_their_stream(settings: &Settings, reader: &mut Reader) {
    let most = settings.nats.messages_max_bytes;
    if most == 0 {
        return;
    }
    let largest = [
        ("mqtt.max_packet_size", u64::from(settings.mqtt.max_packet_size)),
        ("coap.max_body", settings.coap.max_body as u64),
        ("udp.max_datagram", settings.udp.max_datagram as u64),
    ];
    for (key, size) in largest.into_iter().filter(|(_, size)| size.saturating_mul(LARGEST_IN_STREAM) > most) {
        let (limit, message) = (reader.source("nats.messages_max_bytes"), reader.source(key));
        let allowed = size.saturating_mul(LARGEST_IN_STREAM);
        reader.problem(format!(
            "`nats.messages_max_bytes` = {most} ({limit}): must be 0 or at least {allowed}, {LARGEST_IN_STREAM} times `{key}` ({message})"
        ));
    }
}

fn silences_are_in_order(settings: &Settings, reader: &mut Reader) {
    let presence = &settings.presence;
    let mut chain = |short: &str, long: &str| {
        let source = reader.source(&format!("presence.{short}"));
        reader.problem(format!("`presence.{short}` ({source}): must not be longer than `presence.{long}`"));
    };
    if presence.tick > presence.idle_timeout {
        chain("tick", "idle_timeout");
    }
    if presence.adaptive && presence.adaptive_min > presence.idle_timeout {
        chain("adaptive_min", "idle_timeout");
    }
}

fn certificates_come_in_pairs(settings: &Settings, reader: &mut Reader) {
    let (tls, dtls, nats) = (&settings.tls, &settings.dtls, &settings.nats);
    for (section, cert, key) in
        [("tls", &tls.cert, &tls.key), ("dtls", &dtls.cert, &dtls.key), ("nats", &nats.cert, &nats.key)]
    {
        let (has, lacks) = match (cert, key) {
            (Some(_), None) => ("cert", "key"),
            (None, Some(_)) => ("key", "cert"),
            _ => continue,
        };
        let source = reader.source(&format!("{section}.{has}"));
        reader.problem(format!(
            "`{section}.{has}` is set ({source}) and `{section}.{lacks}` is not: they go together"
        ));
    }
    let secure = settings.mqtt.listen.iter().find(|listen| listen.kind().is_tls());
    if let (Some(listen), None, None) = (secure, &tls.cert, &tls.key) {
        let source = reader.source("mqtt.listen");
        reader.problem(format!(
            "`mqtt.listen` has \"{listen}\" ({source}): it needs `tls.cert` and `tls.key`, the paths of PEM files"
        ));
    }
    if let (Some(_), None, None) = (&tls.client_ca, &tls.cert, &tls.key) {
        let source = reader.source("tls.client_ca");
        reader.problem(format!("`tls.client_ca` is set ({source}): it needs `tls.cert` and `tls.key` too"));
    }
}

/// Nobody can show what nobody can have signed.
fn client_certificates_can_be_verified(settings: &Settings, reader: &mut Reader) {
    let (tls, dtls) = (&settings.tls, &settings.dtls);
    if dtls.client_auth == Some(ClientAuth::Required) && dtls.client_ca.is_none() && tls.client_ca.is_none() {
        let source = reader.source("dtls.client_auth");
        reader.problem(format!(
            "`dtls.client_auth` = \"required\" ({source}): it needs `dtls.client_ca` or `tls.client_ca`, which sign the \
             certificates; or leave it out"
        ));
    }
}

/// Towards the devices, by the key that both have or by a certificate.
fn dtls_can_prove_itself(settings: &Settings, reader: &mut Reader) {
    let (tls, dtls) = (&settings.tls, &settings.dtls);
    if [&dtls.cert, &dtls.key, &tls.cert, &tls.key].into_iter().any(Option::is_some) {
        return;
    }
    if dtls.client_ca.is_some() {
        let source = reader.source("dtls.client_ca");
        reader.problem(format!(
            "`dtls.client_ca` is set ({source}): it needs `dtls.cert` and `dtls.key` too, or `tls.cert` and `tls.key`"
        ));
    }
    if settings.auth.mode != AuthMode::Open {
        return;
    }
    for (key, listen) in [("coap.listen", &settings.coap.listen), ("udp.listen", &settings.udp.listen)] {
        let Some(secure) = listen.iter().find(|listen| listen.kind().is_dtls()) else { continue };
        let (mode, source) = (reader.source("auth.mode"), reader.source(key));
        reader.problem(format!(
            "`{key}` has \"{secure}\" ({source}) while `auth.mode` = \"open\" ({mode}) knows no pre-shared keys: it needs a \
             certificate with a key for ECDSA, by `dtls.cert` and `dtls.key` or by `tls.cert` and `tls.key`; or use \
             `auth.mode` = \"devices\", where devices have a `psk`"
        ));
    }
}
