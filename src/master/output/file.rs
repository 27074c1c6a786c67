//! One log file: appended to, put aside at its size or age, compressed, and paused when the disk is nearly full.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::{Duration, Instant, SystemTime},
};

use file_rotate::{
    ContentLimit, FileRotate,
    compression::Compression,
    suffix::{AppendTimestamp, FileLimit},
};
use flate2::write::GzEncoder;

use super::queue::count;
use crate::plan::Rotation;

/// Below this share of the disk free nothing is written.
const FLOOR_PERCENT: u64 = 5;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Read by the group, so that a log shipper need not be root.
const MODE: u32 = 0o640;

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: Option<File>,
    size: u64,
    born: SystemTime,
    /// When the disk was looked at last, and whether it had room.
    looked: Option<(Instant, bool)>,
    /// Lines that were not written since it had none.
    lost: u64,
    complained: bool,
    gzip: SyncSender<PathBuf>,
}

impl LogFile {
    #[must_use]
    pub fn new(path: PathBuf, rotation: Rotation, gzip: SyncSender<PathBuf>) -> Self {
        Self { path, rotation, file: None, size: 0, born: SystemTime::UNIX_EPOCH, looked: None, lost: 0, complained: false, gzip }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn set_rotation(&mut self, rotation: Rotation) {
        self.rotation = rotation;
    }

    /// Whole lines. What cannot be written is counted and said in the file later; the reason goes to stderr once. Gives how many could not.
    pub fn write(&mut self, lines: &[u8]) -> u64 {
        let why = if self.has_room() {
            match self.try_write(lines) {
                Ok(()) => return 0,
                Err(error) => {
                    self.file = None;
                    error.to_string()
                }
            }
        } else {
            "less than 5 % of the disk is free".to_owned()
        };
        let lost = count(lines);
        self.lost += lost;
        self.complain(&why);
        lost
    }

    fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.open()?;
        let full = self.size > 0 && self.size + lines.len() as u64 > self.rotation.size.0;
        let old = self.rotation.age.is_some_and(|age| self.size > 0 && self.born.elapsed().is_ok_and(|since| since >= age));
        if full || old {
            self.put_aside();
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.lost > 0 {
            let note = format!("gateway: {} lines were not written here\n", self.lost);
            file.write_all(note.as_bytes())?;
            self.size += note.len() as u64;
            self.lost = 0;
            self.complained = false;
        }
        file.write_all(lines)?;
        self.size += lines.len() as u64;
        Ok(())
    }

    /// As after USR1: whoever moved the file away gets a new one in its place.
    pub fn reopen(&mut self) {
        self.file = None;
        if let Err(error) = self.open() {
            self.complain(&error.to_string());
        }
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        }
        let file = options().open(&self.path)?;
        let data = file.metadata()?;
        self.size = data.len();
        self.born = if data.len() == 0 { SystemTime::now() } else { data.created().or_else(|_| data.modified())? };
        self.file = Some(file);
        Ok(())
    }

    fn put_aside(&mut self) {
        self.file = None;
        let Rotation { keep, compress, .. } = self.rotation;
        let path = self.path.clone();
        // It asserts that files stand where it left them; somebody may have moved them.
        let rotated = std::panic::catch_unwind(|| {
            let suffix = AppendTimestamp::default(FileLimit::MaxFiles(keep));
            let mut files = FileRotate::new(&path, suffix, ContentLimit::None, Compression::None, Some(options()));
            files.rotate()?;
            io::Result::Ok(files.log_paths().into_iter().rfind(|path| path.extension().is_none_or(|e| e != "gz")))
        });
        match rotated {
            Ok(Ok(newest)) => {
                if let Some(newest) = newest.filter(|_| compress) {
                    // Full: one file stays as it is.
                    let _ = self.gzip.try_send(newest);
                }
            }
            Ok(Err(error)) => self.complain(&format!("it could not be put aside: {error}")),
            Err(_) => self.complain("it could not be put aside: somebody else moves its files"),
        }
    }

