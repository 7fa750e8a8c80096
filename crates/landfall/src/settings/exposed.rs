//! What settings give to the network that their operator may not have thought of. It is allowed, and said at start.
//!
//! Owns: those sentences. Does not own: what is refused (`super::rules`).

use super::Settings;
use super::address::without_scheme;
use super::keys::AuthMode;

impl Settings {
    /// Secrets that cross a network in the clear, and an operator's interface that others reach: a sentence for each key, which names
    /// it, its value and the cure.
    pub fn exposed(&self) -> Vec<String> {
        let mut told = Vec::new();
        if self.auth.mode == AuthMode::Devices {
            let plain =
                |text: &str| ["tcp://", "ws://", "udp://"].iter().any(|scheme| text.starts_with(scheme));
            let mqtt = self.mqtt.listen.iter().map(|at| ("mqtt.listen", at.is_loopback(), at.to_string()));
            let coap = self.coap.listen.iter().map(|at| ("coap.listen", at.is_loopback(), at.to_string()));
            let udp = self.udp.listen.iter().map(|at| ("udp.listen", at.is_loopback(), at.to_string()));
            for (key, is_loopback, text) in mqtt.chain(coap).chain(udp) {
                if !is_loopback && plain(&text) {
                    told.push(format!(
                        "`{key}` has \"{text}\": passwords and keys of devices cross the network in the clear; {} keeps them \
                         secret",
                        cure(&text)
                    ));
                }
            }
        }
        if let Some(admin) = self.admin.listen.as_ref().filter(|admin| !admin.is_loopback()) {
            told.push(format!(
                "`admin.listen` = \"{}\": whoever reaches it reads metrics and sessions without a password; a loopback address, or \
                 a proxy that asks for one, keeps others out",
                without_scheme(admin)
            ));
        }
        told
    }
}

fn cure(text: &str) -> &'static str {
    match text.split_once("://") {
        Some(("ws", _)) => "wss://",
        Some(("udp", _)) => "dtls://, or a signature instead of a key over UDP,",
        _ => "tls://",
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::{Environment, Settings};

    fn exposed(variables: &[(&str, &str)]) -> Vec<String> {
        Settings::load(None, &Environment::of(variables.iter().copied())).unwrap().exposed()
    }

    #[test]
    fn secrets_in_the_clear_and_an_open_admin_interface_are_told() {
        assert!(exposed(&[]).is_empty());
        let told = exposed(&[
            ("LANDFALL_AUTH__MODE", "devices"),
            ("LANDFALL_MQTT__LISTEN", "tcp://0.0.0.0:1883,tls://0.0.0.0:8883,ws://127.0.0.1:8083"),
            ("LANDFALL_TLS__CERT", "c.pem"),
            ("LANDFALL_TLS__KEY", "k.pem"),
            ("LANDFALL_COAP__LISTEN", "udp://[::]:5683"),
            ("LANDFALL_ADMIN__LISTEN", "0.0.0.0:8080"),
        ]);
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(
            told[0].contains("`mqtt.listen` has \"tcp://0.0.0.0:1883\"") && told[0].contains("tls://"),
            "{}",
            told[0]
        );
        assert!(
            told[1].contains("`coap.listen` has \"udp://[::]:5683\"") && told[1].contains("dtls://"),
            "{}",
            told[1]
        );
        assert!(told[2].contains("`admin.listen` = \"0.0.0.0:8080\""), "{}", told[2]);
    }
}
