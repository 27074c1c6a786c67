//! The client's side of TLS, and certificates made for a test.

use std::{io, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Gateway,
    wait::{eventually, secs},
};

/// Whom the client trusts; keeps session tickets between connections.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// Trusts the gateway's own CA alone.
    pub fn internal(gateway: &Gateway) -> Self {
        let path = gateway.state().join("edge/internal-ca.pem");
        let pem = eventually("the internal CA's root is on disk", secs(10), || std::fs::read(&path));
        Self::trusting(&pem)
    }

    /// Trusts these roots, in PEM.
    pub fn trusting(pem: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(pem) {
            roots.add(cert.expect("PEM")).expect("a root");
        }
        Self(Arc::new(builder().with_root_certificates(roots).with_no_client_auth()))
    }

    /// Takes any certificate, to look at which one is served.
    pub fn gullible() -> Self {
        Self(Arc::new(builder().dangerous().with_custom_certificate_verifier(Arc::new(Gullible)).with_no_client_auth()))
    }

    /// Keeps no tickets: every handshake is a full one.
    pub fn forgetful(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    pub async fn connect(&self, stream: TcpStream, name: &str, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        tokio::time::timeout(secs(20), handshake).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// The first certificate the server shows for this name.
    pub async fn shown(&self, addr: SocketAddr, name: &str) -> io::Result<Vec<u8>> {
        let stream = self.connect(TcpStream::connect(addr).await?, name, &[b"http/1.1"]).await?;
        Ok(stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").to_vec())
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("the provider knows TLS 1.2 and 1.3")
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _cert: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A self-signed certificate for these names, written as `NAME.pem` and `NAME.key`; gives its DER.
pub fn write_certificate(dir: &Path, file: &str, names: &[&str]) -> Vec<u8> {
    let now = SystemTime::now();
    write_certificate_of(dir, file, names, now - secs(3600), now + secs(90 * 86_400))
}

/// As [`write_certificate`], valid in this time alone.
pub fn write_certificate_of(dir: &Path, file: &str, names: &[&str], from: SystemTime, to: SystemTime) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect("names");
    (params.not_before, params.not_after) = (from.into(), to.into());
    let cert = params.self_signed(&key).expect("a certificate");
    for (extension, text) in [("key", key.serialize_pem()), ("pem", cert.pem())] {
        let aside = dir.join(format!("{file}.{extension}.new"));
        std::fs::write(&aside, text).expect("written");
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        std::fs::rename(aside, dir.join(format!("{file}.{extension}"))).expect("put in place");
    }
    cert.der().to_vec()
}
