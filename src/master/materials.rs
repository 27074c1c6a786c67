//! Certificates and keys: read here, because the edge's user may not, and read again when the files change.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::edge_link;
use crate::{
    ipc::message::{Material, Materials, Pem, Roots},
    plan::{Plan, Site, SiteTls},
    vocab::Secret,
};

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A file that is larger is no certificate.
const LARGEST: u64 = 1024 * 1024;

/// What the files looked like: changed means different.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Print(Vec<(PathBuf, Option<Look>)>);

/// Modified (s, ns), length, inode.
type Look = (i64, i64, u64, u64);

/// The pairs that a plan names, in order and once each.
fn pairs(plan: &Plan) -> Vec<(PathBuf, PathBuf)> {
    let mut pairs = Vec::new();
    // A thousand sites may share one directory: it is looked through once.
    let mut directories = BTreeSet::new();
    for site in &plan.sites {
        match &site.tls {
            SiteTls::Off | SiteTls::Internal | SiteTls::Acme | SiteTls::OnDemand { .. } => {}
            SiteTls::Files { cert, key } => pairs.push((cert.clone(), key.clone())),
            SiteTls::Directory { dir } => drop(directories.insert(dir)),
        }
    }
    pairs.extend(directories.into_iter().flat_map(|dir| pairs_in(dir)));
    pairs.sort();
    pairs.dedup();
    pairs
}

/// `NAME.pem` with `NAME.key`, and `fullchain.pem` with `privkey.pem` in sub-directories. An unreadable directory is a pair that cannot be read.
fn pairs_in(dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![(dir.into(), dir.into())] };
    let mut pairs = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let (chain, key) = (path.join("fullchain.pem"), path.join("privkey.pem"));
        if path.is_dir() && chain.exists() {
            pairs.push((chain, key));
        } else if path.extension().is_some_and(|end| end == "pem") {
            let key = path.with_extension("key");
            if key.exists() {
                pairs.push((path, key));
            }
        }
    }
    pairs
}

/// The files of CAs that a plan names.
fn roots(plan: &Plan) -> Vec<PathBuf> {
    let of_sites = plan.sites.iter().filter_map(|site| site.client_ca.as_ref());
    let of_acme = plan.tls.acme.cas.iter().filter_map(|ca| ca.root.as_ref());
    let mut roots: Vec<_> = of_sites.chain(of_acme).cloned().collect();
    roots.sort();
    roots.dedup();
    roots
}

/// Which files there are to be read.
struct Files {
    pairs: Vec<(PathBuf, PathBuf)>,
    roots: Vec<PathBuf>,
}

impl Files {
    fn of(plan: &Plan) -> Self {
        Self { pairs: pairs(plan), roots: roots(plan) }
    }

    fn print(&self) -> Print {
        let look = |path: &PathBuf| {
            let data = fs::metadata(path).ok().map(|data| (data.mtime(), data.mtime_nsec(), data.len(), data.ino()));
            (path.clone(), data)
        };
        let pairs = self.pairs.iter().flat_map(|(cert, key)| [look(cert), look(key)]);
        Print(pairs.chain(self.roots.iter().map(look)).collect())
    }
}

/// Whether files may change while the plan stays.
fn uses_files(plan: &Plan) -> bool {
    let of_site = |site: &Site| site.client_ca.is_some() || matches!(site.tls, SiteTls::Files { .. } | SiteTls::Directory { .. });
    plan.sites.iter().any(of_site) || plan.tls.acme.cas.iter().any(|ca| ca.root.is_some())
}

/// Reads all that `plan` names; the print is taken first, so that a change in between is seen later.
#[must_use]
pub fn read(plan: &Plan) -> (Materials, Print) {
    let files = Files::of(plan);
    let print = files.print();
    let Files { pairs, roots } = files;
    let pair = |(cert, key): (PathBuf, PathBuf)| {
        let pem = read_pair(&cert, &key);
        Material { cert, key, pem }
    };
    let root = |path: PathBuf| {
        let pem = read_named(&path);
        Roots { path, pem }
    };
    (Materials { pairs: pairs.into_iter().map(pair).collect(), roots: roots.into_iter().map(root).collect() }, print)
}

fn read_pair(cert: &Path, key: &Path) -> Result<Pem, String> {
    Ok(Pem { chain: read_named(cert)?, key: Secret::new(read_named(key)?) })
}

