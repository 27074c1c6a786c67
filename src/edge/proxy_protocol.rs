//! The PROXY protocol, v1 and v2: who really connected, told by a balancer before the first byte of the client.
//!
//! Source: haproxy.org/download/3.2/doc/proxy-protocol.txt; parsed by the ppp crate.

use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Begins every v2 header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// Addresses and the extensions that balancers really send.
const V2_MAX: usize = 4096;
/// The longest v1 line, as the specification counts it.
const V1_MAX: usize = 107;

/// Why a connection's PROXY header was refused.
#[derive(Debug, Error)]
pub enum ProxyHeaderError {
    #[error("read a PROXY header: the connection does not begin with one")]
    Missing,
    #[error("read a PROXY header: it is longer than any balancer writes it")]
    Long,
    #[error("read a PROXY header: it is malformed")]
    Malformed,
    #[error("read a PROXY header")]
    Io(#[from] std::io::Error),
}

/// Reads the header and not a byte more. `None`: the balancer speaks for itself (a health check), or for a client that has no address.
///
/// Cancel-safety: none; a connection that is given up half-way is of no use.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut header = Vec::with_capacity(V1_MAX);
    header.resize(SIGNATURE.len(), 0);
    from.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(V2_FIXED, 0);
        from.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > V2_MAX {
            return Err(ProxyHeaderError::Long);
        }
        header.resize(V2_FIXED + length, 0);
        from.read_exact(&mut header[V2_FIXED..]).await?;
    } else if header.starts_with(b"PROXY ") {
        // Byte by byte: what follows the line belongs to the client, and the line is short.
        while !header.ends_with(b"\r\n") {
            if header.len() == V1_MAX {
                return Err(ProxyHeaderError::Long);
            }
            header.push(from.read_u8().await?);
        }
    } else {
        return Err(ProxyHeaderError::Missing);
    }
    source(&header)
}

fn source(header: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(v2::Header { command: v2::Command::Local, .. })) => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(ProxyHeaderError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), ProxyHeaderError> {
        let mut rest = bytes;
        let found = read(&mut rest).await?;
        Ok((found, rest.len()))
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
        header.extend(payload);
        header
    }

    #[tokio::test]
    async fn a_v1_line_names_the_client_and_nothing_of_the_client_is_taken() {
        let (peer, left) = parse(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\nGET /").await.expect("good");
        assert_eq!((peer, left), (Some("203.0.113.7:4711".parse().expect("addr")), 5));
        let (peer, _) = parse(b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n").await.expect("good");
        assert_eq!(peer, Some("[2001:db8::1]:4711".parse().expect("addr")));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n").await.expect("good").0, None);
    }

    #[tokio::test]
    async fn a_v2_header_names_the_client_and_its_extensions_are_passed_over() {
        let mut payload = vec![203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187];
        payload.extend([4, 0, 1, 42]);
        let mut bytes = v2(1, 0x11, &payload);
        bytes.extend(b"GET /");
        let (peer, left) = parse(&bytes).await.expect("good");
        assert_eq!((peer, left), (Some("203.0.113.7:4711".parse().expect("addr")), 5));
        assert_eq!(parse(&v2(0, 0, &[])).await.expect("a health check").0, None);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_within_bounds() {
        assert!(matches!(parse(b"GET / HTTP/1.1\r\n\r\n").await, Err(ProxyHeaderError::Missing)));
        assert!(matches!(parse(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat()).await, Err(ProxyHeaderError::Long)));
        assert!(matches!(parse(b"PROXY TCP4 a b 1 2\r\n").await, Err(ProxyHeaderError::Malformed)));
        let mut long = SIGNATURE.to_vec();
        long.extend([0x21, 0x11, 0xff, 0xff]);
        assert!(matches!(parse(&long).await, Err(ProxyHeaderError::Long)));
        assert!(matches!(parse(b"PROXY T").await, Err(ProxyHeaderError::Io(_))));
    }
}
