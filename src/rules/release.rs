//! Release rule: what of an app was deployed, what runs now, and what a rollback returns to.
//!
//! Pure. `store::releases` keeps a history on disk; `master::deploy` brings directories, times and outcomes.
//!
//! Shape: a directory is one release, however often it is deployed: the last time counts. At most one release is current and at most one previous; a rollback exchanges the two, so that a second one takes back the first.
//!        What an app ran before its first deploy is remembered as a release too, or the first deploy could not be taken back.
//! Laws: no more than [`KEEP`] are remembered, never without the current and the previous one; ids grow, whatever the clock does.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Releases of an app that are remembered, failed ones too.
pub const KEEP: usize = 10;
/// As in `20260115-103000-1`; the last number tells releases of one second apart.
const STAMP: &str = "%Y%m%d-%H%M%S";

/// Names a release. Sorted as they came.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId {
    second: Timestamp,
    nth: u32,
}

/// Why a text is no release id.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is not a release, such as 20260115-103000-0")]
pub struct BadReleaseId(String);

impl ReleaseId {
    /// The one for a deploy at `now`; later than `last` even where the clock was set back.
    #[must_use]
    pub fn after(last: Option<Self>, now: Timestamp) -> Self {
        let second = Timestamp::from_second(now.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
        match last {
            Some(last) if last.second >= second => Self { second: last.second, nth: last.nth.saturating_add(1) },
            Some(_) | None => Self { second, nth: 0 },
        }
    }

    pub fn parse(text: &str) -> Result<Self, BadReleaseId> {
        let bad = || BadReleaseId(text.to_owned());
        let (stamp, nth) = text.rsplit_once('-').ok_or_else(bad)?;
        let second = DateTime::strptime(STAMP, stamp).and_then(|time| time.to_zoned(TimeZone::UTC)).map_err(|_| bad())?.timestamp();
        let id = Self { second, nth: nth.parse().map_err(|_| bad())? };
        if id.to_string() == text { Ok(id) } else { Err(bad()) }
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.second.strftime(STAMP), self.nth)
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = BadReleaseId;

    fn try_from(text: String) -> Result<Self, BadReleaseId> {
        Self::parse(&text)
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.to_string()
    }
}

/// One deploy of an app.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub id: ReleaseId,
    /// Without links, so that a link that is turned later does not change it.
    pub dir: PathBuf,
    /// As RFC 3339 in UTC.
    pub at: String,
    /// The user who asked for it; `None`: nobody did, it ran before the first deploy.
    pub by: Option<u32>,
    #[serde(flatten)]
    pub standing: Standing,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Standing {
    Current,
    /// A rollback returns to it.
    Previous,
    /// Was good once.
    Past,
    Failed {
        why: String,
    },
}

/// A new directory, and who wants it in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    pub id: ReleaseId,
    pub dir: PathBuf,
    pub at: String,
    pub by: u32,
}

/// The releases of an app, oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct History {
    /// The configuration's `dir` when a release last took its place: another one since then wins over the release.
    configured: Option<PathBuf>,
    releases: Vec<Release>,
}

/// A history as somebody may have written it.
#[derive(Deserialize)]
struct Written {
    configured: Option<PathBuf>,
    releases: Vec<Release>,
}

/// Why a history is not believed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BadHistory {
    #[error("it has {0} releases, and at most {KEEP} are kept")]
    Long(usize),
    #[error("two of its releases are current, or two previous")]
    Twins,
    #[error("its releases are not in order")]
    Disorder,
    #[error("the directory of a release is not an absolute path")]
    Relative,
}

impl TryFrom<Written> for History {
    type Error = BadHistory;

    fn try_from(Written { configured, releases }: Written) -> Result<Self, BadHistory> {
        let count = |standing: &Standing| releases.iter().filter(|release| release.standing == *standing).count();
        if releases.len() > KEEP {
            return Err(BadHistory::Long(releases.len()));
        }
        if count(&Standing::Current) > 1 || count(&Standing::Previous) > 1 {
            return Err(BadHistory::Twins);
        }
        if releases.windows(2).any(|pair| pair[0].id >= pair[1].id) {
            return Err(BadHistory::Disorder);
        }
        if releases.iter().any(|release| !release.dir.is_absolute()) {
            return Err(BadHistory::Relative);
        }
        Ok(Self { configured, releases })
    }
}

/// Where an app runs from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Choice {
    /// Nothing is deployed.
    Configured,
    Release(Release),
    /// The configuration's `dir` is another than when this one was deployed.
    Superseded(Release),
}

