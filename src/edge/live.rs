//! Live: a plan made runnable, prepared aside and swapped whole. One request sees one of them.
//!
//! Shape: [`Live::prepare`] may fail and changes nothing that is in force; [`Prepared::enter`] changes what is shared and cannot fail.
//!        Zones, pools, metrics and good certificates are carried over from the one before where name and spec are equal.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use thiserror::Error;

use super::{
    access::{Guard, GuardError, Guards, Verifier},
    blackbox::BlackBox,
    conn::Allowance,
    forward::{self, Rewriter},
    gate::{Demand, GateRoute, GateSite, Sentry, ZoneSet},
    tls::{OnBadPair, Tls, TlsBase, TlsError, Trust},
    upstream::{Pool, Pools},
    warden::Warden,
    witness::Witness,
};
use crate::{
    acme::challenge::Board,
    ipc::message::{Config, Generation, Listener, Materials, Role, Switches},
    plan::{self, Action, HeaderEdit, PathMatch, Plan},
    rules::{
        header::{self as rule, Channel, Dress},
        route::{Found, Router},
        screen::Screen,
        underscore::Sieve,
    },
    telemetry::{
        FieldMetrics, Metrics, NO_SITE, Series, SiteMetrics,
        accesslog::{AccessLog, AccessWriter},
    },
    vocab::{Host, UpstreamName},
};

/// Connections of one address where the file says no number: a browser has six to a host, an office behind one address some dozens of browsers.
const PER_IP: u32 = 256;

/// The configuration in force. The one place where it is swapped.
pub type LiveCell = Arc<ArcSwap<Live>>;

/// Why a configuration cannot be run.
#[derive(Debug, Error)]
pub enum LiveError {
    #[error("set up TLS")]
    Tls(#[from] TlsError),
    #[error("rewrite paths by {pattern:?}")]
    Rewrite {
        pattern: String,
        #[source]
        source: regex::Error,
    },
    #[error("find upstream {0}")]
    Upstream(UpstreamName),
    #[error("guard what is for few")]
    Guard(#[from] GuardError),
    #[error("answer with content type {0:?}")]
    ContentType(String),
}

/// What every `Live` of one edge is built from.
pub struct Base {
    pub metrics: Arc<Metrics>,
    pub tls: TlsBase,
    /// `None`: no pipe was given.
    pub access: Option<Arc<AccessWriter>>,
    pub screen: Arc<Screen>,
    pub board: Arc<Board>,
    pub blackbox: Arc<BlackBox>,
    pub witness: Arc<Witness>,
    pub verifier: Arc<Verifier>,
    pub warden: Arc<Warden>,
    /// Which sites are in maintenance by command.
    pub switches: Switches,
}

impl Base {
    /// What a configuration is prepared from, beside `old`, which is in force.
    #[must_use]
    pub fn ground<'a>(&'a self, old: Option<&'a Live>) -> Ground<'a> {
        Ground { tls: &self.tls, screen: &self.screen, series: self.metrics.draft(), old }
    }
}

/// What [`Live::prepare`] may see: nothing that it could change for others.
pub struct Ground<'a> {
    tls: &'a TlsBase,
    screen: &'a Arc<Screen>,
    /// Seen by nobody until the configuration is in force.
    series: Series,
    old: Option<&'a Live>,
}

/// A configuration that can be run, and is not in force yet.
pub struct Prepared {
    generation: Generation,
    plan: Plan,
    listeners: Vec<Listener>,
    sites: Vec<LiveSite>,
    nobody: Arc<SiteMetrics>,
    pools: Pools,
    zones: ZoneSet,
    tls: Option<Tls>,
    guards: Guards,
    series: Series,
}

pub struct Live {
    pub generation: Generation,
    pub plan: Plan,
    pub listeners: Vec<Listener>,
    pub allowance: Arc<Allowance>,
    pub router: Router,
    pub sites: Vec<LiveSite>,
    /// Requests that no site is for.
    pub nobody: Arc<SiteMetrics>,
    pub pools: Arc<Pools>,
    pub zones: ZoneSet,
    /// Who is banned, and for what others are.
    pub sentry: Sentry,
    pub tls: Option<Tls>,
    /// Challenges that a CA may ask for.
    pub board: Arc<Board>,
    /// Where failed requests are remembered.
    pub blackbox: Arc<BlackBox>,
    /// Tells the master what it cannot see.
    pub witness: Arc<Witness>,
    /// Who proves passwords, and remembers them for a while.
    pub verifier: Arc<Verifier>,
    /// Of all bodies that are held back.
    pub buffers: u64,
    guards: Guards,
    pub access: Option<AccessLog>,
    /// Which fields with an underscore do not pass, and how many did not.
    pub sieve: Sieve,
    pub fields: Arc<FieldMetrics>,
}

pub struct LiveSite {
    pub name: String,
    pub canonical: Option<Host>,
    pub headers: Vec<Dress>,
    trust: Trust,
    pub gate: GateSite,
    pub metrics: Arc<SiteMetrics>,
    pub routes: Vec<LiveRoute>,
}

impl LiveSite {
    /// What its answers are sent over.
    #[must_use]
    pub fn channel(&self, tls: bool) -> Channel {
        if tls && self.trust.holds() { Channel::Trusted } else { Channel::of(tls) }
    }
}

pub struct LiveRoute {
    /// As the configuration writes it.
    pub label: String,
    pub gate: GateRoute,
    pub action: LiveAction,
    pub rewriter: Rewriter,
    pub request_headers: Vec<HeaderEdit>,
    pub response_headers: Vec<HeaderEdit>,
    pub body_limit: u64,
    /// So much of a body is there before a process is chosen; 0: nothing.
    pub buffer: u64,
    /// `None`: everyone comes in.
    pub guard: Option<Arc<Guard>>,
}

pub enum LiveAction {
    Proxy(Arc<Pool>),
    /// `{path}` and `{query}` are filled in.
    Redirect {
        to: String,
        status: StatusCode,
    },
    Respond {
        status: StatusCode,
        content_type: HeaderValue,
        body: Bytes,
    },
    NotFound,
}

impl Live {
    /// Made ready aside: what is in force knows nothing of it.
    ///
    /// Errors: [`LiveError`] says what cannot be run; nothing has changed then.
    pub fn prepare(ground: Ground<'_>, config: &Config, bad: OnBadPair) -> Result<Prepared, LiveError> {
        let Config { generation, plan, listeners, materials } = config;
        let Ground { tls, screen, series, old } = ground;
        let zones = ZoneSet::build(plan, old.map(|old| &old.zones), &series);
        let pools = Pools::prepare(plan, old.map(|old| &*old.pools), &series);
        let tls = Tls::build(tls, plan, materials, old.and_then(|old| old.tls.as_ref()), bad)?;
        let https = listeners.iter().find(|listener| listener.role == Role::Https).map(|listener| listener.bound.port());
        let guards = Guards::build(plan, old.map(|old| &old.guards))?;
        let build = Build { series: &series, screen, zones: &zones, pools: &pools, guards: &guards, tls: tls.as_ref(), https };
        let sites = plan.sites.iter().enumerate().map(|(at, site)| build.site(at, site)).collect::<Result<_, _>>()?;
        Ok(Prepared {
            generation: *generation,
            plan: plan.clone(),
            listeners: listeners.iter().map(|listener| Listener { descriptors: 0, ..listener.clone() }).collect(),
            sites,
            nobody: series.site(NO_SITE),
            pools,
            zones,
            tls,
            guards,
            series,
        })
    }

