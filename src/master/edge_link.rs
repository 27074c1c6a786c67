//! The edge as a child: started, given its configuration, watched, and replaced at once when it dies.
//!
//! Shape: Down ─start→ Greeting ─Hello, Ready→ Serving ─death→ Down … ; the sockets stay open all the while, so connections wait and none is refused.
//!        One that leaves, and those of the binary before, drain beside it as [`Elders`]; a drain of an instance is over when no elder may use it either.
//!        A configuration is in force when the edge says so: a refusal, a death or silence leaves the one before.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{elders::Elders, nursery::Nursery, output::Output, table::Table, words::Heard};
use crate::{
    ipc::message::{Incarnation, InstanceId, Materials, Switches, TicketKeys},
    rules::restart::Exit,
    vocab::story,
};

mod carried;
mod errands;
mod handle;
mod hear;
mod obey;
mod post;
mod program;
mod running;
mod setting;

pub use carried::Carried;
use errands::Errands;
use handle::Command;
pub use handle::{Facts, Handle};
pub use program::Program;
use running::Running;
use setting::Trial;
pub use setting::{ApplyError, Setting};

/// One that served so long may start again at once.
const SETTLED: Duration = Duration::from_secs(10);
/// Before the next start, by how often in a row it died young.
const DELAYS_MS: [u64; 6] = [0, 100, 200, 400, 800, 1000];

/// How a life of the edge ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Died,
    /// It leaves in order, and is an elder now.
    Left,
    Stopped,
}

/// The actor.
pub struct EdgeLink {
    program: Program,
    nursery: Nursery,
    output: Output,
    table: watch::Receiver<Table>,
    heard: mpsc::Sender<Heard>,
    started_ms: u64,
    tickets: watch::Receiver<TicketKeys>,
    switches: watch::Receiver<Switches>,
    setting: Setting,
    /// The last that the edge had nothing against: what one that follows is given where newer ones are no good.
    good_materials: Materials,
    commands: mpsc::Receiver<Command>,
    errands: Arc<Errands>,
    facts: watch::Sender<Facts>,
    trial: Option<Trial>,
    asks: HashMap<u64, oneshot::Sender<String>>,
    next_ask: u64,
    drains: Vec<(InstanceId, Incarnation)>,
    warms: Vec<(InstanceId, Incarnation)>,
    elders: Elders,
    /// Drained by the edge, and perhaps not yet by the elders, who know nothing of it: their requests are waited for.
    held: Vec<(InstanceId, Incarnation)>,
    deaths: usize,
    /// Since a shutdown was asked for: KILL at the moment, and whom to tell.
    stopping: Option<(Instant, Vec<oneshot::Sender<()>>)>,
}

/// What the actor needs from others.
pub struct Wiring {
    pub program: Program,
    pub nursery: Nursery,
    pub output: Output,
    pub table: watch::Receiver<Table>,
    pub heard: mpsc::Sender<Heard>,
    pub started_ms: u64,
    pub tickets: watch::Receiver<TicketKeys>,
    pub switches: watch::Receiver<Switches>,
}

impl EdgeLink {
    #[must_use]
    pub fn new(wiring: Wiring, setting: Setting) -> (Self, Handle) {
        // One command for each control connection; full: the others wait.
        let (send, commands) = mpsc::channel(128);
        let errands: Arc<Errands> = Arc::default();
        let (facts, facts_out) = watch::channel(Facts::default());
        let Wiring { program, nursery, output, table, heard, started_ms, tickets, switches } = wiring;
        let link = Self {
            program,
            elders: Elders::new(nursery.clone()),
            held: Vec::new(),
            nursery,
            output,
            table,
            heard,
            started_ms,
            tickets,
            switches,
            good_materials: setting.materials.clone(),
            setting,
            commands,
            errands: errands.clone(),
            facts,
            trial: None,
            asks: HashMap::new(),
            next_ask: 0,
            drains: Vec::new(),
            warms: Vec::new(),
            deaths: 0,
            stopping: None,
        };
        (link, Handle { commands: send, errands, facts: facts_out })
    }

