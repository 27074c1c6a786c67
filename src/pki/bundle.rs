//! A PEM file of certificates: the roots of a directory, or those that sign for clients.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::text::tidied;

/// Why a file is no bundle of certificates.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BundleError {
    #[error("find a certificate in PEM")]
    Empty,
    #[error("understand certificate {0} of it")]
    Broken(usize),
}

/// All certificates of a PEM text, in its order; what else stands there is passed over.
///
/// Errors: [`BundleError`] where there is none, or one that is broken: a root that is silently missing would be found out too late.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let read = |(n, der): (usize, Result<CertificateDer<'static>, _>)| {
        let der = der.map_err(|_| BundleError::Broken(n + 1))?;
        match X509Certificate::from_der(&der) {
            Ok(([], _)) => Ok(der),
            Ok(_) | Err(_) => Err(BundleError::Broken(n + 1)),
        }
    };
    let all: Vec<_> = CertificateDer::pem_slice_iter(&tidied(pem)).enumerate().map(read).collect::<Result<_, _>>()?;
    if all.is_empty() { Err(BundleError::Empty) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_whole_or_not_at_all() {
        let one = || rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("made").cert.pem();
        let two = format!("# two of them\n{}\n{}", one(), one());
        assert_eq!(certificates(two.as_bytes()).map(|all| all.len()), Ok(2));
        let broken = format!("{}-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", one());
        assert_eq!(certificates(broken.as_bytes()), Err(BundleError::Broken(2)));
        let cut = &two.as_bytes()[..two.len() - 40];
        assert_eq!(certificates(cut), Err(BundleError::Broken(2)));
        assert_eq!(certificates(b"no PEM"), Err(BundleError::Empty));
    }
}
