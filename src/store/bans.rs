//! STATE/edge/bans: who is banned, and who was.
//!
//! Shape: a line each, `ADDRESS SINCE UNTIL TIMES REASON` in Unix seconds, between a first line with the version and a last one with their number, so that a file cut
//!        short is known for one. Of a whole file, a line that names no ban is passed over. Private, written whole.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::atomic::{self, PRIVATE, WriteError};
use crate::rules::jail::{MOST, Reason, Sentence, Who};

const FIRST: &str = "gateway bans 1";
/// No line of ours is longer.
const LONGEST_LINE: u64 = 128;

/// Why it is not known who is banned.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("understand {}: it is no file of bans, or not a whole one, by its line {line}", path.display())]
    Damaged { path: PathBuf, line: usize },
}

/// Which file it is: another one after each write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    inode: u64,
    modified: (i64, i64),
}

/// Where it lies. Everything here blocks for the disk.
#[derive(Clone, Debug)]
pub struct Bans {
    path: PathBuf,
}

impl Bans {
    #[must_use]
    pub fn of(home: &Path) -> Self {
        Self { path: home.join("bans") }
    }

    /// `None`: there is none.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        let facts = fs::metadata(&self.path).ok()?;
        Some(Stamp { inode: facts.ino(), modified: (facts.mtime(), facts.mtime_nsec()) })
    }

    /// Shows each, where the file is whole; nobody, where there is none. How many lines name no ban.
    ///
    /// Errors: [`ReadError`]: nobody was shown.
    pub fn read(&self, mut see: impl FnMut(Who, Sentence)) -> Result<usize, ReadError> {
        let source = |source| ReadError::Read { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(source(error)),
        };
        let mut lines = BufReader::with_capacity(64 * 1024, file);
        let mut text = Vec::new();
        let (mut all, mut count, mut strange) = (Vec::new(), 0, 0);
        for line in 1.. {
            text.clear();
            lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text).map_err(source)?;
            let damaged = || ReadError::Damaged { path: self.path.clone(), line };
            let text = match text.strip_suffix(b"\n") {
                Some(text) => std::str::from_utf8(text).ok(),
                // Too long for one of ours.
                None if line > 1 && text.len() as u64 == LONGEST_LINE => {
                    lines.skip_until(b'\n').map_err(source)?;
                    None
                }
                None => return Err(damaged()),
            };
            match (line, text.and_then(|text| text.strip_prefix("end "))) {
                (1, _) if text == Some(FIRST) => {}
                (1, _) => return Err(damaged()),
                (_, Some(told)) if told == count.to_string() => break,
                (_, None) if count < MOST => {
                    count += 1;
                    match text.and_then(parse) {
                        Some(one) => all.push(one),
                        None => strange += 1,
                    }
                }
                (..) => return Err(damaged()),
            }
        }
        all.into_iter().for_each(|(who, sentence)| see(who, sentence));
        Ok(strange)
    }

    /// `each` shows everybody to whom it is given.
    pub fn write(&self, each: impl FnOnce(&mut dyn FnMut(Who, Sentence))) -> Result<(), WriteError> {
        atomic::stream(&self.path, PRIVATE, |to| {
            writeln!(to, "{FIRST}")?;
            let (mut count, mut failed) = (0, None);
            each(&mut |who, sentence| {
                // Others come while we write; more than can be read back are not written.
                if failed.is_none() && count < MOST {
                    count += 1;
                    let Sentence { since, until, times, reason } = sentence;
                    failed = writeln!(to, "{who} {since} {until} {times} {reason}").err();
                }
            });
            failed.map_or(Ok(()), Err)?;
            writeln!(to, "end {count}")
        })
    }

    /// Out of the way, in the place of what was put there before. Where it is then.
    pub fn put_aside(&self) -> io::Result<PathBuf> {
        let to = self.path.with_extension("damaged");
        fs::rename(&self.path, &to)?;
        Ok(to)
    }
}

