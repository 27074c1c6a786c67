//! One order: from names to a bundle of key and chain, or why not.
//!
//! Shape: new order → challenges up → ready → finalize → certificate. What could be lost (the order's address and the certificate's key) is on disk before the CA
//!        is asked to go on, so that an edge that takes over goes on with the same order. Every wait has a deadline.
//! Cancel-safety: a dropped order leaves its file; the next one for the same names goes on with it.
//! Source: RFC 8555 §7.4, RFC 9773 §5 (replaces).

use std::{net::IpAddr, sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Identifier, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    challenge::{Board, PostError, Posted},
    client::{is_bad_nonce, is_passing},
    disk,
};
use crate::{
    plan::Challenge,
    store::certs::{Certs, CertsError, Item},
    vocab::{Host, Secret, chain},
};

/// All of one order. A CA validates from several places of the world; a minute is long.
const PATIENCE: Duration = Duration::from_secs(300);
/// A CA that forgets nonces early refuses ours now and then. The library asks three times; then we go on with the same order, so often.
const NONCES: u32 = 3;
const VALIDATION: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(120));
const ISSUE: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(120));

/// Why an order came to nothing.
#[derive(Debug, Error)]
pub enum OrderError {
    /// The CA could not be convinced that `name` is ours.
    #[error("prove to the CA that {name} is ours by {}", challenge.as_str())]
    Validation {
        name: String,
        challenge: Challenge,
        #[source]
        source: instant_acme::Error,
    },
    #[error("prove that {name} is ours: the CA offers no {}", challenge.as_str())]
    NotOffered { name: String, challenge: Challenge },
    #[error("put the challenge up")]
    Post(#[from] PostError),
    #[error("make a key and a request for the certificate")]
    Request(#[from] rcgen::Error),
    #[error("keep the order")]
    Store(#[from] CertsError),
    #[error("be done in time: {}s have passed", PATIENCE.as_secs())]
    Late,
    #[error("order it")]
    Acme(#[from] instant_acme::Error),
}

/// What is ordered.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The certificate goes by this name on disk.
    pub name: Host,
    pub names: Vec<Host>,
    pub challenge: Challenge,
    /// Where the CA offers it.
    pub profile: Option<String>,
    /// The certificate that it takes the place of, where the CA wants to know.
    pub replaces: Option<CertificateDer<'static>>,
    pub directory: String,
}

/// An order under way, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    url: String,
    directory: String,
    names: Vec<Host>,
    key: Secret<String>,
}

/// Key and chain, in PEM.
pub struct Bundle {
    pub key: Secret<String>,
    pub chain: String,
}

impl Bundle {
    /// As one file.
    #[must_use]
    pub fn pem(&self) -> Secret<Vec<u8>> {
        let Self { key, chain } = self;
        Secret::new([key.reveal().as_bytes(), chain.as_bytes()].concat())
    }
}

/// Drives `wish` to its end.
///
/// Errors: [`OrderError`]; then the order is forgotten, but where that is no word on it: the CA may finish it yet.
pub async fn fulfil(wish: &Wish, account: &Account, board: &Arc<Board>, certs: &Certs) -> Result<Bundle, OrderError> {
    let driven = async {
        // What is up stays up until the end.
        let mut posted = Vec::new();
        let mut nonces = 0;
        loop {
            match drive(wish, account, board, certs, &mut posted).await {
                Err(OrderError::Acme(error)) if nonces < NONCES && is_bad_nonce(&error) => nonces += 1,
                result => return result,
            }
        }
    };
    let result = timeout(PATIENCE, driven).await.unwrap_or(Err(OrderError::Late));
    if let Err(error) = &result
        && !matches!(error, OrderError::Acme(error) if is_passing(error))
        && let Err(error) = kept::forget(certs, &wish.name).await
    {
        tracing::warn!(cert = %wish.name, error = %chain(&error), "an order that came to nothing is still on disk");
    }
    result
}

/// The bundle is on disk: there is nothing to go on with.
///
/// Errors: [`OrderError::Store`]
pub async fn done(certs: &Certs, name: &Host) -> Result<(), OrderError> {
    Ok(kept::forget(certs, name).await?)
}

/// A crash may come between the bundle on disk and the end of its order. Ends the order that `bundle` came from, and gives the directory that it was made at.
///
/// Blocks for the disk.
#[must_use]
pub fn finished(certs: &Certs, name: &Host, bundle: &[u8]) -> Option<String> {
    let Kept { directory, key, .. } = certs.read_json(name, Item::Order).ok().flatten()?;
    // Of another key: a renewal that was cut off, and goes on.
    bundle.starts_with(key.reveal().as_bytes()).then_some(())?;
    certs.remove(name, Item::Order).ok()?;
    Some(directory)
}

async fn drive(wish: &Wish, account: &Account, board: &Arc<Board>, certs: &Certs, posted: &mut Vec<Posted>) -> Result<Bundle, OrderError> {
    let (mut order, key) = match resume(wish, account, certs).await? {
        Some(found) => found,
        None => begin(wish, account, certs).await?,
    };
    if matches!(order.state().status, OrderStatus::Pending) {
        answer(wish, &mut order, board, posted).await?;
        let ready = order.poll_ready(&VALIDATION).await;
        if !matches!(ready, Ok(OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing)) {
            return Err(match (complaint(wish, &mut order).await, ready) {
                (Some(refused), _) => refused,
                (None, Err(error)) => error.into(),
                (None, Ok(_)) => instant_acme::Error::Str("the order's reason to be invalid").into(),
            });
        }
    }
    if matches!(order.state().status, OrderStatus::Ready) {
        order.finalize_csr(&request(&wish.names, &key)?).await?;
    }
    let chain = order.poll_certificate(&ISSUE).await?;
    Ok(Bundle { key: Secret::new(key.serialize_pem()), chain })
}

/// The order that an edge before us has left, if it is for the same and still worth something.
async fn resume(wish: &Wish, account: &Account, certs: &Certs) -> Result<Option<(instant_acme::Order, KeyPair)>, OrderError> {
    let Some(kept) = kept::read(certs, &wish.name).await else { return Ok(None) };
    if kept.directory != wish.directory || kept.names != wish.names {
        return Ok(None);
    }
    let Ok(key) = KeyPair::from_pem(kept.key.reveal()) else { return Ok(None) };
    let mut order = match account.order(kept.url).await {
        Ok(order) => order,
        Err(error) if is_passing(&error) => return Err(error.into()),
        // It has been forgotten there, or what it has become is not understood.
        Err(_) => return Ok(None),
    };
    let alive = !matches!(order.state().status, OrderStatus::Invalid);
    if alive {
        tracing::info!(cert = %wish.name, "goes on with an order that was cut off");
    }
    Ok(alive.then_some((order, key)))
}

async fn begin(wish: &Wish, account: &Account, certs: &Certs) -> Result<(instant_acme::Order, KeyPair), OrderError> {
    let identifiers: Vec<Identifier> = wish.names.iter().map(identifier).collect();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let new = || {
        let new = NewOrder::new(&identifiers);
        match wish.profile.as_deref().filter(|wanted| account.profiles().any(|profile| profile.name == *wanted)) {
            Some(profile) => new.profile(profile),
            None => new,
        }
    };
    let replaces = wish.replaces.as_ref().and_then(|cert| CertificateIdentifier::try_from(cert).ok());
    let order = match replaces {
        None => account.new_order(&new()).await?,
        Some(old) => match account.new_order(&new().replaces(old)).await {
            Ok(order) => order,
            Err(error) if insists_on_no_replacement(&error) => account.new_order(&new()).await?,
            Err(error) => return Err(error.into()),
        },
    };
    let kept = Kept {
        url: order.url().to_owned(),
        directory: wish.directory.clone(),
        names: wish.names.clone(),
        key: Secret::new(key.serialize_pem()),
    };
    kept::write(certs, &wish.name, kept).await?;
    Ok((order, key))
}

/// The CA knows no renewal information, or has the old certificate replaced already, or does not know it: an order without the word is as good.
fn insists_on_no_replacement(error: &instant_acme::Error) -> bool {
    match error {
        instant_acme::Error::Unsupported(_) => true,
        // `instant-acme` has no other word for a CA that takes no notice. Who is not reached has made no such objection, and is not asked again at once.
        instant_acme::Error::Other(said) => said.to_string().starts_with("replaces field mismatch"),
        instant_acme::Error::Api(problem) => {
            let kind = problem.r#type.as_deref().unwrap_or_default();
            kind.ends_with(":alreadyReplaced")
                || kind.ends_with(":malformed") && problem.detail.as_deref().is_some_and(|why| why.contains("replace"))
                || kind.ends_with(":conflict")
        }
        _ => false,
    }
}

fn identifier(name: &Host) -> Identifier {
    match name.as_str().parse::<IpAddr>() {
        Ok(ip) => Identifier::Ip(ip),
        Err(_) => Identifier::Dns(name.to_string()),
    }
}

/// Puts every challenge up that the CA still wants, and says so.
async fn answer(wish: &Wish, order: &mut instant_acme::Order, board: &Arc<Board>, posted: &mut Vec<Posted>) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let kind = match wish.challenge {
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Http01 => ChallengeType::Http01,
        };
        let Some(mut challenge) = authorization.challenge(kind) else {
            return Err(OrderError::NotOffered { name, challenge: wish.challenge });
        };
        if !matches!(challenge.status, ChallengeStatus::Pending | ChallengeStatus::Processing) {
            continue;
        }
        let proof = challenge.key_authorization();
        posted.push(match wish.challenge {
            Challenge::TlsAlpn01 => board.post_alpn(&name, proof.digest().as_ref())?,
            Challenge::Http01 => board.post_http(&challenge.token, proof.as_str()),
        });
        if challenge.status == ChallengeStatus::Pending {
            challenge.set_ready().await.map_err(|source| match source {
                instant_acme::Error::Api(_) if !is_bad_nonce(&source) => OrderError::Validation { name, challenge: wish.challenge, source },
                // Nothing was said of the name.
                source => source.into(),
            })?;
        }
    }
    Ok(())
}

