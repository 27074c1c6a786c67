//! What a configuration means for the steward.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    acme::{
        client::Transport,
        proof::{self, Door},
    },
    ipc::message::{Config, Role},
    plan::{Acme, Challenge, SiteTls},
    rules::{clientip, renewal::Options},
    vocab::{Host, HostPattern, chain},
};

/// What a configuration means for it.
#[derive(Clone)]
pub struct Setting {
    pub(super) acme: Acme,
    /// Names that go together, by the name that their certificate goes by.
    pub(super) sites: BTreeMap<Host, Vec<Host>>,
    /// Whom sites with certificates on demand ask.
    pub(super) asks: BTreeSet<String>,
    /// Kinds of challenge that some listener can answer, in their order.
    pub(super) challenges: Vec<Challenge>,
    pub(super) door: Option<Door>,
    /// By CA: how to speak with it, or why not.
    pub(super) transports: Vec<Result<Transport, String>>,
    pub(super) staging: Vec<bool>,
}

impl Setting {
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let Config { plan, listeners, materials, .. } = config;
        let acme = plan.tls.acme.clone();
        let exact = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(host) => Some(host.clone()),
            HostPattern::Wildcard(_) | HostPattern::Any => None,
        };
        let sites = plan.sites.iter().filter(|site| site.tls == SiteTls::Acme).filter_map(|site| {
            let names: Vec<Host> = site.hosts.iter().filter_map(exact).chain(site.redirected.iter().cloned()).collect();
            Some((names.first()?.clone(), names))
        });
        let asks = plan.sites.iter().filter_map(|site| match &site.tls {
            SiteTls::OnDemand { ask } => Some(ask.clone()),
            SiteTls::Off | SiteTls::Internal | SiteTls::Acme | SiteTls::Files { .. } | SiteTls::Directory { .. } => None,
        });
        let of = |role| listeners.iter().find(move |listener| listener.role == role);
        let can = |challenge: &Challenge| match challenge {
            Challenge::TlsAlpn01 => of(Role::Https).is_some(),
            Challenge::Http01 => of(Role::Http).is_some(),
        };
        let door = of(Role::Https).map(|listener| Door {
            bound: listener.bound,
            proxy_header: plan.listen.proxy_protocol && clientip::is_trusted(proof::reachable(listener.bound).ip(), &plan.trusted_proxies),
        });
        let transports = acme.cas.iter().map(|ca| {
            let pem = match &ca.root {
                None => None,
                Some(path) => {
                    let roots = materials.roots.iter().find(|roots| roots.path == *path);
                    Some(roots.map_or_else(|| Err("it was not read".to_owned()), |roots| roots.pem.clone())?)
                }
            };
            Transport::new(pem.as_deref()).map_err(|error| chain(&error))
        });
        Self {
            sites: sites.collect(),
            asks: asks.collect(),
            challenges: acme.challenges.iter().copied().filter(can).collect(),
            door,
            transports: transports.collect(),
            staging: acme.cas.iter().map(|ca| ca.staging.is_some()).collect(),
            acme,
        }
    }

    pub(super) fn options(&self) -> Options<'_> {
        Options { staging: &self.staging, challenges: self.challenges.len() }
    }
}
