//! The text that a scrape gets.
//!
//! Shape: a family each metric of the table, in the order of the rooms, then `process_*`; samples in the order of their labels.
//! Source: Prometheus text format 0.0.4, written by the prometheus crate.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use prometheus::{
    TextEncoder,
    core::Collector as _,
    proto::{self, MetricFamily, MetricType},
};

use super::{
    cell::{BOUNDS_US, SpreadReading},
    handle::{
        AcmeMetrics, BanMetrics, BufferMetrics, FieldMetrics, FilterMetrics, Handshake, HoldMetrics, ListenerMetrics, Ordered, Refusal,
        ServerMetrics, SiteMetrics, TlsMetrics, UpstreamMetrics, ZoneCounts, ZoneMetrics,
    },
    metric::{
        ACCESS_DROPPED, ACME_ORDERS, APP_CPU, APP_HELD, APP_HOLD, APP_LAST_SUCCESS, APP_MEMORY, APP_RESTARTS, APP_RUNS, APP_STATE, APP_UP,
        BAN_REQUESTS, BANS, BANS_ALL, BUFFERED, BUFFERS_REFUSED, BUILD, CERT_AT_RISK, CERT_NOT_AFTER, CERT_PROBLEM, CONNECTIONS,
        CONNECTIONS_ALL, EDGE_RESTARTS, FIELDS_DROPPED, FILTER_FAMILIES, FILTER_HITS, GENERATION, HTTP_DURATION, HTTP_IN_FLIGHT,
        HTTP_RECEIVED, HTTP_REQUESTS, HTTP_SENT, Kind, Metric, NODE_AVAILABLE, NODE_CPU, NODE_DISK, NODE_DISK_TOTAL, NODE_LOAD,
        NODE_MEMORY, REFUSED, RELOADS, TABLE, TLS_DURATION, TLS_HANDSHAKES, UPSTREAM_FLIGHT, UPSTREAM_PANIC, UPSTREAM_REQS,
        UPSTREAM_RETRIES, UPSTREAM_SUSPECT, UPSTREAM_TIME, UPSTREAM_UP, ZONE_KEYS, ZONE_REQUESTS, ZONE_WAITING,
    },
    node::NodeSample,
    registry::{Facts, Metrics, living},
};
use crate::{
    ipc::message::{AppTable, Duty, Instance, InstanceState},
    rules::restart::Reason,
    vocab::{AppName, UpstreamName, ZoneName, lock::lock},
};

impl Metrics {
    /// Appends the text of a scrape.
    pub fn render(&self, out: &mut String) {
        let mut page = Page(Vec::with_capacity(TABLE.len()));
        {
            let mut handles = lock(&self.series.handles);
            sites(&living(&mut handles.sites), &mut page);
            listeners(&living(&mut handles.listeners), &mut page);
            tls(&self.tls, &mut page);
            zones(&living(&mut handles.zones), &mut page);
            filters(FILTER_HITS, &living(&mut handles.filters), &mut page);
            filters(FILTER_FAMILIES, &living(&mut handles.families), &mut page);
            buffers(&self.buffers, &mut page);
            fields(&self.fields, &mut page);
            bans(&self.bans, &mut page);
            rooms(&living(&mut handles.rooms), &mut page);
            upstreams(&living(&mut handles.upstreams), &living(&mut handles.servers), &mut page);
        }
        let access_lost = {
            let known = lock(&self.facts);
            facts(&known, &mut page);
            known.access_lost
        };
        acme(&self.acme, &mut page);
        page.family(ACCESS_DROPPED, |f| f.count(&[], self.access_dropped.load(Relaxed).saturating_add(access_lost)));
        page.family(BUILD, |f| f.level(&[env!("CARGO_PKG_VERSION")], 1.0));
        node(&self.node.sample(), &mut page);
        let mut families = page.0;
        families.extend(self.process.collect());
        families.retain(|family| !family.get_metric().is_empty());
        let before = out.len();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, out) {
            out.truncate(before);
            tracing::error!(%error, "could not write metrics");
        }
    }
}

fn sites(sites: &BTreeMap<String, Arc<SiteMetrics>>, page: &mut Page) {
    page.family(HTTP_REQUESTS, |f| {
        for (site, metrics) in sites {
            for (code, n) in with_usual(metrics.codes.read(), &OF_A_SITE) {
                f.count(&[site, &code_text(code)], n);
            }
        }
    });
    page.family(HTTP_DURATION, |f| sites.iter().for_each(|(site, metrics)| f.spread(&[site], &metrics.took.read())));
    page.family(HTTP_RECEIVED, |f| sites.iter().for_each(|(site, metrics)| f.count(&[site], metrics.received.read())));
    page.family(HTTP_SENT, |f| sites.iter().for_each(|(site, metrics)| f.count(&[site], metrics.sent.read())));
    page.family(HTTP_IN_FLIGHT, |f| sites.iter().for_each(|(site, metrics)| f.level(&[site], float(metrics.in_flight.read()))));
}

