//! What the kernel dropped because nobody took it from a socket on this machine.
//!
//! Owns: reading `/proc/net/udp`. Does not own: when to look.

use std::net::{IpAddr, SocketAddr};

/// Datagrams that the socket bound to `server`, or to its port at all addresses, did not have room for since it was made;
/// `None` when no such socket is seen.
pub(super) fn dropped(server: SocketAddr) -> Option<u64> {
    let file = if server.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let table = std::fs::read_to_string(file).ok()?;
    table.lines().filter_map(|line| row(line, server)).reduce(|a, b| a + b)
}

/// Addresses stand there as the machine holds them, 32 bits at a time; the last column are the drops.
fn row(line: &str, server: SocketAddr) -> Option<u64> {
    let (address, port) = line.split_ascii_whitespace().nth(1)?.split_once(':')?;
    let is_there = match server.ip() {
        IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())) == address,
        IpAddr::V6(ip) => {
            let words = ip.octets();
            let words =
                words.as_chunks::<4>().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
            words.collect::<String>() == address
        }
    };
    let is_everywhere = address.bytes().all(|digit| digit == b'0');
    let at = u16::from_str_radix(port, 16).ok()?;
    if at != server.port() || !(is_there || is_everywhere) {
        return None;
    }
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_a_full_socket_drops_is_seen() {
        for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(full) = UdpSocket::bind(bound) else { continue };
            let mut server = full.local_addr().unwrap();
            if server.ip().is_unspecified() {
                server.set_ip([127, 0, 0, 1].into());
            }
            assert_eq!(dropped(server), Some(0), "{server}");
            let sender = UdpSocket::bind((server.ip(), 0)).unwrap();
            let mut sent = 0;
            while dropped(server) == Some(0) {
                for _ in 0..100 {
                    sender.send_to(&[0; 1000], server).unwrap();
                }
                sent += 100;
                assert!(sent < 100_000, "{server} drops nothing");
            }
        }
        assert_eq!(dropped("127.0.0.1:1".parse().unwrap()), None);
    }
}
