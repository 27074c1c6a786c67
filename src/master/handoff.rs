//! The hand-over: this process becomes another binary, with the same PID, so that its children stay its children.
//!
//! Shape: prove (the binary on disk reads the very state and says that it can go on with it) → freeze → show → exec → take over.
//!        Everything before the exec can be undone, and is when anything fails. After it there is no way back: a binary that cannot go on after all
//!        ends, the guard ends every app, and whoever started us starts the whole again.
//!        The state is JSON in a sealed memfd; descriptors are inherited by number. [`FORMAT`] changes when an older build would misread it.
//!        Shapes of the plan change more often than that: a build that reads the plan otherwise takes the file, if the file is what is in force.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    net::SocketAddr,
    num::NonZeroUsize,
    os::{
        fd::{OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{Pid, execve},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    bag::{Bag, claim},
    clock, edge_link,
    obstacle::{TakeOverError, UpgradeError},
    output,
    sockets::{Open, Sockets},
    supervisor::{self, carried::Specs},
    tickets,
};
use crate::{ipc::message::Role, plan::Plan, vocab::AppName};

/// Of the state. One more than the last whenever what was written before would be misread.
pub const FORMAT: u32 = 1;
/// What a good binary says when it is asked whether it can go on.
pub const PROVEN: &str = "gateway can go on";
/// Where the self-check finds the state.
pub const PROOF: RawFd = 3;
/// `PID:FD` of the state, for the process of that pid alone.
pub const VARIABLE: &str = "GATEWAY_HANDOFF";
/// A state is a few KB an app; this is one that has gone mad.
const LARGEST: u64 = 512 * 1024 * 1024;

/// A listener and its sockets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listening {
    role: Role,
    asked: SocketAddr,
    bound: SocketAddr,
    sockets: Vec<RawFd>,
}

/// What cannot change while we run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    state: PathBuf,
    run: PathBuf,
    user: String,
    workers: NonZeroUsize,
}

impl Fixed {
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self { state: plan.state.clone(), run: plan.run.clone(), user: plan.user.clone(), workers: plan.workers }
    }
}

/// Everything that crosses over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub format: u32,
    /// Of the binary that wrote it.
    pub version: String,
    /// The [`Plan`] in force, as its build understands it.
    pub plan: Value,
    /// The file says the same.
    pub file_in_force: bool,
    /// `dir` of each app without its release.
    pub configured: BTreeMap<AppName, Option<PathBuf>>,
    pub fixed: Fixed,
    pub generation: u64,
    pub reloads: (u64, u64),
    pub clock: clock::Carried,
    /// As it was before the first master lowered it.
    pub oom_score: Option<String>,
    pub guard: (i32, RawFd),
    pub lock: RawFd,
    pub control: RawFd,
    /// The conversation of whoever asked for the upgrade.
    pub client: Option<RawFd>,
    pub listeners: Vec<Listening>,
    pub tickets: tickets::Carried,
    pub output: output::carried::Carried,
    pub edges: edge_link::Carried,
    pub apps: supervisor::carried::Carried,
}

