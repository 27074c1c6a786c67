//! HTTPS to a CA: with deadlines, bounds and the CA's own word for when to come again.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use thiserror::Error;
use tokio::time::timeout;

/// A request to the CA, from its first byte to the last of the answer.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// No chain and no directory is larger.
const LARGEST: usize = 1024 * 1024;
/// The longest `Retry-After` that is believed, in seconds; more would overflow the clocks of whoever adds it up.
const LONGEST: u64 = 365 * 24 * 3600;

/// Why there is no way to the CA.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("find a certificate in the CA's root file")]
    Roots,
    #[error("trust the CA's root file")]
    Trust(#[source] rustls::Error),
    #[error("set up TLS to the CA")]
    Tls(#[source] rustls::Error),
}

/// An answer of failure without a word that ACME knows: of a proxy in front of the CA, often.
#[derive(Debug, Error)]
#[error("an answer of {0}")]
pub struct Wordless(pub u16);

tokio::task_local! {
    /// Of the work that [`hearing`] does; not of the transport, which many share, and which an account keeps over reloads.
    static AGAIN: Cell<Option<SystemTime>>;
}

/// Does `work`; and when the CA will hear us again, if it has refused this work and said so.
pub async fn hearing<T>(work: impl Future<Output = T>) -> (T, Option<SystemTime>) {
    let heard = async {
        let done = work.await;
        (done, AGAIN.with(Cell::take))
    };
    AGAIN.scope(Cell::new(None), heard).await
}

/// Speaks with one CA.
#[derive(Clone)]
pub struct Transport {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
}

impl Transport {
    /// `roots`: PEM of whom to trust instead of the public CAs.
    ///
    /// Errors: [`ClientError`]
    pub fn new(roots: Option<&[u8]>) -> Result<Self, ClientError> {
        let mut store = RootCertStore::empty();
        match roots {
            Some(pem) => {
                for cert in CertificateDer::pem_slice_iter(&crate::pki::text::tidied(pem)) {
                    store.add(cert.map_err(|_| ClientError::Roots)?).map_err(ClientError::Trust)?;
                }
                if store.is_empty() {
                    return Err(ClientError::Roots);
                }
            }
            None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ClientError::Tls)?
            .with_root_certificates(store)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        let https = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(CONNECT).pool_max_idle_per_host(4).build(https);
        Ok(Self { client })
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let other = |error: Box<dyn std::error::Error + Send + Sync>| Error::Other(error);
        let post = request.method() == Method::POST;
        let answered = async {
            let answer = self.client.request(request).await.map_err(|error| other(error.into()))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(other)?.to_bytes();
            Ok::<_, Error>((head, body))
        };
        let (mut head, body) = timeout(PATIENCE, answered).await.map_err(|_| other(io::Error::from(io::ErrorKind::TimedOut).into()))??;
        let said = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        if matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let said = said.and_then(moment);
            // Nobody may be listening: whoever asks for a window has no use for it.
            let _ = AGAIN.try_with(|again| again.set(said));
        }
        if said.is_some_and(|said| said.trim().parse().is_ok_and(|seconds: u64| seconds > LONGEST)) {
            head.headers.insert(RETRY_AFTER, HeaderValue::from(LONGEST));
        }
        if head.status.is_client_error() || head.status.is_server_error() {
            let refused = refusal(head.status, &body);
            // A nonce that was refused is asked for again by whoever posts.
            if !(post && head.status == StatusCode::BAD_REQUEST && matches!(refused, Error::Api(_))) {
                return Err(refused);
            }
        }
        Ok(BytesResponse::from(http::Response::from_parts(head, Full::new(body))))
    }
}

impl HttpClient for Transport {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().ask(request))
    }
}

/// The CA's problem document, or that there was none.
fn refusal(status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice::<Problem>(body) {
        Ok(mut problem) if problem.r#type.is_some() || problem.detail.is_some() => {
            problem.status.get_or_insert(status.as_u16());
            problem.into()
        }
        Ok(_) | Err(_) => Error::Other(Wordless(status.as_u16()).into()),
    }
}

