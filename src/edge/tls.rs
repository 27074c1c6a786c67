//! TLS towards clients: which certificate for which name, with which protocols, tickets and sessions.
//!
//! Shape: a [`Tls`] belongs to one `Live` and never changes; what must outlive it (tickets, sessions, the internal CA) is in [`TlsBase`].
//! Source: RFC 8446, RFC 6066 §3 (unrecognized_name), RFC 7301 (ALPN).

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    server::{ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions},
    sign::CertifiedKey,
};
use thiserror::Error;

use super::gate::Demand;
use crate::{
    ipc::message::{Materials, TicketKeys},
    plan::{Plan, Site, SiteTls, TlsVersion},
    vocab::HostPattern,
};

pub mod ca;
pub mod mutual;
pub mod pair;
pub mod tickets;

use ca::Authority;
use mutual::{CaMark, Mutual, Mutuals};
use pair::{ByName, Pair};
use tickets::{Scope, Tickets};

/// TLS 1.2 sessions kept for clients without tickets; some 200 bytes each.
const SESSIONS: usize = 4096;

/// Why TLS could not be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("set up TLS")]
    Rustls(#[from] rustls::Error),
    #[error("serve a certificate")]
    Pair(#[from] pair::PairError),
    #[error("check client certificates")]
    Mutual(#[from] mutual::MutualError),
    #[error("find a certificate: no pair was read from {}", .0.display())]
    Missing(PathBuf),
}

/// What to do about a certificate that cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnBadPair {
    /// A reload: nothing changes, and whoever asked for it is told.
    Refuse,
    /// At start and when files change: the old one is kept, if there is one, and every other site is served.
    Keep,
}

/// What all configurations of one edge have in common.
pub struct TlsBase {
    provider: Arc<CryptoProvider>,
    tickets: Tickets,
    /// Of the sites that ask for no client certificate, as `sessions`.
    open_tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
    authority: Arc<Authority>,
}

impl TlsBase {
    /// Errors: the ticket keys cannot be used.
    pub fn new(authority: Arc<Authority>, keys: TicketKeys) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let tickets = Tickets::new(keys);
        let open_tickets = tickets.ticketer(Scope::Open)?;
        Ok(Self { provider, tickets, open_tickets, sessions: ServerSessionMemoryCache::new(SESSIONS), authority })
    }

    /// On all threads at once.
    pub fn rotate_tickets(&self, keys: TicketKeys) {
        self.tickets.rotate(keys);
    }
}

/// Makes aws-lc-rs what every rustls of this process speaks with. To be called before pingora, which would take ring.
pub fn install_provider() {
    // Errs where one is installed already, which then is ours: nobody else was there before.
    let _ = provider().install_default();
}

/// What aws-lc-rs is for by default: TLS 1.2 and 1.3, AEAD and ECDHE alone, X25519MLKEM768 before all other groups.
fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// A certificate that is served, for status and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    pub host: String,
    pub source: &'static str,
    /// Unix seconds.
    pub not_after: Option<i64>,
    pub problem: Option<String>,
}

/// How connections to a site are opened.
#[derive(Clone, Debug)]
enum Entrance {
    /// By the configuration of all that ask for no client certificate.
    Shared,
    Mutual(Arc<ServerConfig>, CaMark),
    /// The CAs of its clients cannot be read.
    Shut,
}

/// TLS of one configuration.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// By site, in the order of the plan.
    entrances: Vec<Entrance>,
    mutuals: Mutuals,
    names: Arc<Names>,
    /// By certificate file, so that a pair that turns bad on disk leaves the good one standing.
    pairs: HashMap<PathBuf, Arc<Pair>>,
    served: Vec<Served>,
}