fn parse(line: &str) -> Option<(Who, Sentence)> {
    let mut words = line.split(' ');
    let mut next = || words.next();
    let who = Who::parse(next()?).ok()?;
    let (since, until, times) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
    let reason = Reason::parse(next()?).ok()?;
    next().is_none().then_some((who, Sentence { since, until, times, reason }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::ban::Offence;

    fn sentence(times: u8, reason: Reason) -> Sentence {
        Sentence { since: 1, until: u32::MAX, times, reason }
    }

    fn read(bans: &Bans) -> Result<Vec<(Who, Sentence)>, ReadError> {
        let mut all = Vec::new();
        bans.read(|who, sentence| all.push((who, sentence))).map(|_| all)
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let bans = Bans::of(dir.path());
        assert!(read(&bans).expect("none yet").is_empty() && bans.stamp().is_none());
        let all: Vec<_> = ["192.0.2.1", "2001:db8::1", "::1", "255.255.255.255"]
            .iter()
            .zip([
                Reason::Hand,
                Reason::Offence(Offence::Status(404)),
                Reason::Offence(Offence::Class(5)),
                Reason::Offence(Offence::BadUri),
            ])
            .map(|(ip, reason)| (Who::parse(ip).expect("an address"), sentence(255, reason)))
            .collect();
        bans.write(|see| all.iter().for_each(|(who, sentence)| see(*who, *sentence))).expect("written");
        let stamp = bans.stamp();
        assert_eq!(read(&bans).expect("good"), all);
        bans.write(|_| {}).expect("written");
        assert!(read(&bans).expect("good").is_empty() && bans.stamp() != stamp);
        assert_eq!(fs::metadata(dir.path().join("bans")).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_cut_anywhere_is_damaged_and_shows_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let bans = Bans::of(dir.path());
        let who = |n: u8| Who::of([192, 0, 2, n].into()).expect("an address");
        bans.write(|see| (0..3).for_each(|n| see(who(n), sentence(1, Reason::Hand)))).expect("written");
        let whole = fs::read(dir.path().join("bans")).expect("there");
        for cut in 0..whole.len() {
            fs::write(dir.path().join("bans"), &whole[..cut]).expect("written");
            let mut seen = 0;
            assert!(matches!(bans.read(|_, _| seen += 1), Err(ReadError::Damaged { .. })), "{cut}");
            assert_eq!(seen, 0);
        }
        assert!(bans.put_aside().expect("moved").ends_with("bans.damaged"));
    }

    #[test]
    fn a_line_that_names_no_ban_frees_nobody_but_whom_it_was_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let bans = Bans::of(dir.path());
        let good = "192.0.2.1 1 4000000000 1 manual";
        for strange in ["0.0.0.0 1 2 3 manual", "224.0.0.1 1 2 3 manual", "", "x", "192.0.2.7 1 2", &"9".repeat(1000), &"9".repeat(128)] {
            fs::write(dir.path().join("bans"), format!("{FIRST}\n{strange}\n{good}\n{strange}\nend 3\n")).expect("written");
            let mut seen = Vec::new();
            assert_eq!(bans.read(|who, _| seen.push(who)).expect("a whole file"), 2, "{strange}");
            assert_eq!(seen, [Who::parse("192.0.2.1").expect("an address")]);
        }
        fs::write(dir.path().join("bans"), [FIRST.as_bytes(), b"\n\xff\xfe\n", good.as_bytes(), b"\nend 2\n"].concat()).expect("written");
        assert_eq!(read(&bans).expect("a whole file").len(), 1);
        fs::write(dir.path().join("bans"), format!("{FIRST}\n{good}\nx\nend 1\n")).expect("written");
        assert!(matches!(bans.read(|_, _| {}), Err(ReadError::Damaged { line: 4, .. })), "a line more than it says");
    }

    proptest! {
        #[test]
        fn no_file_panics(text in prop::collection::vec(any::<u8>(), 0..300), line in "[ 0-9a-z.:/-]{0,60}") {
            let dir = tempfile::tempdir().expect("a directory");
            let bans = Bans::of(dir.path());
            fs::write(dir.path().join("bans"), &text).expect("written");
            let damaged = matches!(read(&bans), Err(ReadError::Damaged { .. }));
            prop_assert!(damaged);
            fs::write(dir.path().join("bans"), format!("{FIRST}\n{line}\nend 1\n")).expect("written");
            let _ = read(&bans);
        }
    }
}
