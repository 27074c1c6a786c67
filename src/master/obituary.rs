//! What is remembered of processes: who they were, how they ended, their last words.
//!
//! Shape: the last [`KEPT`] starts of each instance, of at most [`INSTANCES`] instances; the instance that was not started for longest is forgotten first.
//!        Written where processes are started and reaped, read by `gateway why`; the lock is held for moments.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use super::output::Tail;
use crate::{
    ipc::{
        message::{AppTable, Incarnation, Instance, InstanceId},
        why::{Account, End, Failed, Fate, Fault, Now, Suspect},
    },
    rules::restart::Exit,
    vocab::{AppName, lock::lock},
};

/// Starts that are remembered of an instance.
pub const KEPT: usize = 8;
/// With the twenty lines of each start that is 40 MB where all of them write the longest lines; some hundred KB where programs crash as they do.
const INSTANCES: usize = 256;
/// Requests that are remembered with an end.
const SUSPECTS: usize = 4;
/// Between a broken connection and the end of the process that broke it.
const MOMENT_MS: u64 = 2000;
const SIGKILL: i32 = 9;

#[derive(Debug)]
struct Entry {
    incarnation: u64,
    pid: u32,
    started_ms: u64,
    restart: u64,
    /// The kernel's count of kills for memory, when it was started.
    kills: Option<u64>,
    tail: Arc<Tail>,
    /// When its leader ended, where others went on.
    left_ms: Option<u64>,
    end: Option<(Exit, Option<bool>, u64)>,
    /// Requests that it had when a connection of its broke, and when: those that have met that before come first.
    suspects: Vec<(Suspect, u64)>,
    /// It had answered requests when that was told.
    answered: bool,
}

/// What becomes of the word that a process had a request when it broke off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Noted {
    /// It has not ended, as far as is known here.
    Lives,
    /// `first`: it is the first that is told of this process.
    Ended { exit: Exit, first: bool },
}

#[derive(Debug, Default)]
struct Instances {
    starts: u64,
    entries: VecDeque<Entry>,
}

/// Cloneable; all clones are one register.
#[derive(Clone, Debug, Default)]
pub struct Register {
    instances: Arc<Mutex<BTreeMap<InstanceId, Instances>>>,
}

impl Register {
    pub fn born(&self, id: &InstanceId, incarnation: u64, pid: u32, tail: Arc<Tail>) {
        let (started_ms, kills) = (unix_ms(), kills());
        let mut all = self.lock();
        if !all.contains_key(id) && all.len() >= INSTANCES {
            let oldest =
                all.iter().min_by_key(|(_, instance)| instance.entries.back().map(|entry| entry.started_ms)).map(|(id, _)| id.clone());
            oldest.and_then(|id| all.remove(&id));
        }
        let instance = all.entry(id.clone()).or_default();
        if instance.entries.len() == KEPT {
            instance.entries.pop_front();
        }
        instance.entries.push_back(Entry {
            incarnation,
            pid,
            started_ms,
            restart: instance.starts,
            kills,
            tail,
            left_ms: None,
            end: None,
            suspects: Vec::new(),
            answered: false,
        });
        instance.starts += 1;
    }

    /// Its leader has ended, and others that came of it go on: what is lost from now on has another reason.
    pub fn left(&self, id: &InstanceId, incarnation: u64) {
        let mut all = self.lock();
        let Some(instance) = all.get_mut(id) else { return };
        if let Some(entry) = instance.entries.iter_mut().rev().find(|entry| entry.incarnation == incarnation) {
            entry.left_ms.get_or_insert_with(unix_ms);
        }
    }

    /// Nothing of it is left.
    pub fn died(&self, id: &InstanceId, incarnation: u64, exit: Exit) {
        let (at_ms, kills) = (unix_ms(), kills());
        let mut all = self.lock();
        let Some(instance) = all.get_mut(id) else { return };
        if let Some(entry) = instance.entries.iter_mut().rev().find(|entry| entry.incarnation == incarnation) {
            let at_ms = entry.left_ms.unwrap_or(at_ms);
            entry.end = Some((exit, oom(exit, entry.kills, kills), at_ms));
            // What broke long before has another reason; so has what broke long after, with those that were told to stop.
            let late = |broke_ms: u64| entry.left_ms.is_some_and(|left_ms| broke_ms > left_ms + MOMENT_MS);
            entry.suspects.retain(|(_, broke_ms)| broke_ms + MOMENT_MS >= at_ms && !late(*broke_ms));
        }
    }

    /// A process broke off with a request in its hands, by what the edge says.
    pub fn lost(&self, id: &InstanceId, incarnation: u64, suspect: Suspect, answered: bool) -> Noted {
        let mut all = self.lock();
        let entry = all.get_mut(id).and_then(|instance| instance.entries.iter_mut().rev().find(|entry| entry.incarnation == incarnation));
        let Some(entry) = entry else { return Noted::Lives };
        entry.answered |= answered;
        let first = entry.suspects.is_empty();
        entry.suspects.retain(|(known, _)| known.id != suspect.id);
        if entry.suspects.len() == SUSPECTS {
            // The oldest of those that are least suspected.
            let gone = entry.suspects.iter().position(|(known, _)| !known.again).unwrap_or(0);
            entry.suspects.remove(gone);
        }
        let at = if suspect.again { 0 } else { entry.suspects.len() };
        entry.suspects.insert(at, (suspect, unix_ms()));
        entry.end.as_ref().map_or(Noted::Lives, |(exit, ..)| Noted::Ended { exit: *exit, first })
    }

