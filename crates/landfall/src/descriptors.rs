//! The file descriptors that the process may have, and so the connections.
//!
//! Owns: raising the limit, what is left of it for devices, the warning where that is less than the settings ask for. Does not
//! own: counting connections (`landfall_net::Gate`).

use landfall_net::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Settings;

/// Descriptors that are for something else than devices that connect: the sockets of datagrams, NATS, the spool's files, the
/// operator's interface, and some for what nobody thought of.
const RESERVE: u64 = 256;

/// The least that one address may have where the settings name no number: a house of devices behind one address.
const LEAST_PER_ADDRESS: usize = 64;

/// Raises the process's limit to the most that it may give itself, and says what it is then; `None` for none.
fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if current == maximum || setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current }
}

/// The connections that there may be: as the settings say, as far as there are descriptors for them.
pub(crate) fn limits(settings: &Settings) -> Limits {
    let (wanted, limit) = (settings.mqtt.max_connections, raise());
    let limits = bounds(wanted, settings.mqtt.max_connections_per_address, limit);
    if let Some(limit) = limit.filter(|_| limits.connections < wanted && !settings.mqtt.listen.is_empty()) {
        let needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(RESERVE);
        tracing::warn!(
            max_connections = wanted,
            needed,
            limit,
            connections = limits.connections,
            "mqtt.max_connections cannot be had: the process may open too few files. Raise its hard limit (ulimit -Hn, \
             LimitNOFILE=), or lower the setting; what comes beyond the connections that there can be is refused"
        );
    }
    limits
}

fn bounds(wanted: usize, per_address: Option<usize>, limit: Option<u64>) -> Limits {
    let usable = |limit: u64| limit.saturating_sub(RESERVE).max(limit / 2).max(1);
    let most = limit.map_or(usize::MAX, |limit| usize::try_from(usable(limit)).unwrap_or(usize::MAX));
    let connections = wanted.min(most);
    let quarter = (connections / 4).max(LEAST_PER_ADDRESS);
    Limits { connections, per_address: per_address.unwrap_or(quarter) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_there_are_descriptors_for() {
        let of = |wanted, limit| bounds(wanted, None, limit).connections;
        assert_eq!(of(100_000, None), 100_000);
        assert_eq!(of(100_000, Some(1_048_576)), 100_000);
        assert_eq!(of(100_000, Some(100_256)), 100_000);
        assert_eq!(of(100_000, Some(100_255)), 99_999);
        assert_eq!(of(100_000, Some(1_024)), 768);
        assert_eq!(of(100_000, Some(256)), 128);
        assert_eq!(of(10, Some(1_024)), 10);
        assert_eq!(of(10, Some(0)), 1);
    }

    #[test]
    fn one_address_has_a_share_unless_the_settings_say_a_number() {
        let of = |wanted, per_address| bounds(wanted, per_address, Some(20_256)).per_address;
        assert_eq!(of(100_000, None), 5_000);
        assert_eq!(of(1_000, None), 250);
        assert_eq!(of(100, None), 64);
        assert_eq!((of(1_000, Some(0)), of(1_000, Some(7))), (0, 7));
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let raised = raise();
        assert_eq!(
            (getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum),
            (raised, raised)
        );
    }
}
