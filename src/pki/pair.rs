//! A certificate chain with its key, checked to belong together, and what stands in it.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use rustls::{
    InconsistentKeys,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{order::ordered, text::tidied};
use crate::ipc::message::{Material, Pem};

/// An issuer's name is shown in tables; some are essays.
const ISSUER: usize = 128;

/// Why a pair cannot be served.
#[derive(Debug, Error)]
pub enum PairError {
    /// What the master says who read it: "could not read …".
    #[error("have its files: {0}")]
    Unread(String),
    #[error("find a certificate in PEM")]
    NoCertificate,
    #[error("understand the certificate")]
    Certificate,
    #[error("find a private key in PEM")]
    NoKey,
    #[error("use a key that is not that of the certificate")]
    Mismatch,
    #[error("use the key")]
    Key(#[source] rustls::Error),
    #[error("use a certificate that is not valid before {}", utc(*from))]
    NotYet { from: i64 },
    #[error("use a certificate that expired at {}", utc(*since))]
    Expired { since: i64 },
}

/// How a certificate stands at one moment. Units: Unix seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Validity {
    Valid,
    NotYet { from: i64 },
    Expired { since: i64 },
}

/// One usable pair, and what its leaf says.
///
/// Units: Unix seconds, both ends included (RFC 5280 §4.1.2.5).
#[derive(Debug)]
pub struct Pair {
    pub certified: Arc<CertifiedKey>,
    /// DNS names in lower case, wildcards as written; addresses as text.
    pub names: Vec<String>,
    pub not_before: i64,
    pub not_after: i64,
    /// The common name of whoever signed it, or its whole name where it has none; without control characters.
    pub issuer: String,
    /// Lower-case hex.
    pub serial: String,
    /// Its own key signed it.
    pub signed_itself: bool,
}

/// How the authorities of Let's Encrypt name themselves that nobody trusts.
const STAGING: &str = "(STAGING)";

impl Pair {
    /// The certificate that the key belongs to is the leaf, wherever it stands; the others are put in order behind it.
    ///
    /// Errors: [`PairError`], but for what only time can tell.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&tidied(chain)).collect::<Result<_, _>>().map_err(|_| PairError::NoCertificate)?;
        let first = chain.first().ok_or(PairError::NoCertificate)?;
        facts(first).ok_or(PairError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&tidied(key)).map_err(|_| PairError::NoKey)?;
        let key = default_provider().key_provider.load_private_key(key).map_err(PairError::Key)?;
        let match_of = |cert: &CertificateDer<'static>| CertifiedKey::new(vec![cert.clone()], key.clone()).keys_match();
        let leaf = match match_of(first) {
            // A key that does not tell is taken at its word.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => 0,
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                chain.iter().position(|cert| match_of(cert).is_ok()).ok_or(PairError::Mismatch)?
            }
            Err(error) => return Err(PairError::Key(error)),
        };
        let chain = ordered(chain, leaf);
        let leaf = chain.first().ok_or(PairError::NoCertificate)?;
        let Facts { names, not_before, not_after, issuer, serial, signed_itself } = facts(leaf).ok_or(PairError::Certificate)?;
        let certified = CertifiedKey::new(chain, key);
        Ok(Self { certified: Arc::new(certified), names, not_before, not_after, issuer, serial, signed_itself })
    }

    /// As [`Self::from_pem`], of what the master has read.
    pub fn read(material: &Material) -> Result<Self, PairError> {
        let Pem { chain, key } = material.pem.as_ref().map_err(|reason| PairError::Unread(reason.clone()))?;
        Self::from_pem(chain, key.reveal())
    }

    #[must_use]
    pub fn validity(&self, now: i64) -> Validity {
        if now < self.not_before {
            Validity::NotYet { from: self.not_before }
        } else if now > self.not_after {
            Validity::Expired { since: self.not_after }
        } else {
            Validity::Valid
        }
    }

    /// Errors: it is not valid at this moment.
    pub fn valid(&self, now: i64) -> Result<(), PairError> {
        match self.validity(now) {
            Validity::Valid => Ok(()),
            Validity::NotYet { from } => Err(PairError::NotYet { from }),
            Validity::Expired { since } => Err(PairError::Expired { since }),
        }
    }

    /// Whether a client that asks for `name` takes it.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|own| own == name || parent.is_some_and(|parent| own.strip_prefix("*.") == Some(parent)))
    }

    /// Whether an authority signed it that clients may trust.
    #[must_use]
    pub fn is_publicly_signed(&self) -> bool {
        !self.signed_itself && !self.issuer.starts_with(STAGING)
    }

    /// The certificate itself.
    #[must_use]
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.certified.cert.first().cloned()
    }

    /// Whether both have the same leaf.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.certified.cert.first() == other.certified.cert.first()
    }
}

