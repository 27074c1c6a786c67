//! A certificate chain with its key, checked to belong together, and the names and the end that stand in it.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::ipc::message::{Material, Pem};

/// Why a pair cannot be served.
#[derive(Debug, Error)]
pub enum PairError {
    #[error("read {}: {reason}", path.display())]
    Unread { path: PathBuf, reason: String },
    #[error("find a certificate in {}", .0.display())]
    Chain(PathBuf),
    #[error("find a private key in {}", .0.display())]
    Key(PathBuf),
    #[error("understand the certificate in {}", .0.display())]
    Certificate(PathBuf),
    #[error("use {} with {}", cert.display(), key.display())]
    Mismatch {
        cert: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// One usable pair.
#[derive(Debug)]
pub struct Pair {
    pub certified: Arc<CertifiedKey>,
    /// DNS names in lower case, wildcards as written.
    names: Vec<String>,
    /// Unix seconds.
    pub not_after: i64,
}

impl Pair {
    /// Errors: [`PairError`] says which of the two files is at fault.
    pub fn read(material: &Material, provider: &CryptoProvider) -> Result<Self, PairError> {
        let Material { cert, key, pem } = material;
        let Pem { chain, key: secret } = pem.as_ref().map_err(|reason| PairError::Unread { path: cert.clone(), reason: reason.clone() })?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| PairError::Chain(cert.clone()))?;
        let leaf = chain.first().ok_or_else(|| PairError::Chain(cert.clone()))?;
        let (names, not_after) = facts(leaf).ok_or_else(|| PairError::Certificate(cert.clone()))?;
        let secret = PrivateKeyDer::from_pem_slice(secret.reveal()).map_err(|_| PairError::Key(key.clone()))?;
        let certified = CertifiedKey::from_der(chain, secret, provider).map_err(|source| PairError::Mismatch {
            cert: cert.clone(),
            key: key.clone(),
            source,
        })?;
        Ok(Self { certified: Arc::new(certified), names, not_after })
    }
}

fn facts(leaf: &CertificateDer<'_>) -> Option<(Vec<String>, i64)> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()?.map_or_else(Vec::new, |names| {
        let dns = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        names.value.general_names.iter().filter_map(dns).collect()
    });
    Some((names, parsed.validity().not_after.timestamp()))
}

/// The pairs of a directory by the names in them; of two for one name the one that lasts longer.
#[derive(Debug)]
pub struct ByName {
    names: HashMap<String, Arc<Pair>, ahash::RandomState>,
    /// For clients that name nothing, and names that no pair has.
    first: Option<Arc<Pair>>,
}

impl ByName {
    #[must_use]
    pub fn new<'a>(pairs: impl Iterator<Item = &'a Arc<Pair>>) -> Self {
        let mut names: HashMap<String, Arc<Pair>, _> = HashMap::default();
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.not_after));
        for pair in &pairs {
            for name in &pair.names {
                names.entry(name.clone()).or_insert_with(|| Arc::clone(pair));
            }
        }
        Self { names, first: pairs.first().map(|pair| Arc::clone(pair)) }
    }

    #[must_use]
    pub fn find(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let exact = sni.and_then(|sni| self.names.get(sni));
        let wildcard = || sni.and_then(|sni| sni.split_once('.')).and_then(|(_, parent)| self.names.get(&format!("*.{parent}")));
        exact.or_else(wildcard).or(self.first.as_ref()).map(|pair| pair.certified.clone())
    }

    /// When the first of them ends.
    #[must_use]
    pub fn first_end(&self) -> Option<i64> {
        self.names.values().chain(self.first.as_ref()).map(|pair| pair.not_after).min()
    }
}
