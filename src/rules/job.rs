//! Job rule: when a scheduled app runs, and what is said of the times at which it did not.
//!
//! Pure. `master::jobs` brings the event and both clocks, and performs the effects.
//!
//! Shape: Waiting ─a time of its schedule, or Start→ Running ─Exited→ Waiting; Running ─Stop, or too long→ Stopping ─late→ KILL, again and again.
//!        One run at a time. Every time of the schedule is accounted for once: it is kept (at most [`LATE`] late), skipped because a run still
//!        goes, or missed because nobody was there to keep it; what is missed is not made up for.
//!        Total: every state answers every event; an event about an earlier run is void.
//! Units: what is due is asked of the wall clock, which may jump; patience of the monotonic one.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    restart::Exit,
    schedule::{CronError, Crontab},
};
use crate::{
    plan::{App, Schedule},
    vocab::units::duration_text,
};

#[cfg(test)]
mod tests;

/// A time that passed no longer ago than this is still kept.
pub const LATE: SignedDuration = SignedDuration::from_secs(60);
/// The wall clock is looked at this often at least: it may have jumped.
pub const LOOK: Duration = Duration::from_secs(30);
/// A clock that was put back by more than this means it: the times come again.
const BACK: SignedDuration = SignedDuration::from_hours(1);
/// Missed times are counted one by one up to here.
const COUNTED: u64 = 1000;
/// After KILL: how long until it is sent again to what still has not gone.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub mono: Duration,
    pub wall: Timestamp,
}

/// What is kept of a job over restarts of gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The schedule that `until_ms` is about.
    pub cron: String,
    pub zone: Option<String>,
    /// Every time of the schedule up to here is accounted for. Unix milliseconds.
    pub until_ms: i64,
    /// When the run that goes began.
    pub running_ms: Option<i64>,
    pub last: Option<Run>,
    /// When a run succeeded last.
    #[serde(default)]
    pub succeeded_ms: Option<i64>,
    pub counts: Counts,
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub started_ms: i64,
    pub ended_ms: i64,
    /// By the monotonic clock.
    pub took_ms: u64,
    pub outcome: Outcome,
    /// As in "exit 1", "timed out after 1h: signal 15 (TERM)".
    pub exit: String,
    /// The last lines that it wrote.
    pub lines: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Succeeded,
    Failed,
    /// Ended by a person, a reload, or the end of gateway.
    Stopped,
}

/// What became of the runs and of the times without one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub succeeded: u64,
    pub failed: u64,
    pub stopped: u64,
    pub skipped: u64,
    pub missed: u64,
}

impl Counts {
    /// With their names: the `result` label of the metric.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 5] {
        let Self { succeeded, failed, stopped, skipped, missed } = *self;
        [("succeeded", succeeded), ("failed", failed), ("stopped", stopped), ("skipped", skipped), ("missed", missed)]
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed; see [`Job::due`].
    Tick,
    /// Run it now; nothing where it runs.
    Start,
    /// End the run that goes.
    Stop,
    /// End the run that goes, and run it again.
    Restart,
    /// A reload changed its block: a new schedule counts at once, the rest from the next run on.
    Change(Arc<App>),
    /// A reload took it away, or gateway ends: end the run that goes, begin none.
    Close,
    /// No more patience.
    KillNow,
    SpawnFailed {
        run: u64,
        why: String,
    },
    /// Its leader has ended and others that came of it go on; `Exited` follows when nobody is left.
    Left {
        run: u64,
    },
    Exited {
        run: u64,
        exit: Exit,
        lines: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answered by `SpawnFailed`, or one day by `Exited`.
    Spawn {
        run: u64,
    },
    /// The app's stop signal to the leader, or to those that lead what it left.
    Signal {
        run: u64,
    },
    /// KILL to all of it.
    KillGroup {
        run: u64,
    },
    /// The record changed.
    Save,
    Publish,
    Report(Report),
}

/// For the log and for whoever waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    Ended(Run),
    /// A time came while a run still goes.
    Skipped {
        due: Timestamp,
        started: Timestamp,
    },
    /// `more`: they were not counted to the end.
    Missed {
        count: u64,
        more: bool,
        since: Timestamp,
    },
    /// Gateway ended in the middle of this run.
    Lost {
        started: Timestamp,
    },
    TimedOut {
        after: Duration,
    },
    Stubborn,
    ClockPutBack {
        by: SignedDuration,
    },
    /// The schedule cannot be read any more, as where the machine has lost its time zones.
    Unreadable {
        why: String,
    },
}

