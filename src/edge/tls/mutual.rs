//! Client certificates: which CAs a site trusts for them, and what is told of one to the app.
//!
//! Shape: a file of CAs is known by the digest of its bytes. Sessions are kept apart by it: one that was opened without a certificate, or under other CAs,
//!        is never taken up where these are asked for.
//! Source: RFC 8446 §4.3.2, RFC 4514 (the text of a subject).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;
use http::HeaderValue;
use rustls::{
    RootCertStore, ServerConnection,
    pki_types::{CertificateDer, pem::PemObject},
    server::{
        ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
};
use thiserror::Error;
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    x509::{AttributeTypeAndValue, X509Name},
};

mod version;

pub use super::demand::CaMark;
use version::Telling;

use super::{OnBadPair, TlsBase, tickets::Scope};
use crate::{
    ipc::message::{Materials, Roots},
    pki::text::tidied,
    plan::Plan,
    vocab::chain,
};

/// TLS 1.2 sessions without tickets that are kept for each file of CAs.
const SESSIONS: usize = 512;
/// A longer subject is not sent on: what is cut off might be what tells it from another.
const LONGEST_SUBJECT: usize = 2048;
/// RFC 5280 §4.1.2.2 allows 20.
const LONGEST_SERIAL: usize = 64;

/// Why client certificates cannot be checked.
#[derive(Debug, Error)]
pub enum MutualError {
    #[error("read {}: {reason}", path.display())]
    Unread { path: PathBuf, reason: String },
    #[error("find a CA certificate in {}", .0.display())]
    Empty(PathBuf),
    #[error("trust a certificate in {}", path.display())]
    Root {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("trust the certificates in {}", path.display())]
    Verifier {
        path: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
    #[error("keep sessions apart")]
    Tickets(#[from] rustls::Error),
}

/// One file of CAs, made ready.
#[derive(Debug)]
pub struct Mutual {
    pub mark: CaMark,
    pub verifier: Arc<dyn ClientCertVerifier>,
    pub tickets: Arc<dyn ProducesTickets>,
    pub sessions: Arc<dyn StoresServerSessions>,
}

impl Mutual {
    fn read(roots: &Roots, base: &TlsBase) -> Result<Self, MutualError> {
        let Roots { path, pem } = roots;
        let pem = pem.as_ref().map_err(|reason| MutualError::Unread { path: path.clone(), reason: reason.clone() })?;
        let mut store = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(&tidied(pem)) {
            let cert = cert.map_err(|_| MutualError::Empty(path.clone()))?;
            store.add(cert).map_err(|source| MutualError::Root { path: path.clone(), source })?;
        }
        if store.is_empty() {
            return Err(MutualError::Empty(path.clone()));
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), base.provider.clone())
            .build()
            .map_err(|source| MutualError::Verifier { path: path.clone(), source })?;
        let mark = mark(pem);
        let verifier = Arc::new(Telling::new(verifier));
        Ok(Self { mark, verifier, tickets: base.tickets.ticketer(Scope::Of(mark))?, sessions: ServerSessionMemoryCache::new(SESSIONS) })
    }
}

fn mark(pem: &[u8]) -> CaMark {
    let mut mark = [0; 32];
    mark.copy_from_slice(digest::digest(&digest::SHA256, pem).as_ref());
    CaMark(mark)
}

/// Every file of CAs that sites name.
#[derive(Clone, Debug, Default)]
pub struct Mutuals {
    ready: HashMap<PathBuf, Arc<Mutual>>,
    problems: HashMap<PathBuf, String>,
}

impl Mutuals {
    /// A file that is what it was keeps its sessions.
    ///
    /// Errors: [`MutualError`], under [`OnBadPair::Refuse`].
    pub fn build(base: &TlsBase, plan: &Plan, materials: &Materials, old: Option<&Self>, bad: OnBadPair) -> Result<Self, MutualError> {
        let mut all = Self::default();
        for path in plan.sites.iter().filter_map(|site| site.client_ca.as_ref()) {
            if all.ready.contains_key(path) || all.problems.contains_key(path) {
                continue;
            }
            let old = old.and_then(|old| old.ready.get(path));
            let roots = materials.ca(path);
            let same = roots.and_then(|roots| roots.pem.as_ref().ok()).zip(old).filter(|(pem, old)| old.mark == mark(pem));
            let read = || match roots {
                Some(roots) => Mutual::read(roots, base).map(Arc::new),
                None => Err(MutualError::Empty(path.clone())),
            };
            match same.map_or_else(read, |(_, old)| Ok(old.clone())) {
                Ok(mutual) => {
                    all.ready.insert(path.clone(), mutual);
                }
                Err(error) if bad == OnBadPair::Refuse => return Err(error),
                Err(error) => {
                    tracing::error!(cert = %path.display(), error = %chain(&error), kept = old.is_some(), "client CA not usable");
                    all.problems.insert(path.clone(), chain(&error));
                    all.ready.extend(old.map(|old| (path.clone(), old.clone())));
                }
            }
        }
        Ok(all)
    }

    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&Arc<Mutual>> {
        self.ready.get(path)
    }

