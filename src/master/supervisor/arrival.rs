//! Between the start of a process and its first request: whether what answers on its address is itself.
//!
//! Shape: a proof of readiness counts unless a stranger is known to listen in its place; then the process goes on starting, and is looked at again and again
//!        until the stranger is gone or its time is over. One that listens on `[::1]` alone is reached there.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use nix::unistd::Pid;
use tokio::time::Instant;

use super::{Process, Supervisor};
use crate::{
    master::ports::{self, Owner},
    rules::restart::{Event, State},
    vocab::{AppName, ServerAddr},
};

/// Between two looks at processes that start.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two looks at where else a process listens.
const HINT_EVERY: Duration = Duration::from_secs(2);

impl Process {
    /// Where it is to be reached, if over TCP, and its leader.
    fn door(&self) -> Option<(Pid, SocketAddr)> {
        match (&self.addr, self.pid) {
            (Some(ServerAddr::Tcp(addr)), Some(pid)) => Some((pid, *addr)),
            (Some(ServerAddr::Tcp(_) | ServerAddr::Unix(_) | ServerAddr::Name { .. }) | None, _) => None,
        }
    }
}

impl Supervisor {
    /// It has shown what proves that it is ready.
    pub(super) fn arrived(&mut self, app: &AppName, n: u16, incarnation: u64) {
        let starts = self.starts(app, incarnation);
        let kids = self.nursery.pids();
        let door = self.process(app, incarnation).and_then(|process| process.door()).filter(|_| starts);
        let note = match door.map(|(pid, addr)| (addr, ports::owner(addr, pid, &kids))) {
            None | Some((_, Owner::Ours | Owner::Nobody)) => None,
            Some((_, Owner::Unknown(why))) => Some(why),
            Some((addr, Owner::Stranger(by))) => {
                let note = format!("{addr} is taken by {by}");
                if self.note(app, incarnation, Some(note.clone())) {
                    tracing::error!(%app, instance = n, why = note, "not ready: somebody else answers on its address");
                }
                return;
            }
        };
        if starts
            && self.note(app, incarnation, note.clone())
            && let Some(note) = note
        {
            tracing::info!(%app, instance = n, note, "its listener is taken for its own");
        }
        self.step(app, Event::Ready { n, incarnation });
    }

    fn starts(&self, app: &AppName, incarnation: u64) -> bool {
        let starts = |track: &super::Track| track.life.view().any(|view| view.incarnation == incarnation && view.state == State::Starting);
        self.tracks.get(app).is_some_and(starts)
    }

    /// True: it says something else than before.
    fn note(&mut self, app: &AppName, incarnation: u64, note: Option<String>) -> bool {
        let Some(process) = self.process(app, incarnation) else { return false };
        let other = process.note != note;
        process.note = note;
        self.changed |= other;
        other
    }

    /// Those that start and are to be reached over TCP.
    fn arriving(&self) -> Vec<(AppName, u16, u64, Pid, SocketAddr)> {
        let mut found = Vec::new();
        for (app, track) in &self.tracks {
            for view in track.life.view().filter(|view| view.state == State::Starting) {
                if let Some((pid, addr)) = track.processes.get(&view.incarnation).and_then(Process::door) {
                    found.push((app.clone(), view.n, view.incarnation, pid, addr));
                }
            }
        }
        found
    }

    pub(super) fn somebody_arrives(&self) -> bool {
        let starts = |process: &Process| process.door().is_some();
        self.tracks.values().any(|track| {
            track.life.view().any(|view| view.state == State::Starting && track.processes.get(&view.incarnation).is_some_and(starts))
        })
    }

    pub(super) fn look_at_arrivals(&mut self) {
        for (app, n, incarnation, pid, addr) in self.arriving() {
            let Some(process) = self.process(&app, incarnation) else { continue };
            if process.arrival.seen {
                self.arrived(&app, n, incarnation);
            } else if addr.is_ipv4() && ports::is_six_alone(addr.port()) {
                self.turn_to_six(&app, n, incarnation, pid, addr.port());
            } else {
                self.hint(&app, n, incarnation, pid, addr);
            }
        }
    }

    /// Nothing answers where it should, and something does on the other loopback.
    fn turn_to_six(&mut self, app: &AppName, n: u16, incarnation: u64, pid: Pid, port: u16) {
        let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let kids = self.nursery.pids();
        match ports::owner(six, pid, &kids) {
            Owner::Ours | Owner::Unknown(_) => {}
            Owner::Stranger(_) | Owner::Nobody => return,
        }
        if let Some(process) = self.process(app, incarnation) {
            tracing::info!(%app, instance = n, addr = %six, "listens on the loopback of IPv6 alone, it is reached there");
            process.addr = Some(ServerAddr::Tcp(six));
            self.changed = true;
        }
    }

    /// It has started for a while and nobody listens for it: perhaps it does so elsewhere.
    fn hint(&mut self, app: &AppName, n: u16, incarnation: u64, pid: Pid, addr: SocketAddr) {
        let now = Instant::now();
        let Some(process) = self.process(app, incarnation) else { return };
        let at = *process.arrival.hint_at.get_or_insert(now + HINT_EVERY);
        if at > now {
            return;
        }
        process.arrival.hint_at = Some(now + HINT_EVERY);
        let kids = self.nursery.pids();
        if ports::owner(addr, pid, &kids) != Owner::Nobody {
            return;
        }
        let found: Vec<String> = ports::elsewhere(pid, addr).iter().map(ToString::to_string).collect();
        let note = (!found.is_empty()).then(|| format!("listens on {}, not on {addr} as PORT and {{port}} say", found.join(", ")));
        if self.note(app, incarnation, note.clone())
            && let Some(note) = note
        {
            tracing::warn!(%app, instance = n, note, "not reached: have it listen where PORT says, or set `port`");
        }
    }

    /// It ended while it started: perhaps because of who has its port, on an address that it did not need to ask for.
    pub(super) fn ended_early(&mut self, app: &AppName, incarnation: u64) {
        if !self.starts(app, incarnation) {
            return;
        }
        let Some((_, addr)) = self.process(app, incarnation).and_then(|process| process.door()) else { return };
        if let Some(words) = ports::anybody(addr.port()) {
            self.note(app, incarnation, Some(words));
        }
    }
}
