//! All that is measured: where every room gets its handles.
//!
//! Shape: a handle is shared by all who ask for the same labels; it and its series live as long as one of them holds it.

use std::{
    collections::BTreeMap,
    ops::Deref,
    path::Path,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus::process_collector::ProcessCollector;

use super::{
    handle::{AcmeMetrics, BanMetrics, BufferMetrics, FieldMetrics, SiteMetrics, TlsMetrics},
    node::{Node, NodeSample},
    series::Series,
};
use crate::{ipc::message::AppTable, vocab::lock::lock};

/// All that is measured. One a process; every room gets its handles from here.
pub struct Metrics {
    pub(super) series: Series,
    pub(super) tls: Arc<TlsMetrics>,
    pub(super) acme: Arc<AcmeMetrics>,
    pub(super) bans: Arc<BanMetrics>,
    pub(super) buffers: Arc<BufferMetrics>,
    pub(super) fields: Arc<FieldMetrics>,
    pub(super) facts: Mutex<Facts>,
    /// An atomic of its own: the access log adds to it from its threads.
    pub(super) access_dropped: Arc<AtomicU64>,
    pub(super) node: Node,
    pub(super) process: ProcessCollector,
}

/// What others count and tell us whole.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) apps: AppTable,
    pub(super) certificates: BTreeMap<String, i64>,
    /// Likewise; whether something is wrong with it.
    pub(super) spoilt: BTreeMap<String, bool>,
    pub(super) looked_after: BTreeMap<String, LookedAfter>,
    pub(super) generation: u64,
    pub(super) reloads_done: u64,
    pub(super) reloads_refused: u64,
    pub(super) access_lost: u64,
}

/// A name whose certificate is ordered from a CA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LookedAfter {
    /// In Unix seconds; `None`: there is none yet.
    pub not_after: Option<i64>,
    pub at_risk: bool,
}

/// Sums over all sites since this edge started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    pub requests: u64,
    /// 4xx
    pub client_errors: u64,
    /// 5xx
    pub errors: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub in_flight: u64,
    pub connections: u64,
}

impl Totals {
    fn add(&mut self, site: &SiteMetrics) {
        let (all, client, server) = site.totals();
        self.requests += all;
        self.client_errors += client;
        self.errors += server;
        self.received_bytes += site.received.read();
        self.sent_bytes += site.sent.read();
        self.in_flight += site.in_flight.read();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The series that are written.
impl Deref for Metrics {
    type Target = Series;

    fn deref(&self) -> &Series {
        &self.series
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        Self {
            series: Series::default(),
            tls: Arc::default(),
            acme: Arc::default(),
            bans: Arc::default(),
            buffers: Arc::default(),
            fields: Arc::default(),
            facts: Mutex::default(),
            access_dropped: Arc::default(),
            node: Node::default(),
            process: ProcessCollector::for_self(),
        }
    }

    pub fn tls(&self) -> Arc<TlsMetrics> {
        self.tls.clone()
    }

    pub fn acme(&self) -> Arc<AcmeMetrics> {
        self.acme.clone()
    }

    pub fn buffers(&self) -> Arc<BufferMetrics> {
        self.buffers.clone()
    }

    pub fn fields(&self) -> Arc<FieldMetrics> {
        self.fields.clone()
    }

    /// Of the machine; 0: /proc does not say.
    pub fn memory(&self) -> u64 {
        self.node.sample().memory_total
    }

    pub fn bans(&self) -> Arc<BanMetrics> {
        self.bans.clone()
    }

    /// The master's table, whole: its counters outlive an edge.
    pub fn apps(&self, table: &AppTable) {
        lock(&self.facts).apps = table.clone();
    }

    /// Every served host with the end of its certificate in Unix seconds, whole.
    pub fn certificates(&self, ends: impl IntoIterator<Item = (String, i64)>) {
        lock(&self.facts).certificates = ends.into_iter().collect();
    }

    /// Every host with a certificate of its own, and whether something is wrong with that; whole.
    pub fn spoilt_certificates(&self, hosts: impl IntoIterator<Item = (String, bool)>) {
        lock(&self.facts).spoilt = hosts.into_iter().collect();
    }

    /// Every name whose certificate is ordered from a CA, whole.
    pub fn looked_after(&self, names: impl IntoIterator<Item = (String, LookedAfter)>) {
        lock(&self.facts).looked_after = names.into_iter().collect();
    }

    pub fn generation(&self, generation: u64) {
        lock(&self.facts).generation = generation;
    }

    /// What was counted before this edge started.
    pub fn reloads(&self, done: u64, refused: u64) {
        let mut facts = lock(&self.facts);
        (facts.reloads_done, facts.reloads_refused) = (done, refused);
    }

    pub fn reload_done(&self) {
        lock(&self.facts).reloads_done += 1;
    }

    pub fn reload_refused(&self) {
        lock(&self.facts).reloads_refused += 1;
    }

    /// Records that the master had and could not write; it counts them.
    pub fn access_lost(&self, lost: u64) {
        lock(&self.facts).access_lost = lost;
    }

    pub fn access_dropped(&self) -> Arc<AtomicU64> {
        self.access_dropped.clone()
    }

    /// Watches the free space of the file systems that hold these paths.
    pub fn watch_disks<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) {
        self.node.watch(paths);
    }

    #[must_use]
    pub fn node(&self) -> NodeSample {
        self.node.sample()
    }

    /// Of one site; all zero where nobody holds it.
    #[must_use]
    pub fn site_totals(&self, name: &str) -> Totals {
        let site = lock(&self.series.handles).sites.get(name).and_then(Weak::upgrade);
        let mut totals = Totals::default();
        if let Some(site) = site {
            totals.add(&site);
        }
        totals
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut handles = lock(&self.series.handles);
        let retired = &self.series.retired;
        let mut totals = Totals {
            requests: retired.requests.load(Relaxed),
            client_errors: retired.client_errors.load(Relaxed),
            errors: retired.errors.load(Relaxed),
            received_bytes: retired.received.load(Relaxed),
            sent_bytes: retired.sent.load(Relaxed),
            ..Totals::default()
        };
        for site in living(&mut handles.sites).values() {
            totals.add(site);
        }
        totals.connections = living(&mut handles.listeners).values().map(|listener| listener.open.read()).sum();
        totals
    }
}

/// What someone still holds; the rest is forgotten.
pub(super) fn living<K: Ord + Clone, H>(map: &mut BTreeMap<K, Weak<H>>) -> BTreeMap<K, Arc<H>> {
    map.retain(|_, handle| handle.strong_count() > 0);
    map.iter().filter_map(|(key, handle)| Some((key.clone(), handle.upgrade()?))).collect()
}
