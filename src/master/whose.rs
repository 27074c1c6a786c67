//! Whether the gateway that is asked is the one that is meant: two configurations may name one `run`, and then one socket.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::{task::spawn_blocking, time::timeout};

/// For looking at two files on disks that may be slow.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// The client means the gateway of another file.
#[derive(Debug, Eq, Error, PartialEq)]
#[error("do it: the gateway that answers here runs {}, not {}; nothing was changed", ours.display(), theirs.display())]
pub struct OtherFile {
    pub ours: PathBuf,
    pub theirs: PathBuf,
}

impl OtherFile {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> String {
        format!(
            "`gateway -c {ours} …` talks to this one; to run {theirs} as well, give it a `run` and a `state` of its own and start it with `gateway -c {theirs}`",
            ours = self.ours.display(),
            theirs = self.theirs.display()
        )
    }
}

/// Whether `theirs` is the file in force.
///
/// Errors: [`OtherFile`]
pub async fn meant(ours: Option<PathBuf>, theirs: Option<PathBuf>) -> Result<(), OtherFile> {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(()) };
    let (a, b) = (ours.clone(), theirs.clone());
    // A disk that does not answer has told nothing: then the names count.
    let same = timeout(LOOK_WITHIN, spawn_blocking(move || same(&a, &b))).await;
    let same = same.ok().and_then(Result::ok).unwrap_or(ours == theirs);
    if same { Ok(()) } else { Err(OtherFile { ours, theirs }) }
}

/// One file, whatever the links that lead to it.
fn same(a: &Path, b: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    a == b || file(a).is_some_and(|one| file(b) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_the_same_by_any_of_its_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.toml"), "").expect("written");
        fs::write(at("b.toml"), "").expect("written");
        std::os::unix::fs::symlink("a.toml", at("link.toml")).expect("linked");
        assert_eq!(meant(Some(at("a.toml")), Some(at("link.toml"))).await, Ok(()));
        assert_eq!(meant(Some(at("a.toml")), None).await, Ok(()));
        assert_eq!(meant(Some(at("gone.toml")), Some(at("gone.toml"))).await, Ok(()), "the running one's file was removed");
        let other = meant(Some(at("a.toml")), Some(at("b.toml"))).await.expect_err("another file");
        let told = format!("{other}\n{}", other.advice());
        assert!(told.contains(&at("a.toml").display().to_string()) && told.contains(&at("b.toml").display().to_string()), "{told}");
        assert!(meant(Some(at("gone.toml")), Some(at("a.toml"))).await.is_err());
    }
}