/// What the CA has against one of the names.
async fn complaint(wish: &Wish, order: &mut instant_acme::Order) -> Option<OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.clone()) {
            return Some(OrderError::Validation { name, challenge: wish.challenge, source: problem.into() });
        }
    }
    None
}

fn request(names: &[Host], key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = |name: &Host| match name.as_str().parse::<IpAddr>() {
        Ok(ip) => Ok(SanType::IpAddress(ip)),
        Err(_) => Ok(SanType::DnsName(name.as_str().try_into()?)),
    };
    params.subject_alt_names = names.iter().map(name).collect::<Result<_, rcgen::Error>>()?;
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Orders under way on disk, without holding up the runtime.
mod kept {
    use super::{Certs, CertsError, Host, Item, Kept, chain, disk};

    pub(super) async fn read(certs: &Certs, name: &Host) -> Option<Kept> {
        let (certs, name) = (certs.clone(), name.clone());
        disk(move || {
            // What cannot be read is an order that is lost.
            Ok(certs.read_json(&name, Item::Order).unwrap_or_else(|error| {
                tracing::warn!(cert = %name, error = %chain(&error), "an order under way was not read: a new one is made");
                None
            }))
        })
        .await
        .ok()
        .flatten()
    }

    pub(super) async fn write(certs: &Certs, name: &Host, kept: Kept) -> Result<(), CertsError> {
        let (certs, name) = (certs.clone(), name.clone());
        disk(move || certs.write_json(&name, Item::Order, &kept)).await
    }

    pub(super) async fn forget(certs: &Certs, name: &Host) -> Result<(), CertsError> {
        let (certs, name) = (certs.clone(), name.clone());
        disk(move || certs.remove(&name, Item::Order)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::client::Wordless;

    #[test]
    fn an_order_is_kept_while_the_ca_is_silent_and_only_then() {
        let api = |status| {
            serde_json::from_value::<instant_acme::Problem>(serde_json::json!({ "detail": "no", "status": status }))
                .expect("a problem")
                .into()
        };
        let wordless = |status| instant_acme::Error::Other(Wordless(status).into());
        let gone = instant_acme::Error::Other(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
        for (error, silent) in
            [(api(429), true), (api(503), true), (api(403), false), (wordless(502), true), (wordless(404), false), (gone, true)]
        {
            let what = error.to_string();
            assert_eq!(is_passing(&error), silent, "{what}");
        }
        assert!(!insists_on_no_replacement(&wordless(502)), "who is not reached is not asked again at once");
        let ignored = instant_acme::Error::Other("replaces field mismatch: expected Some, found None".into());
        assert!(insists_on_no_replacement(&ignored));
    }

    #[test]
    fn an_order_whose_bundle_is_on_disk_is_over_and_a_renewal_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let certs = Certs::new(dir.path().to_owned());
        let name = Host::parse("a.test").expect("a host");
        let kept = Kept {
            url: "https://ca.test/order/1".into(),
            directory: "https://ca.test/dir".into(),
            names: vec![name.clone()],
            key: Secret::new("key of the order\n".into()),
        };
        certs.write_json(&name, Item::Order, &kept).expect("written");
        assert_eq!(finished(&certs, &name, b"another key\nchain"), None);
        assert!(certs.read(&name, Item::Order).expect("read").is_some());
        assert_eq!(finished(&certs, &name, b"key of the order\nchain").as_deref(), Some("https://ca.test/dir"));
        assert_eq!(certs.read(&name, Item::Order).expect("read"), None);
        assert_eq!(finished(&certs, &name, b"key of the order\nchain"), None);
    }

    #[test]
    fn a_request_names_every_name_and_has_a_p256_key() {
        let names = ["a.test", "www.a.test", "192.0.2.7"].map(|name| Host::parse(name).expect("a host"));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let der = request(&names, &key).expect("made");
        for name in ["a.test", "www.a.test"] {
            assert!(der.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
        }
        assert!(der.windows(4).any(|window| window == [192, 0, 2, 7]));
        assert!(matches!(identifier(&names[2]), Identifier::Ip(_)) && matches!(identifier(&names[0]), Identifier::Dns(_)));
    }
}
