//! The PROXY protocol, versions 1 and 2: the address that a balancer says its client has.
//!
//! Owns: the header's grammar and its bounds, the networks that are believed. Does not own: its deadline (`accept`), and
//! what the address is used for.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line of version 1, with its CR LF.
const LONGEST_LINE: usize = 107;

/// The most bytes behind the fixed part of a version 2 header: two addresses, and what a balancer adds.
const MOST_BLOCK: usize = 4_096;

/// What every header of version 2 begins with: no other protocol does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What every header of version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";

/// A network in the settings: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no network, such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1")]
pub struct NetworkError;

impl Network {
    /// Is the address one of the network's? An IPv4 address in an IPv6 one counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                shared(u128::from(own.to_bits() ^ other.to_bits()), self.prefix, 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => shared(own.to_bits() ^ other.to_bits(), self.prefix, 128),
            _ => false,
        }
    }
}

/// Are the first `prefix` of `bits` bits the same, where `difference` has a one for each that is not?
fn shared(difference: u128, prefix: u8, bits: u8) -> bool {
    difference.checked_shr(u32::from(bits.saturating_sub(prefix))).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().map_err(|_| NetworkError)?
            }
            Some(_) => return Err(NetworkError),
        };
        if prefix > most { Err(NetworkError) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Reads the header, and not a byte more. `None`: the connection is the balancer's own, such as its check of our health, or it
/// does not know whose it is. Has no deadline of its own.
///
/// # Errors
/// `InvalidData` where there is no header or one that cannot be read, else the stream's error.
pub(crate) async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; SIGNATURE.len()];
    let (first, rest) = head.split_at_mut(1);
    stream.read_exact(first).await?;
    // Whoever speaks another protocol may wait for an answer before it has said so much.
    if !matches!(first, [b'P' | b'\r']) {
        return Err(invalid("there is no PROXY header"));
    }
    stream.read_exact(rest).await?;
    if head == SIGNATURE {
        return version_2(stream).await;
    }
    if !head.starts_with(WORD) {
        return Err(invalid("there is no PROXY header"));
    }
    let mut line = head.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST_LINE {
            return Err(invalid("a PROXY line above its maximum length"));
        }
        line.push(stream.read_u8().await?);
    }
    std::str::from_utf8(&line)
        .ok()
        .and_then(version_1)
        .ok_or_else(|| invalid("a PROXY line that cannot be read"))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// `PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883`, or `PROXY UNKNOWN` and anything.
fn version_1(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.strip_suffix("\r\n")?.strip_prefix("PROXY ")?.split(' ');
    let (from, to): (IpAddr, IpAddr) = match words.next()? {
        "UNKNOWN" => return Some(None),
        "TCP4" => {
            (words.next()?.parse::<Ipv4Addr>().ok()?.into(), words.next()?.parse::<Ipv4Addr>().ok()?.into())
        }
        "TCP6" => {
            (words.next()?.parse::<Ipv6Addr>().ok()?.into(), words.next()?.parse::<Ipv6Addr>().ok()?.into())
        }
        _ => return None,
    };
    let mut port =
        || words.next().filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?.parse::<u16>().ok();
    let (from_port, _, _) = (port()?, port()?, to);
    if words.next().is_some() {
        return None;
    }
    Some(Some(SocketAddr::new(from.to_canonical(), from_port)))
}

async fn version_2<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let [command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST_BLOCK {
        return Err(invalid("a PROXY header above its maximum length"));
    }
    let mut block = vec![0; length];
    stream.read_exact(&mut block).await?;
    match command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(invalid("a PROXY header of another version or command")),
    }
    let address = match (family, block.as_slice()) {
        // Unspecified, or a local socket: nothing to say.
        (0x00 | 0x31, _) => return Ok(None),
        (0x11, [a, b, c, d, _, _, _, _, high, low, _, _, ..]) => {
            SocketAddr::from(([*a, *b, *c, *d], u16::from_be_bytes([*high, *low])))
        }
        (0x21, block) => from_v6(block).ok_or_else(|| invalid("a PROXY header that is too short"))?,
        (0x11, _) => return Err(invalid("a PROXY header that is too short")),
        _ => return Err(invalid("a PROXY header of a family that no stream has")),
    };
    Ok(Some(SocketAddr::new(address.ip().to_canonical(), address.port())))
}

fn from_v6(block: &[u8]) -> Option<SocketAddr> {
    let address: [u8; 16] = block.get(..16)?.try_into().ok()?;
    let port: [u8; 2] = block.get(32..34)?.try_into().ok()?;
    block.get(34..36)?;
    Some(SocketAddr::new(Ipv6Addr::from(address).into(), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, usize) {
        let mut rest = bytes;
        let read = read_header(&mut rest).await;
        (read, rest.len())
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    #[tokio::test]
    async fn both_versions_tell_the_client_and_take_no_byte_more() {
        let v4 = [192, 0, 2, 7, 192, 0, 2, 1, 0x9C, 0x40, 7, 0x5B];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0x0D, 0xB8]);
        v6[15] = 9;
        v6[32..34].copy_from_slice(&[0x9C, 0x40]);
        let more = [&v4[..], &[0x04, 0, 3, b'a', b'b', b'c']].concat();
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 1883\r\n".to_vec(), Some("192.0.2.7:40000")),
            (b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 1883\r\n".to_vec(), Some("[2001:db8::9]:40000")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n".to_vec(), Some("192.0.2.7:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f 1 2 3\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("192.0.2.7:40000")),
            (v2(0x21, 0x11, &more), Some("192.0.2.7:40000")),
            (v2(0x21, 0x21, &v6), Some("[2001:db8::9]:40000")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x00, &[1, 2, 3]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let (read, left) = read(&[&header[..], b"\x10\x0c"].concat()).await;
            let expected: Option<SocketAddr> = expected.map(|text| text.parse().unwrap());
            assert_eq!((read.unwrap(), left), (expected, 2), "{header:02x?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_told_and_bounded() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
        for bytes in [
            &b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c"[..],
            b"\x16\x03\x01\x02\0",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 40000\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 +1\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 70000 1\r\n",
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP6 192.0.2.7 192.0.2.1 1 1\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.1 1 1 1\r\n",
            b"PROXY UDP4 192.0.2.7 192.0.2.1 1 1\r\n",
            b"PROXIES ARE FUN",
            &long,
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x12, &[0; 12]),
            &v2(0x21, 0x11, &[0; 4_097]),
        ] {
            let (read, _) = read(bytes).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:02x?}");
        }
        // Cut off: the end of the stream, and no header.
        let whole = v2(0x21, 0x11, &[0; 12]);
        for cut in 1..whole.len() {
            assert_eq!(read(&whole[..cut]).await.0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("192.0.2.128/25", "192.0.2.200", "192.0.2.1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "x", "::/129", "10.0.0.0/8/8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
