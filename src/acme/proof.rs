//! The proof that a certificate is served: a handshake with our own listener, asking for its name.
//!
//! Shape: nothing is believed of the certificate but that it is the one; whether clients trust it is for them to say.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use thiserror::Error;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(10);

/// Why the certificate was not seen.
#[derive(Debug, Error)]
pub enum ProofError {
    #[error("connect to our own listener {addr}")]
    Connect {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("shake hands with our own listener {addr} for {name}")]
    Handshake {
        addr: SocketAddr,
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("find the new certificate on our own listener {addr}: another one is served for {name}")]
    Other { addr: SocketAddr, name: String },
    #[error("ask for {0:?}: it is no name")]
    Name(String),
}

/// Where to ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Door {
    pub bound: SocketAddr,
    /// The listener wants a PROXY header from this machine.
    pub proxy_header: bool,
}

/// Sees whether `door` serves `leaf` to whoever asks for `name`.
///
/// Errors: [`ProofError`]
pub async fn prove(door: Door, name: &str, leaf: &CertificateDer<'_>) -> Result<(), ProofError> {
    let addr = reachable(door.bound);
    let server = ServerName::try_from(name.to_owned()).map_err(|_| ProofError::Name(name.to_owned()))?;
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let connected = timeout(PATIENCE, TcpStream::connect(addr)).await.unwrap_or_else(|_| Err(late()));
    let tcp = connected.map_err(|source| ProofError::Connect { addr, source })?;
    let shaken = timeout(PATIENCE, shake(tcp, server, door)).await.unwrap_or_else(|_| Err(late()));
    let shown = shaken.map_err(|source| ProofError::Handshake { addr, name: name.to_owned(), source })?;
    if shown.as_ref() == Some(leaf) { Ok(()) } else { Err(ProofError::Other { addr, name: name.to_owned() }) }
}

async fn shake(mut tcp: TcpStream, server: ServerName<'static>, door: Door) -> io::Result<Option<CertificateDer<'static>>> {
    if door.proxy_header {
        tcp.write_all(b"PROXY UNKNOWN\r\n").await?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(server, tcp).await?;
    let shown = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
    // Told or not: it has been seen.
    let _ = tls.shutdown().await;
    Ok(shown)
}

/// The address by which this machine reaches its own listener.
#[must_use]
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// Takes any certificate, if whoever shows it has its key.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_on_this_machine() {
        let of = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(of("0.0.0.0:443"), "127.0.0.1:443");
        assert_eq!(of("[::]:443"), "[::1]:443");
        assert_eq!(of("192.0.2.1:8443"), "192.0.2.1:8443");
    }
}