/// The CA refused a nonce of its own, and nothing else.
#[must_use]
pub fn is_bad_nonce(error: &Error) -> bool {
    is_problem(error, "badNonce")
}

/// It says nothing of what was asked: the CA was not heard, is busy or has a fault of its own.
#[must_use]
pub fn is_passing(error: &Error) -> bool {
    match error {
        Error::Api(problem) => is_bad_nonce(error) || matches!(problem.status, Some(429 | 500..)),
        // What is too long today is so tomorrow.
        Error::Other(error) => match error.downcast_ref() {
            Some(Wordless(status)) => matches!(status, 429 | 500..),
            None => error.downcast_ref::<LengthLimitError>().is_none(),
        },
        _ => false,
    }
}

/// The CA has lost our account.
#[must_use]
pub fn is_unknown_account(error: &Error) -> bool {
    is_problem(error, "accountDoesNotExist")
}

fn is_problem(error: &Error, kind: &str) -> bool {
    let Error::Api(problem) = error else { return false };
    problem.r#type.as_deref().and_then(|of| of.strip_prefix("urn:ietf:params:acme:error:")) == Some(kind)
}

/// `Retry-After`: seconds or a date.
///
/// Source: RFC 9110 §10.2.3.
fn moment(value: &str) -> Option<SystemTime> {
    match value.trim().parse::<u64>() {
        Ok(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds.min(LONGEST))),
        Err(_) => httpdate::parse_http_date(value.trim()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_may_say_seconds_or_a_date_or_nonsense() {
        assert!(moment("120").is_some_and(|at| at > SystemTime::now()));
        assert!(moment("Fri, 31 Dec 1999 23:59:59 GMT").is_some_and(|at| at < SystemTime::now()));
        assert_eq!(moment("soon"), None);
        let year = SystemTime::now() + Duration::from_secs(LONGEST + 60);
        assert!(moment("18446744073709551615").is_some_and(|at| at < year), "no clock goes that far");
    }

    #[test]
    fn a_failure_without_a_problem_document_is_told_by_its_status() {
        let wordless = |body: &[u8]| matches!(refusal(StatusCode::BAD_GATEWAY, body), Error::Other(error) if error.downcast_ref::<Wordless>().is_some_and(|of| of.0 == 502));
        assert!(wordless(b"<html>Bad Gateway</html>") && wordless(b"") && wordless(b"{}"));
        let Error::Api(problem) = refusal(StatusCode::TOO_MANY_REQUESTS, br#"{"type":"urn:ietf:params:acme:error:rateLimited"}"#) else {
            panic!("a problem document");
        };
        assert_eq!(problem.status, Some(429));
    }

    #[tokio::test]
    async fn what_one_order_is_told_is_not_heard_by_another() {
        let at = SystemTime::UNIX_EPOCH;
        let told = hearing(async { AGAIN.with(|again| again.set(Some(at))) });
        let other = hearing(async {});
        let (((), told), ((), other)) = tokio::join!(told, other);
        assert_eq!((told, other), (Some(at), None));
    }

    #[test]
    fn a_fault_of_the_moment_is_told_from_a_refusal() {
        let said = |kind: &str, status: u16| {
            let problem = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"x","status":{status}}}"#);
            Error::Api(serde_json::from_str(&problem).expect("a problem"))
        };
        for (kind, status) in [("badNonce", 400), ("rateLimited", 429), ("serverInternal", 500)] {
            assert!(is_passing(&said(kind, status)), "{kind}");
        }
        assert!(!is_passing(&said("malformed", 404)) && !is_passing(&said("accountDoesNotExist", 400)));
        assert!(is_unknown_account(&said("accountDoesNotExist", 400)) && !is_bad_nonce(&said("accountDoesNotExist", 400)));
        assert!(is_passing(&Error::Other(io::Error::from(io::ErrorKind::ConnectionRefused).into())));
    }

    #[test]
    fn a_root_file_without_a_root_is_said() {
        assert!(matches!(Transport::new(Some(b"nothing")), Err(ClientError::Roots)));
        assert!(Transport::new(None).is_ok());
    }
}
