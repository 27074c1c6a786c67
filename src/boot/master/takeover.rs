//! The other side of an upgrade: the state of the binary before becomes this one's. And the self-check, which says beforehand whether that will do.

use std::{os::fd::OwnedFd, path::Path};

use nix::unistd::Pid;
use thiserror::Error;

use super::{Begun, Fatal, os};
use crate::{
    config::{complaint::Complaints, load},
    master::{
        bag, child,
        clock::Clock,
        handoff::{PROOF, PROVEN, Source, State},
        nursery::Nursery,
        obstacle::TakeOverError,
        output::{Files, Output, carried::Adopted},
        places::Places,
        releases::{Ledger, Moment},
    },
    plan::Plan,
    store::{lock::StateLock, releases::Releases},
    vocab::story,
};

/// What the rooms take over when they are made.
pub struct TakeOver {
    pub state: State,
    pub source: Source,
    pub adopted: Adopted,
    /// Who asked for the upgrade, and waits for an answer.
    pub client: Option<OwnedFd>,
}

/// Why this binary would not do. Told to the one that runs.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("{0}")]
    Configuration(Complaints),
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
}

impl Refusal {
    /// What to print: the complaints as they are, anything else in one sentence with its causes.
    #[must_use]
    pub fn story(&self) -> String {
        match self {
            Self::Configuration(complaints) => complaints.to_string(),
            Self::TakeOver(error) => story(error, error.advice()),
        }
    }
}

/// Reads the file and the state as a take-over would, and changes nothing.
///
/// Errors: either is no good for this build.
pub fn self_check(path: &Path) -> Result<&'static str, Refusal> {
    let load = || load::load_running(path, &|name| std::env::var(name).ok());
    let file = load().map_err(Refusal::Configuration)?;
    let state = State::read(bag::claim(PROOF).map_err(TakeOverError::Missing)?)?;
    let (plan, source) = state.plan(|| Ok::<_, Refusal>(file))??;
    state.prove(&plan, source)?;
    Ok(PROVEN)
}

/// From here on there is no way back: an error ends this process, and the guard ends every app.
pub fn begin(state: State, path: &Path) -> Result<Begun, Fatal> {
    child::keep_oom_score(state.oom_score.clone());
    let (guard, pipe) = state.guard;
    let nursery = Nursery::adopt(Pid::from_raw(guard), bag::claim(pipe).map_err(TakeOverError::Descriptor)?);
    let load = || load::load_to_start(path, &|name| std::env::var(name).ok());
    let (mut plan, source): (Plan, Source) = state.plan(load).map_err(Fatal::Configuration)??;
    for (name, app) in plan.apps.iter_mut().filter(|(_, app)| app.release.is_some()) {
        // As the configuration has it: the release is laid over it anew.
        app.dir = state.configured.get(name).cloned().flatten();
        app.release = None;
    }
    let ledger = Ledger::new(Releases::of(&plan.state));
    let overlay = ledger.overlay(&mut plan.apps, Moment::Reload);
    let lock = StateLock::adopt(bag::claim(state.lock).map_err(TakeOverError::Descriptor)?, &plan.state)?;
    let places = Places::prepare(&plan)?;
    let sockets = state.sockets()?;
    let listener = bag::claim(state.control).map_err(TakeOverError::Descriptor)?.into();
    let client = state.client.map(bag::claim).transpose().map_err(TakeOverError::Descriptor)?;
    let output = Output::start(&Files::of(&plan)).map_err(os("start the log threads"))?;
    let adopted = Adopted::new(state.output.clone(), bag::claim).map_err(TakeOverError::Descriptor)?;
    let clock = Clock::adopt(state.clock).map_err(os("read the clock"))?;
    let carried = Some(TakeOver { state, source, adopted, client });
    Ok(Begun { plan, ledger, overlay, places, nursery, lock, sockets, listener, output, clock, carried })
}
