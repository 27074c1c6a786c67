//! Which release each app runs: the histories in memory, and what they make of a configuration.
//!
//! Shape: a configuration is overlaid when it is read, and says so when it comes into force; between the two nothing is remembered, so one that is refused leaves no trace.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use jiff::Timestamp;

use crate::{
    plan::App,
    rules::release::{Candidate, Choice, History, Release, ReleaseId},
    store::releases::{ReadError, Releases, SaveError},
    vocab::{AppName, chain::chain, lock},
};

/// Whether processes run already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moment {
    /// None: a release whose directory is gone cannot be started.
    Start,
    /// A release whose directory is gone runs on as it is.
    Reload,
}

impl Overlay {
    /// `dir` of an app as this configuration has it.
    #[must_use]
    pub fn configured(&self, app: &AppName) -> Option<&Option<PathBuf>> {
        self.configured.get(app)
    }
}

/// What the releases made of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// `dir` as the configuration has it.
    configured: BTreeMap<AppName, Option<PathBuf>>,
    notes: Vec<(AppName, Note)>,
}

#[derive(Clone, Debug)]
enum Note {
    Unknown(String),
    Superseded(Release),
    Gone { release: Release, moment: Moment },
}

#[derive(Default)]
struct Inner {
    histories: BTreeMap<AppName, History>,
    configured: BTreeMap<AppName, Option<PathBuf>>,
}

/// A cloneable door; the lock of what is in memory is held for moments only.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Mutex<Inner>>,
    /// Held while a change is made and written, so that the file has the last one.
    pen: Arc<Mutex<()>>,
    store: Releases,
}

impl Ledger {
    #[must_use]
    pub fn new(store: Releases) -> Self {
        Self { inner: Arc::default(), pen: Arc::default(), store }
    }

    /// `dir` of each app as the configuration in force has it.
    #[must_use]
    pub fn all_configured(&self) -> BTreeMap<AppName, Option<PathBuf>> {
        self.lock().configured.clone()
    }

    /// Puts the directory of its current release into each app. Blocks for the disk.
    pub fn overlay(&self, apps: &mut BTreeMap<AppName, App>, moment: Moment) -> Overlay {
        let mut overlay = Overlay::default();
        for (name, app) in apps {
            let configured = app.dir.clone();
            let known = self.lock().histories.get(name).cloned();
            let history = known.unwrap_or_else(|| match self.store.read(name) {
                Ok(history) => history,
                Err(error @ (ReadError::Read { .. } | ReadError::Damaged { .. })) => {
                    overlay.notes.push((name.clone(), Note::Unknown(chain(&error))));
                    History::default()
                }
            });
            match history.choice(configured.as_deref()) {
                Choice::Configured => {}
                Choice::Superseded(release) => overlay.notes.push((name.clone(), Note::Superseded(release))),
                Choice::Release(release) => {
                    let gone = !release.dir.is_dir();
                    if gone {
                        overlay.notes.push((name.clone(), Note::Gone { release: release.clone(), moment }));
                    }
                    if !gone || moment == Moment::Reload {
                        app.dir = Some(release.dir);
                        app.release = Some(release.id.to_string());
                    }
                }
            }
            self.lock().histories.entry(name.clone()).or_insert(history);
            overlay.configured.insert(name.clone(), configured);
        }
        overlay
    }

    /// The configuration that `overlay` was made for is in force. Blocks for the disk where it won over a release.
    pub fn in_force(&self, overlay: Overlay) {
        let Overlay { configured, notes } = overlay;
        self.lock().configured = configured;
        for (app, note) in notes {
            match note {
                Note::Unknown(error) => {
                    tracing::error!(%app, error, "what was deployed of it is not known, its `dir` in the configuration counts");
                }
                Note::Superseded(Release { id, dir, .. }) => {
                    tracing::warn!(%app, release = %id, dir = %dir.display(), "its `dir` in the configuration was changed since the deploy, and counts; `gateway rollback` returns to the release");
                    if let Err(error) = self.change(&app, History::supersede) {
                        tracing::error!(%app, error = chain(&error), "that its release ended could not be written down");
                    }
                }
                Note::Gone { release: Release { id, dir, .. }, moment: Moment::Start } => {
                    tracing::error!(%app, release = %id, dir = %dir.display(), "the directory of its release is gone, its `dir` in the configuration counts");
                }
                Note::Gone { release: Release { id, dir, .. }, moment: Moment::Reload } => {
                    tracing::error!(%app, release = %id, dir = %dir.display(), "the directory of its release is gone: it runs on, but could not be started again; deploy it anew");
                }
            }
        }
    }

    /// `dir` of an app as the configuration in force has it; `None`: no such app.
    #[must_use]
    pub fn configured(&self, app: &AppName) -> Option<Option<PathBuf>> {
        self.lock().configured.get(app).cloned()
    }

    #[must_use]
    pub fn history(&self, app: &AppName) -> History {
        self.lock().histories.get(app).cloned().unwrap_or_default()
    }

    /// Errors: it counts all the same, until gateway ends. Blocks for the disk.
    pub fn deployed(&self, app: &AppName, candidate: Candidate, ran: Option<PathBuf>) -> Result<(), SaveError> {
        let configured = self.configured(app).flatten();
        self.change(app, |history| history.deployed(candidate, configured, ran))
    }

    /// Errors: as [`Ledger::deployed`].
    pub fn failed(&self, app: &AppName, candidate: Candidate, why: String) -> Result<(), SaveError> {
        self.change(app, |history| history.failed(candidate, why))
    }

    /// Errors: as [`Ledger::deployed`].
    pub fn rolled_back(&self, app: &AppName, to: ReleaseId, ran: Option<PathBuf>, at: &str, now: Timestamp) -> Result<(), SaveError> {
        let configured = self.configured(app).flatten();
        self.change(app, |history| history.rolled_back(to, configured, ran, at, now))
    }

    fn change(&self, app: &AppName, change: impl FnOnce(&mut History)) -> Result<(), SaveError> {
        let _pen = lock(&self.pen);
        let history = {
            let mut inner = self.lock();
            let history = inner.histories.entry(app.clone()).or_default();
            change(history);
            history.clone()
        };
        self.store.write(app, &history)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

/// From where an app runs that has no release: where its configuration says, without links.
#[must_use]
pub fn origin(configured: Option<&Path>) -> Option<PathBuf> {
    match configured {
        Some(dir) => dir.canonicalize().ok(),
        None => std::env::current_dir().ok(),
    }
}
