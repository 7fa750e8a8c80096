//! Rules between keys: what each value alone cannot say.

use landfall_net::Endpoint;

use super::Settings;
use super::address::NatsTarget;
use super::keys::{AuthMode, Mqtt};
use super::source::Reader;

pub(super) fn check(settings: &Settings, reader: &mut Reader) {
    open_stays_on_loopback(settings, reader);
    listeners_differ(&settings.mqtt, reader);
    certificates_come_in_pairs(settings, reader);
    if settings.nats.url == NatsTarget::Embedded && settings.nats.replicas > 1 {
        let source = reader.source("nats.replicas");
        let replicas = settings.nats.replicas;
        reader.problem(format!(
            "`nats.replicas` = {replicas} ({source}): must be 1 with `nats.url` = \"embedded\", which is one server"
        ));
    }
    if u64::from(settings.mqtt.max_packet_size) > settings.nats.publish_window_bytes as u64 {
        let (window, packet) =
            (reader.source("nats.publish_window_bytes"), reader.source("mqtt.max_packet_size"));
        reader.problem(format!(
            "`nats.publish_window_bytes` ({window}): must not be smaller than `mqtt.max_packet_size` ({packet})"
        ));
    }
    if settings.presence.tick > settings.presence.idle_timeout {
        let source = reader.source("presence.tick");
        reader
            .problem(format!("`presence.tick` ({source}): must not be longer than `presence.idle_timeout`"));
    }
}

fn open_stays_on_loopback(settings: &Settings, reader: &mut Reader) {
    let mut away: Vec<&Endpoint> =
        settings.mqtt.listen.iter().filter(|listen| !listen.is_loopback()).collect();
    if settings.auth.mode != AuthMode::Open || away.is_empty() {
        return;
    }
    away.truncate(4);
    let away: Vec<_> = away.iter().map(|listen| format!("\"{listen}\"")).collect();
    let (mode, listen) = (reader.source("auth.mode"), reader.source("mqtt.listen"));
    reader.problem(format!(
        "`auth.mode` = \"open\" ({mode}) while `mqtt.listen` has {} ({listen}): \"open\" believes whatever a device calls \
         itself and is allowed on loopback addresses only (127.0.0.1, [::1], localhost); use `auth.mode` = \"devices\"",
        away.join(", ")
    ));
}

fn listeners_differ(mqtt: &Mqtt, reader: &mut Reader) {
    let mut seen = std::collections::HashSet::new();
    let twice = mqtt.listen.iter().find(|l| l.port() != 0 && !seen.insert((l.host(), l.port())));
    if let Some(twice) = twice {
        let source = reader.source("mqtt.listen");
        reader.problem(format!(
            "`mqtt.listen` ({source}): host and port of \"{twice}\" are there twice; each must be there once"
        ));
    }
}

fn certificates_come_in_pairs(settings: &Settings, reader: &mut Reader) {
    let (tls, nats) = (&settings.tls, &settings.nats);
    for (section, cert, key) in [("tls", &tls.cert, &tls.key), ("nats", &nats.cert, &nats.key)] {
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