    fn has_room(&mut self) -> bool {
        if let Some((_, room)) = self.looked.filter(|(at, _)| at.elapsed() < LOOK_EVERY) {
            return room;
        }
        let dir = self.path.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
        let room = nix::sys::statvfs::statvfs(dir).map_or(true, |disk| disk.blocks_available() * 100 >= disk.blocks() * FLOOR_PERCENT);
        self.looked = Some((Instant::now(), room));
        room
    }

    fn complain(&mut self, why: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            // The log is what fails: stderr is all that is left.
            let _ = writeln!(io::stderr(), "gateway: {} is not written: {why}", self.path.display());
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).create(true).append(true).mode(MODE);
    options
}

/// Starts the thread that compresses files put aside, one after the other.
pub fn start_gzip() -> io::Result<SyncSender<PathBuf>> {
    // Files put aside faster than they are compressed stay as they are.
    let (send, files) = sync_channel(8);
    std::thread::Builder::new().name("log-gzip".into()).stack_size(256 * 1024).spawn(move || gzip_all(&files))?;
    Ok(send)
}

fn gzip_all(files: &Receiver<PathBuf>) {
    while let Ok(path) = files.recv() {
        if let Err(error) = gzip(&path) {
            let _ = writeln!(io::stderr(), "gateway: could not compress {}: {error}", path.display());
        }
    }
}

fn gzip(path: &Path) -> io::Result<()> {
    let mut from = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let (part, whole) = (named(".gz.part"), named(".gz"));
    let mut to = GzEncoder::new(options().truncate(true).append(false).write(true).open(&part)?, flate2::Compression::fast());
    io::copy(&mut from, &mut to)?;
    to.finish()?;
    fs::rename(&part, &whole)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::ByteSize;

    fn rotation(size: u64, keep: usize, compress: bool) -> Rotation {
        Rotation { size: ByteSize(size), age: None, keep, compress }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).expect("dir").map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let (gzip, _files) = sync_channel(8);
        let mut file = LogFile::new(dir.path().join("web.log"), rotation(100, 2, false), gzip);
        for i in 0..50 {
            file.write(format!("line {i:040}\n").as_bytes());
        }
        let names = names(dir.path());
        assert_eq!(names.len(), 3, "{names:?}");
        let now = fs::read_to_string(dir.path().join("web.log")).expect("there");
        assert!(now.contains("49") && now.len() <= 100);
    }

    #[test]
    fn what_was_put_aside_is_compressed() {
        let dir = tempfile::tempdir().expect("dir");
        let mut file = LogFile::new(dir.path().join("web.log"), rotation(10, 5, true), start_gzip().expect("thread"));
        file.write(b"first line\n");
        file.write(b"second line\n");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !(names(dir.path()).len() == 2 && names(dir.path()).iter().any(|n| n.ends_with(".gz"))) {
            assert!(Instant::now() < deadline, "{:?}", names(dir.path()));
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_old_file_is_put_aside_whatever_its_size() {
        let dir = tempfile::tempdir().expect("dir");
        let (gzip, _files) = sync_channel(8);
        let rotation = Rotation { age: Some(Duration::ZERO), ..rotation(1_000_000, 5, false) };
        let mut file = LogFile::new(dir.path().join("web.log"), rotation, gzip);
        file.write(b"yesterday\n");
        file.write(b"today\n");
        assert_eq!(names(dir.path()).len(), 2);
        assert_eq!(fs::read_to_string(dir.path().join("web.log")).expect("there"), "today\n");
    }

    #[test]
    fn a_file_moved_away_gets_a_new_one_in_its_place() {
        let dir = tempfile::tempdir().expect("dir");
        let (gzip, _files) = sync_channel(8);
        let path = dir.path().join("web.log");
        let mut file = LogFile::new(path.clone(), rotation(1_000_000, 5, false), gzip);
        file.write(b"one\n");
        fs::rename(&path, dir.path().join("moved")).expect("moved");
        file.reopen();
        file.write(b"two\n");
        assert_eq!(fs::read_to_string(path).expect("there"), "two\n");
    }
}
