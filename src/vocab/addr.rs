//! Where a server is reached.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::host::Host;

/// An address of an upstream server: `10.0.0.5:8000`, `[::1]:8000`, `api.internal:8000` or `unix:/run/api.sock`.
///
/// Shape: a name is resolved by the prober, again and again; one that does not resolve is a server that is down, never an error at start.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum ServerAddr {
    Tcp(SocketAddr),
    Name { host: Host, port: u16 },
    Unix(PathBuf),
}

/// Why an address was refused.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum ServerAddrError {
    #[error("{0:?} has no port: write HOST:PORT or unix:/PATH")]
    NoPort(String),
    #[error("{0:?}: the port must be a number from 1 to 65535")]
    Port(String),
    #[error("{0:?} is not a host name or an address")]
    Host(String),
    #[error("{whole:?} is a URL; write {server:?} alone{}", if *.tls { ": https on the way there is said by `tls = true` beside `servers`, which this version does not support yet" } else { "" })]
    Url { whole: String, server: String, tls: bool },
    #[error("{0:?}: a unix socket is named by an absolute path of at most 107 bytes, as in unix:/run/api.sock")]
    Unix(String),
}

impl ServerAddr {
    pub fn parse(text: &str) -> Result<Self, ServerAddrError> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let server = rest.split('/').next().unwrap_or_default();
            let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
            let port = if server.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) { "" } else { port };
            return Err(ServerAddrError::Url {
                whole: text.into(),
                server: format!("{server}{port}"),
                tls: scheme.eq_ignore_ascii_case("https"),
            });
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            // sockaddr_un holds 108 bytes with the closing zero; abstract sockets make pingora panic (pitfall 16).
            if !path.is_absolute() || path.as_os_str().len() > 107 || text.contains('\0') {
                return Err(ServerAddrError::Unix(text.into()));
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return if addr.port() == 0 { Err(ServerAddrError::Port(text.into())) } else { Ok(Self::Tcp(addr)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| ServerAddrError::NoPort(text.into()))?;
        let port = port.parse().ok().filter(|p| *p > 0).ok_or_else(|| ServerAddrError::Port(text.into()))?;
        let host = Host::parse(host).map_err(|_| ServerAddrError::Host(text.into()))?;
        Ok(Self::Name { host, port })
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_people_write_them() {
        assert!(matches!(ServerAddr::parse("10.0.0.5:8000"), Ok(ServerAddr::Tcp(_))));
        assert!(matches!(ServerAddr::parse("[::1]:8000"), Ok(ServerAddr::Tcp(_))));
        assert!(matches!(ServerAddr::parse("api.internal:8000"), Ok(ServerAddr::Name { port: 8000, .. })));
        assert!(matches!(ServerAddr::parse("unix:/run/api.sock"), Ok(ServerAddr::Unix(_))));
    }

    #[test]
    fn an_address_that_nothing_can_listen_on_is_refused() {
        let told = ServerAddr::parse("http://127.0.0.1:3000/x").expect_err("a URL").to_string();
        assert!(told.contains("write \"127.0.0.1:3000\""), "{told}");
        assert!(ServerAddr::parse("https://a.example").expect_err("a URL").to_string().contains("\"a.example:443\""));
        for bad in ["10.0.0.5", "10.0.0.5:0", "a:99999", "unix:run/x", "unix:", "a b:80", ":80"] {
            assert!(ServerAddr::parse(bad).is_err(), "{bad:?}");
        }
    }
}
