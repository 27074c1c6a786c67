//! `[upstream.NAME]`: servers that someone else runs.

use std::{
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::vocab::ServerAddr;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// At least one; no address twice.
    pub servers: Vec<Server>,
    pub balance: Balance,
    /// `None`: never probed; up until passive ejection says otherwise.
    pub health: Option<Health>,
    pub passive: Passive,
    pub retry: Retry,
    pub timeouts: UpstreamTimeouts,
    pub http: UpstreamHttp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub addr: ServerAddr,
    pub weight: NonZeroU16,
    /// Used only while no other server is up.
    pub backup: bool,
    pub max_conns: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Balance {
    /// Smooth weighted, as nginx does it.
    RoundRobin,
    LeastConn,
    /// Power of two choices on requests in flight.
    P2c,
}

/// Active probes. A server is down until it has passed once (D3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub kind: HealthKind,
    pub interval: Duration,
    pub timeout: Duration,
    pub fail: NonZeroU32,
    pub pass: NonZeroU32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HealthKind {
    /// `expect`: the status codes that pass, as inclusive ranges.
    Http {
        path: String,
        host: Option<String>,
        expect: Vec<(u16, u16)>,
    },
    Tcp,
}

/// Out of rotation for `eject` after `fails` failures in a row `within` a time; never the last server of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Passive {
    pub fails: NonZeroU32,
    pub within: Duration,
    pub eject: Duration,
}

/// Never a request that may have had effect, unless its method is idempotent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// Servers tried in all; 1 means no retry.
    pub tries: NonZeroU32,
    pub on: Vec<RetryOn>,
    /// Retries may be this share of requests, counted over 10 s, with a floor of 10 a second.
    pub budget: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum RetryOn {
    Connect,
    Timeout,
    /// An answer with this status, before a byte of it went to the client.
    Status(u16),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamTimeouts {
    pub connect: Duration,
    /// For the whole head of the answer, interim ones before it included; then between two reads.
    pub read: Duration,
    pub send: Duration,
    /// Keep-alive in our pool; shorter than the app's own (Node closes after 5 s).
    pub idle: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum UpstreamHttp {
    V1,
    /// h2c with prior knowledge.
    V2,
}