    /// Whether the edge says that a process had answered requests when it broke off.
    #[must_use]
    pub fn had_answered(&self, id: &InstanceId, incarnation: u64) -> bool {
        let all = self.lock();
        all.get(id).is_some_and(|instance| instance.entries.iter().any(|entry| entry.incarnation == incarnation && entry.answered))
    }

    /// Requests that a process had when it ended.
    #[must_use]
    pub fn suspects(&self, id: &InstanceId, incarnation: u64) -> Vec<Suspect> {
        let all = self.lock();
        let entry = all.get(id).and_then(|instance| instance.entries.iter().find(|entry| entry.incarnation == incarnation));
        entry.map_or_else(Vec::new, Entry::suspects)
    }

    /// Joins what the edge knows of a request with what is remembered here, and with how the app stands now.
    #[must_use]
    pub fn account(&self, request: Failed, table: &AppTable) -> Account {
        let rows = || table.instances.iter().filter(|row| Some(&row.id.app) == request.app.as_ref());
        let all = self.lock();
        let process = match (&request.app, request.n, request.incarnation) {
            (Some(app), Some(n), Some(incarnation)) => {
                let id = InstanceId { app: app.clone(), n };
                all.get(&id).and_then(|instance| {
                    let entry = instance.entries.iter().find(|entry| entry.incarnation == incarnation.0)?;
                    Some(entry.tell(&id, table))
                })
            }
            // It was refused before anybody had it: no process has to do with that.
            (Some(_), _, _) if request.fault == Fault::Refused => None,
            (Some(app), _, _) => last_death(&all, app, request.at_ms).map(|(id, entry)| entry.tell(id, table)),
            (None, _, _) => None,
        };
        let lost_by = request.lost_by.iter().filter_map(|(id, incarnation)| {
            let entry = all.get(id)?.entries.iter().find(|entry| entry.incarnation == incarnation.0)?;
            let (_, _, ended_ms) = entry.end.as_ref()?;
            // While it had it: one that ends an hour later does so for another reason.
            let began_ms = request.at_ms.saturating_sub(request.total_ms + MOMENT_MS);
            let had = (began_ms..=request.at_ms.saturating_add(MOMENT_MS)).contains(ended_ms);
            had.then(|| entry.tell(id, table))
        });
        let ended = lost_by.collect();
        drop(all);
        let of_the_app = request.fault != Fault::Refused;
        let now = rows().filter(|_| of_the_app).map(|row| {
            let Instance { id, state, pid, last_exit, .. } = row;
            Now { instance: id.to_string(), state: *state, pid: *pid, last_exit: last_exit.as_ref().map(|(why, _)| why.clone()) }
        });
        let now = now.collect();
        Account { request, process, ended, now }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Instances>> {
        lock(&self.instances)
    }
}

/// The last process of the app that had ended by then.
fn last_death<'a>(all: &'a BTreeMap<InstanceId, Instances>, app: &AppName, by_ms: u64) -> Option<(&'a InstanceId, &'a Entry)> {
    let entries =
        all.iter().filter(|(id, _)| id.app == *app).flat_map(|(id, instance)| instance.entries.iter().map(move |entry| (id, entry)));
    let ended = entries.filter_map(|(id, entry)| Some((entry.end.as_ref()?.2, id, entry))).filter(|(at_ms, ..)| *at_ms <= by_ms);
    ended.max_by_key(|(at_ms, ..)| *at_ms).map(|(_, id, entry)| (id, entry))
}

impl Entry {
    /// None, as long as it runs.
    fn suspects(&self) -> Vec<Suspect> {
        let ended = self.end.is_some();
        self.suspects.iter().filter(|_| ended).map(|(suspect, _)| suspect.clone()).collect()
    }

    fn tell(&self, id: &InstanceId, table: &AppTable) -> Fate {
        let row = table.instances.iter().find(|row| row.id == *id && row.incarnation.0 == self.incarnation);
        let end = self.end.as_ref().map(|(exit, oom, at_ms)| {
            let (code, signal) = match *exit {
                Exit::Code(code) => (Some(code), None),
                Exit::Signal(signal) => (None, Some(signal)),
                Exit::Memory { .. } => (None, Some(SIGKILL)),
            };
            End { how: exit.to_string(), code, signal, oom: *oom, at_ms: *at_ms }
        });
        Fate {
            instance: id.to_string(),
            incarnation: Incarnation(self.incarnation),
            release: row.and_then(|row| row.release.clone()),
            pid: self.pid,
            started_ms: self.started_ms,
            restart: self.restart,
            end,
            stderr: self.tail.lines(),
            suspects: self.suspects(),
        }
    }
}

