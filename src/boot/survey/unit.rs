//! The systemd units that start gateway on a file, as far as they make directories read-only.
//!
//! Shape: of the last line of a setting as systemd reads them, drop-ins after the unit; specifiers are not filled in.
//! Source: systemd.exec(5) on ProtectSystem=, ProtectHome=, ReadWritePaths=, StateDirectory=.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where units of the system lie; the first that has a name wins.
const PLACES: [&str; 5] =
    ["etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
/// Files that are looked at, at most.
const MOST: usize = 4096;

/// Of one configuration.
#[derive(Debug, Default)]
pub struct Units(Vec<Unit>);

#[derive(Debug)]
struct Unit {
    name: String,
    settings: Vec<(String, String)>,
}

/// What of a unit keeps a path from being written or entered.
#[derive(Debug, Eq, PartialEq)]
pub struct Found {
    pub unit: String,
    pub setting: String,
}

impl Units {
    /// Those under `root` whose ExecStart= is gateway on this file.
    #[must_use]
    pub fn of(root: &Path, config: &Path) -> Self {
        let mut units: Vec<Unit> = Vec::new();
        for place in PLACES {
            let files = fs::read_dir(root.join(place)).into_iter().flatten().filter_map(Result::ok).take(MOST);
            for file in files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "service")) {
                let Some(name) = file.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
                if units.iter().any(|unit| unit.name == name) {
                    continue;
                }
                let settings = read(&file);
                if settings.iter().any(|(key, value)| key == "ExecStart" && runs(value, config)) {
                    units.push(Unit { name, settings });
                }
            }
        }
        for unit in &mut units {
            for place in PLACES.iter().rev() {
                let dir = root.join(place).join(format!("{}.d", unit.name));
                let mut files: Vec<PathBuf> =
                    fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
                files.sort();
                files
                    .iter()
                    .filter(|file| file.extension().is_some_and(|end| end == "conf"))
                    .for_each(|file| unit.settings.extend(read(file)));
            }
        }
        Self(units)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What makes a path read-only.
    #[must_use]
    pub fn read_only(&self, path: &Path) -> Option<Found> {
        self.0.iter().find_map(|unit| Some(Found { unit: unit.name.clone(), setting: unit.read_only(path)? }))
    }

    /// What hides a directory.
    #[must_use]
    pub fn hidden(&self, path: &Path) -> Option<Found> {
        self.0.iter().find_map(|unit| {
            let value = unit.last("ProtectHome").filter(|value| is_true(value) || *value == "tmpfs")?;
            let shown = unit.list("BindPaths").iter().chain(&unit.list("BindReadOnlyPaths")).any(|shown| path.starts_with(shown));
            (is_home(path) && !shown).then(|| Found { unit: unit.name.clone(), setting: format!("ProtectHome={value}") })
        })
    }
}

impl Unit {
    fn last(&self, key: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Of a setting that may be given several times, an empty one takes back those before it.
    fn list(&self, key: &str) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for (_, value) in self.settings.iter().filter(|(name, _)| name == key) {
            if value.is_empty() {
                all.clear();
            }
            // `-` and `+` before a path, and `:` before another name for it.
            all.extend(
                value
                    .split_whitespace()
                    .map(|path| PathBuf::from(path.trim_start_matches(['-', '+']).split(':').next().unwrap_or_default())),
            );
        }
        all
    }

    fn writable(&self) -> Vec<PathBuf> {
        let mut all = [self.list("ReadWritePaths"), self.list("BindPaths")].concat();
        for (key, base) in [
            ("StateDirectory", "/var/lib"),
            ("RuntimeDirectory", "/run"),
            ("LogsDirectory", "/var/log"),
            ("CacheDirectory", "/var/cache"),
            ("ConfigurationDirectory", "/etc"),
        ] {
            all.extend(self.list(key).iter().map(|name| Path::new(base).join(name)));
        }
        if self.last("PrivateTmp").is_some_and(|value| is_true(value) || value == "disconnected") || self.is_dynamic() {
            all.extend(["/tmp", "/var/tmp"].map(PathBuf::from));
        }
        all.extend(["/dev", "/proc", "/sys"].map(PathBuf::from));
        // Another name of the same place.
        let runs: Vec<_> =
            all.iter().filter_map(|path| path.strip_prefix("/run").ok()).map(|path| Path::new("/var/run").join(path)).collect();
        all.extend(runs);
        all
    }

    fn is_dynamic(&self) -> bool {
        self.last("DynamicUser").is_some_and(is_true)
    }