    /// Shows a page in the place of these sites, and of no others.
    pub fn maintain(&self, switches: &Switches) {
        for (site, live) in self.plan.sites.iter().zip(&self.sites) {
            live.gate.maintain(switches.is_on(site));
        }
    }

    /// The same configuration with certificates read anew; those that are no good are kept as they were.
    ///
    /// Errors: as [`Live::prepare`].
    pub fn with_materials(&self, base: &Base, materials: Materials) -> Result<Prepared, LiveError> {
        let config = Config { generation: self.generation, plan: self.plan.clone(), listeners: self.listeners.clone(), materials };
        Self::prepare(base.ground(Some(self)), &config, OnBadPair::Keep)
    }

    /// The site of the name that a client gave in its handshake.
    #[must_use]
    pub fn named(&self, sni: Option<&str>) -> Option<usize> {
        sni.and_then(|sni| self.router.site(sni)).map(Found::index)
    }

    /// Time since the epoch that zones and pools count from.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.pools.now()
    }

    /// How many connections an address may have open; `None`: as many as there are seats.
    ///
    /// A trusted proxy brings everybody's, and so does what is on this machine: a tunnel, another server. Loopback is capped where the file says a number.
    #[must_use]
    pub fn cap_of(&self, peer: std::net::IpAddr, role: Role) -> Option<u32> {
        let said = self.plan.listen.max_connections_per_ip;
        match role {
            Role::Admin => None,
            Role::Http | Role::Https if self.is_trusted(peer) => None,
            Role::Http | Role::Https => match said {
                Some(cap) => Some(cap.get()),
                None if peer.to_canonical().is_loopback() => None,
                None => Some(PER_IP),
            },
        }
    }

    #[must_use]
    pub fn is_trusted(&self, peer: std::net::IpAddr) -> bool {
        !self.plan.trusted_proxies.is_empty() && crate::rules::clientip::is_trusted(peer, &self.plan.trusted_proxies)
    }
}

