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

use crate::{
    acme::vault::{Slot, Vault},
    ipc::message::{Material, Materials, TicketKeys},
    pki::{
        PairError,
        pair::{ByName, Pair},
        remark::{named, remarks},
    },
    plan::{Plan, Site, SiteTls, TlsVersion},
    vocab::{Host, HostPattern, chain},
};

pub mod ca;
mod choice;
pub mod demand;
pub mod mutual;
pub mod tickets;

use ca::Authority;
use choice::{Choice, choose};
use demand::{CaMark, Demand};
use mutual::{Mutual, Mutuals};
use tickets::{Scope, Tickets};

/// TLS 1.2 sessions kept for clients without tickets; some 200 bytes each.
const SESSIONS: usize = 4096;

/// Why TLS could not be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("set up TLS")]
    Rustls(#[from] rustls::Error),
    #[error("serve {} with the key {}", cert.display(), key.display())]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: PairError,
    },
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
    pub vault: Arc<Vault>,
}

impl TlsBase {
    /// Errors: the ticket keys cannot be used.
    pub fn new(authority: Arc<Authority>, keys: TicketKeys, vault: Arc<Vault>) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let tickets = Tickets::new(keys);
        let open_tickets = tickets.ticketer(Scope::Open)?;
        Ok(Self { provider, tickets, open_tickets, sessions: ServerSessionMemoryCache::new(SESSIONS), authority, vault })
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

/// Whether clients trust the certificate of a site, as far as we can know: one that its own key signed, or a CA for tests, they do not.
#[derive(Clone, Debug)]
pub enum Trust {
    Never,
    Always,
    /// From the moment that it is there.
    Slot(Arc<Slot>),
}

impl Trust {
    fn of(source: &Source) -> Self {
        let all = |trusted: bool| if trusted { Self::Always } else { Self::Never };
        match source {
            Source::Pair(pair) => all(pair.is_publicly_signed()),
            Source::Names(names) => all(names.are_publicly_signed()),
            Source::Slot(slot) => Self::Slot(slot.clone()),
            // Without a certificate of an authority there is no connection.
            Source::Demand { .. } => Self::Always,
            Source::Internal | Source::None => Self::Never,
        }
    }

    #[must_use]
    pub fn holds(&self) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Slot(slot) => slot.pair().is_some_and(|pair| pair.is_publicly_signed()),
        }
    }
}

/// TLS of one configuration.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// By site, in the order of the plan.
    entrances: Vec<Entrance>,
    /// Likewise.
    trusts: Vec<Trust>,
    mutuals: Mutuals,
    names: Arc<Names>,
    /// By certificate file, so that a pair that turns bad on disk leaves the good one standing.
    pairs: HashMap<PathBuf, Arc<Pair>>,
    served: Vec<Served>,
    /// Files that turned bad, and in whose place what they held before is served.
    passed_over: Vec<PathBuf>,
    /// Places of certificates that nobody else knows yet.
    fresh: Vec<(Host, Arc<Slot>)>,
}

