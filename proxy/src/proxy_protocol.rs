//! The PROXY protocol: what a proxy before us says about the connection that it passes on.
//!
//! Source: "The PROXY protocol, versions 1 & 2", by HAProxy's author, sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whether a header is at the beginning of a connection, as far as it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// More bytes are needed to tell.
    Undecided,
    /// The connection begins with something else.
    NoHeader,
    /// It does.
    Header(Header),
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has.
    pub length: usize,
    /// Whether it is text or binary.
    pub version: Version,
    /// Whom it speaks of; `None`: nobody but the proxy itself (`LOCAL`, `UNKNOWN`, or no TCP).
    pub endpoints: Option<Endpoints>,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The connection that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// The client.
    pub source: SocketAddr,
    /// Where it was going.
    pub destination: SocketAddr,
}

/// A header that says nothing valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No line of text is longer than 107 bytes.
    #[error("the line does not end within {MAX_LINE} bytes")]
    LineTooLong,
    /// Text, and not as it must be.
    #[error("the line is not `PROXY TCP4|TCP6|UNKNOWN <source> <destination> <port> <port>`")]
    Line,
    /// Neither version 1 nor 2.
    #[error("version {0} is not known")]
    Version(u8),
    /// Neither `LOCAL` nor `PROXY`.
    #[error("command {0} is not known")]
    Command(u8),
    /// A family of addresses or a transport that there is not.
    #[error("address family and transport {0:#04x} are not known")]
    Family(u8),
    /// The addresses are longer than what is said to follow.
    #[error("the header is too short for its addresses")]
    TooShort,
}

const TEXT: &[u8] = b"PROXY ";
const MAX_LINE: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const BINARY_HEAD: usize = 16;

/// Looks at the first bytes of a connection.
///
/// # Errors
/// It is a header, and not a valid one.
pub fn decode(bytes: &[u8]) -> Result<Beginning, Malformed> {
    if begins(bytes, SIGNATURE) {
        return decode_binary(bytes);
    }
    if begins(bytes, TEXT) {
        return decode_line(bytes);
    }
    Ok(Beginning::NoHeader)
}

/// Whether bytes begin with these, as far as there are any.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let length = bytes.len().min(with.len());
    bytes[..length] == with[..length]
}

fn decode_line(bytes: &[u8]) -> Result<Beginning, Malformed> {
    let within = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() < MAX_LINE {
            true => Ok(Beginning::Undecided),
            false => Err(Malformed::LineTooLong),
        };
    };
    let line = std::str::from_utf8(&bytes[TEXT.len()..end]).map_err(|_| Malformed::Line)?;
    let endpoints = match line.split_once(' ').map_or(line, |(family, _)| family) {
        "UNKNOWN" => None,
        "TCP4" => Some(of_line::<Ipv4Addr>(line)?),
        "TCP6" => Some(of_line::<Ipv6Addr>(line)?),
        _ => return Err(Malformed::Line),
    };
    Ok(Beginning::Header(Header {
        length: end + 2,
        version: Version::V1,
        endpoints,
    }))
}

fn of_line<A>(line: &str) -> Result<Endpoints, Malformed>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(Malformed::Line);
    let address = |text: &str| {
        let address: A = text.parse().map_err(|_| Malformed::Line)?;
        Ok(address.into())
    };
    let (source, destination) = (address(word()?)?, address(word()?)?);
    let (from, to) = (port(word()?)?, port(word()?)?);
    match words.next() {
        Some(_) => Err(Malformed::Line),
        None => Ok(Endpoints {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        }),
    }
}

/// Digits only: Rust's own parser takes a sign, too.
fn port(text: &str) -> Result<u16, Malformed> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| Malformed::Line),
        false => Err(Malformed::Line),
    }
}

fn decode_binary(bytes: &[u8]) -> Result<Beginning, Malformed> {
    let Some(head) = bytes.get(..BINARY_HEAD) else {
        return Ok(Beginning::Undecided);
    };
    let (version, command, family) = (head[12] >> 4, head[12] & 0xf, head[13]);
    if version != 2 {
        return Err(Malformed::Version(version));
    }
    let length = BINARY_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    let Some(rest) = bytes.get(BINARY_HEAD..length) else {
        return Ok(Beginning::Undecided);
    };
    let endpoints = match command {
        0 => None,
        1 => of_binary(family, rest)?,
        _ => return Err(Malformed::Command(command)),
    };
    Ok(Beginning::Header(Header {
        length,
        version: Version::V2,
        endpoints,
    }))
}

/// The upper half is the family (unspecified, IPv4, IPv6, unix), the lower one the transport (unspecified,
/// stream, datagram).
fn of_binary(family: u8, rest: &[u8]) -> Result<Option<Endpoints>, Malformed> {
    match family {
        0x11 => Ok(Some(addresses::<4>(rest)?)),
        0x21 => Ok(Some(addresses::<16>(rest)?)),
        // Not a TCP connection that we could speak of.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Ok(None),
        other => Err(Malformed::Family(other)),
    }
}

/// Source, destination, and their ports.
fn addresses<const N: usize>(rest: &[u8]) -> Result<Endpoints, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = rest.split_first_chunk::<N>().ok_or(Malformed::TooShort)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(Malformed::TooShort)?;
    let (from, rest) = rest.split_first_chunk::<2>().ok_or(Malformed::TooShort)?;
    let to = rest.first_chunk::<2>().ok_or(Malformed::TooShort)?;
    Ok(Endpoints {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*from)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*to)),
    })
}

