//! How many connections there may be, in all and from one address.
//!
//! Owns: the counts and the permit that a connection holds. Does not own: what a refused peer is told.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Bounds of a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all, those in a handshake included. At least 1.
    pub connections: usize,
    /// Connections from one IPv4 address or one IPv6 /64 network; 0 means no such bound.
    pub per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1_000_000, per_address: 0 }
    }
}

/// Which bound a connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// The number of connections in all.
    #[error("the limit of connections is reached")]
    Connections,
    /// The number of connections from one address.
    #[error("the limit of connections from one address is reached")]
    Address,
}

/// Counts connections; one gate may be shared by many listeners.
pub struct Gate {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    /// Holds only addresses that have a connection now, so it is never larger than `total`.
    by_address: HashMap<IpAddr, usize>,
}

impl Gate {
    /// A gate with nobody inside.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Lets a connection in, or says which bound it met.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Permit, LimitReached> {
        let mut counts = self.counts.lock();
        if counts.total >= self.limits.connections {
            return Err(LimitReached::Connections);
        }
        let address = network_of(address);
        self.count(&mut counts, address)?;
        counts.total += 1;
        Ok(Permit { gate: Arc::clone(self), address: Some(address) })
    }

    /// Lets a connection in whose address is not known yet: until [`Permit::name`] it counts in all only.
    pub fn enter_unnamed(self: &Arc<Self>) -> Result<Permit, LimitReached> {
        let mut counts = self.counts.lock();
        if counts.total >= self.limits.connections {
            return Err(LimitReached::Connections);
        }
        counts.total += 1;
        Ok(Permit { gate: Arc::clone(self), address: None })
    }

    fn count(&self, counts: &mut Counts, address: IpAddr) -> Result<(), LimitReached> {
        if self.limits.per_address > 0 {
            let count = counts.by_address.get(&address).copied().unwrap_or(0);
            if count >= self.limits.per_address {
                return Err(LimitReached::Address);
            }
            counts.by_address.insert(address, count + 1);
        }
        Ok(())
    }

    /// Connections inside now.
    pub fn open(&self) -> usize {
        self.counts.lock().total
    }

    /// Its bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn leave(&self, address: Option<IpAddr>) {
        let mut counts = self.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        let Some(address) = address else { return };
        if let Some(count) = counts.by_address.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).field("open", &self.open()).finish()
    }
}

/// One connection's place; given back when it is dropped.
pub struct Permit {
    gate: Arc<Gate>,
    /// Whom it counts for; `None` until that is known.
    address: Option<IpAddr>,
}

impl Permit {
    /// Whose connection it is, of one that entered without an address.
    pub fn name(&mut self, address: IpAddr) -> Result<(), LimitReached> {
        if self.address.is_none() {
            let address = network_of(address);
            self.gate.count(&mut self.gate.counts.lock(), address)?;
            self.address = Some(address);
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.leave(self.address);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.address).finish()
    }
}

/// What counts as one address: whoever has an IPv6 address mostly has its whole /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_total_is_bounded_and_places_come_back() {
        let gate = Gate::new(Limits { connections: 2, per_address: 0 });
        let first = gate.enter(ip("10.0.0.1")).unwrap();
        let _second = gate.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(gate.enter(ip("10.0.0.2")).unwrap_err(), LimitReached::Connections);
        drop(first);
        assert_eq!(gate.open(), 1);
        assert!(gate.enter(ip("10.0.0.2")).is_ok());
    }

    #[test]
    fn a_connection_may_be_named_later_and_counts_for_its_name_then() {
        let gate = Gate::new(Limits { connections: 3, per_address: 1 });
        let (mut first, mut second) = (gate.enter_unnamed().unwrap(), gate.enter_unnamed().unwrap());
        first.name(ip("10.0.0.1")).unwrap();
        assert_eq!(second.name(ip("10.0.0.1")).unwrap_err(), LimitReached::Address);
        assert!(second.name(ip("10.0.0.2")).is_ok());
        let third = gate.enter_unnamed().unwrap();
        assert_eq!(gate.enter_unnamed().unwrap_err(), LimitReached::Connections);
        drop((first, second, third));
        assert_eq!(gate.open(), 0);
        assert!(gate.counts.lock().by_address.is_empty());
    }

    #[test]
    fn an_address_is_bounded_and_forgotten_when_it_has_left() {
        let gate = Gate::new(Limits { connections: 9, per_address: 1 });
        let v4 = gate.enter(ip("10.0.0.1")).unwrap();
        assert_eq!(gate.enter(ip("::ffff:10.0.0.1")).unwrap_err(), LimitReached::Address);
        let v6 = gate.enter(ip("2001:db8::1")).unwrap();
        assert_eq!(gate.enter(ip("2001:db8::2:0:0:1")).unwrap_err(), LimitReached::Address);
        assert!(gate.enter(ip("2001:db8:0:1::1")).is_ok());
        drop((v4, v6));
        assert!(gate.counts.lock().by_address.is_empty());
        assert!(gate.enter(ip("10.0.0.1")).is_ok());
    }
}
