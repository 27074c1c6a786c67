//! What a change of the plan means for what runs: what cannot change at all, and which processes may stay.
//!
//! Pure. `master::reload` refuses what is fixed; everything else is swapped whole, or compared by the one who owns it (sockets, pools, certificates).

use std::fmt;

use thiserror::Error;

use super::{App, Plan};

/// A reload would change what is fixed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("reload: {keys} cannot change while gateway runs")]
pub struct NeedsRestart {
    pub keys: Keys,
}

impl NeedsRestart {
    #[must_use]
    pub fn advice(&self) -> &'static str {
        "restart gateway for it, or put the old value back"
    }
}

/// Keys, as in `state, workers`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keys(pub Vec<&'static str>);

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Whether what runs by `old` may go on by `new`.
///
/// Errors: [`NeedsRestart`] names every key that is fixed for the life of the master and differs.
pub fn reloadable(old: &Plan, new: &Plan) -> Result<(), NeedsRestart> {
    let Plan {
        state,
        run,
        user,
        workers,
        // Taken over by a reload.
        files: _,
        trusted_proxies: _,
        listen: _,
        timeouts: _,
        limits: _,
        tls: _,
        admin: _,
        log: _,
        apps: _,
        upstreams: _,
        zones: _,
        users: _,
        ban: _,
        sites: _,
    } = new;
    let fixed =
        [("state", old.state != *state), ("run", old.run != *run), ("user", old.user != *user), ("workers", old.workers != *workers)];
    let keys: Vec<_> = fixed.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
    if keys.is_empty() { Ok(()) } else { Err(NeedsRestart { keys: Keys(keys) }) }
}

/// Whether a running process of the old app may serve the new one; what differs besides is applied to it.
#[must_use]
pub fn same_process(old: &App, new: &App) -> bool {
    let App {
        command,
        dir,
        user,
        group,
        env,
        env_file,
        nice,
        port,
        // Decides what a process is given to prove itself with, as NOTIFY_SOCKET.
        ready,
        limits,
        umask,
        // Decides what a process is given to prove that it lives.
        watchdog,
        // The cgroup of a process is made with it.
        memory_max,
        // Applied to what runs.
        recycle: _,
        hold: _,
        after: _,
        schedule: _,
        before: _,
        before_start: _,
        autostart: _,
        http: _,
        deploy: _,
        release: _,
        procs: _,
        live: _,
        restart: _,
        stop: _,
        log: _,
        timeouts: _,
    } = new;
    old.command == *command
        && old.dir == *dir
        && old.user == *user
        && old.group == *group
        && old.env == *env
        && old.env_file == *env_file
        && old.nice == *nice
        && old.port == *port
        && old.ready == *ready
        && old.limits == *limits
        && old.umask == *umask
        && old.watchdog.is_some() == watchdog.is_some()
        && old.memory_max == *memory_max
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroUsize};

    use super::*;
    use crate::{
        plan::{Rotation, testing},
        vocab::Secret,
    };

    #[test]
    fn more_processes_leave_those_that_run_and_a_new_command_does_not() {
        let app = testing::app();
        let two = NonZeroU16::new(2).expect("not zero");
        assert!(same_process(&app, &App { procs: two, ..app.clone() }));
        assert!(same_process(&app, &App { log: Rotation { keep: 9, ..testing::rotation() }, ..app.clone() }));
        assert!(!same_process(&app, &App { command: vec!["other".into()], ..app.clone() }));
        assert!(!same_process(&app, &App { env: [("A".to_owned(), Secret::new("1".to_owned()))].into(), ..app.clone() }));
    }

    #[test]
    fn what_is_fixed_is_refused_by_its_key_and_all_else_goes() {
        let old = testing::plan();
        let other =
            Plan { sites: vec![testing::site("example.com")], trusted_proxies: vec!["10.0.0.0/8".parse().expect("a net")], ..old.clone() };
        assert_eq!(reloadable(&old, &other), Ok(()));
        let fixed = Plan { state: "/x".into(), workers: NonZeroUsize::MAX, ..old.clone() };
        let refused = reloadable(&old, &fixed).expect_err("fixed");
        assert_eq!(refused.to_string(), "reload: state, workers cannot change while gateway runs");
        assert_eq!(
            reloadable(&old, &Plan { run: "/x".into(), user: "x".into(), ..old.clone() }).expect_err("fixed").keys.0,
            ["run", "user"]
        );
    }
}