    fn read_only(&self, path: &Path) -> Option<String> {
        if self.writable().iter().any(|dir| path.starts_with(dir)) {
            return None;
        }
        let under = |dirs: &[&str]| dirs.iter().any(|dir| path.starts_with(dir));
        if self.list("ReadOnlyPaths").iter().any(|dir| path.starts_with(dir)) {
            return Some("ReadOnlyPaths=".to_owned());
        }
        let home = self.last("ProtectHome").filter(|value| is_true(value) || matches!(*value, "read-only" | "tmpfs"));
        if let Some(value) = home.filter(|_| is_home(path)) {
            return Some(format!("ProtectHome={value}"));
        }
        let system = self.last("ProtectSystem").unwrap_or(if self.is_dynamic() { "strict" } else { "no" });
        let shut = match system {
            "strict" => true,
            "full" => under(&["/usr", "/boot", "/efi", "/etc"]),
            value => is_true(value) && under(&["/usr", "/boot", "/efi"]),
        };
        shut.then(|| format!("ProtectSystem={system}"))
    }
}

fn is_home(path: &Path) -> bool {
    ["/home", "/root", "/run/user"].iter().any(|home| path.starts_with(home))
}

fn is_true(value: &str) -> bool {
    matches!(value, "yes" | "true" | "on" | "1")
}

/// The settings of `[Service]`, in order; a line that ends with `\` goes on.
fn read(file: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(file).unwrap_or_default().replace("\\\n", " ");
    let mut service = false;
    let mut settings = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            service = line == "[Service]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| service && !line.starts_with(['#', ';'])) {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

/// Whether this ExecStart= is gateway, without a command of its own, on this file.
fn runs(command: &str, config: &Path) -> bool {
    let words = shlex::split(command.trim_start_matches(['-', '@', ':', '+', '!'])).unwrap_or_default();
    let mut words = words.iter().map(String::as_str);
    let program = words.next().and_then(|program| Path::new(program).file_name());
    if program.is_none_or(|name| name != "gateway") {
        return false;
    }
    let mut named = None;
    while let Some(word) = words.next() {
        match word {
            "-c" | "--config" => named = words.next(),
            word => named = word.strip_prefix("--config=").or(named),
        }
    }
    let same = |a: &Path, b: &Path| a == b || fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b));
    same(Path::new(named.unwrap_or("/etc/gateway/gateway.toml")), config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(more: &str) -> (tempfile::TempDir, Units) {
        let root = tempfile::tempdir().expect("a directory");
        let units = root.path().join("etc/systemd/system");
        fs::create_dir_all(units.join("gateway.service.d")).expect("made");
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/gateway.service"), units.join("gateway.service")).expect("copied");
        fs::write(units.join("other.service"), "[Service]\nExecStart=/usr/bin/other\nProtectSystem=strict\n").expect("written");
        fs::write(units.join("gateway.service.d/own.conf"), more).expect("written");
        let found = Units::of(root.path(), Path::new("/etc/gateway/gateway.toml"));
        (root, found)
    }

    #[test]
    fn the_shipped_unit_lets_its_own_directories_be_written_and_no_others() {
        let (_root, units) = shipped("");
        for path in ["/var/lib/gateway", "/run/gateway", "/var/run/gateway", "/var/log/gateway", "/var/log/gateway/x", "/tmp/x"] {
            assert_eq!(units.read_only(Path::new(path)), None, "{path}");
        }
        for path in ["/srv/logs", "/opt/logs", "/var/lib/other", "/var/log", "/etc/gateway/logs"] {
            let found = units.read_only(Path::new(path)).expect(path);
            assert_eq!((found.unit.as_str(), found.setting.as_str()), ("gateway.service", "ProtectSystem=strict"), "{path}");
        }
        assert_eq!(units.read_only(Path::new("/home/web/logs")).map(|found| found.setting), Some("ProtectHome=read-only".into()));
        assert_eq!(units.hidden(Path::new("/home/web")), None);
    }

    #[test]
    fn a_drop_in_adds_to_the_unit() {
        let (_root, units) = shipped("[Service]\nReadWritePaths=/srv/logs \\\n  -/opt/logs\nProtectHome=yes\n");
        assert_eq!(units.read_only(Path::new("/srv/logs/a")), None);
        assert_eq!(units.read_only(Path::new("/opt/logs")), None);
        assert!(units.hidden(Path::new("/home/web/app")).is_some());
        let (_root, units) = shipped("[Service]\nProtectSystem=full\n");
        assert_eq!(units.read_only(Path::new("/srv/logs")), None);
    }

    #[test]
    fn a_unit_of_another_file_is_not_ours() {
        let (root, _) = shipped("");
        assert!(Units::of(root.path(), Path::new("/srv/other/gateway.toml")).is_empty());
        assert!(Units::of(Path::new("/no/such/root"), Path::new("/etc/gateway/gateway.toml")).is_empty());
    }
}
