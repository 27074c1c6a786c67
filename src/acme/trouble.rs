//! From why an attempt came to nothing to words and what to do: finds out whether the CA spoke or was silent, and has [`explain`] say it.

use std::{error::Error as StdError, io};

use http::Uri;
use jiff::Timestamp;

use super::{
    account::AccountError,
    attempt::AttemptError,
    client::Wordless,
    explain::{self, Explained, Problem, Silence},
    order::OrderError,
};
use crate::{
    plan::Challenge,
    rules::renewal::Failure,
    vocab::{causes, chain},
};

/// `directory`: of the CA that was asked; `again`: when it will hear us again, by its Retry-After.
#[must_use]
pub fn explained(error: &AttemptError, challenge: Option<Challenge>, directory: &str, again: Option<i64>) -> Explained {
    let mut said = cause(error, challenge, directory);
    if let Some(at) = again {
        let until = Timestamp::from_second(at).ok().filter(|_| said.retry_after.is_none());
        let until = until.map(|at| format!("; it is not to be asked before {}", at.strftime("%Y-%m-%d %H:%M:%S UTC")));
        said.text.push_str(&until.unwrap_or_default());
        said.retry_after = Some(at);
    }
    said
}

fn cause(error: &AttemptError, challenge: Option<Challenge>, directory: &str) -> Explained {
    match error {
        AttemptError::Order(OrderError::Validation { name, challenge, source }) => acme(source, Some(name), Some(*challenge), directory),
        AttemptError::Order(OrderError::Acme(source)) => acme(source, None, challenge, directory),
        // No challenge has a part in it, whatever the attempt went on to.
        AttemptError::Account(AccountError::Acme(source)) => acme(source, None, None, directory),
        AttemptError::Order(OrderError::NotOffered { .. }) | AttemptError::NoListener => Explained {
            advice: Some(
                "look at `challenges` of [tls], and at the addresses of [listen]: http-01 is answered on http, tls-alpn-01 on https"
                    .to_owned(),
            ),
            ..ours(error, Failure::Refused)
        },
        AttemptError::Order(OrderError::Late) => ours(error, Failure::Unreachable),
        AttemptError::Root(_) | AttemptError::Client(_) => Explained {
            advice: Some("look at `root` of the CA in [tls]: a PEM file with the certificate that its directory leads to".to_owned()),
            ..ours(error, Failure::Refused)
        },
        AttemptError::Account(AccountError::Key) => Explained {
            advice: Some(
                "the account's files in STATE/edge/certs/.accounts are damaged: move them away to have a new account made".to_owned(),
            ),
            ..ours(error, Failure::Refused)
        },
        AttemptError::Store(_) | AttemptError::Account(AccountError::Store(_)) | AttemptError::Order(OrderError::Store(_)) => Explained {
            advice: Some("look whether the disk is full, and whether STATE/edge belongs to the edge's user".to_owned()),
            ..ours(error, Failure::Broken)
        },
        AttemptError::Ask(_) => Explained {
            advice: Some("look whether the program that `on_demand` of the site names is running".to_owned()),
            ..ours(error, Failure::Broken)
        },
        AttemptError::Account(AccountError::Make | AccountError::Answer)
        | AttemptError::Fault
        | AttemptError::Order(OrderError::Post(_) | OrderError::Request(_))
        | AttemptError::Pair(_)
        | AttemptError::Names(_) => ours(error, Failure::Broken),
    }
}

fn ours(error: &AttemptError, failure: Failure) -> Explained {
    Explained { text: format!("could not {}", chain(error)), advice: None, failure, retry_after: None }
}