struct Facts {
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    issuer: String,
    serial: String,
    signed_itself: bool,
}

fn facts(leaf: &CertificateDer<'_>) -> Option<Facts> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let names =
        parsed.subject_alternative_name().ok()?.map_or_else(Vec::new, |names| names.value.general_names.iter().filter_map(name).collect());
    let common = parsed.issuer().iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    let issuer = common.unwrap_or_else(|| parsed.issuer().to_string());
    let serial = parsed.raw_serial();
    // A zero in front says no more than that the number is positive.
    let serial = if serial.len() > 1 { serial.strip_prefix(&[0]).unwrap_or(serial) } else { serial };
    Some(Facts {
        names,
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        issuer: issuer.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(ISSUER).collect(),
        serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        signed_itself: parsed.issuer() == parsed.subject(),
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// As RFC 3339 writes it.
#[must_use]
pub fn utc(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
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

    /// Whether an authority signed each of them that clients may trust. Where there is none, something else is served.
    #[must_use]
    pub fn are_publicly_signed(&self) -> bool {
        self.first.is_some() && self.names.values().chain(self.first.as_ref()).all(|pair| pair.is_publicly_signed())
    }

    /// When the first of them ends.
    #[must_use]
    pub fn first_end(&self) -> Option<i64> {
        self.names.values().chain(self.first.as_ref()).map(|pair| pair.not_after).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};

    use super::*;

    /// A certificate that signs itself, from 1970-01-02 to 1970-01-03, and its key.
    fn made(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect("names");
        params.distinguished_name.push(DnType::CommonName, "Example\nCA");
        params.serial_number = Some(SerialNumber::from_slice(&[0x00, 0xab, 0x01]));
        let at = |seconds| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        (params.not_before, params.not_after) = (at(86_400).into(), at(172_800).into());
        (params.self_signed(&key).expect("signed").pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_says_what_stands_in_it() {
        let (chain, key) = made(&["A.example.com", "*.example.com", "192.0.2.1", "2001:db8::1"]);
        let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("good");
        assert_eq!(pair.names, ["a.example.com", "*.example.com", "192.0.2.1", "2001:db8::1"]);
        assert_eq!((pair.not_before, pair.not_after), (86_400, 172_800));
        assert_eq!((pair.issuer.as_str(), pair.serial.as_str()), ("Example\u{fffd}CA", "ab01"));
    }

    #[test]
    fn time_tells_whether_it_is_valid() {
        let (chain, key) = made(&["a.example.com"]);
        let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("good");
        assert_eq!(pair.validity(86_399), Validity::NotYet { from: 86_400 });
        assert_eq!((pair.validity(86_400), pair.validity(172_800)), (Validity::Valid, Validity::Valid));
        assert_eq!(pair.validity(172_801), Validity::Expired { since: 172_800 });
        assert_eq!(pair.valid(172_801).expect_err("late").to_string(), "use a certificate that expired at 1970-01-03T00:00:00Z");
    }

    #[test]
    fn a_chain_that_begins_at_its_other_end_is_turned_and_told_from_a_key_of_another() {
        let ((leaf, key), (above, _), (other, _)) = (made(&["a.test"]), made(&["ca.test"]), made(&["root.test"]));
        let chain = format!("{other}{above}{leaf}");
        let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("turned");
        assert_eq!((pair.names.as_slice(), pair.certified.cert.len()), (["a.test".to_owned()].as_slice(), 3));
        let glued = format!("\u{feff}{}{}", leaf.trim_end(), above.trim_end());
        let marked = format!("\u{feff}{key}");
        assert_eq!(Pair::from_pem(glued.as_bytes(), marked.as_bytes()).expect("read").certified.cert.len(), 2);
        let error = Pair::from_pem(format!("{other}{above}").as_bytes(), key.as_bytes()).expect_err("not its key");
        assert!(matches!(error, PairError::Mismatch), "{error}");
        Pair::from_pem(format!("{leaf}{above}{other}").as_bytes(), key.as_bytes()).expect("in order");
    }

    #[test]
    fn what_is_no_pair_is_refused_with_its_reason() {
        let (chain, key) = made(&["a.example.com"]);
        let (_, other) = made(&["a.example.com"]);
        let fault = |chain: &str, key: &str| Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect_err("bad");
        assert!(matches!(fault(&chain, &other), PairError::Mismatch));
        assert!(matches!(fault(&key, &key), PairError::NoCertificate));
        assert!(matches!(fault(&chain, &chain), PairError::NoKey));
        assert!(matches!(fault("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", &key), PairError::Certificate));
    }

    proptest! {
        #[test]
        fn no_certificate_panics(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let (chain, _) = made(&["a.example.com"]);
            let mut der = CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM").to_vec();
            let at = cut.index(der.len());
            der[at] = byte;
            let _ = facts(&CertificateDer::from(der));
        }
    }
}