/// Read before the rest: a format that we do not know has another rest.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl State {
    /// Errors: it is of another format, or not a state at all.
    pub fn read(memory: OwnedFd) -> Result<Self, TakeOverError> {
        let mut file = File::from(memory);
        let mut text = Vec::new();
        // Whoever held it before us may have read it: the place in a file is shared.
        file.seek(SeekFrom::Start(0)).map_err(TakeOverError::Missing)?;
        file.take(LARGEST).read_to_end(&mut text).map_err(TakeOverError::Missing)?;
        let Head { format } = serde_json::from_slice(&text).map_err(TakeOverError::Misread)?;
        if format != FORMAT {
            return Err(TakeOverError::Format { theirs: format, ours: FORMAT });
        }
        serde_json::from_slice(&text).map_err(TakeOverError::Misread)
    }

    /// In memory that nobody can change any more.
    ///
    /// Errors: there is not enough of it.
    pub fn write(&self) -> Result<OwnedFd, UpgradeError> {
        let text = serde_json::to_vec(self).map_err(UpgradeError::Write)?;
        let sealed = || -> io::Result<OwnedFd> {
            let mut file = File::from(memfd_create(c"gateway-state", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
            file.write_all(&text)?;
            let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
            fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
            Ok(file.into())
        };
        sealed().map_err(UpgradeError::Memory)
    }

    /// The plan to go on with: the one in force, or where this build reads plans otherwise the file, which says the same. With it, where apps' blocks come from.
    ///
    /// Errors: neither will do. `load` reads the file.
    pub fn plan<E>(&self, load: impl FnOnce() -> Result<Plan, E>) -> Result<Result<(Plan, Source), TakeOverError>, E> {
        if let Ok(plan) = serde_json::from_value(self.plan.clone()) {
            return Ok(Ok((plan, Source::Carried)));
        }
        if !self.file_in_force {
            return Ok(Err(TakeOverError::Edited));
        }
        let plan = load()?;
        Ok(self.fits(&plan).map(|()| (plan, Source::File)))
    }

    /// Whether what is open and fixed is what `plan` asks for.
    fn fits(&self, plan: &Plan) -> Result<(), TakeOverError> {
        let Fixed { state, run, user, workers } = Fixed::of(plan);
        let same = [
            ("state", state == self.fixed.state),
            ("run", run == self.fixed.run),
            ("user", user == self.fixed.user),
            ("workers", workers == self.fixed.workers),
        ];
        if let Some((key, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(TakeOverError::Fixed { key });
        }
        let listen = &plan.listen;
        let wanted = (listen.http.iter().map(|addr| (Role::Http, *addr)))
            .chain(listen.https.iter().map(|addr| (Role::Https, *addr)))
            .chain(plan.admin.iter().map(|admin| (Role::Admin, admin.listen)));
        let mut wanted: Vec<_> = wanted.collect();
        let mut open: Vec<_> = self.listeners.iter().map(|listening| (listening.role, listening.asked)).collect();
        wanted.sort();
        open.sort();
        if wanted == open { Ok(()) } else { Err(TakeOverError::Listeners) }
    }

    /// Whether every part can be gone on with, short of taking descriptors.
    pub fn prove(&self, plan: &Plan, source: Source) -> Result<(), TakeOverError> {
        self.apps.lives(source.specs(plan)).map(drop)
    }

    /// The listening sockets that came along.
    pub fn sockets(&self) -> Result<Sockets, TakeOverError> {
        let open = self.listeners.iter().map(|Listening { role, asked, bound, sockets }| {
            let sockets: io::Result<Vec<_>> = sockets.iter().map(|number| claim(*number).map(Into::into)).collect();
            Ok(Open { role: *role, asked: *asked, bound: *bound, sockets: sockets.map_err(TakeOverError::Descriptor)? })
        });
        Ok(Sockets { open: open.collect::<Result<_, _>>()? })
    }

    /// Children that somebody in here speaks for.
    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        self.apps.pids().chain(self.edges.pids()).collect()
    }
}

/// Where the plan came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    Carried,
    File,
}

impl Source {
    #[must_use]
    pub fn specs(self, plan: &Plan) -> Specs<'_> {
        match self {
            Self::Carried => Specs::Carried,
            Self::File => Specs::File(&plan.apps),
        }
    }
}

/// Errors: no descriptor is left for a copy.
pub fn listening(sockets: &Sockets, bag: &mut Bag) -> io::Result<Vec<Listening>> {
    let mut out = Vec::new();
    for Open { role, asked, bound, sockets } in &sockets.open {
        let sockets = sockets.iter().map(|socket| bag.put(&**socket)).collect::<io::Result<_>>()?;
        out.push(Listening { role: *role, asked: *asked, bound: *bound, sockets });
    }
    Ok(out)
}

/// The state that this process was given by the one it was, if it was.
///
/// Errors: it was, and the state cannot be read.
pub fn inherited() -> Result<Option<State>, TakeOverError> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
    let words = text.split_once(':').and_then(|(pid, fd)| Some((pid.parse::<u32>().ok()?, fd.parse::<RawFd>().ok()?)));
    match words {
        // Left over in the environment of somebody whom we started.
        Some((pid, _)) if pid != std::process::id() => Ok(None),
        Some((_, fd)) => State::read(claim(fd).map_err(TakeOverError::Missing)?).map(Some),
        None => Ok(None),
    }
}

/// The file that an upgrade runs: where this binary was started from, whatever lies there now.
///
/// Shape: to be asked at the start, when the file is still the one that runs. A name that leads to it (a link, say) is preferred to where it led.
#[must_use]
pub fn program() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let runs = std::fs::metadata("/proc/self/exe").map(|data| (data.dev(), data.ino())).ok();
    let is_it = |path: &PathBuf| std::fs::metadata(path).map(|data| (data.dev(), data.ino())).ok().is_some_and(|id| Some(id) == runs);
    let arg0 = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let found = if arg0.as_os_str().as_bytes().contains(&b'/') {
        std::path::absolute(&arg0).ok().filter(is_it)
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(&arg0)).find(is_it)
    };
    // The kernel says so of a file that was replaced before we looked.
    let stripped = || exe.as_os_str().as_bytes().strip_suffix(b" (deleted)").map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)));
    found.or_else(stripped).unwrap_or(exe)
}

