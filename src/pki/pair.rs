//! A certificate chain with its key, checked to belong together, and the names and the end that stand in it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

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
    /// DNS names in lower case, wildcards as written, and addresses.
    pub names: Vec<String>,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// The common name of whoever signed it, or all that it calls itself.
    pub issuer: String,
    /// Lower-case hex.
    pub serial: String,
}

impl Pair {
    /// Errors: [`PairError`] says which of the two files is at fault.
    pub fn read(material: &Material, provider: &CryptoProvider) -> Result<Self, PairError> {
        let Material { cert, key, pem } = material;
        let Pem { chain, key: secret } = pem.as_ref().map_err(|reason| PairError::Unread { path: cert.clone(), reason: reason.clone() })?;
        Self::parse(chain, secret.reveal(), cert, key, provider)
    }

    /// Errors: [`PairError`]
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let here = Path::new("the bundle");
        Self::parse(chain, key, here, here, &rustls::crypto::aws_lc_rs::default_provider())
    }

    fn parse(chain: &[u8], secret: &[u8], cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self, PairError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| PairError::Chain(cert.into()))?;
        let leaf = chain.first().ok_or_else(|| PairError::Chain(cert.into()))?;
        let Facts { names, not_before, not_after, issuer, serial } = facts(leaf).ok_or_else(|| PairError::Certificate(cert.into()))?;
        let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|_| PairError::Key(key.into()))?;
        let certified = CertifiedKey::from_der(chain, secret, provider).map_err(|source| PairError::Mismatch {
            cert: cert.into(),
            key: key.into(),
            source,
        })?;
        Ok(Self { certified: Arc::new(certified), names, not_before, not_after, issuer, serial })
    }

    /// Whether a client that asks for `name` takes it.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|own| own == name || parent.is_some_and(|parent| own.strip_prefix("*.") == Some(parent)))
    }

    /// The certificate itself.
    #[must_use]
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.certified.cert.first().cloned()
    }
}

struct Facts {
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    issuer: String,
    serial: String,
}

fn facts(leaf: &CertificateDer<'_>) -> Option<Facts> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names = parsed.subject_alternative_name().ok()?.map_or_else(Vec::new, |names| {
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
            },
            _ => None,
        };
        names.value.general_names.iter().filter_map(name).collect()
    });
    let issuer = parsed.issuer();
    let common = issuer.iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    Some(Facts {
        names,
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        issuer: common.unwrap_or_else(|| issuer.to_string()),
        serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
    })
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