fn read_named(path: &Path) -> Result<Vec<u8>, String> {
    read_file(path).map_err(|error| format!("could not read {}: {error}", path.display()))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would hold us until somebody writes into it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST { Err(io::Error::other("it is too large for a certificate or key")) } else { Ok(bytes) }
}

/// Looks for changes and sends what it finds.
pub struct Watcher {
    pub plan: watch::Receiver<(Arc<Plan>, Print)>,
    pub edge: edge_link::Handle,
}

impl Watcher {
    pub async fn run(mut self) {
        loop {
            let (plan, mut last) = self.plan.borrow_and_update().clone();
            if !uses_files(&plan) {
                if self.plan.changed().await.is_err() {
                    return;
                }
                continue;
            }
            loop {
                tokio::select! {
                    changed = self.plan.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                // On another thread: a slow disk must not hold up a restart.
                let (of, before) = (plan.clone(), last.clone());
                let changed = tokio::task::spawn_blocking(move || (Files::of(&of).print() != before).then(|| read(&of))).await;
                if let Ok(Some((materials, print))) = changed {
                    last = print;
                    tracing::info!(count = materials.pairs.len() + materials.roots.len(), "certificate files changed");
                    self.edge.materials(materials).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Ca;

    fn named(plan: &Plan) -> Vec<String> {
        let name = |m: &Material| format!("{} {}", m.cert.file_name().unwrap_or_default().to_string_lossy(), m.pem.is_ok());
        read(plan).0.pairs.iter().map(name).collect()
    }

    #[test]
    fn files_and_directories_are_found_and_a_change_shows() {
        let dir = tempfile::tempdir().expect("dir");
        let sub = dir.path().join("example.com");
        fs::create_dir(&sub).expect("dir");
        for (name, text) in [("a.pem", "A"), ("a.key", "K"), ("lonely.pem", "L"), ("note.txt", "-")] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        fs::write(sub.join("fullchain.pem"), "C").expect("written");
        let mut plan = crate::master::tests::plan();
        plan.sites = vec![crate::master::tests::site(SiteTls::Directory { dir: dir.path().into() })];
        assert_eq!(named(&plan), ["a.pem true", "fullchain.pem false"]);
        let (_, before) = read(&plan);
        assert_eq!(read(&plan).1, before);
        fs::write(sub.join("privkey.pem"), "P").expect("written");
        assert_ne!(read(&plan).1, before);
        assert_eq!(named(&plan), ["a.pem true", "fullchain.pem true"]);
    }

    #[test]
    fn files_of_cas_are_read_once_each_and_a_change_shows() {
        let dir = tempfile::tempdir().expect("dir");
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, "CA").expect("written");
        let mut plan = crate::master::tests::plan();
        let mut site = crate::master::tests::site(SiteTls::Internal);
        site.client_ca = Some(ca.clone());
        plan.sites = vec![site.clone(), site];
        let root = Some(dir.path().join("gone.pem"));
        plan.tls.acme.cas = vec![Ca { name: "own".into(), directory: "https://ca.test/dir".into(), staging: None, root, eab: None }];
        assert!(uses_files(&plan));
        let (materials, before) = read(&plan);
        assert_eq!(materials.roots.len(), 2);
        assert_eq!(materials.ca(&ca).map(|roots| roots.pem.clone()), Some(Ok(b"CA".to_vec())));
        assert!(materials.roots[1].pem.as_ref().is_err_and(|why| why.contains("gone.pem")));
        fs::write(&ca, "another CA").expect("written");
        assert_ne!(read(&plan).1, before);
    }

    #[test]
    fn a_missing_directory_is_said_not_passed_over() {
        let mut plan = crate::master::tests::plan();
        plan.sites = vec![crate::master::tests::site(SiteTls::Directory { dir: "/nowhere".into() })];
        let (materials, _) = read(&plan);
        assert!(materials.pairs[0].pem.as_ref().is_err_and(|why| why.contains("/nowhere")));
    }

    #[test]
    fn a_pipe_in_the_place_of_a_certificate_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("dir");
        for name in ["a.pem", "a.key"] {
            nix::unistd::mkfifo(&dir.path().join(name), nix::sys::stat::Mode::S_IRWXU).expect("made");
        }
        let mut plan = crate::master::tests::plan();
        plan.sites = vec![crate::master::tests::site(SiteTls::Directory { dir: dir.path().into() })];
        let (materials, _) = read(&plan);
        assert!(materials.pairs[0].pem.as_ref().is_err_and(|why| why.contains("not a file")));
    }
}