/// Becomes `program`. Comes back only if that could not be done; then everything is as before.
#[must_use]
pub fn exec(program: &Path, state: &State, mut bag: Bag) -> UpgradeError {
    let failed = |source: io::Error| UpgradeError::Exec { program: program.into(), source };
    let zero = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut become_it = || -> Result<std::convert::Infallible, UpgradeError> {
        let memory = state.write()?;
        let number = bag.put(&memory).map_err(UpgradeError::Descriptors)?;
        let file = CString::new(program.as_os_str().as_bytes()).map_err(zero).map_err(failed)?;
        let args: Result<Vec<CString>, _> = std::env::args_os().map(|word| CString::new(word.as_bytes())).collect();
        let kept = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
        let pairs = kept.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
        let ours = format!("{VARIABLE}={}:{number}", std::process::id()).into_bytes();
        let env: Result<Vec<CString>, _> = pairs.chain([ours]).map(CString::new).collect();
        let (args, env) = (args.map_err(zero).map_err(failed)?, env.map_err(zero).map_err(failed)?);
        bag.open().map_err(UpgradeError::Descriptors)?;
        execve(&file, &args, &env).map_err(|errno| failed(errno.into()))
    };
    match become_it() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::master::tests::plan;

    fn state(plan: Value, file_in_force: bool) -> State {
        let zero = json!({ "secs": 0, "nanos": 0 });
        let fixed = Fixed::of(&crate::master::tests::plan());
        let text = json!({
            "format": FORMAT, "version": "0.0.1", "plan": plan, "file_in_force": file_in_force, "configured": {}, "fixed": fixed, "generation": 3,
            "reloads": [2, 0], "clock": { "start": zero, "start_ms": 1 }, "oom_score": null, "guard": [1, 1], "lock": 1, "control": 1,
            "client": null, "listeners": [], "tickets": { "keys": { "current": vec![7; 32], "previous": null }, "left": zero },
            "output": { "streams": [] }, "edges": { "edges": [], "restarts": 0, "materials": {} },
            "apps": { "lives": 0, "edge_restarts": 0, "as_root": [], "tracks": {}, "ports": [] },
        });
        serde_json::from_value(text).expect("a state")
    }

    fn never() -> Result<Plan, ()> {
        Err(())
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_cannot_be_changed() {
        let written = state(serde_json::to_value(plan()).expect("a plan"), false);
        let memory = written.write().expect("memory");
        let copy = memory.try_clone().expect("a copy");
        assert!(File::from(copy).write_all(b"x").is_err(), "sealed");
        let (found, source) = State::read(memory).expect("read").plan(never).expect("not asked").expect("good");
        assert_eq!((found, source), (plan(), Source::Carried));
    }

    #[test]
    fn a_state_of_another_format_is_named_as_such() {
        let mut other = state(Value::Null, true);
        other.format = FORMAT + 1;
        let error = State::read(other.write().expect("memory")).expect_err("another format");
        assert!(matches!(error, TakeOverError::Format { theirs, .. } if theirs == FORMAT + 1) && error.advice().is_some());
    }

    #[test]
    fn a_plan_of_another_build_is_replaced_by_the_file_only_if_that_is_what_is_in_force() {
        let foreign = json!({ "sites": "elsewhere" });
        let load = || Ok::<_, ()>(plan());
        let (found, source) = state(foreign.clone(), true).plan(load).expect("loaded").expect("good");
        assert_eq!((found, source), (plan(), Source::File));
        let edited = state(foreign.clone(), false).plan(never).expect("not asked");
        assert!(matches!(edited, Err(TakeOverError::Edited)));
        let moved = || Ok::<_, ()>(Plan { state: "/elsewhere".into(), ..plan() });
        let refused = state(foreign.clone(), true).plan(moved).expect("loaded");
        assert!(matches!(refused, Err(TakeOverError::Fixed { key: "state" })));
        let mut more = plan();
        more.listen.http = vec!["127.0.0.1:1".parse().expect("valid")];
        let refused = state(foreign, true).plan(|| Ok::<_, ()>(more)).expect("loaded");
        assert!(matches!(refused, Err(TakeOverError::Listeners)));
    }
}
