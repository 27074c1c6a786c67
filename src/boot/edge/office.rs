//! The edge's office: does what the master says, and tells it what there is to tell.

use std::{net::IpAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, interval, sleep_until, timeout},
};

use super::{Doors, EdgeSource, Fatal, LogHandle, Threads};
use crate::{
    acme::{handle::Handle as Steward, steward::Setting},
    admin::{api, view::moment},
    edge::{
        blackbox::{KEPT, REFUSED},
        listen::{Afterwards, Common},
        live::{Base, Live, Prepared},
        tls::OnBadPair,
        upstream::Pools,
        warden::Ledger,
    },
    ipc::{
        link::{Receiver, Sender},
        message::{AppTable, Config, Drain, Materials, Query, ToEdge, ToMaster, WarmUp},
        why::RequestId,
    },
    rules::jail::Who,
    vocab::{Host, chain},
};

/// How long a renewal may take to be taken up; the master waits but a little longer.
const RENEW_WITHIN: Duration = Duration::from_millis(1500);
const ALIVE: Duration = Duration::from_secs(1);
/// An instance that is to be replaced after so many requests must not have many more.
const TALLY: Duration = Duration::from_millis(100);
/// What a worker may take to end after its last connection was cut.
const SLACK: Duration = Duration::from_secs(2);

/// The actor.
pub struct Office {
    pub common: Common,
    pub base: Base,
    pub log: LogHandle,
    pub doors: Doors,
    pub threads: Threads,
    pub source: Arc<EdgeSource>,
    pub steward: Steward,
    /// What the steward goes by.
    pub settings: watch::Sender<Arc<Setting>>,
    /// Where bans are written down.
    pub ledger: Arc<Ledger>,
    /// What the prober probes.
    pub pools: watch::Sender<Arc<Pools>>,
    pub to_master: Sender<ToMaster>,
    pub from_master: Receiver<ToEdge>,
    /// What others have to tell the master.
    pub outbox: mpsc::Sender<ToMaster>,
    pub waiting: mpsc::Receiver<ToMaster>,
    /// The prober, and drains that are waited for.
    pub tasks: JoinSet<()>,
}

/// What the loop goes on with.
enum Event {
    FromMaster(ToEdge, Vec<OwnedFd>),
    MasterGone,
    /// TERM: another edge serves, or is about to.
    Leave,
    ToTell(ToMaster),
    Tick,
    /// How many requests the instances have had.
    Tell,
    ThreadEnded {
        left: usize,
    },
    TaskEnded,
    Deadline,
}

impl Office {
    /// Serves until told to stop or to leave, and then until every thread is done; at once when the master goes.
    ///
    /// Shape: TERM leaves the sockets to another edge; the master's `Shutdown` closes them for everybody.
    pub async fn run(mut self, config: &Config, sockets: Vec<OwnedFd>) -> Result<(), Fatal> {
        self.doors.open(config, sockets).await?;
        self.to_master.send(&ToMaster::Ready { generation: config.generation }, &[]).await?;
        tracing::info!(generation = config.generation.0, sites = config.plan.sites.len(), "edge ready");
        let mut leave = signal(SignalKind::terminate()).map_err(Fatal::Signal)?;
        let mut alive = interval(ALIVE);
        let mut tell = interval(TALLY);
        let mut stop_by: Option<Instant> = None;
        loop {
            let deadline = stop_by.unwrap_or_else(Instant::now);
            let event = tokio::select! {
                message = self.from_master.receive() => match message? {
                    Some((message, sockets)) => Event::FromMaster(message, sockets),
                    None => Event::MasterGone,
                },
                Some(()) = leave.recv() => Event::Leave,
                Some(message) = self.waiting.recv() => Event::ToTell(message),
                _ = alive.tick() => Event::Tick,
                _ = tell.tick() => Event::Tell,
                left = self.threads.ended() => Event::ThreadEnded { left },
                Some(_) = self.tasks.join_next() => Event::TaskEnded,
                () = sleep_until(deadline), if stop_by.is_some() => Event::Deadline,
            };
            match event {
                Event::FromMaster(ToEdge::Shutdown { within }, _) => {
                    self.doors.stop(within, Afterwards::Shut).await;
                    stop_by = Some(Instant::now() + within + SLACK);
                }
                Event::Leave if stop_by.is_some() => {}
                Event::Leave => {
                    let within = self.common.live.load().allowance.drain;
                    tracing::info!(within_ms = within.as_millis(), "told to leave: draining");
                    self.doors.stop(within, Afterwards::Shared).await;
                    // The other edge probes, looks after the certificates and writes down bans.
                    self.tasks.abort_all();
                    self.ledger.close();
                    stop_by = Some(Instant::now() + within + SLACK);
                    self.to_master.send(&ToMaster::Leaving, &[]).await?;
                }
                Event::FromMaster(message, sockets) => self.obey(message, sockets).await?,
                Event::MasterGone => return Ok(()),
                Event::ToTell(message) => self.to_master.send(&message, &[]).await?,
                Event::Tick => {
                    self.source.note();
                    self.tell_alive().await?;
                }
                Event::Tell => self.tell_tallies().await?,
                Event::ThreadEnded { .. } if stop_by.is_none() => return Err(Fatal::ThreadEnded),
                Event::ThreadEnded { left: 0 } => return Ok(()),
                Event::ThreadEnded { .. } | Event::TaskEnded => {}
                Event::Deadline => return Ok(()),
            }
        }
    }

