//! A chain as a server is to send it: its own certificate, then the one that signed it, and so on.
//!
//! Pure.
//!
//! Source: RFC 5246 §7.4.2; RFC 8446 §4.4.2 asks for the first place alone, but not every client looks for the rest.

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer};

/// A longer file is no chain, and is left as it is.
const LONGEST: usize = 64;

/// By what one certificate finds the one that signed it.
struct Link {
    subject: Vec<u8>,
    issuer: Vec<u8>,
    key: Option<Vec<u8>>,
    issuer_key: Option<Vec<u8>>,
}

impl Link {
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let key = cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let issuer_key = cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        Some(Self { subject: cert.subject().as_raw().to_vec(), issuer: cert.issuer().as_raw().to_vec(), key, issuer_key })
    }

    fn is_signed_by(&self, other: &Self) -> bool {
        // A name alone has several keys where an authority was renewed.
        let keys = self.issuer_key.as_ref().zip(other.key.as_ref()).is_none_or(|(asked, own)| asked == own);
        self.issuer == other.subject && keys
    }
}

/// Whether `above` may have signed `below`, by what both say.
#[must_use]
pub fn signed(above: &CertificateDer<'_>, below: &CertificateDer<'_>) -> bool {
    Link::of(below).zip(Link::of(above)).is_some_and(|(below, above)| below.is_signed_by(&above))
}

/// Puts certificate `leaf` first and behind each one the one that signed it; what belongs to none of them keeps its order at the end. What is in order stays as it is.
#[must_use]
pub fn ordered(mut chain: Vec<CertificateDer<'static>>, leaf: usize) -> Vec<CertificateDer<'static>> {
    if chain.len() > LONGEST || leaf >= chain.len() {
        return chain;
    }
    let own = chain.remove(leaf);
    let mut last = Link::of(&own);
    let mut rest: Vec<_> = chain.into_iter().map(|der| (Link::of(&der), der)).collect();
    let mut all = vec![own];
    while let Some(below) = &last {
        let above = rest.iter().position(|(link, _)| link.as_ref().is_some_and(|link| below.is_signed_by(link)));
        let Some(above) = above else { break };
        let (link, der) = rest.remove(above);
        all.push(der);
        last = link;
    }
    all.extend(rest.into_iter().map(|(_, der)| der));
    all
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    fn params(name: &str, ca: bool) -> CertificateParams {
        let mut params = CertificateParams::new([name.to_owned()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    #[test]
    fn a_reversed_or_shuffled_chain_is_put_in_order() {
        let key = || KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(params("root", true), key()).expect("made");
        let middle = CertifiedIssuer::signed_by(params("middle", true), key(), &root).expect("made");
        let low = CertifiedIssuer::signed_by(params("low", true), key(), &middle).expect("made");
        let leaf = params("a.test", false).signed_by(&key(), &low).expect("made");
        let good: Vec<CertificateDer<'static>> = [leaf.der(), low.der(), middle.der(), root.der()].into_iter().cloned().collect();
        let stray = params("stray", false).self_signed(&key()).expect("made").der().clone();
        for places in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1], [0, 3, 1, 2]] {
            let mut given: Vec<_> = places.iter().map(|place| good[*place].clone()).collect();
            given.insert(2, stray.clone());
            let leaf = given.iter().position(|der| *der == good[0]).expect("there");
            let mut wanted = good.clone();
            wanted.push(stray.clone());
            assert!(ordered(given, leaf) == wanted, "{places:?}");
        }
        assert!(signed(&good[1], &good[0]) && !signed(&good[2], &good[0]));
    }
}