fn acme(error: &instant_acme::Error, name: Option<&str>, challenge: Option<Challenge>, directory: &str) -> Explained {
    use instant_acme::Error;
    let host = directory.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_default();
    match error {
        Error::Api(problem) => {
            // Where there are parts, the first says which name it is about.
            let part = problem.subproblems.first();
            let about = part.and_then(|part| part.identifier.as_ref()).map(|of| of.authorized(false).to_string());
            explain::problem(&Problem {
                kind: part.and_then(|part| part.r#type.as_deref()).or(problem.r#type.as_deref()).unwrap_or_default(),
                detail: part.and_then(|part| part.detail.as_deref()).or(problem.detail.as_deref()).unwrap_or_default(),
                status: problem.status,
                identifier: about.as_deref().or(name),
                challenge,
            })
        }
        Error::Timeout(_) => explain::silence(&host, &Silence::Timeout),
        Error::Other(cause) => silence(&host, cause.as_ref()),
        other => {
            let said = chain(other);
            explain::silence(&host, &Silence::Garbage(&said))
        }
    }
}

fn silence(host: &str, error: &(dyn StdError + 'static)) -> Explained {
    let mut said = error.to_string();
    for here in causes(error) {
        if let Some(Wordless(status)) = here.downcast_ref() {
            return explain::silence(host, &Silence::Status(*status));
        }
        if here.downcast_ref::<rustls::Error>().is_some() {
            return explain::silence(host, &Silence::Tls(&here.to_string()));
        }
        if let Some(io) = here.downcast_ref::<io::Error>() {
            let inner = io.get_ref();
            if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return explain::silence(host, &Silence::Tls(&tls.to_string()));
            }
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return explain::silence(host, &Silence::Refused),
                io::ErrorKind::TimedOut => return explain::silence(host, &Silence::Timeout),
                _ => {}
            }
        }
        let text = here.to_string();
        if text.contains("dns error") || text.contains("failed to lookup address") {
            let why = causes(here).nth(1).map_or_else(|| text.clone(), ToString::to_string);
            return explain::silence(host, &Silence::Dns(&why));
        }
        said = text;
    }
    explain::silence(host, &Silence::Broken(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Explained {
        acme(&instant_acme::Error::Other(error.into()), None, None, "https://ca.test:14000/dir")
    }

    #[test]
    fn a_retry_after_is_said_as_a_moment() {
        let limited = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slow down","status":429}"#;
        let limited = || serde_json::from_str::<instant_acme::Problem>(limited).expect("a problem");
        let error = AttemptError::Order(OrderError::Acme(limited().into()));
        let said = explained(&error, None, "https://ca.test/dir", Some(1_800_000_000));
        assert!(said.text.contains("slow down") && said.text.contains("before 2027-01-15 08:00:00 UTC"), "{said:?}");
        assert_eq!((said.retry_after, said.failure), (Some(1_800_000_000), Failure::RateLimited));
        let proxy = AttemptError::Order(OrderError::Acme(instant_acme::Error::Other(Wordless(503).into())));
        let said = explained(&proxy, None, "https://ca.test/dir", None);
        assert!(said.text.contains("answered 503") && said.failure == Failure::Unreachable, "{said:?}");
    }

    #[test]
    fn an_account_that_is_refused_is_no_failed_validation() {
        let problem =
            r#"{"type":"urn:ietf:params:acme:error:unauthorized","detail":"external account binding JWS verification error","status":403}"#;
        let problem: instant_acme::Problem = serde_json::from_str(problem).expect("a problem");
        let error = AttemptError::Account(AccountError::Acme(problem.into()));
        let said = explained(&error, Some(Challenge::TlsAlpn01), "https://ca.test/dir", None);
        assert_eq!(said.failure, Failure::Refused);
        assert!(said.advice.as_deref().is_some_and(|advice| advice.contains("eab_key")), "{said:?}");
    }

    #[test]
    fn a_silent_ca_is_told_from_one_that_refuses() {
        let refused = other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(refused.failure, Failure::Unreachable);
        assert!(refused.text.contains("ca.test:14000"), "{refused:?}");
        let tls = other(io::Error::other(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)));
        assert_ne!(tls.text, refused.text);
        let problem = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"policy forbids it","status":400}"#;
        let problem: instant_acme::Problem = serde_json::from_str(problem).expect("a problem");
        let said = acme(&problem.into(), Some("a.test"), None, "https://ca.test/dir");
        assert!(said.text.contains("policy forbids it") && said.failure != Failure::Unreachable, "{said:?}");
    }
}