/// The header for a connection; of addresses of two families nothing can be said but that it is passed on.
pub fn encode(version: Version, endpoints: &Endpoints) -> Vec<u8> {
    match version {
        Version::V1 => encode_line(endpoints).into_bytes(),
        Version::V2 => encode_binary(endpoints),
    }
}

/// The header for a connection of the proxy's own, in version 2: `LOCAL`, of nobody.
pub fn encode_local() -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([0x20, 0x00, 0, 0]);
    header
}

fn encode_line(endpoints: &Endpoints) -> String {
    let Endpoints {
        source,
        destination,
    } = endpoints;
    let family = match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".to_owned(),
    };
    let (from, to) = (source.port(), destination.port());
    let (source, destination) = (source.ip(), destination.ip());
    format!("PROXY {family} {source} {destination} {from} {to}\r\n")
}

fn encode_binary(endpoints: &Endpoints) -> Vec<u8> {
    let (family, addresses) = match (endpoints.source.ip(), endpoints.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (0x11, [source.octets(), destination.octets()].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (0x21, [source.octets(), destination.octets()].concat())
        }
        _ => (0x00, vec![]),
    };
    let mut header = SIGNATURE.to_vec();
    header.extend([0x21, family]);
    let ports = [endpoints.source.port(), endpoints.destination.port()];
    let ports: &[u16] = if addresses.is_empty() { &[] } else { &ports };
    // At most 36 bytes.
    let length = u16::try_from(addresses.len() + 2 * ports.len()).unwrap_or(u16::MAX);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    header
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn endpoints(source: &str, destination: &str) -> Endpoints {
        Endpoints {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        }
    }

    fn pairs() -> [Endpoints; 2] {
        [
            endpoints("192.0.2.7:40000", "198.51.100.1:443"),
            endpoints("[2001:db8::7]:40000", "[2001:db8::1]:443"),
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for version in [Version::V1, Version::V2] {
            for pair in pairs() {
                let mut bytes = encode(version, &pair);
                let length = bytes.len();
                bytes.extend(b"GET / HTTP/1.1\r\n");

                let header = Header {
                    length,
                    version,
                    endpoints: Some(pair),
                };
                assert_eq!(decode(&bytes), Ok(Beginning::Header(header)));
                for end in 0..length {
                    assert_eq!(decode(&bytes[..end]), Ok(Beginning::Undecided), "{end}");
                }
            }
        }
    }

    #[test]
    fn the_line_is_as_the_document_shows_it() {
        let line = encode(Version::V1, &pairs()[0]);
        assert_eq!(line, b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n");
    }

    #[test]
    fn two_families_are_told_as_unknown() {
        let mixed = endpoints("192.0.2.7:1", "[2001:db8::1]:2");
        for version in [Version::V1, Version::V2] {
            let Ok(Beginning::Header(header)) = decode(&encode(version, &mixed)) else {
                panic!("no header");
            };
            assert_eq!(header.endpoints, None);
        }
    }

    #[test]
    fn a_health_check_of_the_proxy_itself_names_nobody() {
        let mut local = encode(Version::V2, &pairs()[0]);
        local[12] = 0x20;
        for bytes in [
            &local[..],
            &encode_local(),
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN a b c d\r\n",
        ] {
            let Ok(Beginning::Header(header)) = decode(bytes) else {
                panic!("no header: {bytes:?}");
            };
            assert_eq!((header.length, header.endpoints), (bytes.len(), None));
        }
    }

    #[test]
    fn additions_to_a_binary_header_belong_to_it() {
        let mut bytes = encode(Version::V2, &pairs()[0]);
        bytes.extend([0x04, 0x00, 0x01, 0xff]);
        bytes[15] += 4;

        let Ok(Beginning::Header(header)) = decode(&bytes) else {
            panic!("no header");
        };
        assert_eq!(header.length, bytes.len());
        assert_eq!(header.endpoints, Some(pairs()[0]));
    }

    #[test]
    fn other_protocols_have_no_header() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXX",
            b"\x16\x03\x01",
            b"\r\n\r\nx",
        ] {
            assert_eq!(decode(bytes), Ok(Beginning::NoHeader), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_valid_is_refused_with_its_reason() {
        let mut line = b"PROXY TCP4 ".to_vec();
        line.resize(MAX_LINE, b'1');
        assert_eq!(decode(&line), Err(Malformed::LineTooLong));
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +40000 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 40000 65536\r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 40000 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 40000 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 40000 443\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(decode(line.as_bytes()), Err(Malformed::Line), "{line}");
        }

        let change = |at: usize, to: u8| {
            let mut bytes = encode(Version::V2, &pairs()[0]);
            bytes[at] = to;
            decode(&bytes)
        };
        assert_eq!(change(12, 0x31), Err(Malformed::Version(3)));
        assert_eq!(change(12, 0x22), Err(Malformed::Command(2)));
        assert_eq!(change(13, 0x41), Err(Malformed::Family(0x41)));
        assert_eq!(change(15, 11), Err(Malformed::TooShort));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = SmallRng::seed_from_u64(17);
        for turn in 0..20_000 {
            let version = if turn % 2 == 0 {
                Version::V1
            } else {
                Version::V2
            };
            let mut bytes = encode(version, &pairs()[turn / 2 % 2]);
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            if let Ok(Beginning::Header(header)) = decode(&bytes) {
                assert!(header.length <= bytes.len());
            }
        }
    }
}
