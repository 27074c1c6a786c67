//! The order in which apps stop when gateway ends: waves, and how long they may take together.
//!
//! Shape: the first wave has what nothing else needs (`after`), the next what only those needed, and so on. All of a wave stop at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::App;
use crate::vocab::AppName;

/// The waves, first to stop first. `after`: what each app needs.
#[must_use]
pub fn waves(mut after: BTreeMap<AppName, Vec<AppName>>) -> Vec<BTreeSet<AppName>> {
    let mut waves = Vec::new();
    while !after.is_empty() {
        let needed: BTreeSet<&AppName> = after.values().flatten().collect();
        let mut wave: BTreeSet<AppName> = after.keys().filter(|app| !needed.contains(app)).cloned().collect();
        if wave.is_empty() {
            // A ring, which is refused at load.
            wave = after.keys().cloned().collect();
        }
        after.retain(|app, _| !wave.contains(app));
        waves.push(wave);
    }
    waves
}

/// From the order to stop until everything has stopped by itself or was killed: the edge drains, then wave after wave has its longest `stop.timeout`.
/// Jobs stop beside both.
#[must_use]
pub fn stop_within(apps: &BTreeMap<AppName, App>, drain: Duration) -> Duration {
    let longest = |names: &BTreeSet<AppName>| names.iter().filter_map(|name| Some(apps.get(name)?.stop.timeout)).max().unwrap_or_default();
    let (jobs, servers): (BTreeMap<_, _>, BTreeMap<_, _>) = apps.iter().partition(|(_, app)| app.schedule.is_some());
    let waves = waves(servers.into_iter().map(|(name, app)| (name.clone(), app.after.clone())).collect());
    let servers = waves.iter().map(longest).fold(drain, Duration::saturating_add);
    servers.max(longest(&jobs.into_keys().cloned().collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(n: usize) -> AppName {
        AppName::parse(&format!("app{n}")).expect("valid")
    }

    fn needs(list: &[(usize, &[usize])]) -> BTreeMap<AppName, Vec<AppName>> {
        list.iter().map(|(app, after)| (name(*app), after.iter().map(|n| name(*n)).collect())).collect()
    }

    fn set(list: &[usize]) -> BTreeSet<AppName> {
        list.iter().map(|n| name(*n)).collect()
    }

    #[test]
    fn what_is_needed_stops_after_those_that_need_it() {
        assert_eq!(waves(needs(&[])), []);
        assert_eq!(waves(needs(&[(0, &[]), (1, &[]), (2, &[])])), [set(&[0, 1, 2])]);
        assert_eq!(waves(needs(&[(0, &[]), (1, &[0]), (2, &[1]), (3, &[]), (4, &[0])])), [set(&[2, 3, 4]), set(&[1]), set(&[0])]);
        assert_eq!(waves(needs(&[(0, &[1]), (1, &[0])])), [set(&[0, 1])], "even a ring comes to an end");
    }

    proptest! {
        #[test]
        fn every_app_stops_once_and_never_before_what_needs_it(edges in prop::collection::vec((0usize..12, 0usize..12), 0..40)) {
            let mut after: BTreeMap<AppName, Vec<AppName>> = (0..12).map(|n| (name(n), Vec::new())).collect();
            // An app needs only earlier ones: no rings.
            for (a, b) in edges.iter().filter(|(a, b)| a != b) {
                after.entry(name(*a.max(b))).or_default().push(name(*a.min(b)));
            }
            let waves = waves(after.clone());
            let place = |app: &AppName| waves.iter().position(|wave| wave.contains(app)).expect("in a wave");
            prop_assert_eq!(waves.iter().map(BTreeSet::len).sum::<usize>(), 12);
            for (app, needed) in after.iter().flat_map(|(app, list)| list.iter().map(move |needed| (app, needed))) {
                prop_assert!(place(app) < place(needed));
            }
        }
    }
}