    #[must_use]
    pub fn problem(&self, path: &Path) -> Option<&str> {
        self.problems.get(path).map(String::as_str)
    }

    /// Files that turned bad, and in whose place what they held before is in force.
    pub fn passed_over(&self) -> impl Iterator<Item = &PathBuf> {
        self.problems.keys().filter(|path| self.ready.contains_key(*path))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PathBuf, &Arc<Mutual>)> {
        self.ready.iter()
    }
}

/// Who the client is, as its verified certificate says, in fields for the app.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The CAs under which it was verified.
    pub ca: CaMark,
    /// RFC 4514; `None`: it has no text form, or a very long one.
    pub subject: Option<HeaderValue>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: HeaderValue,
    /// Hexadecimal; `None`: longer than any CA may make it.
    pub serial: Option<HeaderValue>,
}

impl ClientCertificate {
    /// What the client of `session` has shown, now or when the session began; `None`: nothing that can be read.
    #[must_use]
    pub fn of(session: &ServerConnection, ca: CaMark) -> Option<Self> {
        Self::read(session.peer_certificates()?.first()?, ca)
    }

    fn read(der: &[u8], ca: CaMark) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let field = |text: String| HeaderValue::try_from(text).ok();
        let serial = match cert.raw_serial() {
            [0, rest @ ..] if !rest.is_empty() => rest,
            serial => serial,
        };
        Some(Self {
            ca,
            subject: subject(cert.subject()).and_then(field),
            fingerprint: field(hex(digest::digest(&digest::SHA256, der).as_ref()))?,
            serial: (serial.len() <= LONGEST_SERIAL).then(|| hex(serial)).and_then(field),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last part first, as RFC 4514 §2.1 has it. Visible ASCII and spaces alone: everything else is escaped byte by byte.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (n, part) in parts.into_iter().rev().enumerate() {
        for (m, attribute) in part.iter().enumerate() {
            text.push_str(match (n, m) {
                (0, 0) => "",
                (_, 0) => ",",
                (_, _) => "+",
            });
            write_attribute(attribute, &mut text)?;
            if text.len() > LONGEST_SUBJECT {
                return None;
            }
        }
    }
    Some(text)
}

fn write_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) -> Option<()> {
    let oid = attribute.attr_type().to_id_string();
    // RFC 4514 §3; what has no name there is written in numbers.
    text.push_str(match &*oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        numbers => numbers,
    });
    text.push('=');
    let value = attribute.as_str().ok()?.as_bytes();
    for (at, &byte) in value.iter().enumerate() {
        let edge = at == 0 || at + 1 == value.len();
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => text.extend(['\\', byte.into()]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if edge => text.push_str("\\ "),
            b' '..=b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

    use super::*;

    fn certificate(parts: &[(DnType, &str)]) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serial_number = Some(SerialNumber::from_slice(&[0xab, 1]));
        let made = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        ClientCertificate::read(made.der(), CaMark([0; 32])).expect("read")
    }

    #[test]
    fn a_certificate_is_told_in_fields() {
        let told =
            certificate(&[(DnType::CountryName, "DE"), (DnType::OrganizationName, "Bäcker, \"Söhne\""), (DnType::CommonName, " ann ")]);
        assert_eq!(told.subject.expect("text"), "CN=\\ ann\\ ,O=B\\C3\\A4cker\\, \\\"S\\C3\\B6hne\\\",C=DE");
        assert_eq!(told.serial.expect("short"), "ab01");
        assert_eq!(told.fingerprint.len(), 64);
    }

    #[test]
    fn a_very_long_subject_is_left_out() {
        assert_eq!(certificate(&[(DnType::CommonName, &"x".repeat(3000))]).subject, None);
    }

    proptest! {
        #[test]
        fn no_subject_breaks_out_of_its_field(name in "\\PC{0,40}|[\\x00-\\x7f]{0,40}", unit in "\\PC{0,20}") {
            let told = certificate(&[(DnType::OrganizationalUnitName, &unit), (DnType::CommonName, &name)]);
            let text = told.subject.expect("text");
            prop_assert!(text.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)), "{:?}", text);
            // Two parts, whatever stands in them: one comma that is not escaped.
            let mut bytes = text.as_bytes().iter();
            let mut commas = 0;
            while let Some(byte) = bytes.next() {
                match byte {
                    b'\\' => drop(bytes.next()),
                    b',' => commas += 1,
                    _ => {}
                }
            }
            prop_assert_eq!(commas, 1);
        }
    }
}
