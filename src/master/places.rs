//! Directories: who owns what under STATE and RUN.
//!
//! Shape: STATE is 0700 (0711 when the edge is another user, which must reach STATE/edge), STATE/edge is the edge's own,
//!        STATE/jobs is 0700: what jobs wrote last stands there.
//!        RUN/app/NAME belongs to the app's user and the edge's group, 2770: both may use the sockets in it, nobody else.
//!        RUN/notify is ours, 0711: what we open and hand over in there, an app's user cannot put a link in the place of.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, User, chown};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::{
    as_user::{Obstacle, Want, Why, ground, look_as, obstacle},
    child::{Identity, SpawnError},
};
use crate::{ipc::message::InstanceId, plan::Plan, vocab::AppName};

/// sockaddr_un holds 108 bytes with the closing zero.
const LONGEST: usize = 107;

/// Why a directory is not as it must be.
#[derive(Debug, Error)]
pub enum PlaceError {
    #[error("make directory {}", path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("run the edge as user {user:?}, who does not exist")]
    NoUser { user: String },
    #[error("run the edge: its user {user:?} may not enter {}, on the way to its directory {}", at.display(), home.display())]
    Closed { user: String, at: PathBuf, home: PathBuf },
    #[error("run the edge: its user {user:?} may not use {}, which belongs to {owner}", at.display())]
    Foreign { user: String, at: PathBuf, home: PathBuf, owner: String },
}

impl PlaceError {
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::NoUser { .. } => Some("set `user` to one that does: useradd --system --no-create-home gateway".to_owned()),
            Self::Make { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("choose `state` and `run` where this user may write, or start as root".to_owned())
            }
            Self::Make { .. } => None,
            Self::Closed { at, .. } => Some(format!(
                "let that user through: chmod o+x {}; or set `state` to a directory elsewhere, as /var/lib/gateway",
                at.display()
            )),
            Self::Foreign { user, home, .. } => {
                Some(format!("it was another `user` before? Give it to this one: chown -R {user}: {}; or set `user` back", home.display()))
            }
        }
    }

    /// Whether another start would end in the same way, until somebody changes the configuration or the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::NoUser { .. } | Self::Closed { .. } | Self::Foreign { .. } => true,
            Self::Make { .. } => false,
        }
    }
}

/// Entries of the edge's directory that are looked at.
const MOST_ENTRIES: usize = 10_000;

/// Whether the edge could get at what is made for it.
///
/// Errors: [`PlaceError`] that every edge would meet.
pub fn inspect(plan: &Plan) -> Result<(), PlaceError> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let edge = Identity::of(Some(&plan.user), None).map_err(|_| PlaceError::NoUser { user: plan.user.clone() })?;
    closed(&plan.state, &edge.alone(), &plan.user).map_or(Ok(()), Err)
}

/// What keeps the edge from its own directory: a way that is closed to its user, or what an earlier user left there.
#[must_use]
pub fn closed(state: &Path, edge: &Identity, user: &str) -> Option<PlaceError> {
    let home = state.join("edge");
    // STATE itself is opened at each start.
    let way = state.parent().filter(|dir| !dir.as_os_str().is_empty()).and_then(|dir| ground(dir).ok());
    let found = look_as(edge, || {
        let closed = |found: &Obstacle| found.why == Why::Closed;
        if let Some(found) = way.and_then(|way| obstacle(&way, Want::Enter)).filter(closed) {
            return Some(PlaceError::Closed { user: user.to_owned(), at: found.at, home: home.clone() });
        }
        left_behind(&home).map(|(at, owner)| PlaceError::Foreign { user: user.to_owned(), at, home: home.clone(), owner })
    });
    found.flatten()
}

/// The first entry that whoever asks may not use, and whose it is. The directory itself is given to the edge at each start.
fn left_behind(home: &Path) -> Option<(PathBuf, String)> {
    let mut dirs = vec![home.to_path_buf()];
    let mut left = MOST_ENTRIES;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            left = left.checked_sub(1)?;
            let Ok(data) = entry.metadata() else { continue };
            let want = if data.is_dir() { [Want::Enter, Want::Write, Want::Read].as_slice() } else { &[Want::Read] };
            if !data.is_symlink() && want.iter().any(|want| obstacle(&path, *want).is_some_and(|found| found.why == Why::Closed)) {
                let owner = User::from_uid(Uid::from_raw(data.uid()))
                    .ok()
                    .flatten()
                    .map_or_else(|| format!("user {}", data.uid()), |user| format!("user {:?}", user.name));
                return Some((path, owner));
            }
            if data.is_dir() {
                dirs.push(path);
            }
        }
    }
    None
}

#[derive(Clone, Debug)]
pub struct Places {
    pub state: PathBuf,
    pub run: PathBuf,
    /// Who the edge becomes; `None`: it stays what we are.
    edge: Option<(Uid, Gid)>,
}

