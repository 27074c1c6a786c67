//! An app that would not start: its user, its directory, its commands, its ports.

use std::path::Path;

use super::{
    Survey, closed_run,
    program::{Program, Search},
};
use crate::{
    config::{complaint::Code, load},
    master::{
        as_user::{Obstacle, Want, Why, look_as, obstacle},
        child::{Identity, SpawnError},
        outfit,
    },
    plan::{App, AppPort},
    rules::shell::{ShellWord, shell_words},
    vocab::AppName,
};

impl Survey<'_> {
    pub(super) fn app(&mut self, name: &AppName, app: &App) {
        let name = name.as_str();
        let identity = self.identity(name, app);
        let words = self.words(name, app, &["app", name, "command"]);
        self.befores(name, app);
        if let AppPort::Fixed { first } = app.port {
            self.app_ports(name, first.get()..=first.get().saturating_add(app.procs.get() - 1));
        }
        let Some(identity) = identity else { return };
        if !self.dir(name, app, &identity) {
            return;
        }
        if app.port == AppPort::Socket
            && let Some(at) = closed_run(&self.plan.run, &identity).filter(|_| self.root)
        {
            let message = format!(
                "app {name} would run as user {:?}, who may not enter {}: it could not make its socket",
                identity.name,
                at.display()
            );
            self.warn(
                Code::Unreachable,
                &[&["run"]],
                message,
                format!("chmod o+x {}, or set `run` to a directory elsewhere, as /run/gateway", at.display()),
            );
        }
        if words == Words::Plain {
            self.program(&format!("app {name} would not start"), app, &app.command, &identity, &[&["app", name, "command"]]);
        }
    }

    fn identity(&mut self, name: &str, app: &App) -> Option<Identity> {
        match Identity::of(app.user.as_deref(), app.group.as_deref()) {
            Ok(identity) => Some(identity),
            Err(SpawnError::NoUser { user }) => {
                let message = format!("app {name} would run as user {user:?}, who does not exist");
                let cure = format!("create it: useradd --system --no-create-home {user}");
                self.warn(Code::UnknownUser, &[&["app", name, "user"], &["app", name]], message, cure);
                None
            }
            Err(SpawnError::NoGroup { group }) => {
                let message = format!("app {name} would run in group {group:?}, which does not exist");
                self.warn(
                    Code::UnknownGroup,
                    &[&["app", name, "group"], &["app", name]],
                    message,
                    format!("create it: groupadd --system {group}"),
                );
                None
            }
            // As root it would be another.
            Err(_) => None,
        }
    }

    /// Whether there is a directory to start in.
    fn dir(&mut self, name: &str, app: &App, identity: &Identity) -> bool {
        let Some(dir) = &app.dir else { return true };
        let keys: [&[&str]; 2] = [&["app", name, "dir"], &["app", name]];
        let shown = dir.display();
        match std::fs::metadata(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return false,
            Err(_) => {
                let message = format!("app {name} would not start: its directory {shown} does not exist");
                self.warn(Code::MissingDirectory, &keys, message, "create it, or correct `dir`");
                return false;
            }
            Ok(data) if !data.is_dir() => {
                let message = format!("app {name} would not start: its `dir` {shown} is no directory");
                self.warn(Code::MissingDirectory, &keys, message, "name the directory that it stands in");
                return false;
            }
            Ok(_) => {}
        }
        let found = look_as(identity, || obstacle(dir, Want::Enter)).flatten().filter(|found| found.why == Why::Closed);
        if let Some(Obstacle { at, .. }) = &found {
            let message = format!("app {name} would not start: its user {:?} may not enter {}", identity.name, at.display());
            let cure = format!(
                "give {:?} the right to enter {} (chmod o+x, or its group), or move the app elsewhere, as to /srv",
                identity.name,
                at.display()
            );
            self.warn(Code::Unreachable, &keys, message, cure);
        } else if let Some(found) = self.units.hidden(dir) {
            let message =
                format!("app {name} would not start: its directory {shown} cannot be entered under {} ({})", found.unit, found.setting);
            self.warn(
                Code::Unreachable,
                &keys,
                message,
                "write ProtectHome=read-only into the unit, or move the app elsewhere, as to /srv",
            );
            return false;
        }
        found.is_none()
    }

    fn befores(&mut self, name: &str, app: &App) {
        let identity = Identity::of(app.user.as_deref(), app.group.as_deref()).ok();
        for (n, command) in app.before.iter().enumerate() {
            let n = n.to_string();
            let keys: [&str; 4] = ["app", name, "before", &n];
            let words = self.words(name, app, &keys);
            // What a release or a command before it brings is not there yet.
            let known = command.first().is_some_and(|program| !program.contains('/') || program.starts_with('/'));
            if let (Words::Plain, true, Some(identity)) = (words, known, &identity) {
                self.program(&format!("app {name}: a command of `before` would fail"), app, command, identity, &[&keys]);
            }
        }
    }

    /// Words that no shell will read, in a command that is written as one text.
    fn words(&mut self, name: &str, app: &App, keys: &[&str]) -> Words {
        let Some(text) = self.index.text(keys) else { return Words::Plain };
        let dir = app.dir.as_deref().unwrap_or(Path::new("/"));
        let mut found = shell_words(&text.value);
        // Where nothing matches, a shell would have left it as it stands.
        found.retain(|word| !matches!(word, ShellWord::Glob(pattern) if !load::matches_any(dir, pattern)));
        if found.is_empty() {
            return Words::Plain;
        }
        let shown: Vec<String> = found.iter().map(shown).collect();
        let list = if text.is_hidden() { "some of its words (not shown)".to_owned() } else { shown.join(", ") };
        let what = if keys.contains(&"before") { format!("app {name}, a command of `before`") } else { format!("app {name}") };
        let message = format!("{what}: no shell reads its command, so this stays as it is written: {list}");
        let mut cures: Vec<String> = Vec::new();
        for cure in found.iter().map(cure) {
            if !cures.contains(&cure) {
                cures.push(cure);
            }
        }
        self.warn(Code::NoShell, &[keys], message, cures.join("; "));
        let replaced = |word: &ShellWord| matches!(word, ShellWord::Assignment { .. } | ShellWord::Builtin(_));
        let first = text.value.trim_start().starts_with(['~', '$', '`']);
        if first || found.iter().any(replaced) { Words::NoProgram } else { Words::Plain }
    }

    fn program(&mut self, subject: &str, app: &App, command: &[String], identity: &Identity, keys: &[&[&str]]) {
        let Some(program) = command.first().filter(|program| !program.contains('{')) else { return };
        let path = match app.env.get("PATH") {
            Some(path) => path.reveal().into(),
            None => outfit::environment(identity).remove(std::ffi::OsStr::new("PATH")).unwrap_or_default(),
        };
        let search = Search { dir: app.dir.as_deref(), path: &path, identity };
        let user = &identity.name;
        let (code, what, cure) = match search.find(program) {
            Program::Good | Program::Unknown => return,
            Program::Missing if program.contains('/') => (
                Code::MissingProgram,
                format!("there is no file {}", search.whole(program).display()),
                "correct the path, which is taken from `dir`, or build what it names".to_owned(),
            ),
            Program::Missing => (
                Code::MissingProgram,
                format!("there is no program {program:?} in PATH ({})", path.to_string_lossy()),
                "install it, give its full path (as /srv/web/venv/bin/uvicorn), or set PATH in the app's `env`".to_owned(),
            ),
            Program::Dangling { link, to } => (
                Code::MissingProgram,
                format!("{} is a link to {}, which does not exist", link.display(), to.display()),
                "make the link anew (for a venv of python: python3 -m venv --upgrade DIR)".to_owned(),
            ),
            Program::Directory(file) => {
                (Code::MissingProgram, format!("{} is a directory", file.display()), "name the program in it".to_owned())
            }
            Program::NotExecutable(file) => (
                Code::MissingProgram,
                format!("{} is not executable", file.display()),
                format!("chmod +x {}, or start it through its interpreter", file.display()),
            ),
            Program::Closed { file, at } => (
                Code::MissingProgram,
                format!("user {user:?} may not run {}: {} is closed to it", file.display(), at.display()),
                format!("give {user:?} the right (chmod o+x {}, or its group), or install the program elsewhere", at.display()),
            ),
            Program::Unread(file) => (
                Code::MissingProgram,
                format!("user {user:?} may not read {}, which is a script", file.display()),
                format!("chmod o+r {}, or give it to the user's group", file.display()),
            ),
            Program::NoInterpreter { script, interpreter, returns: true } => (
                Code::BadInterpreter,
                format!("the first line of {} ends with a carriage return, so that it names {interpreter:?}", script.display()),
                format!("write its lines without carriage returns: sed -i 's/\\r$//' {}", script.display()),
            ),
            Program::NoInterpreter { script, interpreter, returns: false } => (
                Code::BadInterpreter,
                format!("{} is a script for {interpreter}, which is not there", script.display()),
                format!("install {interpreter}, or correct the first line of the script (#!)"),
            ),
        };
        self.warn(code, keys, format!("{subject}: {what}"), cure);
    }
}

