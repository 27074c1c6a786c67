//! What a good configuration asks of this machine and would not get: users, directories, programs, ports. Warnings, each with its place and its cure.
//!
//! Shape: looks and changes nothing, but for a bind of each port that is let go at once. What cannot be known is not said: whoever checks as an ordinary user what root
//!        will start, or on another machine, is told only of what is true there too.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use nix::unistd::Uid;

use crate::{
    config::{
        complaint::{Code, Complaint, Complaints},
        index::Index,
    },
    master::{
        as_user::{Obstacle, Want, Why, ground, look_as, obstacle},
        child::{Identity, SpawnError},
        places,
        releases::{Ledger, Moment},
        sockets::{self, BindError},
    },
    plan::{AppPort, Plan},
    store::releases::Releases,
};

mod app;
mod certificate;
mod program;
mod unit;

pub use unit::Units;

/// What is known of the gateway that runs with this `run`, so that its own ports are not held against it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Running {
    /// There is none.
    Nothing,
    /// It has these ports, its apps included.
    Ports(BTreeSet<u16>),
    /// It does not tell us.
    Unknown,
}

/// Looks at everything and complains to `out`.
pub fn survey(plan: &Plan, index: &Index, running: &Running, units: &Units, out: &mut Complaints) {
    let mut plan = plan.clone();
    // What was deployed is started, not what `dir` says.
    let _ = Ledger::new(Releases::of(&plan.state)).overlay(&mut plan.apps, Moment::Start);
    let root = Uid::effective().is_root();
    let edge = root.then(|| Identity::of(Some(&plan.user), None).ok().map(Identity::alone)).flatten();
    let for_root = is_for_root(&plan, index, units);
    let mut survey = Survey { plan: &plan, index, running, units, out, root, for_root, edge };
    survey.edge_user();
    survey.directories();
    survey.reach();
    survey.unit();
    survey.listeners();
    survey.certificates();
    for (name, app) in &plan.apps {
        survey.app(name, app);
    }
}

/// Whether it is evidently root who will start it, so that what an ordinary user may not is no fault.
fn is_for_root(plan: &Plan, index: &Index, units: &Units) -> bool {
    let us = Uid::effective();
    let other = |user: &String| !nix::unistd::User::from_name(user).is_ok_and(|found| found.is_some_and(|found| found.uid == us));
    index.place(&["user"]).is_some()
        || plan.apps.values().any(|app| app.user.as_ref().is_some_and(other))
        || plan.files.first().is_some_and(|file| file.starts_with("/etc"))
        || !units.is_empty()
}

struct Survey<'a> {
    plan: &'a Plan,
    index: &'a Index,
    running: &'a Running,
    units: &'a Units,
    out: &'a mut Complaints,
    root: bool,
    for_root: bool,
    /// Who the edge becomes, where it becomes somebody.
    edge: Option<Identity>,
}

