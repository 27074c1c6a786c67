//! What a key means when it is not written: right for a 1 GB VPS, and safe.
//!
//! Pure.

use std::{net::SocketAddr, time::Duration};

use crate::{
    plan::{Ca, Challenge},
    vocab::ByteSize,
};

pub const HTTP: [SocketAddr; 2] = both(80);
pub const HTTPS: [SocketAddr; 2] = both(443);
pub const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);
pub const MAX_CONNECTIONS: u32 = 10_000;

/// What a CA tries first is what needs no http.
pub const CHALLENGES: [Challenge; 2] = [Challenge::TlsAlpn01, Challenge::Http01];
pub const LETSENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
pub const LETSENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
pub const ZEROSSL: &str = "https://acme.zerossl.com/v2/DV90";

pub const STATE_ROOT: &str = "/var/lib/gateway";
pub const RUN_ROOT: &str = "/run/gateway";
pub const STATE: &str = "gateway-state";
pub const USER: &str = "nobody";

pub const HEADER: Duration = Duration::from_secs(10);
pub const IDLE: Duration = Duration::from_secs(75);
pub const BODY: Duration = Duration::from_secs(30);
pub const SEND: Duration = Duration::from_secs(30);
pub const DRAIN: Duration = Duration::from_secs(30);

pub const HEADERS: ByteSize = ByteSize(32 << 10);
pub const HEADER_COUNT: u32 = 128;
pub const URI: ByteSize = ByteSize(8 << 10);
pub const BODY_LIMIT: ByteSize = ByteSize(100 << 20);
/// As much as the engine can send again.
pub const BUFFER: ByteSize = ByteSize(64 << 10);
pub const STREAMS: u32 = 100;
pub const RESETS: (u32, Duration) = (100, Duration::from_secs(10));

pub const ROTATE_SIZE: ByteSize = ByteSize(50 << 20);
pub const ROTATE_AGE: Duration = Duration::from_secs(24 * 3600);
pub const ROTATE_KEEP: u32 = 10;

pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
pub const PROBE_FAIL: u32 = 3;
pub const PROBE_PASS: u32 = 2;
pub const PROBE_EXPECT: (u16, u16) = (200, 399);

pub const RESTART_DELAY: Duration = Duration::from_millis(250);
pub const RESTART_MAX_DELAY: Duration = Duration::from_secs(30);
pub const RESTART_BUDGET: (u32, Duration) = (5, Duration::from_secs(60));
pub const HOLD_TIME: Duration = Duration::from_secs(15);
pub const HOLD_REQUESTS: u32 = 500;
pub const HOLD_BYTES: ByteSize = ByteSize(8 << 20);
pub const GUARD: Duration = Duration::from_secs(30);
pub const GUARD_ERRORS: f64 = 0.05;
pub const BEFORE_START_TIMEOUT: Duration = Duration::from_secs(60);
pub const BEFORE_TIMEOUT: Duration = Duration::from_secs(600);
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);
pub const STOP_DRAIN: Duration = Duration::from_secs(15);

pub const PASSIVE_FAILS: u32 = 3;
pub const PASSIVE_WITHIN: Duration = Duration::from_secs(10);
pub const PASSIVE_EJECT: Duration = Duration::from_secs(10);
pub const RETRY_TRIES: u32 = 2;
pub const RETRY_BUDGET: f64 = 0.2;
pub const CONNECT: Duration = Duration::from_secs(5);
pub const READ: Duration = Duration::from_secs(60);
pub const UPSTREAM_SEND: Duration = Duration::from_secs(30);
/// Node closes after 5 s: a shorter keep-alive of ours never meets a connection that is just being closed.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(4);

pub const MAX_KEYS: u32 = 100_000;

pub const BAN_MAX: u32 = 10;
pub const FIND_TIME: Duration = Duration::from_secs(600);
pub const BAN_TIME: Duration = Duration::from_secs(3600);

pub const REDIRECT: http::StatusCode = http::StatusCode::PERMANENT_REDIRECT;
pub const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

pub use crate::plan::ban::usual as ban_points;

/// `ca = "letsencrypt"`, which is what a configuration without `ca` means.
#[must_use]
pub fn letsencrypt() -> Ca {
    known("letsencrypt", LETSENCRYPT, Some(LETSENCRYPT_STAGING))
}

/// `ca = "letsencrypt-staging"`: for trials, trusted by nobody.
#[must_use]
pub fn letsencrypt_staging() -> Ca {
    known("letsencrypt-staging", LETSENCRYPT_STAGING, None)
}

fn known(name: &str, directory: &str, staging: Option<&str>) -> Ca {
    Ca { name: name.into(), directory: directory.into(), staging: staging.map(str::to_owned), root: None, eab: None }
}

const fn both(port: u16) -> [SocketAddr; 2] {
    [
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port),
        SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), port),
    ]
}