    async fn obey(&mut self, message: ToEdge, sockets: Vec<OwnedFd>) -> Result<(), Fatal> {
        match message {
            ToEdge::Apply(config) => self.apply(&config, sockets).await?,
            ToEdge::Apps(table) => self.apps(table),
            ToEdge::Materials(materials) => self.materials(materials).await?,
            ToEdge::Tickets(keys) => self.base.tls.rotate_tickets(keys),
            ToEdge::Drain(drains) => drains.into_iter().for_each(|drain| self.drain(drain)),
            ToEdge::Warm(warm_ups) => warm_ups.into_iter().for_each(|warm_up| self.warm(warm_up)),
            ToEdge::AccessLost(lost) => self.base.metrics.access_lost(lost),
            ToEdge::Ask { ask, query } => {
                if let Some(json) = self.answer(ask, query) {
                    self.to_master.send(&ToMaster::Answer { ask, json }, &[]).await?;
                }
            }
            ToEdge::ReloadRefused => self.reload_refused(),
            // Said once, at the start; and handled where the loop knows its deadline.
            ToEdge::Hello { .. } | ToEdge::Shutdown { .. } => {}
        }
        Ok(())
    }

    /// Built aside, swapped whole, or refused with nothing changed.
    async fn apply(&mut self, config: &Config, sockets: Vec<OwnedFd>) -> Result<(), Fatal> {
        let generation = config.generation;
        let old = self.common.live.load_full();
        match Live::prepare(self.base.ground(Some(&old)), config, OnBadPair::Refuse) {
            Ok(prepared) => {
                self.swap(prepared);
                self.settings.send_replace(Arc::new(Setting::of(config)));
                self.log.set(config.plan.log.level, config.plan.log.format);
                self.doors.close_others(config, old.allowance.drain).await;
                self.doors.open(config, sockets).await?;
                self.base.metrics.reload_done();
                self.source.reloaded();
                tracing::info!(generation = generation.0, sites = config.plan.sites.len(), "configuration applied");
                self.to_master.send(&ToMaster::Applied { generation }, &[]).await?;
            }
            Err(error) => {
                self.reload_refused();
                let reason = format!("the edge could not {}", chain(&error));
                tracing::error!(generation = generation.0, reason, "configuration refused");
                self.to_master.send(&ToMaster::Refused { generation, reason }, &[]).await?;
            }
        }
        Ok(())
    }

    fn swap(&mut self, prepared: Prepared) {
        let live = Arc::new(prepared.enter(&self.base));
        let old = self.common.live.swap(live.clone());
        live.sentry.takes_over(Some(&old.sentry));
        self.pools.send_replace(live.pools.clone());
    }

    fn apps(&mut self, table: AppTable) {
        let live = self.common.live.load();
        live.pools.apps(&table, &self.base.metrics);
        self.base.metrics.apps(&table);
        self.source.apps_are(table);
    }

    async fn materials(&mut self, materials: Materials) -> Result<(), Fatal> {
        let old = self.common.live.load_full();
        let config =
            Config { generation: old.generation, plan: old.plan.clone(), listeners: old.listeners.clone(), materials: materials.clone() };
        match old.with_materials(&self.base, materials) {
            Ok(prepared) => {
                self.swap(prepared);
                let files = self.common.live.load().tls.as_ref().map_or_else(Vec::new, |tls| tls.passed_over().to_vec());
                self.settings.send_replace(Arc::new(Setting::of(&config)));
                tracing::info!("certificates read anew");
                self.to_master.send(&ToMaster::PassedOver { files }, &[]).await?;
            }
            Err(error) => tracing::error!(error = %chain(&error), "certificates kept as they were"),
        }
        Ok(())
    }

    fn drain(&mut self, Drain { id, incarnation, within }: Drain) {
        let drained = self.common.live.load().pools.drained(&id, incarnation, within);
        let outbox = self.outbox.clone();
        self.tasks.spawn(async move {
            let in_flight = drained.await;
            // Nobody to tell: the edge ends.
            let _ = outbox.send(ToMaster::Drained { id, incarnation, in_flight }).await;
        });
    }