fn listeners(listeners: &BTreeMap<SocketAddr, Arc<ListenerMetrics>>, page: &mut Page) {
    page.family(CONNECTIONS, |f| listeners.iter().for_each(|(at, metrics)| f.level(&[&at.to_string()], float(metrics.open.read()))));
    page.family(CONNECTIONS_ALL, |f| listeners.iter().for_each(|(at, metrics)| f.count(&[&at.to_string()], metrics.total.read())));
    page.family(REFUSED, |f| {
        for (at, metrics) in listeners {
            for why in Refusal::ALL {
                f.count(&[&at.to_string(), why.as_str()], metrics.refused[why as usize].read());
            }
        }
    });
}

fn tls(tls: &TlsMetrics, page: &mut Page) {
    page.family(TLS_HANDSHAKES, |f| {
        Handshake::ALL.iter().for_each(|result| f.count(&[result.as_str()], tls.results[*result as usize].read()))
    });
    page.family(TLS_DURATION, |f| f.spread(&[], &tls.took.read()));
}

fn acme(acme: &AcmeMetrics, page: &mut Page) {
    page.family(ACME_ORDERS, |f| Ordered::ALL.iter().for_each(|result| f.count(&[result.as_str()], acme.results[*result as usize].read())));
}

fn zones(zones: &BTreeMap<ZoneName, Arc<ZoneMetrics>>, page: &mut Page) {
    page.family(ZONE_REQUESTS, |f| {
        for (zone, metrics) in zones {
            let ZoneCounts { passed, delayed, rejected, would_reject } = metrics.read();
            for (result, count) in [("passed", passed), ("delayed", delayed), ("rejected", rejected), ("would_reject", would_reject)] {
                f.count(&[zone.as_str(), result], count);
            }
        }
    });
    page.family(ZONE_WAITING, |f| zones.iter().for_each(|(zone, metrics)| f.level(&[zone.as_str()], float(metrics.waiting.load(Relaxed)))));
    page.family(ZONE_KEYS, |f| zones.iter().for_each(|(zone, metrics)| f.level(&[zone.as_str()], float(metrics.keys.load(Relaxed)))));
}

fn filters(of: &'static Metric, filters: &BTreeMap<(&'static str, String), Arc<FilterMetrics>>, page: &mut Page) {
    page.family(of, |f| {
        for ((filter, site), metrics) in filters {
            f.count(&[filter, site, "rejected"], metrics.rejected.read());
            f.count(&[filter, site, "would_reject"], metrics.would_reject.read());
        }
    });
}

fn buffers(buffers: &BufferMetrics, page: &mut Page) {
    page.family(BUFFERED, |f| f.level(&[], float(buffers.held.load(Relaxed))));
    page.family(BUFFERS_REFUSED, |f| {
        f.count(&["full"], buffers.full.read());
        f.count(&["pace"], buffers.dripped.read());
        f.count(&["slow"], buffers.slow.read());
    });
}

fn fields(fields: &FieldMetrics, page: &mut Page) {
    page.family(FIELDS_DROPPED, |f| f.count(&[], fields.dropped.read()));
}

fn bans(bans: &BanMetrics, page: &mut Page) {
    page.family(BANS, |f| f.level(&[], float(bans.held.load(Relaxed))));
    page.family(BANS_ALL, |f| lock(&bans.made).iter().for_each(|(reason, n)| f.count(&[reason], *n)));
    page.family(BAN_REQUESTS, |f| {
        f.count(&["rejected"], bans.rejected.read());
        f.count(&["would_reject"], bans.would_reject.read());
    });
}

