//! Where we listen and what one connection may cost.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use super::acme::Acme;
use crate::vocab::{ByteSize, Pace, Secret};

/// `[listen]`
///
/// Shape: no address stands twice, none in both lists; port 0 is allowed (tests), the bound address is then in `gateway status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listen {
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    /// v1 or v2 is required from a peer in `trusted_proxies` and refused as garbage from anyone else.
    pub proxy_protocol: bool,
    /// Over all listeners and threads.
    pub max_connections: NonZeroU32,
    /// Of one address, IPv6 by /64; trusted proxies are not counted. `None`: the edge's own cap, which leaves loopback out.
    pub max_connections_per_ip: Option<NonZeroU32>,
}

/// `[timeouts]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Request line and headers in total; the TLS handshake too.
    pub header: Duration,
    /// Keep-alive without a request.
    pub idle: Duration,
    /// Between two reads of a request body.
    pub body: Duration,
    /// Between two writes to a client.
    pub send: Duration,
    /// In-flight requests and tunnels when a listener goes or the edge stops.
    pub drain: Duration,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Request line and headers together. More: 431.
    pub headers: ByteSize,
    /// More: 431.
    pub header_count: NonZeroU32,
    /// More: 414.
    pub uri: ByteSize,
    /// More: 413. A site's and a route's own stand in `Route::body_limit`.
    pub body: ByteSize,
    /// So much of a body is there before a process is chosen; `None`: nothing. A site's and a route's own stand in `Route::buffer`.
    pub buffer: Option<ByteSize>,
    /// Of all bodies that are held back together, an eighth of it of one client. `None`: by the machine's memory.
    pub buffers: Option<ByteSize>,
    /// Concurrent HTTP/2 streams a connection.
    pub streams: NonZeroU32,
    /// HTTP/2 resets by the client before the connection is closed.
    pub resets: Pace,
    pub underscores: Underscores,
}

/// What becomes of a request's fields with an underscore in their names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Underscores {
    Drop,
    /// But for those that read as another field (rules::underscore).
    Pass,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TlsPolicy {
    pub min: TlsVersion,
    pub acme: Acme,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Always there when `listen` is not loopback.
    pub token: Option<Secret<String>>,
}
