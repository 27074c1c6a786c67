//! `before_start`: what runs before a process is started, as its user, one command after the other.
//!
//! Shape: the process is `starting` meanwhile. The first command that fails or is late makes the start a failed one, in its own words; a start that is not wanted any
//!        more ends the command that runs.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{Process, Supervisor, Track};
use crate::{
    ipc::message::InstanceId,
    master::{
        errand::{BeforeError, Bench, Errand},
        words::Notice,
    },
    plan::{App, BeforeStart},
    rules::restart::Event,
    vocab::{AppName, chain},
};

impl Supervisor {
    /// The start goes on with [`Notice::Prepared`].
    pub(super) fn prepare(&mut self, id: InstanceId, incarnation: u64, spec: Arc<App>) {
        while self.preludes.try_join_next().is_some() {}
        let (stop, told) = watch::channel(false);
        if let Some(track) = self.tracks.get_mut(&id.app) {
            track.processes.insert(incarnation, Process { n: id.n, prelude: Some(stop), ..Process::default() });
        }
        let (bench, notices) = (self.workshop.bench(), self.notices.0.clone());
        self.preludes.spawn(async move {
            let result = run(&bench, &id, &spec, told).await;
            drop(notices.send(Notice::Prepared { id, incarnation, result }));
        });
    }

    pub(super) fn prepared(&mut self, app: &AppName, n: u16, incarnation: u64, result: Result<(), String>) {
        if let Some(process) = self.process(app, incarnation) {
            process.prelude = None;
        }
        let wanted = self.tracks.get(app).is_some_and(|track| track.life.spawns(n, incarnation));
        let event = match result {
            Ok(()) if wanted => self.launch(app, n, incarnation),
            Ok(()) => Event::SpawnFailed { n, incarnation, why: "not wanted any more".to_owned() },
            Err(why) => {
                tracing::error!(%app, instance = n, error = why, "could not be started");
                Event::SpawnFailed { n, incarnation, why }
            }
        };
        self.step(app, event);
    }
}

impl Track {
    /// Of starts that nobody wants any more.
    pub(super) fn end_preludes(&self) {
        for (incarnation, process) in &self.processes {
            if let Some(stop) = &process.prelude
                && !self.life.spawns(process.n, *incarnation)
            {
                stop.send_replace(true);
            }
        }
    }
}

async fn run(bench: &Bench, id: &InstanceId, spec: &App, mut stop: watch::Receiver<bool>) -> Result<(), String> {
    let BeforeStart { commands, timeout } = &spec.before_start;
    let all = commands.len();
    for (words, nth) in commands.iter().zip(1..) {
        let errand = Errand { app: &id.app, spec, n: Some(id.n), words, within: *timeout };
        bench.run(errand, &mut stop).await.map_err(|error| story(&error, nth, all, words))?;
    }
    Ok(())
}

fn story(error: &BeforeError, nth: usize, all: usize, words: &[String]) -> String {
    // Arguments may hold what is not for everybody's eyes.
    let program = words.first().map(PathBuf::from).and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let last = error.last().last().map(|line| format!("; its last words: {line}")).unwrap_or_default();
    let advice = error.advice().map(|advice| format!(" ({advice})")).unwrap_or_default();
    format!("before_start {nth}/{all} ({}): {}{last}{advice}", program.unwrap_or_default(), chain(error))
}