impl Survey<'_> {
    /// At the first of these keys that is written.
    fn warn(&mut self, code: Code, keys: &[&[&str]], message: String, cure: impl Into<String>) {
        let place = keys.iter().find_map(|keys| self.index.place(keys));
        let known = |one: &&Complaint| one.message == message;
        if place.is_none() && self.out.sorted().iter().any(known) {
            return;
        }
        self.out.push(Complaint { code, place, message, cure: Some(cure.into()) });
    }

    fn edge_user(&mut self) {
        let user = &self.plan.user;
        if (self.root || self.index.place(&["user"]).is_some()) && matches!(Identity::of(Some(user), None), Err(SpawnError::NoUser { .. }))
        {
            let message = format!("the edge would run as user {user:?}, who does not exist");
            self.warn(Code::UnknownUser, &[&["user"]], message, format!("create it: useradd --system --no-create-home {user}"));
        }
    }

    /// What we write ourselves.
    fn directories(&mut self) {
        let plan = self.plan;
        let log = plan.log.dir.as_deref();
        for (key, keys, path) in
            [("state", &["state"][..], Some(&*plan.state)), ("run", &["run"], Some(&*plan.run)), ("log.dir", &["log", "dir"], log)]
        {
            let Some(path) = path else { continue };
            let message = match ground(path) {
                Err(file) => format!("`{key}` would be {}, but {} is no directory", path.display(), file.display()),
                Ok(dir) => match obstacle(&dir, Want::Write) {
                    None => continue,
                    Some(Obstacle { why: Why::Closed, .. }) if !self.root && self.for_root => continue,
                    Some(Obstacle { at, why: Why::Closed }) => {
                        format!("`{key}` is {}, and this user may not write in {}", path.display(), at.display())
                    }
                    Some(Obstacle { at, why: Why::ReadOnly }) => {
                        let message = format!("`{key}` is {}, and {} is read-only", path.display(), at.display());
                        self.warn(Code::ReadOnly, &[keys], message, "choose a directory that can be written, or mount it so");
                        continue;
                    }
                },
            };
            let cure = format!("set `{key}` to a directory that the one who starts gateway may write, or start it as root");
            self.warn(Code::Unreachable, &[keys], message, cure);
        }
    }

    /// What the edge must get at, which is another user than we.
    fn reach(&mut self) {
        let Some(edge) = self.edge.clone() else { return };
        let plan = self.plan;
        if let Some(error) = places::closed(&plan.state, &edge, &plan.user) {
            let cure = error.advice().unwrap_or_default();
            self.warn(Code::Unreachable, &[&["state"], &["user"]], error.to_string().trim_start_matches("run the edge: ").to_owned(), cure);
        }
        if plan.apps.values().any(|app| app.port == AppPort::Socket)
            && let Some(at) = closed_run(&plan.run, &edge)
        {
            let message = format!(
                "the edge would run as user {:?}, who may not enter {}: it could not reach the apps' sockets",
                plan.user,
                at.display()
            );
            self.warn(
                Code::Unreachable,
                &[&["run"]],
                message,
                format!("chmod o+x {}, or set `run` to a directory elsewhere, as /run/gateway", at.display()),
            );
        }
    }

    /// What the unit that starts us makes read-only.
    fn unit(&mut self) {
        let plan = self.plan;
        let written = [
            ("state", &["state"][..], Some(&plan.state)),
            ("run", &["run"], Some(&plan.run)),
            ("log.dir", &["log", "dir"], plan.log.dir.as_ref()),
        ];
        for (key, keys, path) in written {
            let Some((path, found)) = path.and_then(|path| Some((path, self.units.read_only(path)?))) else { continue };
            let message = format!("`{key}` is {}, which is read-only under {} ({})", path.display(), found.unit, found.setting);
            let own = match key {
                "state" => "StateDirectory",
                "run" => "RuntimeDirectory",
                _ => "LogsDirectory",
            };
            let cure = format!("name it in ReadWritePaths= of the unit, or take the directory that the unit makes ({own}=)");
            self.warn(Code::ReadOnly, &[keys], message, cure);
        }
    }

    fn listeners(&mut self) {
        let plan = self.plan;
        for (table, list) in [("http", &plan.listen.http), ("https", &plan.listen.https)] {
            for (n, addr) in list.iter().enumerate() {
                let n = n.to_string();
                self.port(*addr, &[&["listen", table, &n], &["listen", table]]);
            }
        }
        if let Some(admin) = &plan.admin {
            self.port(admin.listen, &[&["admin", "listen"]]);
        }
    }

    fn port(&mut self, addr: SocketAddr, keys: &[&[&str]]) {
        if addr.port() == 0 {
            return;
        }
        let error = match (sockets::probe(addr), self.running) {
            // Whether root may is not for us to say; whose it is, neither.
            (Ok(()) | Err(BindError::Denied { .. }), _) | (Err(BindError::Taken { .. }), Running::Unknown) => return,
            (Err(BindError::Taken { .. }), Running::Ports(ours)) if ours.contains(&addr.port()) => return,
            (Err(error), _) => error,
        };
        let cure = error.advice().unwrap_or("choose another address in [listen] or [admin]");
        self.warn(Code::PortTaken, keys, format!("could not {error}"), cure);
    }

    /// A fixed range of an app.
    fn app_ports(&mut self, name: &str, ports: std::ops::RangeInclusive<u16>) {
        let ours = |port: u16| matches!(self.running, Running::Ports(ours) if ours.contains(&port));
        if *self.running == Running::Unknown {
            return;
        }
        let taken = |port: &u16| matches!(sockets::probe((Ipv4Addr::LOCALHOST, *port).into()), Err(BindError::Taken { .. }));
        if let Some(port) = ports.filter(|port| !ours(*port)).find(taken) {
            let message = format!("app {name} would listen on port {port}, which another program has");
            let cure = format!("find who has it with: ss -ltnp 'sport = :{port}'; or set another `port`");
            self.warn(Code::PortTaken, &[&["app", name, "port"], &["app", name]], message, cure);
        }
    }
}

/// What keeps somebody out of RUN, which is made open where it is not there yet.
fn closed_run(run: &Path, who: &Identity) -> Option<std::path::PathBuf> {
    let dir = ground(run).ok()?;
    look_as(who, || obstacle(&dir, Want::Enter)).flatten().filter(|found| found.why == Why::Closed).map(|found| found.at)
}
