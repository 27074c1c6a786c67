//! What the gates need of a plan, made ready once: nets sorted, header values built, metric handles looked up, limiters carried over.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderValue, Method};

use super::{
    Demand,
    address::Nets,
    cors::Cors,
    filter::{BadUri, Filter},
    maintenance::Maintenance,
    queue::Queue,
};
use crate::{
    plan,
    rules::{limit::Limiter, screen::Screen},
    telemetry::{Series, ZoneMetrics},
    vocab::{ByteSize, ZoneName},
};

/// A zone with its cells.
#[derive(Debug)]
pub struct LiveZone {
    pub name: ZoneName,
    pub spec: plan::Zone,
    pub limiter: Limiter,
    pub queue: Arc<Queue>,
    pub metrics: Arc<ZoneMetrics>,
}

/// Every zone of a plan by name.
#[derive(Clone, Debug, Default)]
pub struct ZoneSet(BTreeMap<ZoneName, Arc<LiveZone>>);

impl ZoneSet {
    /// A zone whose name, key, rate and burst are those of one in `old` keeps its cells; any other begins anew.
    #[must_use]
    pub fn build(plan: &plan::Plan, old: Option<&Self>, series: &Series) -> Self {
        Self::of(&plan.zones, old, series)
    }

    /// As [`Self::build`], from the zones alone.
    #[must_use]
    pub fn of(zones: &BTreeMap<ZoneName, plan::Zone>, old: Option<&Self>, series: &Series) -> Self {
        let live = |(name, spec): (&ZoneName, &plan::Zone)| {
            let (limiter, queue) = match old.and_then(|old| old.get(name)) {
                Some(zone) if zone.spec == *spec => return (name.clone(), Arc::clone(zone)),
                Some(zone) => (Limiter::succeed(spec, &zone.limiter, &zone.spec), Arc::clone(&zone.queue)),
                None => (Limiter::new(spec), Arc::default()),
            };
            (name.clone(), Arc::new(LiveZone { name: name.clone(), spec: spec.clone(), limiter, queue, metrics: series.zone(name) }))
        };
        Self(zones.iter().map(live).collect())
    }

    #[must_use]
    pub fn get(&self, name: &ZoneName) -> Option<&Arc<LiveZone>> {
        self.0.get(name)
    }

    /// Tells the metrics what each zone keeps; before they are read.
    pub fn report(&self) {
        self.iter().for_each(|zone| zone.metrics.set(zone.limiter.keys(), zone.queue.len()));
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<LiveZone>> {
        self.0.values()
    }
}

/// What the gates need of a site.
#[derive(Debug)]
pub struct GateSite {
    /// Where a request without TLS is sent: the public port of https. `None`: the site has no TLS, or nothing listens for it.
    pub(super) https: Option<u16>,
    pub(super) demand: Demand,
    pub(super) maintenance: Maintenance,
}

impl GateSite {
    /// `https_port` is the bound port of the first https listener, if there is one.
    #[must_use]
    pub fn new(site: &plan::Site, https_port: Option<u16>, demand: Demand) -> Self {
        Self { https: if site.tls == plan::SiteTls::Off { None } else { https_port }, demand, maintenance: Maintenance::new(site) }
    }

    /// Shows the page in its place, or not.
    pub fn maintain(&self, on: bool) {
        self.maintenance.set(on);
    }

    #[must_use]
    pub fn is_in_maintenance(&self) -> bool {
        self.maintenance.is_on()
    }

    /// Whether clients have shown a certificate before they come here.
    #[must_use]
    pub fn knows_clients(&self) -> bool {
        self.demand != Demand::Nothing
    }
}

/// What the gates need of a route.
#[derive(Debug)]
pub struct GateRoute {
    /// Empty: everyone.
    pub(super) allow: Nets,
    pub(super) deny: Nets,
    /// Empty: every method that `bad_method` lets through.
    pub(super) methods: Vec<Method>,
    /// The `Allow` of a 405.
    pub(super) allowed: HeaderValue,
    /// By name: the order in which their cells are held.
    pub(super) zones: Vec<Arc<LiveZone>>,
    /// The site's name.
    pub(super) site: Box<str>,
    pub(super) bad_uri: BadUri,
    pub(super) bad_method: Filter,
    pub(super) scanner_ua: Filter,
    pub(super) body_limit: ByteSize,
    pub(super) cors: Option<Cors>,
    /// How much of a form or of JSON is looked at.
    pub(super) body_screen: Option<ByteSize>,
}

impl GateRoute {
    #[must_use]
    pub fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    /// Shape: every zone that the route names is in `zones`: the plan resolves all names.
    #[must_use]
    pub fn new(site: &plan::Site, route: &plan::Route, zones: &ZoneSet, screen: &Arc<Screen>, series: &Series) -> Self {
        let mut live: Vec<_> = route.zones.iter().filter_map(|name| zones.get(name).cloned()).collect();
        live.sort_by(|a, b| a.name.cmp(&b.name));
        live.dedup_by(|a, b| a.name == b.name);
        Self {
            allow: Nets::new(&route.allow),
            deny: Nets::new(&route.deny),
            methods: route.methods.clone(),
            allowed: super::method::allow_value(&route.methods),
            zones: live,
            site: site.name.as_str().into(),
            bad_uri: BadUri::new(site, route, screen, series),
            bad_method: Filter::new("bad-method", route.filters.bad_method, site, series),
            scanner_ua: Filter::new("scanner-ua", route.filters.scanner_ua, site, series),
            body_limit: route.body_limit,
            cors: route.cors.as_ref().map(Cors::new),
            body_screen: route.filters.body,
        }
    }
}
