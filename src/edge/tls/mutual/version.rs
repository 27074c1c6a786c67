//! Certificates of clients in X.509 version 1, which openssl makes where nobody names extensions: refused, and told why, for the alert says "bad certificate" alone.
//!
//! Source: RFC 5280 §4.1.2.1; webpki takes version 3 alone, because version 1 cannot say that it is no CA.

use std::{num::NonZeroU32, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    x509::X509Version,
};

use crate::telemetry::Seldom;

/// Strangers can cause them.
const LINES: NonZeroU32 = NonZeroU32::new(1).expect("not zero because it is one");

/// Says of a certificate that was refused what is wrong with its version.
#[derive(Debug)]
pub struct Telling {
    inner: Arc<dyn ClientCertVerifier>,
    told: Seldom,
}

impl Telling {
    #[must_use]
    pub fn new(inner: Arc<dyn ClientCertVerifier>) -> Self {
        Self { inner, told: Seldom::a_second(LINES) }
    }
}

fn is_old(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, cert)| cert.version() != X509Version::V3)
}

/// What is said of it.
const REASON: &str = "it is X.509 version 1, and only version 3 says what a certificate is for: issue it with extensions (openssl x509 -req … -extfile FILE)";

impl ClientCertVerifier for Telling {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.inner.verify_client_cert(end_entity, intermediates, now).inspect_err(|_| {
            if is_old(end_entity)
                && let Some(more) = self.told.may()
            {
                tracing::warn!(reason = REASON, more, "client certificate refused");
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
