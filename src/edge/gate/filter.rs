//! The filters of one route: what a hit does, and where it is counted.

use std::{cell::Cell, sync::Arc};

use http::HeaderMap;
use regex::bytes::RegexSet;

use crate::{
    plan::{self, Families, Family, FamilyModes, FilterMode, HeaderFields, Hit},
    rules::screen::{BodyKind, Screen, Watch, own_patterns},
    telemetry::{FilterMetrics, Series},
};

/// A filter with one mode.
#[derive(Debug)]
pub struct Filter {
    pub mode: FilterMode,
    metrics: Arc<FilterMetrics>,
}

impl Filter {
    pub fn new(name: &'static str, mode: FilterMode, site: &plan::Site, series: &Series) -> Self {
        Self { mode, metrics: series.filter(name, &site.name) }
    }

    /// Counts a hit; whether it refuses the request.
    pub fn hit(&self) -> bool {
        count(self.mode, &[&self.metrics])
    }
}

/// Whether a hit in this mode refuses the request; counted either way.
fn count(mode: FilterMode, metrics: &[&FilterMetrics]) -> bool {
    match mode {
        FilterMode::Off => false,
        FilterMode::Observe => {
            metrics.iter().for_each(|metrics| metrics.would_reject());
            false
        }
        FilterMode::Certain | FilterMode::Enforce => {
            metrics.iter().for_each(|metrics| metrics.rejected());
            true
        }
    }
}

/// `bad-uri`: the families of the screen, each with its mode.
#[derive(Debug)]
pub struct BadUri {
    screen: Arc<Screen>,
    modes: FamilyModes,
    /// Those that are not off.
    watched: Families,
    headers: HeaderFields,
    extensions: Vec<String>,
    own: Option<RegexSet>,
    metrics: Arc<FilterMetrics>,
    of_family: [Arc<FilterMetrics>; Family::ALL.len()],
}

impl BadUri {
    pub fn new(site: &plan::Site, route: &plan::Route, screen: &Arc<Screen>, series: &Series) -> Self {
        let plan::Filters { families, headers, patterns, body: _, bad_method: _, scanner_ua: _ } = &route.filters;
        let own = own_patterns(patterns).expect("the patterns are right because they were built at load");
        Self {
            screen: Arc::clone(screen),
            modes: *families,
            watched: families.watched(),
            headers: *headers,
            extensions: route.extensions.iter().map(|e| e.to_ascii_lowercase()).collect(),
            own: Some(own).filter(|own| !own.is_empty() && families.of(Family::Own) != FilterMode::Off),
            metrics: series.filter("bad-uri", &site.name),
            of_family: Family::ALL.map(|family| series.family(family.as_str(), &site.name)),
        }
    }

    /// Whether the target or a header field is refused.
    ///
    /// `seen` gets what recognised it, also where that only observes.
    pub fn refuses(&self, target: &[u8], headers: &HeaderMap, seen: &Cell<Option<Hit>>) -> bool {
        if self.watched.is_empty() {
            return false;
        }
        let in_target = |families: Families| {
            let own = self.own.as_ref().filter(|_| families.has(Family::Own));
            self.screen.judge_target(target, &Watch { families, extensions: &self.extensions, own })
        };
        self.refuses_what(in_target, seen)
            || self.headers != HeaderFields::None
                && headers.iter().any(|(name, value)| {
                    self.refuses_what(|families| self.screen.judge_header(name, value.as_bytes(), families, self.headers), seen)
                })
    }

    /// Whether the beginning of a body is refused.
    pub fn refuses_body(&self, kind: &BodyKind, body: &[u8], seen: &Cell<Option<Hit>>) -> bool {
        self.refuses_what(|families| self.screen.judge_content(kind, body, families), seen)
    }

    /// A hit that only counts hides none that refuses: the others are asked for again. A family is counted once.
    fn refuses_what(&self, judge: impl Fn(Families) -> Option<Hit>, seen: &Cell<Option<Hit>>) -> bool {
        let mut watched = self.watched;
        let mut counted = Families::NONE;
        while let Some(hit) = judge(watched) {
            seen.set(Some(hit));
            let mode = self.modes.on(hit);
            let metrics: [&FilterMetrics; 2] = [&self.metrics, &self.of_family[hit.family as usize]];
            if mode == FilterMode::Enforce || !counted.has(hit.family) {
                counted = counted.with(hit.family);
                if count(mode, &metrics) {
                    return true;
                }
            }
            watched = watched.without(hit);
        }
        false
    }
}