impl Places {
    pub fn prepare(plan: &Plan) -> Result<Self, PlaceError> {
        let edge = match Uid::effective().is_root() {
            true => match Identity::of(Some(&plan.user), None) {
                Ok(identity) => Some((identity.uid, identity.gid)),
                Err(_) => return Err(PlaceError::NoUser { user: plan.user.clone() }),
            },
            false => None,
        };
        let places = Self { state: plan.state.clone(), run: plan.run.clone(), edge };
        let foreign = edge.is_some_and(|(uid, _)| !uid.is_root());
        make(&places.state, if foreign { 0o711 } else { 0o700 }, None)?;
        make(&places.state.join("edge"), 0o700, edge)?;
        make(&places.jobs(), 0o700, None)?;
        // RUN may be a directory of the system, such as /run: its mode is set only when it is ours to make.
        if !places.run.is_dir() {
            make(&places.run, 0o755, None)?;
        }
        make(&places.run.join("app"), 0o755, None)?;
        make(&places.run.join("notify"), 0o711, None)?;
        Ok(places)
    }

    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.run.join("gateway.sock")
    }

    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.state.join("status.json")
    }

    /// What is kept of jobs.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.state.join("jobs")
    }

    /// Makes the app's directory and gives the path of a socket in it, free of a stale one.
    pub fn socket(&self, id: &InstanceId, identity: &Identity, is_taken: impl Fn(&Path) -> bool) -> Result<PathBuf, SpawnError> {
        let dir = self.app_dir(&id.app);
        let group = self.edge.map_or(identity.gid, |(_, gid)| gid);
        make(&dir, 0o2770, Some((identity.uid, group))).map_err(|error| match error {
            PlaceError::Make { path, source } => SpawnError::Prepare { what: path.display().to_string(), source },
            PlaceError::NoUser { user } | PlaceError::Closed { user, .. } | PlaceError::Foreign { user, .. } => SpawnError::NoUser { user },
        })?;
        let usual = dir.join(format!("{}.sock", id.n));
        // At most two of an instance serve at a time; a third is on its way out, and its socket with it.
        let others = (1..8).map(|k| dir.join(format!("{}.{k}.sock", id.n)));
        // What another process listens on is not taken from it: it may be one that got away from its app.
        let path = std::iter::once(usual.clone()).chain(others).find(|path| !is_taken(path) && !is_heard(path));
        let why = || format!("other processes listen on {} and on all that may stand in its place", usual.display());
        free(path.ok_or_else(|| SpawnError::Taken { why: why() })?)
    }

    /// The path of an instance's NOTIFY_SOCKET, free of a stale one, in a directory that is not the app's.
    pub fn notify_socket(&self, id: &InstanceId, incarnation: u64) -> Result<PathBuf, SpawnError> {
        free(self.notify_path(id, incarnation))
    }

    #[must_use]
    pub fn notify_path(&self, id: &InstanceId, incarnation: u64) -> PathBuf {
        self.run.join("notify").join(format!("{}.{}.{incarnation:x}", id.app, id.n))
    }

    /// After an app is gone.
    pub fn forget(&self, app: &AppName) {
        // Best effort: it is made anew when it is needed.
        let _ = fs::remove_dir_all(self.app_dir(app));
    }

    fn app_dir(&self, app: &AppName) -> PathBuf {
        self.run.join("app").join(app.as_str())
    }
}

/// Whether somebody listens on the socket at `path`. A full queue is a listener too.
fn is_heard(path: &Path) -> bool {
    let asked = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match asked() {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Gives `path` back when a socket may be bound there.
fn free(path: PathBuf) -> Result<PathBuf, SpawnError> {
    if path.as_os_str().as_bytes().len() > LONGEST {
        return Err(SpawnError::LongPath { path: path.display().to_string() });
    }
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SpawnError::Prepare { what: format!("{}: a stale one cannot be removed", path.display()), source })
        }
        Ok(()) | Err(_) => Ok(path),
    }
}

fn make(path: &Path, mode: u32, owner: Option<(Uid, Gid)>) -> Result<(), PlaceError> {
    let made = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        if let Some((uid, gid)) = owner {
            // Not root: it is ours already, and a foreign group is refused.
            if Uid::effective().is_root() {
                chown(path, Some(uid), Some(gid))?;
            }
        }
        // After chown, which may take away the set-group bit.
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    made().map_err(|source| PlaceError::Make { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_another_process_listens_on_is_left_to_it() {
        let dir = tempfile::tempdir().expect("dir");
        let mut plan = crate::master::tests::plan();
        (plan.state, plan.run) = (dir.path().join("state"), dir.path().join("run"));
        let places = Places::prepare(&plan).expect("places");
        let id = InstanceId { app: AppName::parse("web").expect("valid"), n: 0 };
        let identity = Identity::of(None, None).expect("us");
        let mut others = Vec::new();
        for nth in 0..8 {
            let path = places.socket(&id, &identity, |_| false).expect("a path");
            let name = if nth == 0 { "0.sock".to_owned() } else { format!("0.{nth}.sock") };
            assert!(path.ends_with(&name), "{}", path.display());
            others.push(std::os::unix::net::UnixListener::bind(path).expect("free"));
        }
        assert!(matches!(places.socket(&id, &identity, |_| false), Err(SpawnError::Taken { .. })));
        // One that is gone has left a file, which is nobody's.
        others.remove(3);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let free = loop {
            // What another test forks has our descriptors until it becomes another program.
            match places.socket(&id, &identity, |_| false) {
                Ok(path) => break path,
                Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
            }
        };
        assert!(free.ends_with("0.3.sock"), "{}", free.display());
    }

    #[test]
    fn an_app_cannot_turn_the_notify_socket_into_a_link_to_another_file() {
        let dir = tempfile::tempdir().expect("dir");
        let mut plan = crate::master::tests::plan();
        (plan.state, plan.run) = (dir.path().join("state"), dir.path().join("run"));
        let places = Places::prepare(&plan).expect("places");
        let id = InstanceId { app: AppName::parse("web").expect("valid"), n: 0 };
        let identity = Identity::of(None, None).expect("us");
        let listening = places.socket(&id, &identity, |_| false).expect("a path");
        let notify = places.notify_socket(&id, 1).expect("a path");
        // What stands in the app's own directory is the app's to replace: nothing there is ever chmod-ed or chown-ed by us.
        assert_ne!(listening.parent(), notify.parent());
        let mode = fs::metadata(notify.parent().expect("a directory")).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o711, "entered by apps, written by us alone");
    }
}
