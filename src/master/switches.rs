//! Which sites `gateway maintenance` has put under maintenance, or taken out of it.
//!
//! Shape: kept in STATE, so that neither an edge, nor an upgrade, nor a restart of the machine opens a site that somebody has closed. A switch holds while the
//!        configuration says what it said when it was turned; one that holds no longer is forgotten with the next.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use thiserror::Error;
use tokio::sync::watch;

use crate::{
    ipc::message::{Switch, Switches},
    plan::Plan,
    store::atomic::{self, PRIVATE, WriteError},
    vocab::{HostPattern, lock},
};

/// In STATE.
const FILE: &str = "maintenance.json";

/// Why a site was not switched.
#[derive(Debug, Error)]
pub enum SwitchError {
    #[error("there is no site {name:?}; there are {}", .sites.join(", "))]
    NoSite { name: String, sites: Vec<String> },
    #[error("could not remember that")]
    Write(#[source] WriteError),
    #[error("could not write that down")]
    Text(#[source] serde_json::Error),
}

/// The switches, and where they are kept. Cloneable: all clones are one.
#[derive(Clone)]
pub struct Switchboard {
    file: PathBuf,
    table: watch::Sender<Switches>,
    /// One switch after the other: what is written last is what holds.
    pen: Arc<Mutex<()>>,
}

impl Switchboard {
    /// As it was left. A file that cannot be read is said, and no reason not to start.
    #[must_use]
    pub fn open(state: &Path) -> Self {
        let file = state.join(FILE);
        let read = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Switches::default()),
            Err(error) => Err(error),
        };
        let table = read.unwrap_or_else(|error| {
            tracing::error!(file = %file.display(), %error, "maintenance is as the configuration says: its file cannot be read");
            Switches::default()
        });
        Self { file, table: watch::channel(table).0, pen: Arc::default() }
    }

    /// For whoever starts edges.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Switches> {
        self.table.subscribe()
    }

    /// Turns the switch of the site of this name, or of the one that serves this host. Its name, and what holds now.
    ///
    /// Errors: [`SwitchError`]; nothing has changed then.
    pub fn turn(&self, plan: &Plan, name: &str, on: bool) -> Result<(String, Switches), SwitchError> {
        let _pen = lock(&self.pen);
        // Whoever writes the host as people read it means the name that browsers send.
        let spelled = HostPattern::parse(name).map(|host| host.to_string());
        let name = spelled.as_deref().unwrap_or(name);
        let by_host = |site: &&crate::plan::Site| site.hosts.iter().any(|host| host.to_string() == name);
        let found = plan.sites.iter().find(|site| site.name == name).or_else(|| plan.sites.iter().find(by_host));
        let Some(site) = found else {
            return Err(SwitchError::NoSite { name: name.to_owned(), sites: plan.sites.iter().map(|site| site.name.clone()).collect() });
        };
        let mut next = self.table.borrow().clone();
        next.0.retain(|name, switch| plan.sites.iter().any(|site| site.name == *name && site.maintenance.on == switch.configured));
        next.0.insert(site.name.clone(), Switch { configured: site.maintenance.on, on });
        let text = serde_json::to_vec(&next).map_err(SwitchError::Text)?;
        atomic::write(&self.file, &text, PRIVATE).map_err(SwitchError::Write)?;
        self.table.send_replace(next.clone());
        Ok((site.name.clone(), next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Maintenance, SiteTls};

    fn plan(sites: &[(&str, bool)]) -> Plan {
        let mut plan = crate::master::tests::plan();
        let site = |(name, on): &(&str, bool)| crate::plan::Site {
            name: (*name).into(),
            hosts: vec![crate::vocab::HostPattern::parse(&format!("www.{name}")).expect("a host")],
            maintenance: Maintenance { on: *on, ..Maintenance::default() },
            ..crate::master::tests::site(SiteTls::Off)
        };
        plan.sites = sites.iter().map(site).collect();
        plan
    }

    #[test]
    fn a_switch_holds_until_the_configuration_says_something_else_and_over_a_restart() {
        let dir = tempfile::tempdir().expect("dir");
        let board = Switchboard::open(dir.path());
        let quiet = plan(&[("a.test", false), ("b.test", false)]);
        let (name, _) = board.turn(&quiet, "www.a.test", true).expect("turned");
        assert_eq!(name, "a.test");
        let on = |board: &Switchboard, plan: &Plan| plan.sites.iter().map(|site| board.seen().borrow().is_on(site)).collect::<Vec<_>>();
        assert_eq!(on(&board, &quiet), [true, false]);
        let board = Switchboard::open(dir.path());
        assert_eq!(on(&board, &quiet), [true, false], "it was kept");
        // Somebody has written `on = true`: that is what holds, and going back is not a switch.
        let loud = plan(&[("a.test", true), ("b.test", false)]);
        assert_eq!(on(&board, &loud), [true, false]);
        board.turn(&loud, "a.test", false).expect("turned");
        assert_eq!((on(&board, &loud), on(&board, &quiet)), (vec![false, false], vec![false, false]));
        let gone = board.turn(&loud, "c.test", true).expect_err("no such site").to_string();
        assert!(gone.contains("a.test, b.test"), "{gone}");
        let (name, _) = board.turn(&plan(&[("xn--bcher-kva.test", false)]), "B\u{fc}cher.test", true).expect("as people write it");
        assert_eq!(name, "xn--bcher-kva.test");
    }

    #[test]
    fn a_broken_file_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join(FILE), "{").expect("written");
        let board = Switchboard::open(dir.path());
        assert_eq!(*board.seen().borrow(), Switches::default());
        board.turn(&plan(&[("a.test", false)]), "a.test", true).expect("turned");
        fs::remove_dir_all(dir.path()).expect("removed");
        board.turn(&plan(&[("a.test", false)]), "a.test", false).expect_err("nowhere to write");
        assert!(board.seen().borrow().is_on(&plan(&[("a.test", false)]).sites[0]), "nothing has changed");
    }
}
