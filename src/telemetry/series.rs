//! The series that are written, by their labels: whoever holds a handle keeps its series alive.
//!
//! Shape: a handle is shared by all who ask for the same labels. A [`Series::draft`] knows the handles that are there and makes new ones aside; they are seen by
//!        nobody until [`Series::publish`], so a configuration that is refused leaves no trace.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
};

use super::handle::{FilterMetrics, HoldMetrics, ListenerMetrics, Retired, ServerMetrics, SiteMetrics, UpstreamMetrics, ZoneMetrics};
use crate::vocab::{AppName, UpstreamName, ZoneName, lock::lock};

#[derive(Default)]
pub struct Series {
    pub(super) retired: Arc<Retired>,
    pub(super) handles: Mutex<Handles>,
}

#[derive(Clone, Default)]
pub(super) struct Handles {
    pub(super) sites: BTreeMap<String, Weak<SiteMetrics>>,
    pub(super) zones: BTreeMap<ZoneName, Weak<ZoneMetrics>>,
    pub(super) filters: BTreeMap<(&'static str, String), Weak<FilterMetrics>>,
    pub(super) families: BTreeMap<(&'static str, String), Weak<FilterMetrics>>,
    pub(super) upstreams: BTreeMap<UpstreamName, Weak<UpstreamMetrics>>,
    pub(super) servers: BTreeMap<(UpstreamName, String), Weak<ServerMetrics>>,
    pub(super) rooms: BTreeMap<AppName, Weak<HoldMetrics>>,
    pub(super) listeners: BTreeMap<SocketAddr, Weak<ListenerMetrics>>,
}

impl Series {
    /// The handles that are there; new ones are its own.
    #[must_use]
    pub fn draft(&self) -> Self {
        Self { retired: self.retired.clone(), handles: Mutex::new(lock(&self.handles).clone()) }
    }

    /// What is new in a draft is written from now on.
    pub fn publish(&self, draft: &Self) {
        let Handles { sites, zones, filters, families, upstreams, servers, rooms, listeners } = lock(&draft.handles).clone();
        let mut ours = lock(&self.handles);
        publish(&mut ours.sites, sites);
        publish(&mut ours.zones, zones);
        publish(&mut ours.filters, filters);
        publish(&mut ours.families, families);
        publish(&mut ours.upstreams, upstreams);
        publish(&mut ours.servers, servers);
        publish(&mut ours.rooms, rooms);
        publish(&mut ours.listeners, listeners);
    }

    /// `name` is `plan::Site::name`, or [`NO_SITE`](super::NO_SITE).
    pub fn site(&self, name: &str) -> Arc<SiteMetrics> {
        shared(&mut lock(&self.handles).sites, name.to_owned(), || SiteMetrics::new(self.retired.clone()))
    }

    pub fn zone(&self, name: &ZoneName) -> Arc<ZoneMetrics> {
        shared(&mut lock(&self.handles).zones, name.clone(), ZoneMetrics::default)
    }

    pub fn filter(&self, filter: &'static str, site: &str) -> Arc<FilterMetrics> {
        shared(&mut lock(&self.handles).filters, (filter, site.to_owned()), FilterMetrics::default)
    }

    /// One family of `bad-uri` on one site.
    pub fn family(&self, family: &'static str, site: &str) -> Arc<FilterMetrics> {
        shared(&mut lock(&self.handles).families, (family, site.to_owned()), FilterMetrics::default)
    }

    pub fn upstream(&self, name: &UpstreamName) -> Arc<UpstreamMetrics> {
        shared(&mut lock(&self.handles).upstreams, name.clone(), UpstreamMetrics::default)
    }

    /// `server` is the address as configured, or for an app `NAME.N`: never an allotted port, of which each start would make another series.
    pub fn server(&self, upstream: &UpstreamName, server: &str) -> Arc<ServerMetrics> {
        shared(&mut lock(&self.handles).servers, (upstream.clone(), server.to_owned()), ServerMetrics::default)
    }

    pub fn hold(&self, app: &AppName) -> Arc<HoldMetrics> {
        shared(&mut lock(&self.handles).rooms, app.clone(), HoldMetrics::default)
    }

    /// `asked` is the address as configured.
    pub fn listener(&self, asked: SocketAddr) -> Arc<ListenerMetrics> {
        shared(&mut lock(&self.handles).listeners, asked, ListenerMetrics::default)
    }
}

/// The handle that is there, or a new one.
fn shared<K: Ord, H>(map: &mut BTreeMap<K, Weak<H>>, key: K, make: impl FnOnce() -> H) -> Arc<H> {
    let slot = map.entry(key).or_default();
    slot.upgrade().unwrap_or_else(|| {
        let handle = Arc::new(make());
        *slot = Arc::downgrade(&handle);
        handle
    })
}

fn publish<K: Ord, H>(ours: &mut BTreeMap<K, Weak<H>>, drafted: BTreeMap<K, Weak<H>>) {
    for (key, handle) in drafted.into_iter().filter(|(_, handle)| handle.strong_count() > 0) {
        let slot = ours.entry(key).or_default();
        if slot.strong_count() == 0 {
            *slot = handle;
        }
    }
}
