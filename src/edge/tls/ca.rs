//! The internal CA: certificates for development that need no one else. Its own certificate is the one thing to trust by hand.
//!
//! Shape: the CA's key and certificate are kept over restarts; leaves are made when first asked for and forgotten with the process.
//! Units: the CA lasts ten years, a leaf 90 days and is made anew after 60.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use thiserror::Error;

use crate::{
    store::atomic,
    vocab::{chain, lock},
};

/// The CA's certificate, in its directory.
pub const CERT: &str = "internal-ca.pem";
const KEY: &str = "internal-ca.key";
const DAY: Duration = Duration::from_secs(86_400);
const CA_LIFE: Duration = Duration::from_secs(3650 * 86_400);
const LEAF_LIFE: Duration = Duration::from_secs(90 * 86_400);
const LEAF_FRESH: Duration = Duration::from_secs(60 * 86_400);
/// Names come from whoever connects, so they are bounded; past it the oldest half is forgotten.
const LEAVES: usize = 512;

/// Why there is no internal CA.
#[derive(Debug, Error)]
pub enum AuthorityError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("keep the internal CA")]
    Write(#[from] atomic::WriteError),
    #[error("understand {}: remove it and {KEY} to have a new CA made", .0.display())]
    Broken(PathBuf),
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    made: SystemTime,
}

/// Our own CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: CertificateDer<'static>,
    provider: CryptoProvider,
    leaves: Mutex<HashMap<Box<str>, Leaf, ahash::RandomState>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// The CA in `dir`; made there when there is none.
    ///
    /// Errors: [`AuthorityError`]; a broken file is never overwritten.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (cert_path, key_path) = (dir.join(CERT), dir.join(KEY));
        let read = |path: &Path| fs::read(path).map_err(|source| AuthorityError::Read { path: path.into(), source });
        match fs::exists(&key_path) {
            Ok(true) => {
                let broken = || AuthorityError::Broken(key_path.clone());
                let key = String::from_utf8(read(&key_path)?).map_err(|_| broken())?;
                let key = KeyPair::from_pem(&key).map_err(|_| broken())?;
                let own = CertificateDer::from_pem_slice(&read(&cert_path)?).map_err(|_| AuthorityError::Broken(cert_path.clone()))?;
                Ok(Self::new(key, own))
            }
            _ => {
                let key = KeyPair::generate()?;
                let own = params(&key).self_signed(&key)?;
                atomic::write(&cert_path, own.pem().as_bytes(), atomic::PRIVATE)?;
                atomic::write(&key_path, key.serialize_pem().as_bytes(), atomic::PRIVATE)?;
                Ok(Self::new(key, own.der().clone()))
            }
        }
    }

    fn new(key: KeyPair, own: CertificateDer<'static>) -> Self {
        let issuer = Issuer::new(params(&key), key);
        Self { issuer, own, provider: aws_lc_rs::default_provider(), leaves: Mutex::default() }
    }

    /// The CA's own certificate, to be trusted by hand.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.own
    }

    /// A certificate for `host`. `None`: it cannot be made, because `host` is no name.
    #[must_use]
    pub fn leaf(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let now = SystemTime::now();
        let fresh = |leaf: &&Leaf| now.duration_since(leaf.made).is_ok_and(|age| age < LEAF_FRESH);
        // A panic while it was held leaves a map that is still whole.
        let mut leaves = lock(&self.leaves);
        if let Some(leaf) = leaves.get(host).filter(fresh) {
            return Some(leaf.certified.clone());
        }
        let certified = match self.make(host) {
            Ok(certified) => Arc::new(certified),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "internal certificate not made");
                return None;
            }
        };
        if leaves.len() >= LEAVES {
            let mut ages: Vec<_> = leaves.values().map(|leaf| leaf.made).collect();
            ages.sort_unstable();
            let middle = ages[ages.len() / 2];
            leaves.retain(|_, leaf| leaf.made > middle);
        }
        leaves.insert(host.into(), Leaf { certified: certified.clone(), made: now });
        Some(certified)
    }

    fn make(&self, host: &str) -> Result<CertifiedKey, LeafError> {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, host.chars().take(64).collect::<String>());
        leaf.subject_alt_names = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SanType::IpAddress(ip)],
            Err(_) => vec![SanType::DnsName(host.try_into()?)],
        };
        if host == "localhost" {
            leaf.subject_alt_names.extend([SanType::IpAddress(Ipv4Addr::LOCALHOST.into()), SanType::IpAddress(Ipv6Addr::LOCALHOST.into())]);
        }
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        leaf.serial_number = Some(serial());
        let now = SystemTime::now();
        (leaf.not_before, leaf.not_after) = ((now - DAY).into(), (now + LEAF_LIFE).into());
        let made = leaf.signed_by(&key, &self.issuer)?;
        let chain = vec![made.der().clone(), self.own.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(CertifiedKey::from_der(chain, key, &self.provider)?)
    }
}

#[derive(Debug, Error)]
enum LeafError {
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("use the certificate")]
    Use(#[from] rustls::Error),
}

/// What the CA is called, told from its key alone: an issuer read back from disk signs as the one that was made.
fn params(key: &KeyPair) -> CertificateParams {
    let mut ca = CertificateParams::default();
    let mark: String = ca.key_identifier(key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name.push(DnType::CommonName, format!("gateway internal CA {mark}"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    ca.serial_number = Some(serial());
    let now = SystemTime::now();
    (ca.not_before, ca.not_after) = ((now - DAY).into(), (now + CA_LIFE).into());
    ca
}

/// Random and positive (RFC 5280 §4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes = fastrand::u128(..).to_be_bytes();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_is_the_same_after_a_restart_and_its_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let first = Authority::open(dir.path()).expect("made");
        let second = Authority::open(dir.path()).expect("read");
        assert_eq!(first.certificate(), second.certificate());
        for file in [CERT, KEY] {
            assert_eq!(fs::metadata(dir.path().join(file)).expect("there").permissions().mode() & 0o777, 0o600);
        }
        fs::write(dir.path().join(KEY), "noise").expect("written");
        assert!(matches!(Authority::open(dir.path()), Err(AuthorityError::Broken(_))));
    }

    #[test]
    fn leaves_are_made_once_and_bounded() {
        let dir = tempfile::tempdir().expect("dir");
        let ca = Authority::open(dir.path()).expect("made");
        let one = ca.leaf("a.test").expect("made");
        assert!(Arc::ptr_eq(&one, &ca.leaf("a.test").expect("kept")));
        assert!(one.key.choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256]).is_some(), "ECDSA on P-256");
        for n in 0..LEAVES + 10 {
            ca.leaf(&format!("h{n}.test")).expect("made");
        }
        assert!(ca.leaves.lock().expect("whole").len() <= LEAVES);
        assert!(ca.leaf("127.0.0.1").is_some());
    }
}