impl Tls {
    /// `None`: no site has TLS. Changes nothing of what is in force; [`Tls::enter`] follows.
    ///
    /// Errors: [`TlsError`], under [`OnBadPair::Refuse`].
    pub fn build(base: &TlsBase, plan: &Plan, materials: &Materials, old: Option<&Self>, bad: OnBadPair) -> Result<Option<Self>, TlsError> {
        if plan.sites.iter().all(|site| site.tls == SiteTls::Off) {
            return Ok(None);
        }
        let mutuals = Mutuals::build(base, plan, materials, old.map(|old| &old.mutuals), bad)?;
        let mut passed_over: Vec<PathBuf> = mutuals.passed_over().cloned().collect();
        let mut problems = HashMap::new();
        let mut pairs = HashMap::new();
        let now = jiff::Timestamp::now().as_second();
        for material in &materials.pairs {
            let Material { cert, key, pem: _ } = material;
            let in_service = old.and_then(|old| old.pairs.get(cert));
            let Choice { pair, problem } = choose(Pair::read(material), in_service, now, bad).map_err(|source| TlsError::Pair {
                cert: cert.clone(),
                key: key.clone(),
                source,
            })?;
            if let Some(problem) = problem {
                let problem = format!("could not {}", chain(&problem));
                tracing::error!(cert = %cert.display(), error = problem, served = pair.is_some(), "certificate not usable");
                problems.insert(cert.clone(), problem);
                passed_over.extend(in_service.map(|_| cert.clone()));
            }
            pairs.extend(pair.map(|pair| (cert.clone(), pair)));
        }
        let mut names = Names::new(base.authority.clone());
        // One for all sites that share it.
        let mut directories: HashMap<&PathBuf, Arc<ByName>> = HashMap::new();
        let mut served = Vec::new();
        let mut fresh: Vec<(Host, Arc<Slot>)> = Vec::new();
        let mut trusts = vec![Trust::Never; plan.sites.len()];
        for (site, trust) in plan.sites.iter().zip(&mut trusts) {
            let source = match &site.tls {
                SiteTls::Off => continue,
                SiteTls::Internal => Source::Internal,
                SiteTls::Acme => match site.hosts.first() {
                    Some(HostPattern::Exact(host)) => Source::Slot(base.vault.find(host).unwrap_or_else(|| {
                        let slot = Arc::<Slot>::default();
                        fresh.push((host.clone(), slot.clone()));
                        slot
                    })),
                    Some(HostPattern::Wildcard(_) | HostPattern::Any) | None => Source::None,
                },
                SiteTls::OnDemand { ask } => Source::Demand { vault: base.vault.clone(), ask: ask.as_str().into() },
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
            let problem = problem.or_else(of_clients);
            for remark in source.remarks(&pairs, site) {
                tracing::warn!(site = site.name, "{remark}");
            }
            // What is looked after is known better by whoever looks after it.
            if problem.is_some() || !matches!(site.tls, SiteTls::Acme | SiteTls::OnDemand { .. }) {
                served.push(source.served(&site.name, problem));
            }
            *trust = Trust::of(&source);
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
        Ok(Some(Self { config, entrances, trusts, mutuals, names, pairs, served, passed_over, fresh }))
    }

    /// It is in force from now on: whoever orders certificates finds their places.
    pub fn enter(&self, base: &TlsBase) {
        base.vault.put(&self.fresh);
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

    #[must_use]
    pub fn trust(&self, site: usize) -> Trust {
        self.trusts.get(site).cloned().unwrap_or(Trust::Never)
    }

    /// Whether there is a certificate for a client that asks for this name, or for none.
    #[must_use]
    pub fn knows(&self, sni: Option<&str>) -> bool {
        self.names.source(sni).is_some()
    }

    /// Where to ask for a certificate that this client would need first: its name is one that certificates are ordered for on demand.
    #[must_use]
    pub fn wanting(&self, sni: Option<&str>) -> Option<Wanting> {
        let Source::Demand { vault, ask } = self.names.source(sni)? else { return None };
        let host = Host::parse(sni?).ok()?;
        let there = vault.find(&host).is_some_and(|slot| slot.pair().is_some());
        (!there).then(|| Wanting { vault: vault.clone(), host, ask: ask.clone() })
    }

    #[must_use]
    pub fn passed_over(&self) -> &[PathBuf] {
        &self.passed_over
    }

    #[must_use]
    pub fn served(&self) -> &[Served] {
        &self.served
    }
}

/// A name that has no certificate yet, and may get one.
pub struct Wanting {
    vault: Arc<Vault>,
    host: Host,
    ask: Arc<str>,
}

impl Wanting {
    /// Waits until it has one, or will have none.
    ///
    /// Cancel-safety: safe; the order goes on.
    pub async fn wait(self) -> bool {
        self.vault.demand(self.host, &self.ask).await
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

/// Where a site's certificate comes from.
#[derive(Clone, Debug)]
enum Source {
    Pair(Arc<Pair>),
    /// The pair of a directory that fits the name.
    Names(Arc<ByName>),
    /// Made by our own CA when first asked for.
    Internal,
    /// By ACME; until there is one, our own CA stands in.
    Slot(Arc<Slot>),
    /// By ACME, one for each name that clients ask for.
    Demand {
        vault: Arc<Vault>,
        ask: Arc<str>,
    },
    /// There should be one, but it cannot be used: our own CA stands in.
    None,
}

impl Source {
    fn certified(&self, sni: Option<&str>, authority: &Authority) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::Pair(pair) => Some(pair.certified.clone()),
            Self::Names(names) => names.find(sni).or_else(|| authority.leaf(sni.unwrap_or("localhost"))),
            Self::Internal | Self::None => authority.leaf(sni.unwrap_or("localhost")),
            Self::Slot(slot) => match slot.pair() {
                Some(pair) => Some(pair.certified.clone()),
                None => authority.leaf(sni.unwrap_or("localhost")),
            },
            Self::Demand { vault, .. } => Some(vault.find(&Host::parse(sni?).ok()?)?.pair()?.certified.clone()),
        }
    }

    /// What clients would take offence at, of what is served.
    fn remarks(&self, pairs: &HashMap<PathBuf, Arc<Pair>>, site: &Site) -> Vec<String> {
        let own: Vec<&Pair> = match (self, &site.tls) {
            (Self::Pair(pair), _) => vec![pair],
            (_, SiteTls::Directory { dir }) => pairs.iter().filter(|(cert, _)| cert.starts_with(dir)).map(|(_, pair)| &**pair).collect(),
            (_, _) => return Vec::new(),
        };
        remarks(&own, &named(site))
    }

    fn served(&self, site: &str, problem: Option<String>) -> Served {
        let (source, not_after) = match self {
            Self::Pair(pair) => ("files", Some(pair.not_after)),
            Self::Names(names) => ("files", names.first_end()),
            Self::Internal => ("internal", None),
            Self::Slot(_) | Self::Demand { .. } => ("acme", None),
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
mod tests;