/// Why a run is being ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    Told,
    Again,
    TimedOut(Duration),
    /// It came to its end by itself and left others running.
    Over,
}

#[derive(Clone, Debug)]
struct Going {
    run: u64,
    started: Now,
    /// `timeout` of the schedule.
    deadline: Option<(Duration, Duration)>,
    /// It was told to go: until when it may take, and why.
    ending: Option<(Duration, Why)>,
}

/// One job.
#[derive(Clone, Debug)]
pub struct Job {
    spec: Arc<App>,
    crontab: Option<Crontab>,
    next: Option<Timestamp>,
    record: Record,
    going: Option<Going>,
    runs: u64,
    closed: bool,
    effects: Vec<Effect>,
}

fn schedule(app: &App) -> Schedule {
    app.schedule.clone().unwrap_or(Schedule { cron: String::new(), zone: None, timeout: None })
}

fn crontab(app: &App) -> Result<Crontab, CronError> {
    let Schedule { cron, zone, timeout: _ } = schedule(app);
    Crontab::parse(&cron, zone.as_deref())
}

fn from_ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Job {
    /// `record`: what was kept of it, if anything. Runs count from `first`. The first [`Event::Tick`] says what was missed.
    #[must_use]
    pub fn new(spec: Arc<App>, record: Option<Record>, first: u64, now: Now) -> (Self, Vec<Effect>) {
        let Schedule { cron, zone, timeout: _ } = schedule(&spec);
        let known = record.is_some();
        let mut record = record.unwrap_or_default();
        // What was missed of another schedule is nothing to this one.
        if !known || (&record.cron, &record.zone) != (&cron, &zone) {
            record = Record { cron, zone, until_ms: now.wall.as_millisecond(), ..record };
        }
        let mut job = Self { crontab: None, next: None, record, going: None, runs: first, closed: false, effects: Vec::new(), spec };
        if let Some(started_ms) = job.record.running_ms.take() {
            job.effects.push(Effect::Report(Report::Lost { started: from_ms(started_ms) }));
            job.record.counts.failed += 1;
            let (exit, ended_ms) = ("gateway ended in the middle of it".to_owned(), now.wall.as_millisecond());
            let took_ms = u64::try_from(ended_ms.saturating_sub(started_ms)).unwrap_or(0);
            job.record.last = Some(Run { started_ms, ended_ms, took_ms, outcome: Outcome::Failed, exit, lines: Vec::new() });
        }
        job.read_schedule();
        job.effects.extend([Effect::Save, Effect::Publish]);
        let effects = std::mem::take(&mut job.effects);
        (job, effects)
    }

    #[must_use]
    pub fn spec(&self) -> &Arc<App> {
        &self.spec
    }

    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The run that goes: its number, when it began, and whether it was told to end.
    #[must_use]
    pub fn going(&self) -> Option<(u64, Now, bool)> {
        self.going.as_ref().map(|going| (going.run, going.started, going.ending.is_some()))
    }

    /// The next time of its schedule.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.next.filter(|_| !self.closed)
    }

    /// Closed, and nothing of it runs.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.closed && self.going.is_none()
    }

    /// When [`Event::Tick`] is wanted next, by the monotonic clock.
    #[must_use]
    pub fn due(&self, now: Now) -> Duration {
        let scheduled = self.next().map(|next| {
            let wait = next.duration_since(now.wall);
            now.mono + Duration::try_from(wait).unwrap_or(Duration::ZERO)
        });
        let patience = self.going.as_ref().and_then(|going| match going.ending {
            Some((until, _)) => Some(until),
            None => going.deadline.map(|(at, _)| at),
        });
        [scheduled, patience].into_iter().flatten().fold(now.mono + LOOK, Duration::min)
    }

    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        match event {
            Event::Tick => self.tick(now),
            Event::Start => self.begin(now),
            Event::Stop => self.end(Why::Told, now),
            Event::Restart if self.going.is_some() => self.end(Why::Again, now),
            Event::Restart => self.begin(now),
            Event::Change(spec) => self.change(spec, now),
            Event::Close => {
                self.closed = true;
                self.end(Why::Told, now);
            }
            Event::KillNow => {
                self.closed = true;
                self.end(Why::Told, now);
                self.kill(now);
            }
            Event::SpawnFailed { run, why } => {
                if let Some(going) = self.going.take_if(|going| going.run == run) {
                    self.over(&going, Outcome::Failed, why, Vec::new(), now);
                }
            }
            Event::Left { run } => {
                if self.going.as_ref().is_some_and(|going| going.run == run) {
                    self.end(Why::Over, now);
                }
            }
            Event::Exited { run, exit, lines } => {
                if let Some(going) = self.going.take_if(|going| going.run == run) {
                    self.exited(&going, exit, lines, now);
                }
            }
        }
        std::mem::take(&mut self.effects)
    }

    fn tick(&mut self, now: Now) {
        self.look_at_the_clock(now);
        let Some(going) = &self.going else { return };
        match (going.ending, going.deadline) {
            (Some((until, why)), _) if until <= now.mono => {
                if let Some(going) = &mut self.going {
                    going.ending = Some((now.mono + KILL_AGAIN, why));
                }
                self.effects.push(Effect::Report(Report::Stubborn));
                self.kill(now);
            }
            (None, Some((at, after))) if at <= now.mono => {
                self.effects.push(Effect::Report(Report::TimedOut { after }));
                self.end(Why::TimedOut(after), now);
            }
            (Some(_) | None, _) => {}
        }
    }

    /// Accounts for every time of the schedule that has come.
    fn look_at_the_clock(&mut self, now: Now) {
        if self.closed {
            return;
        }
        let put_back = from_ms(self.record.until_ms).duration_since(now.wall);
        if put_back > BACK {
            self.effects.extend([Effect::Report(Report::ClockPutBack { by: put_back }), Effect::Save, Effect::Publish]);
            self.account(now);
        }
        let (Some(crontab), Some(first)) = (self.crontab.clone(), self.next.filter(|next| *next <= now.wall)) else { return };
        let (mut came, mut last, mut more) = (1, first, false);
        while let Some(next) = crontab.next(last).filter(|next| *next <= now.wall) {
            if came == COUNTED {
                more = true;
                break;
            }
            came += 1;
            last = next;
        }
        let kept = !more && now.wall.duration_since(last) <= LATE;
        let count = came - u64::from(kept);
        if count > 0 {
            self.record.counts.missed += count;
            self.effects.push(Effect::Report(Report::Missed { count, more, since: first }));
        }
        self.account(now);
        match &self.going {
            _ if !kept => self.effects.extend([Effect::Save, Effect::Publish]),
            Some(going) => {
                let started = going.started.wall;
                self.record.counts.skipped += 1;
                self.effects.extend([Effect::Report(Report::Skipped { due: last, started }), Effect::Save, Effect::Publish]);
            }
            None => self.begin(now),
        }
    }

    /// Whatever came up to now is done with.
    fn account(&mut self, now: Now) {
        self.record.until_ms = now.wall.as_millisecond();
        self.next = self.crontab.as_ref().and_then(|crontab| crontab.next(now.wall));
    }

    fn begin(&mut self, now: Now) {
        if self.closed || self.going.is_some() {
            return;
        }
        self.runs += 1;
        let deadline = schedule(&self.spec).timeout.map(|after| (now.mono + after, after));
        self.going = Some(Going { run: self.runs, started: now, deadline, ending: None });
        self.record.running_ms = Some(now.wall.as_millisecond());
        self.effects.extend([Effect::Save, Effect::Spawn { run: self.runs }, Effect::Publish]);
    }

    fn end(&mut self, why: Why, now: Now) {
        let patience = self.spec.stop.timeout;
        let Some(going) = &mut self.going else { return };
        match &mut going.ending {
            // Told once is told; a person who says "stop" after "restart", or the other way round, has the last word.
            Some((_, before)) => match (*before, why) {
                (Why::Told | Why::Again, Why::Told | Why::Again) => *before = why,
                // What is over is over; it may be wanted once more.
                (Why::Over, Why::Again) => *before = why,
                (Why::TimedOut(_) | Why::Over, _) | (_, Why::TimedOut(_) | Why::Over) => {}
            },
            None => {
                going.ending = Some((now.mono + patience, why));
                self.effects.extend([Effect::Signal { run: going.run }, Effect::Publish]);
            }
        }
    }

    fn kill(&mut self, now: Now) {
        if let Some(going) = &mut self.going {
            going.ending = Some((now.mono + KILL_AGAIN, going.ending.map_or(Why::Told, |(_, why)| why)));
            self.effects.push(Effect::KillGroup { run: going.run });
        }
    }

    fn exited(&mut self, going: &Going, exit: Exit, lines: Vec<String>, now: Now) {
        let good = match exit {
            Exit::Code(code) => code == 0 || self.spec.restart.success.contains(&code),
            Exit::Signal(_) | Exit::Memory { .. } => false,
        };
        let (outcome, text) = match going.ending {
            Some((_, Why::TimedOut(after))) => (Outcome::Failed, format!("timed out after {}: {exit}", duration_text(after))),
            // Whatever it says of itself: it was not left to come to its end.
            Some((_, Why::Told | Why::Again)) => (Outcome::Stopped, format!("stopped: {exit}")),
            None | Some((_, Why::Over)) if good => (Outcome::Succeeded, exit.to_string()),
            None | Some((_, Why::Over)) => (Outcome::Failed, exit.to_string()),
        };
        self.over(going, outcome, text, lines, now);
        if matches!(going.ending, Some((_, Why::Again))) {
            self.begin(now);
        }
    }

    fn over(&mut self, going: &Going, outcome: Outcome, exit: String, lines: Vec<String>, now: Now) {
        let took = now.mono.saturating_sub(going.started.mono);
        let run = Run {
            started_ms: going.started.wall.as_millisecond(),
            ended_ms: now.wall.as_millisecond(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            outcome,
            exit,
            lines,
        };
        let counts = &mut self.record.counts;
        match outcome {
            Outcome::Succeeded => {
                counts.succeeded += 1;
                self.record.succeeded_ms = Some(run.ended_ms);
            }
            Outcome::Failed => counts.failed += 1,
            Outcome::Stopped => counts.stopped += 1,
        }
        self.record.running_ms = None;
        self.record.last = Some(run.clone());
        self.effects.extend([Effect::Save, Effect::Publish, Effect::Report(Report::Ended(run))]);
    }

    fn change(&mut self, spec: Arc<App>, now: Now) {
        let Schedule { cron, zone, timeout: _ } = schedule(&spec);
        self.spec = spec;
        if (&self.record.cron, &self.record.zone) != (&cron, &zone) {
            (self.record.cron, self.record.zone) = (cron, zone);
            self.record.until_ms = now.wall.as_millisecond();
            self.read_schedule();
            self.effects.extend([Effect::Save, Effect::Publish]);
        }
    }

    fn read_schedule(&mut self) {
        self.crontab = match crontab(&self.spec) {
            Ok(crontab) => Some(crontab),
            Err(error) => {
                self.effects.push(Effect::Report(Report::Unreadable { why: error.to_string() }));
                None
            }
        };
        self.next = self.crontab.as_ref().and_then(|crontab| crontab.next(from_ms(self.record.until_ms)));
    }
}