impl Tls {
    /// `None`: no site has TLS.
    ///
    /// Errors: [`TlsError`], under [`OnBadPair::Refuse`].
    pub fn build(base: &TlsBase, plan: &Plan, materials: &Materials, old: Option<&Self>, bad: OnBadPair) -> Result<Option<Self>, TlsError> {
        if plan.sites.iter().all(|site| site.tls == SiteTls::Off) {
            return Ok(None);
        }
        let mutuals = Mutuals::build(base, plan, materials, old.map(|old| &old.mutuals), bad)?;
        let mut problems = HashMap::new();
        let mut pairs = HashMap::new();
        for material in &materials.pairs {
            match Pair::read(material, &base.provider) {
                Ok(pair) => {
                    pairs.insert(material.cert.clone(), Arc::new(pair));
                }
                Err(error) if bad == OnBadPair::Refuse => return Err(error.into()),
                Err(error) => {
                    let kept = old.and_then(|old| old.pairs.get(&material.cert));
                    tracing::error!(cert = %material.cert.display(), error = %chain(&error), kept = kept.is_some(), "certificate not usable");
                    problems.insert(material.cert.clone(), chain(&error));
                    pairs.extend(kept.map(|pair| (material.cert.clone(), pair.clone())));
                }
            }
        }
        let mut names = Names::new(base.authority.clone());
        // One for all sites that share it.
        let mut directories: HashMap<&PathBuf, Arc<ByName>> = HashMap::new();
        let mut served = Vec::new();
        for site in &plan.sites {
            let source = match &site.tls {
                SiteTls::Off => continue,
                SiteTls::Internal => Source::Internal,
                SiteTls::Acme | SiteTls::OnDemand { .. } => Source::None,
                SiteTls::Files { cert, .. } => match pairs.get(cert) {
                    Some(pair) => Source::Pair(pair.clone()),
                    None if bad == OnBadPair::Refuse => return Err(TlsError::Missing(cert.clone())),
                    None => Source::None,
                },
                SiteTls::Directory { dir } => {
                    let all = || pairs.iter().filter_map(|(cert, pair)| cert.starts_with(dir).then_some(pair));
                    Source::Names(directories.entry(dir).or_insert_with(|| Arc::new(ByName::new(all()))).clone())
                }
            };
            let problem = problems.iter().find_map(|(cert, problem)| match &site.tls {
                SiteTls::Files { cert: own, .. } => (own == cert).then(|| problem.clone()),
                SiteTls::Directory { dir } => cert.starts_with(dir).then(|| problem.clone()),
                SiteTls::Off | SiteTls::Internal | SiteTls::Acme | SiteTls::OnDemand { .. } => None,
            });
            let of_clients = || site.client_ca.as_ref().and_then(|ca| mutuals.problem(ca)).map(str::to_owned);
            served.push(source.served(&site.name, problem.or_else(of_clients)));
            for host in &site.hosts {
                names.add(host, &source);
            }
            for host in &site.redirected {
                names.add(&HostPattern::Exact(host.clone()), &source);
            }
        }
        let names = Arc::new(names);
        let versions: &[_] = match plan.tls.min {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let config = Arc::new(server_config(base, versions, names.clone(), None)?);
        let mut guarded = HashMap::new();
        for (path, mutual) in mutuals.iter() {
            guarded.insert(path, Arc::new(server_config(base, versions, names.clone(), Some(mutual))?));
        }
        let entrance = |site: &Site| match &site.client_ca {
            None => Entrance::Shared,
            Some(path) => match (guarded.get(path), mutuals.get(path)) {
                (Some(config), Some(mutual)) => Entrance::Mutual(config.clone(), mutual.mark),
                (_, _) => Entrance::Shut,
            },
        };
        let entrances = plan.sites.iter().map(entrance).collect();
        Ok(Some(Self { config, entrances, mutuals, names, pairs, served }))
    }

    /// How to shake hands with a client that named `site`; with the CAs that its certificate is verified under. `None`: not at all.
    #[must_use]
    pub fn config(&self, site: Option<usize>) -> Option<(&Arc<ServerConfig>, Option<CaMark>)> {
        match site.and_then(|site| self.entrances.get(site)) {
            None | Some(Entrance::Shared) => Some((&self.config, None)),
            Some(Entrance::Mutual(config, ca)) => Some((config, Some(*ca))),
            Some(Entrance::Shut) => None,
        }
    }

    /// What requests for a site must have shown.
    #[must_use]
    pub fn demand(&self, site: usize) -> Demand {
        match self.entrances.get(site) {
            None | Some(Entrance::Shared) => Demand::Nothing,
            Some(Entrance::Mutual(_, ca)) => Demand::Certificate(*ca),
            Some(Entrance::Shut) => Demand::Impossible,
        }
    }

    /// Whether there is a certificate for a client that asks for this name, or for none.
    #[must_use]
    pub fn knows(&self, sni: Option<&str>) -> bool {
        self.names.source(sni).is_some()
    }

    #[must_use]
    pub fn served(&self) -> &[Served] {
        &self.served
    }
}

/// Of suites that both sides have, the first of ours is taken.
fn server_config(
    base: &TlsBase,
    versions: &[&'static SupportedProtocolVersion],
    names: Arc<Names>,
    mutual: Option<&Arc<Mutual>>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(base.provider.clone()).with_protocol_versions(versions)?;
    let builder = match mutual {
        Some(mutual) => builder.with_client_cert_verifier(mutual.verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(names);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    (config.ticketer, config.session_storage) = match mutual {
        Some(mutual) => (mutual.tickets.clone(), mutual.sessions.clone()),
        None => (base.open_tickets.clone(), base.sessions.clone()),
    };
    Ok(config)
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// Where a site's certificate comes from.
#[derive(Clone, Debug)]
enum Source {
    Pair(Arc<Pair>),
    /// The pair of a directory that fits the name.
    Names(Arc<ByName>),
    /// Made by our own CA when first asked for.
    Internal,
    /// There should be one, but it cannot be used.
    None,
}

impl Source {
    fn certified(&self, sni: Option<&str>, authority: &Authority) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::Pair(pair) => Some(pair.certified.clone()),
            Self::Names(names) => names.find(sni),
            Self::Internal => authority.leaf(sni.unwrap_or("localhost")),
            Self::None => None,
        }
    }

    fn served(&self, site: &str, problem: Option<String>) -> Served {
        let (source, not_after) = match self {
            Self::Pair(pair) => ("files", Some(pair.not_after)),
            Self::Names(names) => ("files", names.first_end()),
            Self::Internal => ("internal", None),
            Self::None => ("files", None),
        };
        Served { host: site.to_owned(), source, not_after, problem }
    }
}

/// Names to sources, as the router has them for hosts: exact, then the longest wildcard, then `_`.
#[derive(Debug)]
struct Names {
    exact: HashMap<Box<str>, Source, ahash::RandomState>,
    wildcards: HashMap<Box<str>, Source, ahash::RandomState>,
    any: Option<Source>,
    /// For clients that name no host (an IP address is never named): of `_`, else of the first site.
    first: Option<Source>,
    authority: Arc<Authority>,
}

impl Names {
    fn new(authority: Arc<Authority>) -> Self {
        Self { exact: HashMap::default(), wildcards: HashMap::default(), any: None, first: None, authority }
    }

    fn add(&mut self, host: &HostPattern, source: &Source) {
        self.first.get_or_insert_with(|| source.clone());
        match host {
            HostPattern::Exact(host) => {
                self.exact.entry(host.as_str().into()).or_insert_with(|| source.clone());
            }
            HostPattern::Wildcard(host) => {
                self.wildcards.entry(host.as_str().into()).or_insert_with(|| source.clone());
            }
            HostPattern::Any => {
                self.any.get_or_insert_with(|| source.clone());
            }
        }
    }

    fn source(&self, sni: Option<&str>) -> Option<&Source> {
        let Some(sni) = sni else { return self.any.as_ref().or(self.first.as_ref()) };
        if let Some(source) = self.exact.get(sni) {
            return Some(source);
        }
        let mut rest = sni;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(source) = self.wildcards.get(parent) {
                return Some(source);
            }
            rest = parent;
        }
        self.any.as_ref()
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case.
        let sni = hello.server_name();
        self.source(sni)?.certified(sni, &self.authority)
    }
}

#[cfg(test)]
mod tests {
    use rustls::{NamedGroup, SupportedCipherSuite, crypto::KeyExchangeAlgorithm};

    use super::*;

    #[test]
    fn every_suite_is_aead_with_ecdhe_and_the_hybrid_group_comes_first() {
        let provider = provider();
        for suite in &provider.cipher_suites {
            let name = format!("{:?}", suite.suite());
            assert!(name.contains("GCM") || name.contains("CHACHA20_POLY1305"), "{name}");
            match suite {
                SupportedCipherSuite::Tls12(suite) => assert_eq!(suite.kx, KeyExchangeAlgorithm::ECDHE, "{name}"),
                SupportedCipherSuite::Tls13(_) => {}
            }
        }
        assert_eq!(provider.kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    }
}
