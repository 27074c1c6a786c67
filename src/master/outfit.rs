//! What every process of an app is given to start with, whatever it is to run: environment, user, limits, mask.

use std::{collections::BTreeMap, ffi::OsString, os::fd::OwnedFd};

use super::child::{Identity, Launch, Limits};
use crate::plan::{App, AppPort};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process of this app, whatever it is to run: with its directory, user, limits and mask.
pub fn of(
    app: &App,
    argv: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    identity: Identity,
    nofile: Option<(u64, u64)>,
    (stdout, stderr): (OwnedFd, OwnedFd),
) -> Launch {
    Launch {
        argv,
        nice: app.nice,
        arg0: None,
        dir: app.dir.clone(),
        env,
        identity,
        umask: app.umask.unwrap_or(if app.port == AppPort::Socket { 0o007 } else { 0o022 }),
        limits: Limits::of(&app.limits, nofile),
        memory: None,
        stdout,
        stderr,
        descriptors: Vec::new(),
    }
}

/// Clean: of ours only where to find programs, the language and the time zone.
pub fn environment(identity: &Identity) -> BTreeMap<OsString, OsString> {
    let ours = |name: &str, otherwise: &str| std::env::var_os(name).filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.into());
    let mut env = BTreeMap::from([
        ("PATH".into(), ours("PATH", PATH)),
        ("LANG".into(), ours("LANG", "C.UTF-8")),
        ("HOME".into(), identity.home.clone().into_os_string()),
        ("USER".into(), identity.name.clone().into()),
        ("LOGNAME".into(), identity.name.clone().into()),
    ]);
    if let Some(zone) = std::env::var_os("TZ") {
        env.insert("TZ".into(), zone);
    }
    env
}
