//! STATE/status.json: every app, process, pid, state, restart and last exit, written whole at each change.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use super::{
    clock::{Clock, rfc3339},
    edge_link::Facts,
    score::Score,
    table::Table,
};
use crate::{
    ipc::message::{AppTable, Instance, InstanceId, Role},
    rules::job::{Record, Run},
    store::atomic,
    vocab::chain,
};

/// Changes within this are written together.
const PAUSE: Duration = Duration::from_millis(100);
/// For whoever may enter STATE.
const MODE: u32 = 0o644;

/// What the file is made of.
#[derive(Clone)]
pub struct Sources {
    pub clock: Clock,
    pub table: watch::Receiver<Table>,
    pub edge: watch::Receiver<Facts>,
    pub score: watch::Receiver<Score>,
}

impl Sources {
    /// The master's part of the truth.
    #[must_use]
    pub fn json(&self) -> Value {
        let score = self.score.borrow();
        let facts = *self.edge.borrow();
        let listeners: Vec<Value> = score
            .sockets
            .open
            .iter()
            .map(|open| {
                let role = match open.role {
                    Role::Http => "http",
                    Role::Https => "https",
                    Role::Admin => "admin",
                };
                json!({ "role": role, "asked": open.asked, "bound": open.bound })
            })
            .collect();
        json!({
            "updated": rfc3339(self.clock.wall(self.clock.now())),
            "gateway": {
                "pid": std::process::id(),
                "version": env!("CARGO_PKG_VERSION"),
                "started": rfc3339(self.clock.start_ms),
                "generation": score.generation.0,
                "reloads": score.reloads.0,
                "reloads_refused": score.reloads.1,
                "configuration": score.plan.files,
            },
            "edge": { "pid": facts.pid, "ready": facts.ready, "restarts": facts.restarts, "draining": facts.draining },
            "listeners": listeners,
            "apps": apps(&self.table.borrow().apps),
        })
    }
}

fn apps(table: &AppTable) -> Value {
    let mut apps = serde_json::Map::new();
    for (app, restarts) in &table.restarts {
        let instances: Vec<Value> = table.instances.iter().filter(|instance| instance.id.app == *app).map(row).collect();
        let mut row = json!({ "restarts": restarts, "instances": instances });
        if let (Some(record), Value::Object(row)) = (table.jobs.get(app), &mut row) {
            row.insert("job".to_owned(), job(record));
        }
        apps.insert(app.to_string(), row);
    }
    Value::Object(apps)
}

/// Without the lines that it wrote: whoever may enter STATE may read this file.
fn job(record: &Record) -> Value {
    let Record { cron, zone, until_ms: _, running_ms: _, last, succeeded_ms, counts } = record;
    let moment = |ms: i64| rfc3339(u64::try_from(ms).unwrap_or(0));
    let last = last.as_ref().map(|Run { started_ms, ended_ms, took_ms, outcome, exit, lines: _ }| {
        json!({ "started": moment(*started_ms), "ended": moment(*ended_ms), "took_ms": took_ms, "outcome": outcome, "exit": exit })
    });
    json!({ "schedule": cron, "zone": zone, "last": last, "last_success": succeeded_ms.map(moment), "runs": counts })
}

fn row(instance: &Instance) -> Value {
    let Instance {
        id: InstanceId { app: _, n },
        incarnation: _,
        state,
        duty,
        release,
        since_ms,
        pid,
        addr,
        restarts,
        last_exit,
        last_restart_ms,
        due_ms,
        note,
        ..
    } = instance;
    json!({
        "n": n,
        "state": state,
        "duty": duty,
        "release": release,
        "since": rfc3339(*since_ms),
        "pid": pid,
        "address": addr.as_ref().map(ToString::to_string),
        "restarts": restarts,
        "last_exit": last_exit.as_ref().map(|(why, _)| why),
        "last_exit_at": last_exit.as_ref().map(|(_, at)| rfc3339(*at)),
        "last_restart": last_restart_ms.map(rfc3339),
        "next_start": due_ms.map(rfc3339),
        "note": note,
    })
}

/// Writes the file; ends with its sources.
pub struct Writer {
    pub sources: Sources,
    pub path: PathBuf,
    /// Held while the file is written.
    pub pen: Pen,
}

/// Whoever holds it knows that status.json is whole, and that nobody writes it.
pub type Pen = Arc<Mutex<()>>;

impl Writer {
    pub async fn run(mut self) {
        let mut complained = false;
        loop {
            let version = self.sources.table.borrow_and_update().version;
            self.sources.score.mark_unchanged();
            let before = *self.sources.edge.borrow_and_update();
            let text = format!("{:#}\n", self.sources.json());
            let path = self.path.clone();
            let pen = self.pen.lock().await;
            let written = tokio::task::spawn_blocking(move || atomic::publish(&path, text.as_bytes(), MODE)).await;
            match written {
                Ok(Err(error)) if !complained => {
                    complained = true;
                    tracing::error!(error = chain(&error), "status.json cannot be written");
                }
                Ok(Ok(())) => complained = false,
                Ok(Err(_)) | Err(_) => {}
            }
            drop(pen);
            tokio::time::sleep(PAUSE).await;
            // What processes use and how many connections there are is no change.
            loop {
                let changed = tokio::select! {
                    changed = self.sources.table.changed() => changed,
                    changed = self.sources.score.changed() => match changed {
                        Ok(()) => break,
                        gone => gone,
                    },
                    changed = self.sources.edge.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
                let facts = *self.sources.edge.borrow_and_update();
                let differs = (facts.pid, facts.ready, facts.restarts, facts.draining)
                    != (before.pid, before.ready, before.restarts, before.draining);
                if differs || self.sources.table.borrow_and_update().version != version {
                    break;
                }
            }
        }
    }
}