    /// Until the handles are gone.
    pub async fn run(mut self) {
        loop {
            let end = match self.launch() {
                Ok(running) => {
                    tracing::info!(pid = running.pid.as_raw(), "edge started");
                    self.live(running).await
                }
                Err(error) => {
                    tracing::error!(error = error.story(), "edge could not be started");
                    self.deaths += 1;
                    End::Died
                }
            };
            self.mourn().await;
            if end == End::Stopped || self.wait_for_next().await == End::Stopped {
                break;
            }
            self.facts.send_modify(|facts| facts.restarts += 1);
            let _ = self.heard.send(Heard::EdgeDied).await;
        }
        self.elders.retire();
        while !self.elders.is_empty() {
            self.elders.gone().await;
        }
        if let Some((_, told)) = self.stopping.take() {
            for done in told {
                let _ = done.send(());
            }
        }
        let errands = self.errands.clone();
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.answer_without_edge(command).await,
                    None => break,
                },
                taken = errands.take() => self.return_errands(taken).await,
            }
        }
    }

    /// Until it is gone.
    async fn live(&mut self, mut edge: Running) -> End {
        let mut open = true;
        let errands = self.errands.clone();
        loop {
            let deadline = self.deadline(&edge);
            tokio::select! {
                biased;
                exit = &mut edge.exit => return self.ended(&edge, exit.ok()),
                message = edge.receiver.receive(), if open => match message {
                    Ok(Some((message, _))) => {
                        open = self.hear(&mut edge, message).await;
                        if edge.leaving && self.stopping.is_none() {
                            return self.part(edge);
                        }
                    }
                    Ok(None) => {
                        // It closes the link when it ends; one that only closes the link is of no use.
                        open = false;
                        edge.patience = Instant::now() + Duration::from_secs(1);
                    }
                    Err(error) => {
                        tracing::error!(error = story(&error, None), "edge speaks wrongly, killing it");
                        open = false;
                        self.nursery.kill_group(edge.pid);
                    }
                },
                Some(sent) = edge.writer.join_next() => {
                    if let Ok(Err(error)) = sent {
                        tracing::debug!(error = story(&error, None), "edge cannot be spoken to");
                    }
                    edge.patience = edge.patience.min(Instant::now() + Duration::from_secs(1));
                }
                () = self.elders.gone(), if !self.elders.is_empty() => self.elder_gone().await,
                taken = errands.take() => self.send_errands(&edge, taken),
                command = self.commands.recv() => match command {
                    Some(Command::Export { reply, thaw }) => self.show(&edge, reply, thaw).await,
                    Some(command) => self.obey(&edge, command),
                    None => {
                        self.nursery.kill_group(edge.pid);
                        let _ = edge.exit.await;
                        return End::Stopped;
                    }
                },
                () = tokio::time::sleep_until(deadline) => self.late(&mut edge),
            }
        }
    }

    async fn elder_gone(&mut self) {
        self.facts.send_modify(|facts| facts.draining = self.elders.count());
        if self.elders.is_empty() {
            for (id, incarnation) in std::mem::take(&mut self.held) {
                let _ = self.heard.send(Heard::Drained { id, incarnation }).await;
            }
        }
    }

    /// While an elder is about, what the edge has drained may be in use there: then the instance's own deadline decides, or the elder's end.
    async fn drained(&mut self, id: InstanceId, incarnation: Incarnation) {
        if self.elders.is_empty() {
            let _ = self.heard.send(Heard::Drained { id, incarnation }).await;
        } else {
            self.held.push((id, incarnation));
        }
    }

    /// Told from outside to leave: it drains as one that an upgrade left behind, and the next is started at once.
    fn part(&mut self, edge: Running) -> End {
        let Running { pid, exit, line, .. } = edge;
        tracing::warn!(pid = pid.as_raw(), "edge was told to leave, starting another");
        let drain = self.setting.plan.timeouts.drain;
        if let Err(error) = self.elders.add(pid, exit, line, drain, Some(Elders::patience(drain))) {
            tracing::error!(%error, "edge that leaves was killed");
        }
        if let Some(Trial { reply, .. }) = self.trial.take() {
            self.setting.reloads.1 += 1;
            let _ = reply.send(Err(ApplyError::Died));
        }
        let draining = self.elders.count();
        self.facts.send_modify(|facts| *facts = Facts { pid: None, ready: false, connections: 0, in_flight: 0, draining, ..*facts });
        End::Left
    }

    fn deadline(&self, edge: &Running) -> Instant {
        let stop = self.stopping.as_ref().map(|(at, _)| *at);
        let trial = self.trial.as_ref().map(|trial| trial.deadline);
        // While it drains it may be busy with that alone: its own deadline counts.
        stop.unwrap_or_else(|| trial.map_or(edge.patience, |at| at.min(edge.patience)))
    }

    fn late(&mut self, edge: &mut Running) {
        let now = Instant::now();
        if self.stopping.is_some() {
            tracing::warn!("edge did not end in time, killing it");
        } else if edge.patience <= now {
            let what = if edge.ready { "edge is silent, killing it" } else { "edge was not ready in time, killing it" };
            tracing::error!(pid = edge.pid.as_raw(), "{what}");
        } else {
            // Whether it will still apply what it was sent nobody knows: only a new one is certain.
            tracing::error!(pid = edge.pid.as_raw(), "edge does not answer to a configuration, killing it");
        }
        if let Some(Trial { reply, .. }) = self.trial.take_if(|trial| trial.deadline <= now) {
            self.setting.reloads.1 += 1;
            let _ = reply.send(Err(ApplyError::Silent));
        }
        self.nursery.kill_group(edge.pid);
        edge.patience = now + Duration::from_secs(5);
        if let Some((at, _)) = &mut self.stopping {
            *at = now + Duration::from_secs(5);
        }
    }

    fn ended(&mut self, edge: &Running, exit: Option<Exit>) -> End {
        let how = exit.map_or_else(String::new, |exit| exit.to_string());
        self.facts.send_modify(|facts| *facts = Facts { pid: None, ready: false, connections: 0, in_flight: 0, ..*facts });
        if self.stopping.is_some() {
            tracing::info!(exit = how, "edge stopped");
            return End::Stopped;
        }
        let lived = edge.since.elapsed();
        self.deaths = if edge.ready && lived >= SETTLED { 0 } else { self.deaths + 1 };
        tracing::error!(exit = how, lived_ms = u64::try_from(lived.as_millis()).unwrap_or(u64::MAX), "edge died, starting another");
        // One that came while no edge served gets its own start; one that killed a serving edge, or has had its start, is refused.
        if let Some(trial) = self.trial.take() {
            if trial.fresh && !edge.on_trial {
                self.trial = Some(trial);
            } else {
                self.setting.reloads.1 += 1;
                let _ = trial.reply.send(Err(ApplyError::Died));
            }
        }
        End::Died
    }

    /// Whoever waited for the edge waits no longer.
    async fn mourn(&mut self) {
        self.asks.clear();
        for (id, incarnation) in std::mem::take(&mut self.drains) {
            self.drained(id, incarnation).await;
        }
        for (id, incarnation) in std::mem::take(&mut self.warms) {
            self.not_warmed(id, incarnation).await;
        }
    }

    /// The pause before the next start; commands are answered meanwhile.
    async fn wait_for_next(&mut self) -> End {
        let delay = DELAYS_MS[self.deaths.saturating_sub(1).min(DELAYS_MS.len() - 1)];
        let due = Instant::now() + Duration::from_millis(delay);
        let errands = self.errands.clone();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => return End::Died,
                taken = errands.take() => self.return_errands(taken).await,
                command = self.commands.recv() => match command {
                    Some(Command::Apply { setting, reply }) => {
                        self.put_on_trial(*setting, reply, true);
                        return End::Died;
                    }
                    Some(Command::Shutdown { done, .. }) => {
                        // Told when those before it are gone too.
                        self.stopping.get_or_insert_with(|| (Instant::now(), Vec::new())).1.push(done);
                        return End::Stopped;
                    }
                    Some(Command::KillNow) => return End::Stopped,
                    Some(command) => self.answer_without_edge(command).await,
                    None => return End::Stopped,
                },
            }
        }
    }

    async fn not_warmed(&self, id: InstanceId, incarnation: Incarnation) {
        let result = Err("the edge ended before it had asked".to_owned());
        let _ = self.heard.send(Heard::Warmed { id, incarnation, result }).await;
    }
}