/// Whether a command has a program to look for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Words {
    Plain,
    /// A word for a shell stands in its place, and is said already.
    NoProgram,
}

fn shown(word: &ShellWord) -> String {
    match word {
        ShellWord::Assignment { name, .. } => format!("`{name}=…`"),
        ShellWord::Operator(text)
        | ShellWord::Redirection(text)
        | ShellWord::Home(text)
        | ShellWord::Glob(text)
        | ShellWord::Builtin(text) => {
            format!("`{text}`")
        }
        ShellWord::Variable { name } => format!("`${name}`"),
        ShellWord::Substitution => "`$(…)`".to_owned(),
    }
}

fn cure(word: &ShellWord) -> String {
    const SHELL: &str = "write it for a shell, as in command = [\"sh\", \"-c\", \"… && exec PROGRAM\"], or into a script";
    match word {
        ShellWord::Assignment { name, .. } => format!("write env = {{ {name} = \"…\" }} into the app's block in its place"),
        ShellWord::Operator(_) | ShellWord::Substitution => SHELL.to_owned(),
        ShellWord::Redirection(_) => {
            "take it out: what it writes is kept (`gateway logs`, [log] dir); or write command = [\"sh\", \"-c\", \"exec PROGRAM > FILE\"]"
                .to_owned()
        }
        ShellWord::Variable { name } if name == "PORT" => "write {port} in its place".to_owned(),
        ShellWord::Variable { name } => format!("write {{env.{name}}} in its place, which is filled in from gateway's own environment"),
        ShellWord::Home(_) => "write the whole path in the place of `~`".to_owned(),
        ShellWord::Glob(_) => "name the files; or put it into quotes, if the program itself reads patterns".to_owned(),
        ShellWord::Builtin(word) => match word.as_str() {
            "cd" => "set `dir` to that directory in the place of `cd`".to_owned(),
            "exec" => "take `exec` out: the program is started in no shell's place".to_owned(),
            "source" | "." => "name the program by its full path, as in /srv/web/venv/bin/python".to_owned(),
            "export" => "write env = { … } into the app's block in its place".to_owned(),
            "ulimit" => "write limits = { … } into the app's block in its place".to_owned(),
            "umask" => "write umask = \"…\" into the app's block in its place".to_owned(),
            _ => SHELL.to_owned(),
        },
    }
}