fn upstreams(
    upstreams: &BTreeMap<UpstreamName, Arc<UpstreamMetrics>>,
    servers: &BTreeMap<(UpstreamName, String), Arc<ServerMetrics>>,
    page: &mut Page,
) {
    page.family(UPSTREAM_UP, |f| {
        for ((upstream, server), metrics) in servers {
            f.level(&[upstream.as_str(), server], f64::from(u8::from(metrics.up.load(Relaxed))));
        }
    });
    page.family(UPSTREAM_REQS, |f| {
        for ((upstream, server), metrics) in servers {
            for (code, n) in with_usual(metrics.codes.read(), &OF_A_SERVER) {
                f.count(&[upstream.as_str(), server, &code_text(code)], n);
            }
        }
    });
    page.family(UPSTREAM_TIME, |f| upstreams.iter().for_each(|(upstream, metrics)| f.spread(&[upstream.as_str()], &metrics.took.read())));
    page.family(UPSTREAM_FLIGHT, |f| {
        for ((upstream, server), metrics) in servers {
            f.level(&[upstream.as_str(), server], float(metrics.in_flight.read()));
        }
    });
    page.family(UPSTREAM_RETRIES, |f| {
        upstreams.iter().for_each(|(upstream, metrics)| f.count(&[upstream.as_str()], metrics.retries.read()))
    });
    page.family(UPSTREAM_SUSPECT, |f| {
        for ((upstream, server), metrics) in servers {
            f.count(&[upstream.as_str(), server], metrics.suspected.read());
        }
    });
    page.family(UPSTREAM_PANIC, |f| {
        for (upstream, metrics) in upstreams {
            f.level(&[upstream.as_str()], f64::from(u8::from(metrics.panic.load(Relaxed))));
        }
    });
}

fn rooms(rooms: &BTreeMap<AppName, Arc<HoldMetrics>>, page: &mut Page) {
    page.family(APP_HELD, |f| rooms.iter().for_each(|(app, room)| f.level(&[app.as_str()], float(room.held.read()))));
    page.family(APP_HOLD, |f| rooms.iter().for_each(|(app, room)| f.spread(&[app.as_str()], &room.took.read())));
}

fn facts(facts: &Facts, page: &mut Page) {
    let Facts {
        apps: AppTable { instances, restarts, edge_restarts, jobs },
        certificates,
        spoilt,
        looked_after,
        generation,
        reloads_done,
        reloads_refused,
        access_lost: _,
    } = facts;
    // While an instance is replaced it has two processes: the series are of the one that serves, else of the newest.
    let mut shown = BTreeMap::new();
    for instance in instances {
        let serves = |of: &Instance| of.state == InstanceState::Ready && of.duty != Duty::StandsBy;
        let slot = shown.entry(&instance.id).or_insert(instance);
        if serves(instance) || !serves(slot) {
            *slot = instance;
        }
    }
    let labels: Vec<_> = shown.into_values().map(|instance| (instance, instance.id.n.to_string())).collect();
    page.family(APP_UP, |f| {
        // A job that waits for its time is not down.
        for (instance, n) in labels.iter().filter(|(instance, _)| !jobs.contains_key(&instance.id.app)) {
            f.level(&[instance.id.app.as_str(), n], f64::from(u8::from(instance.state == InstanceState::Ready)));
        }
    });
    page.family(APP_STATE, |f| {
        for (instance, n) in &labels {
            for state in InstanceState::ALL {
                f.level(&[instance.id.app.as_str(), n, state.as_str()], f64::from(u8::from(instance.state == state)));
            }
        }
    });
    page.family(APP_RESTARTS, |f| {
        // A job is begun and never restarted.
        for (app, reasons) in restarts.iter().filter(|(app, _)| !jobs.contains_key(*app)) {
            for reason in Reason::ALL.map(Reason::as_str) {
                f.count(&[app.as_str(), reason], reasons.get(reason).copied().unwrap_or(0));
            }
        }
    });
    page.family(APP_RUNS, |f| {
        for (app, record) in jobs {
            record.counts.named().iter().for_each(|(result, n)| f.count(&[app.as_str(), result], *n));
        }
    });
    page.family(APP_LAST_SUCCESS, |f| {
        for (app, record) in jobs {
            f.level(&[app.as_str()], record.succeeded_ms.unwrap_or(0) as f64 / 1000.0);
        }
    });
    page.family(APP_CPU, |f| {
        for (instance, n) in labels.iter().filter(|(instance, _)| instance.pid.is_some()) {
            f.count_float(&[instance.id.app.as_str(), n], float(instance.cpu_ms) / 1000.0);
        }
    });
    page.family(APP_MEMORY, |f| {
        for (instance, n) in labels.iter().filter(|(instance, _)| instance.pid.is_some()) {
            f.level(&[instance.id.app.as_str(), n], float(instance.memory_bytes));
        }
    });
    // One series a name: what is looked after has the last word.
    let mut ends = certificates.clone();
    ends.extend(looked_after.iter().filter_map(|(host, standing)| Some((host.clone(), standing.not_after?))));
    page.family(CERT_NOT_AFTER, |f| ends.iter().for_each(|(host, end)| f.level(&[host], *end as f64)));
    page.family(CERT_AT_RISK, |f| {
        looked_after.iter().for_each(|(host, standing)| f.level(&[host], f64::from(u8::from(standing.at_risk))));
    });
    page.family(CERT_PROBLEM, |f| spoilt.iter().for_each(|(host, spoilt)| f.level(&[host], f64::from(u8::from(*spoilt)))));
    page.family(RELOADS, |f| {
        f.count(&["done"], *reloads_done);
        f.count(&["refused"], *reloads_refused);
    });
    page.family(GENERATION, |f| f.level(&[], float(*generation)));
    page.family(EDGE_RESTARTS, |f| f.count(&[], *edge_restarts));
}