    fn warm(&mut self, WarmUp { id, incarnation, paths, within }: WarmUp) {
        let warmed = self.common.live.load().pools.warm(&id, incarnation, paths, within);
        let outbox = self.outbox.clone();
        self.tasks.spawn(async move {
            let result = warmed.await;
            // Nobody to tell: the edge ends.
            let _ = outbox.send(ToMaster::Warmed { id, incarnation, result }).await;
        });
    }

    async fn tell_tallies(&mut self) -> Result<(), Fatal> {
        let tallies = self.common.live.load().pools.tallies();
        if tallies.is_empty() { Ok(()) } else { Ok(self.to_master.send(&ToMaster::Tallies(tallies), &[]).await?) }
    }

    /// `None`: the answer comes by the outbox.
    fn answer(&mut self, ask: u64, query: Query) -> Option<String> {
        use crate::admin::api::Source as _;
        let json = match query {
            Query::Status => serde_json::to_string(&api::status(&*self.source)),
            Query::Upstreams => serde_json::to_string(&self.source.upstreams()),
            Query::Zones => serde_json::to_string(&self.source.zones()),
            Query::Certificates => serde_json::to_string(&self.source.certificates()),
            Query::Bans => serde_json::to_string(&self.source.bans()),
            Query::Ban { ip, lasts } => {
                self.ban(ask, ip, lasts);
                return None;
            }
            Query::Unban(ip) => serde_json::to_string(&self.unban(ip)),
            Query::Maintain(switches) => {
                self.common.live.load().maintain(&switches);
                self.base.switches = switches;
                return Some("{}".to_owned());
            }
            Query::Why(id) => return Some(self.why(&id)),
            Query::Renew(host) => {
                self.renew(ask, host);
                return None;
            }
        };
        Some(json.unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")))
    }

    /// Answered when it is on disk: a ban that cannot be kept is in force all the same, and that is said.
    fn ban(&mut self, ask: u64, ip: IpAddr, lasts: Option<Duration>) {
        let banned = self.common.live.load().sentry.ban(ip, lasts);
        let (ledger, outbox) = (self.ledger.clone(), self.outbox.clone());
        self.tasks.spawn(async move {
            let json = match banned {
                Ok((who, sentence)) => {
                    let done = format!("{who} is banned until {}", moment(u64::from(sentence.until) * 1000));
                    match tokio::task::spawn_blocking(move || ledger.keep()).await {
                        Ok(Ok(())) => json!({ "message": done }),
                        Ok(Err(error)) => json!({ "error": format!("{done}, but that could not be kept and ends with this edge: could not {}", chain(&error)) }),
                        Err(error) => json!({ "error": format!("{done}, but that could not be kept and ends with this edge: {error}") }),
                    }
                }
                Err(spared) => json!({ "error": format!("could not ban: {spared}") }),
            };
            // Nobody to tell: the edge ends.
            let _ = outbox.send(ToMaster::Answer { ask, json: json.to_string() }).await;
        });
    }

    fn unban(&self, ip: IpAddr) -> serde_json::Value {
        let who = Who::of(ip).map_or_else(|| ip.to_string(), |who| who.to_string());
        match self.common.live.load().sentry.free(ip) {
            true => json!({ "message": format!("{who} is banned no more") }),
            false => json!({ "error": format!("{who} was not banned; its points are forgotten") }),
        }
    }

    fn why(&self, id: &RequestId) -> String {
        let started_ms = self.source.edge_started_ms();
        let found = self.common.live.load().blackbox.find(id, started_ms);
        let unknown = || {
            let since = moment(started_ms);
            json!({ "error": format!("no failed request of this id is remembered: the last {KEPT} are, since the edge was started at {since}, and of those that were refused the last {REFUSED}") })
        };
        found.map_or_else(unknown, |failed| json!(failed)).to_string()
    }

    fn renew(&mut self, ask: u64, host: Host) {
        let (steward, outbox) = (self.steward.clone(), self.outbox.clone());
        self.tasks.spawn(async move {
            let json = match timeout(RENEW_WITHIN, steward.renew(host.as_str())).await {
                Ok(Ok(message)) => json!({ "message": message }),
                Ok(Err(error)) => json!({ "error": error }),
                Err(_) => json!({ "error": "it was not taken up in time: see `gateway certs`" }),
            };
            // Nobody to tell: the edge ends.
            let _ = outbox.send(ToMaster::Answer { ask, json: json.to_string() }).await;
        });
    }

    fn reload_refused(&self) {
        self.base.metrics.reload_refused();
        self.source.reload_refused();
    }

    async fn tell_alive(&mut self) -> Result<(), Fatal> {
        let in_flight = self.base.metrics.totals().in_flight;
        let alive = ToMaster::Alive { connections: self.common.crowd.count(), in_flight };
        Ok(self.to_master.send(&alive, &[]).await?)
    }
}