impl History {
    #[must_use]
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    #[must_use]
    pub fn current(&self) -> Option<&Release> {
        self.releases.iter().find(|release| release.standing == Standing::Current)
    }

    /// What a rollback returns to.
    #[must_use]
    pub fn previous(&self) -> Option<&Release> {
        self.releases.iter().find(|release| release.standing == Standing::Previous)
    }

    /// What a rollback goes to: a number as [`History::newest_first`] counts from 1, an id, or a directory; the newest that fits.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Release> {
        let nth = name.parse::<usize>().ok().and_then(|n| self.newest_first().nth(n.checked_sub(1)?));
        let named = |release: &&Release| release.id.to_string() == name || release.dir == Path::new(name);
        // Of a directory that has failed as well, the one that served.
        let served = |release: &&Release| named(release) && !matches!(release.standing, Standing::Failed { .. });
        nth.or_else(|| self.newest_first().find(served)).or_else(|| self.newest_first().find(named))
    }

    /// As people see them.
    pub fn newest_first(&self) -> impl Iterator<Item = &Release> {
        self.releases.iter().rev()
    }

    /// The one before it stays free, for what ran until then.
    #[must_use]
    pub fn next_id(&self, now: Timestamp) -> ReleaseId {
        let free = ReleaseId::after(self.releases.last().map(|release| release.id), now);
        ReleaseId { nth: free.nth.saturating_add(1), ..free }
    }

    /// What runs where the configuration says `configured`.
    #[must_use]
    pub fn choice(&self, configured: Option<&Path>) -> Choice {
        match self.current() {
            None => Choice::Configured,
            Some(release) if self.configured.as_deref() == configured => Choice::Release(release.clone()),
            Some(release) => Choice::Superseded(release.clone()),
        }
    }

    /// The configuration has won: what was current is what a rollback returns to.
    pub fn supersede(&mut self) {
        self.hand_over(None);
    }

    /// `candidate` runs now. `ran`: from where the app ran until then, if that was no release.
    pub fn deployed(&mut self, candidate: Candidate, configured: Option<PathBuf>, ran: Option<PathBuf>) {
        let Candidate { id, dir, at, by } = candidate;
        self.remember_origin(ran, &at, id);
        // The same directory once more is the same release, with another time.
        self.releases.retain(|release| release.dir != dir);
        self.hand_over(None);
        self.releases.push(Release { id, dir, at, by: Some(by), standing: Standing::Current });
        self.configured = configured;
        self.forget();
    }

    /// `candidate` did not come to run.
    pub fn failed(&mut self, candidate: Candidate, why: String) {
        let Candidate { id, dir, at, by } = candidate;
        self.releases.retain(|release| release.dir != dir || !matches!(release.standing, Standing::Failed { .. }));
        self.releases.push(Release { id, dir, at, by: Some(by), standing: Standing::Failed { why } });
        self.forget();
    }

    /// The release `to` runs again; one that is not remembered, or has never served, changes nothing.
    pub fn rolled_back(&mut self, to: ReleaseId, configured: Option<PathBuf>, ran: Option<PathBuf>, at: &str, now: Timestamp) {
        let served = |release: &Release| release.id == to && !matches!(release.standing, Standing::Failed { .. });
        if !self.releases.iter().any(served) {
            return;
        }
        let id = self.next_id(now);
        self.remember_origin(ran, at, id);
        self.hand_over(Some(to));
        self.configured = configured;
        self.forget();
    }

    /// As a release just before `next`, if no release ran.
    fn remember_origin(&mut self, ran: Option<PathBuf>, at: &str, next: ReleaseId) {
        if let Some(dir) = ran.filter(|_| self.current().is_none()) {
            let id = ReleaseId { nth: next.nth.saturating_sub(1), ..next };
            self.releases.push(Release { id, dir, at: at.to_owned(), by: None, standing: Standing::Current });
        }
    }

    /// The current one becomes the previous one, if there is one, and `to` the current one.
    fn hand_over(&mut self, to: Option<ReleaseId>) {
        let current = self.current().is_some();
        for release in &mut self.releases {
            if Some(release.id) == to {
                release.standing = Standing::Current;
                continue;
            }
            release.standing = match std::mem::replace(&mut release.standing, Standing::Past) {
                Standing::Current => Standing::Previous,
                Standing::Previous if !current => Standing::Previous,
                Standing::Previous | Standing::Past => Standing::Past,
                Standing::Failed { why } => Standing::Failed { why },
            };
        }
    }

    fn forget(&mut self) {
        while self.releases.len() > KEEP {
            let spare = |release: &Release| match &release.standing {
                Standing::Current | Standing::Previous => false,
                Standing::Past | Standing::Failed { .. } => true,
            };
            let Some(oldest) = self.releases.iter().position(spare) else { return };
            self.releases.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: &str = "2026-01-15T10:30:00.000Z";

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(1_768_473_000 + second).expect("a moment")
    }

    fn candidate(history: &History, dir: &str, now: i64) -> Candidate {
        Candidate { id: history.next_id(second(now)), dir: dir.into(), at: AT.into(), by: 0 }
    }

    fn deploy(history: &mut History, dir: &str) {
        let candidate = candidate(history, dir, 0);
        history.deployed(candidate, Some("/app".into()), Some("/app".into()));
    }

    fn back(history: &mut History, configured: &str, now: i64) {
        let previous = history.previous().expect("one").id;
        history.rolled_back(previous, Some(configured.into()), None, AT, second(now));
    }

    fn dirs(history: &History) -> (Option<&'static str>, Option<&'static str>) {
        let dir = |release: Option<&Release>| release.map(|release| release.dir.to_str().expect("text")).map(str::to_owned);
        let (current, previous) = (dir(history.current()), dir(history.previous()));
        // Leaked: a test's few bytes, for a readable comparison.
        (current.map(|text| &*text.leak()), previous.map(|text| &*text.leak()))
    }

    #[test]
    fn the_first_deploy_can_be_taken_back() {
        let mut history = History::default();
        deploy(&mut history, "/r/1");
        assert_eq!(dirs(&history), (Some("/r/1"), Some("/app")));
        back(&mut history, "/app", 1);
        assert_eq!(dirs(&history), (Some("/app"), Some("/r/1")));
    }

    #[test]
    fn a_second_rollback_takes_back_the_first() {
        let mut history = History::default();
        deploy(&mut history, "/r/1");
        deploy(&mut history, "/r/2");
        let before = history.clone();
        back(&mut history, "/app", 1);
        assert_eq!(dirs(&history), (Some("/r/1"), Some("/r/2")));
        back(&mut history, "/app", 2);
        assert_eq!(history, before);
    }

    #[test]
    fn the_same_directory_deployed_twice_is_one_release() {
        let mut history = History::default();
        for dir in ["/r/1", "/r/2", "/r/2"] {
            deploy(&mut history, dir);
        }
        assert_eq!(dirs(&history), (Some("/r/2"), Some("/r/1")), "a rollback goes to another directory");
        assert_eq!(history.releases().len(), 3, "{history:?}");
        deploy(&mut history, "/r/1");
        assert_eq!((dirs(&history), history.releases().len()), ((Some("/r/1"), Some("/r/2")), 3));
        for _ in 0..3 {
            let bad = candidate(&history, "/r/3", 5);
            history.failed(bad, "exit 1".into());
        }
        assert_eq!(history.releases().len(), 4);
        deploy(&mut history, "/r/3");
        assert_eq!((dirs(&history), history.releases().len()), ((Some("/r/3"), Some("/r/1")), 4), "it has served since");
    }

    #[test]
    fn a_release_is_named_by_its_number_its_id_or_its_directory() {
        let mut history = History::default();
        for dir in ["/r/1", "/r/2", "/r/3"] {
            deploy(&mut history, dir);
        }
        let id = history.releases()[1].id;
        for name in ["3", "/r/1", &id.to_string()] {
            assert_eq!(history.named(name).map(|release| release.dir.clone()), Some("/r/1".into()), "{name}");
        }
        for name in ["0", "5", "/r", "", "-1", "20260115-103000-9"] {
            assert_eq!(history.named(name), None, "{name}");
        }
        history.rolled_back(id, Some("/app".into()), None, AT, second(9));
        assert_eq!(dirs(&history), (Some("/r/1"), Some("/r/3")), "what ran is what the next rollback returns to");
        let bad = candidate(&history, "/r/9", 20);
        let failed = bad.id;
        history.failed(bad, "exit 1".into());
        let before = history.clone();
        history.rolled_back(failed, None, None, AT, second(30));
        assert_eq!(history, before, "what never served is not returned to");
    }

    #[test]
    fn a_deploy_that_failed_changes_nothing_but_the_record() {
        let mut history = History::default();
        deploy(&mut history, "/r/1");
        let before = dirs(&history);
        let bad = candidate(&history, "/r/2", 5);
        history.failed(bad, "exit 1".into());
        assert_eq!(dirs(&history), before);
        assert_eq!(history.releases().last().map(|r| r.standing.clone()), Some(Standing::Failed { why: "exit 1".into() }));
    }

    #[test]
    fn a_dir_that_was_changed_in_the_configuration_wins() {
        let mut history = History::default();
        assert_eq!(history.choice(Some(Path::new("/app"))), Choice::Configured);
        deploy(&mut history, "/r/1");
        assert!(matches!(history.choice(Some(Path::new("/app"))), Choice::Release(release) if release.dir == Path::new("/r/1")));
        assert!(matches!(history.choice(Some(Path::new("/other"))), Choice::Superseded(_)));
        assert!(matches!(history.choice(None), Choice::Superseded(_)));
        history.supersede();
        assert_eq!(dirs(&history), (None, Some("/r/1")));
        assert_eq!(history.choice(Some(Path::new("/app"))), Choice::Configured, "the old value does not bring it back");
        // And a rollback returns to it, and back.
        let previous = history.previous().expect("one").id;
        history.rolled_back(previous, Some("/other".into()), Some("/other".into()), AT, second(9));
        assert_eq!(dirs(&history), (Some("/r/1"), Some("/other")));
    }

    #[test]
    fn what_is_written_is_read_and_what_cannot_be_is_refused() {
        let mut history = History::default();
        deploy(&mut history, "/r/1");
        let bad = candidate(&history, "/r/2", 5);
        history.failed(bad, "exit 1".into());
        let text = serde_json::to_string(&history).expect("json");
        assert_eq!(serde_json::from_str::<History>(&text).expect("the same"), history);
        for (damage, why) in [
            (text.replace("previous", "current"), "two of its releases are current"),
            (text.replace("/r/1", "r/1"), "not an absolute path"),
            (text.replace("20260115-103000-0", "20260116-103000-0"), "not in order"),
            (text.replace("20260115-103000-0", "20260115-103000-00"), "is not a release"),
            (text.replace("20260115-103000-0", "soon"), "is not a release"),
            (text[..text.len() - 4].to_owned(), "EOF"),
        ] {
            let error = serde_json::from_str::<History>(&damage).expect_err("damaged").to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_the_laws_hold(acts in prop::collection::vec((0..4u8, -5..50i64), 0..60)) {
            let mut history = History::default();
            for (step, (act, now)) in acts.into_iter().enumerate() {
                let dir = format!("/r/{step}");
                let (before, newest) = (history.clone(), history.releases().last().map(|release| release.id));
                match act {
                    0 => {
                        let new = candidate(&history, &dir, now);
                        let id = new.id;
                        prop_assert!(newest.is_none_or(|newest| newest < new.id), "ids grow");
                        history.deployed(new, Some("/app".into()), Some("/app".into()));
                        prop_assert_eq!(history.current().map(|r| (r.id, r.dir.clone())), Some((id, dir.into())), "under the id it was given");
                        prop_assert!(history.previous().is_some(), "every deploy can be taken back");
                    }
                    1 => {
                        let new = candidate(&history, &dir, now);
                        history.failed(new, "why".into());
                        prop_assert_eq!(history.current(), before.current());
                        prop_assert_eq!(history.previous(), before.previous());
                    }
                    2 => {
                        if let Some(previous) = before.previous() {
                            history.rolled_back(previous.id, Some("/app".into()), Some("/app".into()), AT, second(now));
                        }
                        if let Some(previous) = before.previous() {
                            prop_assert_eq!(history.current().map(|r| r.id), Some(previous.id));
                            prop_assert!(history.previous().is_some(), "every rollback can be taken back");
                        } else {
                            prop_assert_eq!(&history, &before);
                        }
                    }
                    _ => history.supersede(),
                }
                // Counts, order and bounds are those that a reader insists on.
                let text = serde_json::to_string(&history).expect("json");
                prop_assert_eq!(&serde_json::from_str::<History>(&text).expect("believed"), &history);
            }
        }

        #[test]
        fn an_id_is_read_as_it_was_written(at in 0..4_000_000_000i64, nth: u32) {
            let id = ReleaseId { second: Timestamp::from_second(at).expect("a moment"), nth };
            prop_assert_eq!(ReleaseId::parse(&id.to_string()), Ok(id));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = ReleaseId::parse(&text);
        }
    }
}
