//! The rows of the table.

use std::collections::BTreeMap;

use super::Supervisor;
use crate::{
    ipc::message::{AppTable, Duty, Incarnation, Instance, InstanceId, InstanceState},
    master::usage,
    rules::restart::{self, Event, State},
};

impl Supervisor {
    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let apps = self.rows();
        self.table.send_modify(|table| {
            table.version += 1;
            table.apps.put_apps(apps);
        });
    }

    pub(super) fn rows(&self) -> AppTable {
        let mut instances = Vec::new();
        let mut restarts = BTreeMap::new();
        for (app, track) in &self.tracks {
            restarts.insert(app.clone(), track.life.restarts().map(|(reason, count)| (reason.as_str().to_owned(), count)).collect());
            for view in track.life.view() {
                let process = track.processes.get(&view.incarnation);
                instances.push(Instance {
                    id: InstanceId { app: app.clone(), n: view.n },
                    incarnation: Incarnation(view.incarnation),
                    state: state(view.state),
                    duty: duty(view.duty),
                    release: view.release,
                    since_ms: self.clock.wall(view.since),
                    pid: process.and_then(|p| p.pid).map(|pid| pid.as_raw().cast_unsigned()),
                    addr: process.and_then(|p| p.addr.clone()),
                    restarts: view.restarts,
                    last_exit: view.last_exit.map(|(why, at)| (why, self.clock.wall(at))),
                    last_restart_ms: view.last_restart.map(|at| self.clock.wall(at)),
                    due_ms: view.due.map(|at| self.clock.wall(at)),
                    manual: view.state == State::Stopped && !track.life.spec().autostart,
                    note: view.taken.or_else(|| process.and_then(|process| process.note.clone())),
                    cpu_ms: process.map_or(0, |p| p.cpu_ms),
                    memory_bytes: process.map_or(0, |p| p.memory_bytes),
                });
            }
        }
        AppTable { instances, restarts, edge_restarts: self.edge_restarts, jobs: BTreeMap::new() }
    }

    pub(super) fn look(&mut self) {
        let mut weights = Vec::new();
        for (app, track) in &mut self.tracks {
            for (incarnation, process) in &mut track.processes {
                if let Some(usage) = process.pid.and_then(usage::of) {
                    process.cpu_ms = usage.cpu_ms;
                    process.memory_bytes = usage.memory_bytes;
                    weights.push((app.clone(), Event::Weighed { n: process.n, incarnation: *incarnation, bytes: usage.memory_bytes }));
                }
            }
        }
        for (app, event) in weights {
            self.step(&app, event);
        }
        let apps = self.rows();
        self.table.send_if_modified(|table| {
            let before = table.apps.clone();
            table.apps.put_apps(apps);
            table.apps != before
        });
    }
}

fn state(state: State) -> InstanceState {
    match state {
        State::Stopped => InstanceState::Stopped,
        State::Starting => InstanceState::Starting,
        State::Ready => InstanceState::Ready,
        State::Draining => InstanceState::Draining,
        State::Stopping => InstanceState::Stopping,
        State::Exited => InstanceState::Exited,
        State::Backoff => InstanceState::Backoff,
        State::Cooldown => InstanceState::Cooldown,
        State::Taken => InstanceState::Taken,
    }
}

fn duty(duty: restart::Duty) -> Duty {
    match duty {
        restart::Duty::Serves => Duty::Serves,
        restart::Duty::OnTrial => Duty::OnTrial,
        restart::Duty::StandsBy => Duty::StandsBy,
    }
}