fn oom(exit: Exit, before: Option<u64>, after: Option<u64>) -> Option<bool> {
    match exit {
        Exit::Memory { .. } => Some(true),
        Exit::Signal(SIGKILL) => Some(after? > before?),
        Exit::Signal(_) | Exit::Code(_) => Some(false),
    }
}

/// How many processes the kernel has killed for memory, in every cgroup of the machine.
///
/// Source: `oom_kill` of /proc/vmstat, Linux 4.13.
fn kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(app: &str, n: u16) -> InstanceId {
        InstanceId { app: AppName::parse(app).expect("valid"), n }
    }

    fn request(n: Option<u16>, incarnation: Option<u64>) -> Failed {
        Failed {
            id: "x".into(),
            at_ms: u64::MAX,
            site: None,
            route: None,
            method: "GET".into(),
            path: "/".into(),
            status: 502,
            upstream: Some("web".into()),
            app: Some(id("web", 0).app),
            server: None,
            n,
            incarnation: incarnation.map(Incarnation),
            tries: 1,
            lost_by: Vec::new(),
            fault: Fault::Reset,
            refused: None,
            deadline_ms: None,
            detail: None,
            queue_ms: 0,
            connect_ms: None,
            upstream_ms: 0,
            total_ms: 0,
            edge_started_ms: 0,
        }
    }

    #[test]
    fn the_last_starts_of_an_instance_are_remembered_each_with_its_end() {
        let register = Register::default();
        for incarnation in 0..20 {
            register.born(&id("web", 0), incarnation, 100, Arc::default());
            register.died(&id("web", 0), incarnation, Exit::Code(3));
        }
        let fate = |incarnation| register.account(request(Some(0), Some(incarnation)), &AppTable::default()).process;
        assert_eq!(fate(11), None, "only so many are");
        let seen = fate(12).expect("remembered");
        assert_eq!(
            (seen.restart, seen.end.map(|end| (end.how, end.code, end.oom))),
            (12, Some(("exit 3".to_owned(), Some(3), Some(false))))
        );
    }

    #[test]
    fn what_a_process_had_when_it_ended_is_remembered_with_its_end() {
        let register = Register::default();
        register.born(&id("web", 0), 1, 100, Arc::default());
        let suspect = |name: &str, again| Suspect { id: name.into(), request: format!("GET /{name}"), again };
        assert_eq!(register.lost(&id("web", 0), 1, suspect("before", false), true), Noted::Lives);
        assert_eq!(register.suspects(&id("web", 0), 1), [], "it lives");
        register.died(&id("web", 0), 1, Exit::Signal(11));
        let ended = |first| Noted::Ended { exit: Exit::Signal(11), first };
        assert_eq!(register.lost(&id("web", 0), 1, suspect("after", false), false), ended(false));
        for n in 0..10 {
            register.lost(&id("web", 0), 1, suspect(&n.to_string(), n == 3), false);
        }
        let names: Vec<_> = register.suspects(&id("web", 0), 1).into_iter().map(|suspect| suspect.id).collect();
        assert_eq!(names, ["3", "7", "8", "9"], "a few, and the one that met two ends first");
        let poison = Failed {
            lost_by: vec![(id("web", 0), Incarnation(1)), (id("web", 1), Incarnation(9))],
            at_ms: unix_ms(),
            ..request(None, None)
        };
        let account = register.account(poison, &AppTable::default());
        assert_eq!(account.ended.iter().map(|fate| fate.suspects.len()).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn where_no_instance_had_it_the_last_one_that_ended_is_told() {
        let register = Register::default();
        for n in 0..3 {
            register.born(&id("web", n), 1, 100 + u32::from(n), Arc::default());
        }
        let process = |register: &Register| register.account(request(None, None), &AppTable::default()).process;
        assert_eq!(process(&register), None, "all of them live");
        register.died(&id("web", 1), 1, Exit::Signal(11));
        register.born(&id("other", 0), 1, 7, Arc::default());
        register.died(&id("other", 0), 1, Exit::Code(1));
        assert_eq!(process(&register).map(|fate| fate.pid), Some(101));
    }

    #[test]
    fn instances_without_number_do_not_grow_the_register() {
        let register = Register::default();
        for n in 0..2000 {
            register.born(&id("web", n), 1, 1, Arc::default());
        }
        assert_eq!(register.lock().len(), INSTANCES);
        assert!(register.lock().contains_key(&id("web", 1999)));
    }

    #[test]
    fn only_a_kill_while_the_kernel_was_killing_is_called_out_of_memory() {
        let kill = Exit::Signal(SIGKILL);
        assert_eq!(oom(kill, Some(1), Some(2)), Some(true));
        assert_eq!(oom(kill, Some(2), Some(2)), Some(false));
        assert_eq!(oom(kill, None, None), None);
        assert_eq!(oom(Exit::Signal(11), Some(1), Some(2)), Some(false));
    }
}
