//! The end of an app's log file: what was said before this gateway was started, or is no longer in memory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::vocab::AppName;

/// At most so much is read.
const MOST: u64 = 1024 * 1024;

/// The last whole lines of the app's files in `dir`, oldest first: of the file that is written now, and where that is short of the one put aside last, unless
/// it is compressed already. Blocks.
///
/// Errors: a file is there and cannot be read.
pub fn read(dir: &Path, app: &AppName) -> io::Result<Vec<Vec<u8>>> {
    let path = dir.join(format!("{app}.log"));
    let now = end_of(&path, MOST)?;
    let rest = MOST.saturating_sub(now.len() as u64);
    let mut text = match put_aside(dir, app)?.filter(|_| rest > 0) {
        Some(before) => end_of(&before, rest)?,
        None => Vec::new(),
    };
    text.extend(now);
    let lines = text.strip_suffix(b"\n").unwrap_or(&text).split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    Ok(if text.is_empty() { Vec::new() } else { lines.collect() })
}

fn put_aside(dir: &Path, app: &AppName) -> io::Result<Option<PathBuf>> {
    let start = format!("{app}.log.");
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let names = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    // Names end in the moment of the rotation.
    let newest = names.filter(|name| name.strip_prefix(&start).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))).max();
    Ok(newest.filter(|name| !name.ends_with(".gz") && !name.ends_with(".part")).map(|name| dir.join(name)))
}

/// Its last bytes from the start of a line; nothing where there is no such file.
fn end_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // The directory may be the app's own: neither a link to elsewhere nor a pipe that never ends is followed.
    let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let data = file.metadata()?;
    if !data.is_file() {
        return Ok(Vec::new());
    }
    let from = data.len().saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    File::take(file, most).read_to_end(&mut text)?;
    if from > 0 {
        let start = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1);
        text.drain(..start);
    }
    Ok(text)
}

/// Of the lines of the files those that came before what is in memory, whose first lines, as they stand in the files, are `known`.
///
/// Shape: `held` is how many lines are in memory; of several places where `known` stands, the one closest to so many lines from the end is taken.
///        Where it stands nowhere nothing can be told apart, and nothing is given.
#[must_use]
pub fn before(mut lines: Vec<Vec<u8>>, known: &[Vec<u8>], held: usize) -> Vec<Vec<u8>> {
    if known.is_empty() {
        return lines;
    }
    let expected = lines.len().saturating_sub(held);
    let places = lines.windows(known.len()).enumerate().filter(|(_, window)| *window == known).map(|(at, _)| at);
    let at = places.min_by_key(|at| at.abs_diff(expected)).unwrap_or(0);
    lines.truncate(at);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> AppName {
        AppName::parse("web").expect("valid")
    }

    fn lines(text: &str) -> Vec<Vec<u8>> {
        text.split_terminator('\n').map(|line| line.as_bytes().to_vec()).collect()
    }

    #[test]
    fn the_file_put_aside_last_comes_before_the_one_that_is_written() {
        let dir = tempfile::tempdir().expect("dir");
        assert!(read(dir.path(), &web()).expect("nothing there").is_empty());
        for (name, text) in
            [("web.log", "3\n"), ("web.log.20260102T030405", "2\n"), ("web.log.20260101T030405", "1\n"), ("web.log.old", "x\n")]
        {
            fs::write(dir.path().join(name), text).expect("written");
        }
        assert_eq!(read(dir.path(), &web()).expect("read"), lines("2\n3\n"));
    }

    #[test]
    fn a_large_file_is_read_from_the_start_of_a_line_near_its_end() {
        let dir = tempfile::tempdir().expect("dir");
        let text: String = (0..200_000).map(|n| format!("line {n:06}\n")).collect();
        fs::write(dir.path().join("web.log"), &text).expect("written");
        let all = read(dir.path(), &web()).expect("read");
        assert!(all.iter().all(|line| line.len() == 11) && all.len() > 80_000, "{}", all.len());
        assert_eq!(all.last().map(Vec::as_slice), Some(&b"line 199999"[..]));
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_read() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("secret"), "secret\n").expect("written");
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("web.log")).expect("linked");
        assert!(read(dir.path(), &web()).is_err());
        fs::remove_file(dir.path().join("web.log")).expect("removed");
        nix::unistd::mkfifo(&dir.path().join("web.log"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert!(read(dir.path(), &web()).expect("no file").is_empty());
    }

    #[test]
    fn what_is_in_memory_is_not_told_twice() {
        let file = lines("a\nb\ntick\ntick\nc\n");
        assert_eq!(before(file.clone(), &lines("tick\ntick\n"), 3), lines("a\nb\n"));
        assert_eq!(before(file.clone(), &lines("tick\n"), 2), lines("a\nb\ntick\n"), "the place that fits the count");
        assert_eq!(before(file.clone(), &[], 0), file);
        assert!(before(file, &lines("elsewhere\n"), 1).is_empty());
    }
}