fn node(sample: &NodeSample, page: &mut Page) {
    let NodeSample { cpu_ratio, memory_total, memory_available, load1, disks } = sample;
    page.family(NODE_CPU, |f| f.level(&[], *cpu_ratio));
    page.family(NODE_MEMORY, |f| f.level(&[], float(*memory_total)));
    page.family(NODE_AVAILABLE, |f| f.level(&[], float(*memory_available)));
    page.family(NODE_DISK, |f| disks.iter().for_each(|disk| f.level(&[&disk.mount.to_string_lossy()], float(disk.free))));
    page.family(NODE_DISK_TOTAL, |f| disks.iter().for_each(|disk| f.level(&[&disk.mount.to_string_lossy()], float(disk.total))));
    page.family(NODE_LOAD, |f| f.level(&[], *load1));
}

/// Statuses that rules of alerts ask for: their counters stand from the start, for the first increase of one that is not there cannot be seen.
const OF_A_SITE: [u16; 10] = [200, 301, 400, 403, 404, 429, 500, 502, 503, 504];
const OF_A_SERVER: [u16; 5] = [200, 500, 502, 503, 504];

/// Ascending, `other` last; these statuses are there even where none was counted.
fn with_usual(counted: Vec<(Option<u16>, u64)>, usual: &[u16]) -> impl Iterator<Item = (Option<u16>, u64)> {
    let mut all: BTreeMap<u32, (Option<u16>, u64)> = usual.iter().map(|code| (u32::from(*code), (Some(*code), 0))).collect();
    all.extend(counted.into_iter().map(|(code, n)| (code.map_or(u32::MAX, u32::from), (code, n))));
    all.into_values()
}

fn code_text(code: Option<u16>) -> String {
    code.map_or_else(|| "other".to_owned(), |code| code.to_string())
}

/// Exact to 2^53, which is as far as the text format goes.
fn float(n: u64) -> f64 {
    n as f64
}

struct Page(Vec<MetricFamily>);

impl Page {
    fn family(&mut self, metric: &'static Metric, fill: impl FnOnce(&mut Family)) {
        let mut family = Family { metric, samples: Vec::new() };
        fill(&mut family);
        let mut out = MetricFamily::default();
        out.set_name(metric.name.to_owned());
        out.set_help(metric.help.to_owned());
        out.set_field_type(match metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        out.set_metric(family.samples);
        self.0.push(out);
    }
}

struct Family {
    metric: &'static Metric,
    samples: Vec<proto::Metric>,
}

impl Family {
    fn count(&mut self, labels: &[&str], n: u64) {
        self.count_float(labels, float(n));
    }

    fn count_float(&mut self, labels: &[&str], n: f64) {
        let mut counter = proto::Counter::default();
        counter.set_value(n);
        self.push(labels, |sample| sample.set_counter(counter));
    }

    fn level(&mut self, labels: &[&str], n: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(n);
        self.push(labels, |sample| sample.set_gauge(gauge));
    }

    fn spread(&mut self, labels: &[&str], reading: &SpreadReading) {
        let mut cumulative = 0;
        let buckets = reading.buckets.iter().zip(BOUNDS_US).map(|(n, bound_us)| {
            cumulative += n;
            let mut bucket = proto::Bucket::default();
            bucket.set_cumulative_count(cumulative);
            bucket.set_upper_bound(float(bound_us) / 1e6);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(reading.count());
        histogram.set_sample_sum(reading.sum.as_secs_f64());
        self.push(labels, |sample| sample.set_histogram(histogram));
    }

    fn push(&mut self, values: &[&str], set: impl FnOnce(&mut proto::Metric)) {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        let pairs = self.metric.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut sample = proto::Metric::from_label(pairs.collect());
        set(&mut sample);
        self.samples.push(sample);
    }
}

#[cfg(test)]
mod tests;
