//! Files that are either the old one or the new one, whole, whenever the power goes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use thiserror::Error;

/// Readable and writable by the owner alone.
pub const PRIVATE: u32 = 0o600;

/// Why a file could not be written; the one that was there before is untouched.
#[derive(Debug, Error)]
pub enum WriteError {
    #[error("write {}: it has no parent directory", path.display())]
    NoParent { path: PathBuf },
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("move {} to {}", from.display(), to.display())]
    Rename {
        from: PathBuf,
        to: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Puts `bytes` at `path` with exactly `mode`: a file beside it is written, synced and renamed over it, then the directory is synced.
///
/// Shape: blocks for the disk; a link at `path` is replaced, not followed.
/// Errors: [`WriteError`]; the temporary file is removed.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    put(path, mode, Sync::Disk, |to| to.write_all(bytes))
}

/// As [`write`], but without waiting for the disk: for files that are rewritten often and worth nothing after a power failure, as status.json.
///
/// Errors: [`WriteError`]; the temporary file is removed.
pub fn publish(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    put(path, mode, Sync::None, |to| to.write_all(bytes))
}

/// As [`write`], for what is too large to be held whole.
///
/// Errors: [`WriteError`], also where `fill` gives one; the temporary file is removed.
pub fn stream(path: &Path, mode: u32, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), WriteError> {
    put(path, mode, Sync::Disk, |file| {
        let mut to = BufWriter::with_capacity(64 * 1024, file);
        fill(&mut to)?;
        to.flush()
    })
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Sync {
    Disk,
    None,
}

fn put(path: &Path, mode: u32, sync: Sync, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), WriteError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(WriteError::NoParent { path: path.into() });
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    // Unique among the threads of this process and among processes, so that two writers never share one.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut temp_name = std::ffi::OsString::from(".");
    temp_name.push(name);
    temp_name.push(format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let temp = dir.join(temp_name);
    let result = make(&temp, mode, sync, fill)
        .map_err(|source| WriteError::Write { path: temp.clone(), source })
        .and_then(|()| fs::rename(&temp, path).map_err(|source| WriteError::Rename { from: temp.clone(), to: path.into(), source }));
    if result.is_err() {
        // It may never have been made; what matters is reported already.
        let _ = fs::remove_file(&temp);
        return result;
    }
    if sync == Sync::Disk {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| WriteError::Write { path: dir.into(), source })?;
    }
    Ok(())
}

fn make(temp: &Path, mode: u32, sync: Sync, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    // A process of the same id may have died here before us.
    match fs::remove_file(temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Private until it is whole; then the mode asked for, whatever the umask.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(temp)?;
    fill(&mut file)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if sync == Sync::Disk {
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_file_is_whole_and_has_its_mode() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("account.key");
        write(&path, b"old", 0o644).expect("written");
        write(&path, b"secret", PRIVATE).expect("written");
        publish(&dir.path().join("status.json"), b"{}", 0o640).expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"secret");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, PRIVATE);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("taken");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("x"), b"").expect("made");
        assert!(matches!(write(&path, b"new", PRIVATE), Err(WriteError::Rename { .. })));
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "no temporary file is left");
        assert!(matches!(write(&dir.path().join("none/x"), b"", PRIVATE), Err(WriteError::Write { .. })));
        assert!(matches!(write(Path::new("/"), b"", PRIVATE), Err(WriteError::NoParent { .. })));
    }

    #[test]
    fn readers_never_see_half_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("status.json");
        write(&path, &[0; 4096], PRIVATE).expect("written");
        std::thread::scope(|scope| {
            for byte in 1..=2_u8 {
                let path = &path;
                scope.spawn(move || (0..200).for_each(|_| publish(path, &[byte; 4096], PRIVATE).expect("written")));
            }
            for _ in 0..400 {
                let seen = fs::read(&path).expect("always there");
                assert!(seen.len() == 4096 && seen.iter().all(|b| *b == seen[0]));
            }
        });
    }
}
