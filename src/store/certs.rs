//! What has to do with automatic certificates on disk: accounts, certificates with their keys, and how far an order has come.
//!
//! ```text
//! DIR/.accounts/CA/key.pem       the account's key: written before the CA hears of it, so that no account is made twice
//! DIR/.accounts/CA/account.json   what the CA made of it
//! DIR/NAME/bundle.pem            key and chain in one file, so that they always belong together
//! DIR/NAME/order.json            an order under way, with the key of its certificate
//! DIR/NAME/history.json          when to try again, and what went wrong
//! ```
//! Shape: every file is written whole and private; a missing file is `None`. Blocks for the disk.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::atomic;
use crate::vocab::Host;

/// Why the store could not be used.
#[derive(Debug, Error)]
pub enum CertsError {
    #[error("make {}", path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("understand {}", path.display())]
    Garbled {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("put it into JSON")]
    Shape(#[source] serde_json::Error),
    #[error(transparent)]
    Write(#[from] atomic::WriteError),
}

/// A file of a certificate's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Item {
    Bundle,
    Order,
    History,
}

impl Item {
    fn file(self) -> &'static str {
        match self {
            Self::Bundle => "bundle.pem",
            Self::Order => "order.json",
            Self::History => "history.json",
        }
    }
}

/// A file of an account's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Paper {
    Key,
    Account,
}

impl Paper {
    fn file(self) -> &'static str {
        match self {
            Self::Key => "key.pem",
            Self::Account => "account.json",
        }
    }
}

/// The directory of all that.
#[derive(Clone, Debug)]
pub struct Certs {
    dir: PathBuf,
}

impl Certs {
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Errors: [`CertsError::Read`]
    pub fn read(&self, name: &Host, item: Item) -> Result<Option<Vec<u8>>, CertsError> {
        read(&self.path(name, item))
    }

    /// Errors: [`CertsError`]; what was there before is untouched.
    pub fn write(&self, name: &Host, item: Item, bytes: &[u8]) -> Result<(), CertsError> {
        write(&self.path(name, item), bytes)
    }

    /// Removed already is removed.
    ///
    /// Errors: [`CertsError::Remove`]
    pub fn remove(&self, name: &Host, item: Item) -> Result<(), CertsError> {
        remove(&self.path(name, item))
    }

    /// Errors: [`CertsError`]
    pub fn read_json<T: DeserializeOwned>(&self, name: &Host, item: Item) -> Result<Option<T>, CertsError> {
        parse(&self.path(name, item), self.read(name, item)?)
    }

    /// Errors: [`CertsError`]
    pub fn write_json<T: Serialize>(&self, name: &Host, item: Item, value: &T) -> Result<(), CertsError> {
        self.write(name, item, &serde_json::to_vec_pretty(value).map_err(CertsError::Shape)?)
    }

    /// Errors: [`CertsError::Read`]
    pub fn paper(&self, directory: &str, paper: Paper) -> Result<Option<Vec<u8>>, CertsError> {
        read(&self.account(directory, paper))
    }

    /// Errors: [`CertsError`]
    pub fn paper_json<T: DeserializeOwned>(&self, directory: &str, paper: Paper) -> Result<Option<T>, CertsError> {
        parse(&self.account(directory, paper), self.paper(directory, paper)?)
    }

    /// Errors: [`CertsError`]; what was there before is untouched.
    pub fn write_paper(&self, directory: &str, paper: Paper, bytes: &[u8]) -> Result<(), CertsError> {
        write(&self.account(directory, paper), bytes)
    }

    /// Errors: [`CertsError::Remove`]
    pub fn remove_paper(&self, directory: &str, paper: Paper) -> Result<(), CertsError> {
        remove(&self.account(directory, paper))
    }

    /// A host has no `/` in it and is never `..`.
    fn path(&self, name: &Host, item: Item) -> PathBuf {
        self.dir.join(name.as_str()).join(item.file())
    }

    fn account(&self, directory: &str, paper: Paper) -> PathBuf {
        // No host has a dot at its start: the accounts lie beside the names and are none.
        self.dir.join(".accounts").join(folder(directory)).join(paper.file())
    }
}

/// A URL as the name of a folder: no two URLs have the same.
fn folder(url: &str) -> String {
    let mut name = String::with_capacity(url.len());
    for byte in url.strip_prefix("https://").unwrap_or(url).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("_{byte:02x}")),
        }
    }
    name
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CertsError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CertsError::Read { path: path.into(), source }),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: Option<Vec<u8>>) -> Result<Option<T>, CertsError> {
    bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(|source| CertsError::Garbled { path: path.into(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CertsError> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| CertsError::Make { path: dir.into(), source })?;
    }
    Ok(atomic::write(path, bytes, atomic::PRIVATE)?)
}

fn remove(path: &Path) -> Result<(), CertsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CertsError::Remove { path: path.into(), source }),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_private_and_what_is_not_there_is_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let certs = Certs::new(dir.path().join("certs"));
        let name = Host::parse("a.test").expect("a host");
        assert_eq!(certs.read(&name, Item::Bundle).expect("readable"), None);
        certs.write(&name, Item::Bundle, b"PEM").expect("written");
        assert_eq!(certs.read(&name, Item::Bundle).expect("readable").as_deref(), Some(&b"PEM"[..]));
        let mode = |path: &str| fs::metadata(dir.path().join("certs").join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("a.test"), mode("a.test/bundle.pem")), (0o700, 0o600));
        certs.remove(&name, Item::Bundle).expect("removed");
        certs.remove(&name, Item::Bundle).expect("removed already");
        assert_eq!(certs.read(&name, Item::Bundle).expect("readable"), None);
        certs.write(&name, Item::History, b"{").expect("written");
        assert!(matches!(certs.read_json::<Vec<u8>>(&name, Item::History), Err(CertsError::Garbled { .. })));
    }

    #[test]
    fn no_two_directories_share_an_account() {
        let urls = [
            "https://ca.test/dir",
            "https://ca.test/_2fdir",
            "https://ca.test:14000/dir",
            "https://ca.test//dir",
            "https://../dir",
            "https://",
        ];
        let names: std::collections::BTreeSet<_> = urls.iter().map(|url| folder(url)).collect();
        assert_eq!(names.len(), urls.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with('.')));
        assert_eq!(folder("https://ca.test:14000/dir"), "ca.test_3a14000_2fdir");
    }
}