impl Prepared {
    /// It is in force from now on: whoever calls this swaps it in at once.
    #[must_use]
    pub fn enter(self, base: &Base) -> Live {
        let Self { generation, plan, listeners, sites, nobody, pools, zones, tls, guards, series } = self;
        base.metrics.publish(&series);
        pools.enter(&base.metrics);
        if let Some(tls) = &tls {
            tls.enter(&base.tls);
        }
        let ends = tls.iter().flat_map(Tls::served).filter_map(|served| Some((served.host.clone(), served.not_after?)));
        base.metrics.certificates(ends.collect::<Vec<_>>());
        let own = tls.iter().flat_map(Tls::served).map(|served| (served.host.clone(), served.problem.is_some()));
        base.metrics.spoilt_certificates(own.collect::<Vec<_>>());
        base.metrics.generation(generation.0);
        let access = plan.log.access.as_ref().zip(base.access.as_ref()).map(|(spec, writer)| AccessLog::new(writer, spec));
        let live = Live {
            generation,
            listeners,
            allowance: Arc::new(Allowance::new(&plan.timeouts, &plan.limits)),
            router: Router::new(&plan.sites),
            nobody,
            sites,
            pools: Arc::new(pools),
            zones,
            sentry: Sentry::new(&plan, base.warden.clone()),
            tls,
            board: base.board.clone(),
            blackbox: base.blackbox.clone(),
            witness: base.witness.clone(),
            verifier: base.verifier.clone(),
            buffers: plan.limits.buffers.map_or_else(|| buffers(base.metrics.memory()), |size| size.0),
            guards,
            access,
            sieve: Sieve::new(&plan, &forward::said()),
            fields: base.metrics.fields(),
            plan,
        };
        live.maintain(&base.switches);
        live
    }
}

/// What all bodies together may hold where the file does not say, on a machine of so much memory.
fn buffers(memory: u64) -> u64 {
    (memory / 16).clamp(16 << 20, 256 << 20)
}

struct Build<'a> {
    series: &'a Series,
    screen: &'a Arc<Screen>,
    zones: &'a ZoneSet,
    pools: &'a Pools,
    guards: &'a Guards,
    tls: Option<&'a Tls>,
    https: Option<u16>,
}

impl Build<'_> {
    fn site(&self, at: usize, site: &plan::Site) -> Result<LiveSite, LiveError> {
        let demand = self.tls.map_or(Demand::Nothing, |tls| tls.demand(at));
        Ok(LiveSite {
            name: site.name.clone(),
            canonical: site.canonical.clone(),
            headers: rule::dress(&site.headers),
            trust: self.tls.map_or(Trust::Never, |tls| tls.trust(at)),
            gate: GateSite::new(site, self.https, demand),
            metrics: self.series.site(&site.name),
            routes: site.routes.iter().map(|route| self.route(site, route)).collect::<Result<_, _>>()?,
        })
    }

    fn route(&self, site: &plan::Site, route: &plan::Route) -> Result<LiveRoute, LiveError> {
        let label = match &route.path {
            PathMatch::Exact(path) => format!("= {path}"),
            PathMatch::Prefix(path) => path.clone(),
            PathMatch::Regex(pattern) => format!("~ {pattern}"),
        };
        let rewrite_error =
            |source| LiveError::Rewrite { pattern: route.rewrite.as_ref().map_or_else(String::new, |r| r.pattern.clone()), source };
        Ok(LiveRoute {
            label,
            gate: GateRoute::new(site, route, self.zones, self.screen, self.series),
            action: self.action(&route.action)?,
            rewriter: Rewriter::new(route.strip.as_deref(), route.rewrite.as_ref()).map_err(rewrite_error)?,
            request_headers: route.request_headers.clone(),
            response_headers: route.response_headers.clone(),
            body_limit: route.body_limit.0,
            buffer: route.buffer.map_or(0, |size| size.0),
            guard: route.auth.as_ref().and_then(|auth| self.guards.of(auth)),
        })
    }

    fn action(&self, action: &Action) -> Result<LiveAction, LiveError> {
        Ok(match action {
            Action::Proxy { upstream } => {
                LiveAction::Proxy(self.pools.get(upstream).ok_or_else(|| LiveError::Upstream(upstream.clone()))?.clone())
            }
            Action::Redirect { to, status } => LiveAction::Redirect { to: to.clone(), status: *status },
            Action::Respond { status, body, content_type } => LiveAction::Respond {
                status: *status,
                content_type: HeaderValue::try_from(content_type.as_str()).map_err(|_| LiveError::ContentType(content_type.clone()))?,
                body: Bytes::from(body.clone()),
            },
            Action::NotFound => LiveAction::NotFound,
        })
    }
}

#[cfg(test)]
mod tests;
