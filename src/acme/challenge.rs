//! The board of pending challenges: what a CA is answered that asks whether a name is ours.
//!
//! Shape: the steward's orders post, traffic threads read without a wait. A [`Posted`] takes its challenge off when it goes, however its order ends.
//!        Bounded by the orders that run at a time.
//! Source: RFC 8555 §8.3 (http-01), RFC 8737 (tls-alpn-01), RFC 8738 (IP addresses).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::vocab::lock;
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, SanType};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::PrivateKeyDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;

/// Where http-01 is asked for.
pub const PATH: &str = "/.well-known/acme-challenge/";
/// The protocol of a client that asks for tls-alpn-01.
pub const ALPN: &[u8] = b"acme-tls/1";

/// Why a challenge could not be put up.
#[derive(Debug, Error)]
pub enum PostError {
    #[error("make the challenge's certificate")]
    Make(#[from] rcgen::Error),
    #[error("serve the challenge's certificate")]
    Serve(#[from] rustls::Error),
}

#[derive(Clone, Debug, Default)]
struct Pending {
    /// Token → key authorization.
    http: HashMap<Box<str>, Arc<str>>,
    /// Name → how to shake hands.
    alpn: HashMap<Box<str>, Arc<ServerConfig>>,
}

/// All that is pending.
#[derive(Debug, Default)]
pub struct Board {
    /// Swapped alone: nothing else must agree with it.
    pending: ArcSwap<Pending>,
    /// One writer at a time; held for a copy of a few entries.
    writer: Mutex<()>,
}

impl Board {
    /// The answer to `GET PATH + token`.
    #[must_use]
    pub fn http(&self, path: &str) -> Option<Arc<str>> {
        let token = path.strip_prefix(PATH)?;
        self.pending.load().http.get(token).cloned()
    }

    /// How to shake hands with a client that speaks nothing but [`ALPN`]; `None` for every other client.
    #[must_use]
    pub fn alpn(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let pending = self.pending.load();
        if pending.alpn.is_empty() || !hello.alpn()?.eq([ALPN]) {
            return None;
        }
        pending.alpn.get(hello.server_name()?).cloned()
    }

    /// Whether a CA may ask for tls-alpn-01 at any moment.
    #[must_use]
    pub fn awaits_alpn(&self) -> bool {
        !self.pending.load().alpn.is_empty()
    }

    /// Answers http-01 for as long as the result lives.
    #[must_use]
    pub fn post_http(self: &Arc<Self>, token: &str, authorization: &str) -> Posted {
        self.change(|pending| drop(pending.http.insert(token.into(), authorization.into())));
        Posted { board: self.clone(), key: Key::Http(token.into()) }
    }

    /// Answers tls-alpn-01 for as long as the result lives. `digest`: of the key authorization.
    ///
    /// Errors: [`PostError`]
    pub fn post_alpn(self: &Arc<Self>, name: &str, digest: &[u8]) -> Result<Posted, PostError> {
        let config = Arc::new(alpn_config(name, digest)?);
        let asked = asked_name(name);
        self.change(|pending| drop(pending.alpn.insert(asked.clone(), config)));
        Ok(Posted { board: self.clone(), key: Key::Alpn(asked) })
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        // Nothing panics while it is held.
        let _one = lock(&self.writer);
        let mut pending = Pending::clone(&self.pending.load());
        change(&mut pending);
        self.pending.store(Arc::new(pending));
    }
}

#[derive(Debug)]
enum Key {
    Http(Box<str>),
    Alpn(Box<str>),
}

/// A challenge that is up.
#[derive(Debug)]
pub struct Posted {
    board: Arc<Board>,
    key: Key,
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.board.change(|pending| match &self.key {
            Key::Http(token) => drop(pending.http.remove(token)),
            Key::Alpn(name) => drop(pending.alpn.remove(name)),
        });
    }
}

/// The SNI by which a CA asks; for an address its name in the reverse zone.
///
/// Source: RFC 8738 §6.
fn asked_name(name: &str) -> Box<str> {
    match name.parse() {
        Ok(std::net::IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa").into()
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            let mut text = String::with_capacity(72);
            for byte in ip.octets().iter().rev() {
                text.push_str(&format!("{:x}.{:x}.", byte & 0xf, byte >> 4));
            }
            text.push_str("ip6.arpa");
            text.into()
        }
        Err(_) => name.to_ascii_lowercase().into(),
    }
}

fn alpn_config(name: &str, digest: &[u8]) -> Result<ServerConfig, PostError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![match name.parse() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName(name.try_into()?),
    }];
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let cert = params.self_signed(&key)?;
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let secret = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    // Not compared with its key: who parses it for that stops at the extension, which is critical by design.
    let certified = CertifiedKey::new(vec![cert.der().clone()], provider.key_provider.load_private_key(secret)?);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(One(Arc::new(certified))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_up_for_as_long_as_its_order_runs() {
        let board = Arc::new(Board::default());
        let posted = board.post_http("token", "token.thumb");
        let other = board.post_http("other", "other.thumb");
        assert_eq!(board.http("/.well-known/acme-challenge/token").as_deref(), Some("token.thumb"));
        assert_eq!(board.http("/.well-known/acme-challenge/nothing"), None);
        assert_eq!(board.http("/token"), None);
        drop(posted);
        assert_eq!(board.http("/.well-known/acme-challenge/token"), None);
        assert!(board.http("/.well-known/acme-challenge/other").is_some());
        drop(other);
        let posted = board.post_alpn("A.test", &[7; 32]).expect("made");
        assert!(board.pending.load().alpn.contains_key("a.test"));
        drop(posted);
        assert!(board.pending.load().alpn.is_empty());
    }

    #[test]
    fn addresses_are_asked_for_by_their_reverse_names() {
        assert_eq!(&*asked_name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        let v6 = asked_name("2001:db8::1");
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
    }
}
