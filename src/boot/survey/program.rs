//! A program as exec(2) would find it for somebody: the file, the way to it, the interpreter of a script.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::master::{
    as_user::{Want, Why, look_as, obstacle},
    child::Identity,
};

/// The kernel reads so much of a script's first line.
const FIRST_LINE: u64 = 256;

/// Where and for whom a program is looked for.
pub struct Search<'a> {
    pub dir: Option<&'a Path>,
    pub path: &'a OsStr,
    pub identity: &'a Identity,
}

/// What was found.
#[derive(Debug, Eq, PartialEq)]
pub enum Program {
    Good,
    /// We may not look where its user may.
    Unknown,
    Missing,
    Dangling {
        link: PathBuf,
        to: PathBuf,
    },
    Directory(PathBuf),
    NotExecutable(PathBuf),
    Closed {
        file: PathBuf,
        at: PathBuf,
    },
    /// A script is read by its interpreter.
    Unread(PathBuf),
    NoInterpreter {
        script: PathBuf,
        interpreter: String,
        returns: bool,
    },
}

impl Search<'_> {
    #[must_use]
    pub fn whole(&self, program: &str) -> PathBuf {
        self.dir.map_or_else(|| program.into(), |dir| dir.join(program))
    }

    #[must_use]
    pub fn find(&self, program: &str) -> Program {
        match self.file(program) {
            Ok(file) => self.script(&file),
            Err(found) => found,
        }
    }

    /// The file that is run. The first in PATH that may be; else what is wrong with the first that is there at all.
    fn file(&self, program: &str) -> Result<PathBuf, Program> {
        let candidates: Vec<PathBuf> = if program.contains('/') {
            vec![self.whole(program)]
        } else {
            std::env::split_paths(self.path).map(|dir| self.whole(&dir.to_string_lossy()).join(program)).collect()
        };
        let mut wrong = None;
        for file in candidates {
            match self.judge(&file) {
                Program::Good => return Ok(file),
                Program::Missing => {}
                // exec goes on in PATH; a directory of that name is no program.
                Program::Directory(_) if !program.contains('/') => {}
                other => drop(wrong.get_or_insert(other)),
            }
        }
        Err(wrong.unwrap_or(Program::Missing))
    }

    fn judge(&self, file: &Path) -> Program {
        let data = match fs::metadata(file) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Program::Unknown,
            Err(_) => {
                return match fs::read_link(file) {
                    Ok(to) => Program::Dangling { to: file.parent().map_or_else(|| to.clone(), |dir| dir.join(&to)), link: file.into() },
                    Err(_) => Program::Missing,
                };
            }
        };
        if data.is_dir() {
            return Program::Directory(file.into());
        }
        if data.permissions().mode() & 0o111 == 0 {
            return Program::NotExecutable(file.into());
        }
        match look_as(self.identity, || obstacle(file, Want::Enter)).flatten() {
            Some(found) if found.why == Why::Closed => Program::Closed { file: file.into(), at: found.at },
            Some(_) | None => Program::Good,
        }
    }

    fn script(&self, file: &Path) -> Program {
        let mut head = Vec::new();
        // What we may not read ourselves is judged by whoever may.
        let read = File::open(file).and_then(|file| file.take(FIRST_LINE).read_to_end(&mut head));
        let Some((interpreter, argument)) = read.ok().and_then(|_| first_line(&head)) else { return Program::Good };
        if look_as(self.identity, || obstacle(file, Want::Read)).flatten().is_some_and(|found| found.why == Why::Closed) {
            return Program::Unread(file.into());
        }
        let missing = |interpreter: &str| Program::NoInterpreter {
            script: file.into(),
            returns: interpreter.ends_with('\r'),
            interpreter: interpreter.to_owned(),
        };
        if let Err(Program::Missing | Program::Dangling { .. } | Program::Directory(_) | Program::NotExecutable(_)) =
            self.file(&interpreter)
        {
            return missing(&interpreter);
        }
        // `#!/usr/bin/env python3`: what env looks for.
        let by_env = interpreter.rsplit('/').next() == Some("env");
        match argument.filter(|name| by_env && !name.contains('=')) {
            Some(name) if matches!(self.file(&name), Err(Program::Missing | Program::Dangling { .. })) => missing(&name),
            Some(_) | None => Program::Good,
        }
    }
}

/// The interpreter and its first argument that is no option.
fn first_line(head: &[u8]) -> Option<(String, Option<String>)> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_matches([' ', '\t']).split([' ', '\t']).filter(|word| !word.is_empty());
    let interpreter = words.next()?.to_owned();
    Some((interpreter, words.find(|word| !word.starts_with('-')).map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_names_its_interpreter() {
        let line = |text: &str| first_line(text.as_bytes());
        assert_eq!(line("#!/bin/sh\nexit"), Some(("/bin/sh".into(), None)));
        assert_eq!(line("#! /usr/bin/env -S python3 -u\n"), Some(("/usr/bin/env".into(), Some("python3".into()))));
        assert_eq!(line("#!/bin/sh\r\n"), Some(("/bin/sh\r".into(), None)));
        assert_eq!(line("\u{7f}ELF"), None);
        assert_eq!(line("#!"), None);
    }

    #[test]
    fn a_program_is_found_as_exec_finds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str, mode: u32| {
            fs::write(at(name), text).expect("written");
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).expect("its mode");
        };
        write("good", "#!/bin/sh\n", 0o755);
        write("plain", "#!/bin/sh\n", 0o644);
        write("returns", "#!/bin/sh\r\n", 0o755);
        write("orphan", "#!/no/such/ruby\n", 0o755);
        write("by-env", "#!/usr/bin/env no-such-python\n", 0o755);
        std::os::unix::fs::symlink("gone", at("link")).expect("linked");
        let identity = Identity::of(None, None).expect("us");
        let search = Search { dir: Some(dir.path()), path: OsStr::new("/usr/bin:/bin"), identity: &identity };
        assert_eq!(search.find("./good"), Program::Good);
        assert_eq!(search.find("sh"), Program::Good);
        assert_eq!(search.find("no-such-program-here"), Program::Missing);
        assert_eq!(search.find("./none"), Program::Missing);
        assert_eq!(search.find("./plain"), Program::NotExecutable(at("./plain")));
        assert_eq!(search.find("./link"), Program::Dangling { link: at("./link"), to: at("./gone") });
        assert!(matches!(search.find("./returns"), Program::NoInterpreter { returns: true, .. }));
        assert!(
            matches!(search.find("./orphan"), Program::NoInterpreter { interpreter, returns: false, .. } if interpreter == "/no/such/ruby")
        );
        assert!(matches!(search.find("./by-env"), Program::NoInterpreter { interpreter, .. } if interpreter == "no-such-python"));
        assert_eq!(search.find("./"), Program::Directory(at("./")));
    }
}
