//! Our account with a CA: made once, kept, and made again with the same key only where the CA has forgotten it.
//!
//! Shape: the key is on disk before the CA hears of it. Whoever comes again with the same key is given the same account (RFC 8555 §7.3), so that a crash at any
//!        moment makes no second one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex as Brief,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, header::CONTENT_TYPE};
use instant_acme::{Account, AccountCredentials, BodyWrapper, HttpClient as _, Key, Problem};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::Mutex;

use super::client::{Transport, is_bad_nonce};
use crate::{
    plan::Eab,
    store::certs::{Certs, CertsError, Paper},
    vocab::{chain, lock},
};

/// As often as a refused nonce is made good for, beyond what the library does.
const NONCES: u32 = 3;

/// Why there is no account.
#[derive(Debug, Error)]
pub enum AccountError {
    #[error("keep the account")]
    Store(#[from] CertsError),
    #[error("make the account's key")]
    Make,
    #[error("use the account's key: move it away to have a new account made")]
    Key,
    #[error("have an account with the CA")]
    Acme(#[from] instant_acme::Error),
    #[error("understand the CA's answer to a new account")]
    Answer,
}

/// What is kept of one.
#[derive(Serialize, Deserialize)]
struct Kept {
    credentials: Value,
    email: Option<String>,
}

/// Every account that this edge has used.
pub struct Accounts {
    certs: Certs,
    /// By directory; as many as were ever configured. Held for a look.
    open: Brief<HashMap<String, Arc<Mutex<Option<Opened>>>>>,
    /// What an earlier round has opened is opened again.
    round: AtomicU64,
}

/// Locked while the account is opened: two orders at a time must not make two, and a CA that is slow holds up nobody at another one.
struct Opened {
    account: Account,
    round: u64,
}

/// Whose account, and how it is introduced.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub directory: &'a str,
    pub email: Option<&'a str>,
    pub eab: Option<&'a Eab>,
}

impl Accounts {
    #[must_use]
    pub fn new(certs: Certs) -> Self {
        Self { certs, open: Brief::default(), round: AtomicU64::new(0) }
    }

    /// The account with this directory; made if there is none.
    ///
    /// Errors: [`AccountError`]
    pub async fn open(&self, who: Who<'_>, transport: &Transport) -> Result<Account, AccountError> {
        let place = self.place(who.directory);
        let mut open = place.lock().await;
        let round = self.round.load(Ordering::Relaxed);
        if let Some(opened) = open.as_ref().filter(|opened| opened.round == round) {
            return Ok(opened.account.clone());
        }
        let mut nonces = 0;
        let account = loop {
            let opened = match self.kept(who.directory)? {
                Some(kept) => self.restore(who, transport, kept).await,
                None => self.make(who, transport).await,
            };
            match opened {
                Err(AccountError::Acme(error)) if nonces < NONCES && is_bad_nonce(&error) => nonces += 1,
                opened => break opened?,
            }
        };
        *open = Some(Opened { account: account.clone(), round });
        Ok(account)
    }

    /// Every account is opened again when it is needed next: it holds on to the way by which it was opened, and to whom the CA writes.
    pub fn reopen(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
    }

    /// The CA knows nothing of `lost`: the next [`Accounts::open`] makes it again, with the same key. Made again meanwhile, it stays.
    ///
    /// Errors: [`AccountError::Store`]
    pub async fn forget(&self, directory: &str, lost: &Account) -> Result<(), AccountError> {
        let place = self.place(directory);
        let mut open = place.lock().await;
        if open.as_ref().is_some_and(|known| known.account.id() != lost.id()) {
            return Ok(());
        }
        *open = None;
        Ok(self.certs.remove_paper(directory, Paper::Account)?)
    }

    fn place(&self, directory: &str) -> Arc<Mutex<Option<Opened>>> {
        // Nothing panics while it is held.
        lock(&self.open).entry(directory.to_owned()).or_default().clone()
    }

    /// What cannot be understood is made again: the key is in a file of its own, and who comes with the same key gets the same account.
    fn kept(&self, directory: &str) -> Result<Option<Kept>, AccountError> {
        match self.certs.paper_json(directory, Paper::Account) {
            Err(error @ CertsError::Garbled { .. }) => {
                tracing::warn!(directory, error = %chain(&error), "account on disk is damaged: it is asked for again");
                Ok(None)
            }
            kept => Ok(kept?),
        }
    }

    async fn restore(&self, who: Who<'_>, transport: &Transport, kept: Kept) -> Result<Account, AccountError> {
        let Kept { credentials, email } = kept;
        let parsed: AccountCredentials = serde_json::from_value(credentials.clone()).map_err(|_| AccountError::Key)?;
        let account = Account::builder_with_http(Box::new(transport.clone())).from_credentials(parsed).await?;
        if email.as_deref() != who.email {
            self.introduce(who, &account, credentials).await?;
        }
        Ok(account)
    }

    async fn make(&self, who: Who<'_>, transport: &Transport) -> Result<Account, AccountError> {
        let secret = self.key(who.directory)?;
        let key = || Key::from_pkcs8_der(secret.clone_key()).map(|key| (key, PrivateKeyDer::Pkcs8(secret.clone_key())));
        let builder = Account::builder_with_http(Box::new(transport.clone()));
        let (account, credentials) = match who.eab {
            None => builder.create_from_key(key()?, who.directory.to_owned()).await?,
            Some(eab) => {
                register(who.directory, transport, &secret, eab).await?;
                builder.from_key(key()?, who.directory.to_owned()).await?
            }
        };
        let credentials = serde_json::to_value(&credentials).map_err(|_| AccountError::Key)?;
        tracing::info!(directory = who.directory, "account with the CA opened");
        self.introduce(who, &account, credentials).await?;
        Ok(account)
    }

    /// Tells the CA whom to write to, and keeps the account.
    async fn introduce(&self, who: Who<'_>, account: &Account, credentials: Value) -> Result<(), AccountError> {
        let contact = who.email.map(|email| format!("mailto:{email}"));
        let contacts: Vec<&str> = contact.as_deref().into_iter().collect();
        if let Err(error) = account.update_contacts(&contacts).await {
            // Not worth a certificate.
            tracing::warn!(directory = who.directory, error = %error, "the CA did not take the contact");
        }
        let kept = Kept { credentials, email: who.email.map(str::to_owned) };
        let json = serde_json::to_vec_pretty(&kept).map_err(CertsError::Shape)?;
        Ok(self.certs.write_paper(who.directory, Paper::Account, &json)?)
    }

    fn key(&self, directory: &str) -> Result<PrivatePkcs8KeyDer<'static>, AccountError> {
        if let Some(pem) = self.certs.paper(directory, Paper::Key)? {
            return PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| AccountError::Key);
        }
        let key = rcgen::KeyPair::generate().map_err(|_| AccountError::Make)?;
        self.certs.write_paper(directory, Paper::Key, key.serialize_pem().as_bytes())?;
        Ok(PrivatePkcs8KeyDer::from(key.serialize_der()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
}

/// Registers the key with an external account; done already is done.
///
/// Shape: by hand, because `instant-acme` makes the key of such an account itself, and would make another one after a crash.
/// Source: RFC 8555 §7.3.4; RFC 7515.
async fn register(directory: &str, transport: &Transport, secret: &PrivatePkcs8KeyDer<'_>, eab: &Eab) -> Result<(), AccountError> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, secret.secret_pkcs8_der()).map_err(|_| AccountError::Key)?;
    let (_, body) = ask(transport, Method::GET, directory, None).await?;
    let Directory { new_nonce, new_account } = serde_json::from_slice(&body).map_err(|_| AccountError::Answer)?;
    let (head, _) = ask(transport, Method::HEAD, &new_nonce, None).await?;
    let mut nonce = nonce_of(&head).ok_or(AccountError::Answer)?;
    let point = key.public_key().as_ref();
    let (x, y) = point.get(1..).filter(|xy| xy.len() == 64).ok_or(AccountError::Key)?.split_at(32);
    let jwk = json!({ "crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y) });
    let inner = {
        let protected = json!({ "alg": "HS256", "kid": eab.kid, "url": new_account });
        let mac = hmac::Key::new(hmac::HMAC_SHA256, eab.key.reveal());
        sealed(&protected, &jwk, |text| Some(hmac::sign(&mac, text).as_ref().to_vec())).ok_or(AccountError::Key)?
    };
    let payload = json!({ "termsOfServiceAgreed": true, "externalAccountBinding": inner });
    // A nonce may be refused once or twice.
    for _ in 0..3 {
        let protected = json!({ "alg": "ES256", "jwk": jwk, "nonce": nonce, "url": new_account });
        let sign = |text: &[u8]| Some(key.sign(&SystemRandom::new(), text).ok()?.as_ref().to_vec());
        let body = sealed(&protected, &payload, sign).ok_or(AccountError::Key)?.to_string();
        let (head, answer) = ask(transport, Method::POST, &new_account, Some(body)).await?;
        if head.status.is_success() {
            return Ok(());
        }
        let problem: Problem = serde_json::from_slice(&answer).map_err(|_| AccountError::Answer)?;
        match (problem.r#type.as_deref(), nonce_of(&head)) {
            (Some("urn:ietf:params:acme:error:badNonce"), Some(fresh)) => nonce = fresh,
            (_, _) => return Err(AccountError::Acme(problem.into())),
        }
    }
    Err(AccountError::Answer)
}

async fn ask(
    transport: &Transport,
    method: Method,
    url: &str,
    body: Option<String>,
) -> Result<(http::response::Parts, Bytes), AccountError> {
    let request = Request::builder().method(method).uri(url).header(CONTENT_TYPE, "application/jose+json");
    let body = body.map_or_else(BodyWrapper::default, |text| BodyWrapper::from(text.into_bytes()));
    let request = request.body(body).map_err(|error| AccountError::Acme(error.into()))?;
    let mut answer = transport.request(request).await?;
    let bytes = answer.body.into_bytes().await.map_err(|error| AccountError::Acme(instant_acme::Error::Other(error)))?;
    Ok((answer.parts, bytes))
}

fn nonce_of(head: &http::response::Parts) -> Option<String> {
    head.headers.get("replay-nonce")?.to_str().ok().map(str::to_owned)
}

/// A flattened JWS.
fn sealed(protected: &Value, payload: &Value, sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<Value> {
    let (protected, payload) = (encode(protected.to_string().as_bytes()), encode(payload.to_string().as_bytes()));
    let signature = sign(format!("{protected}.{payload}").as_bytes())?;
    Some(json!({ "protected": protected, "payload": payload, "signature": encode(&signature) }))
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{net::TcpListener, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_ca_that_hangs_holds_up_nobody_at_another_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let accounts = Accounts::new(Certs::new(dir.path().join("certs")));
        let transport = Transport::new(None).expect("public roots");
        // Takes connections and never says a word.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address");
        let hanging = format!("https://{}/dir", silent.local_addr().expect("its address"));
        let refusing = format!("https://{gone}/dir");
        let who = |directory| Who { directory, email: None, eab: None };
        tokio::select! {
            biased;
            _ = accounts.open(who(&hanging), &transport) => panic!("nobody answers there"),
            other = timeout(Duration::from_secs(20), accounts.open(who(&refusing), &transport)) => {
                assert!(matches!(other, Ok(Err(AccountError::Acme(_)))), "it waited for the other one");
            }
        }
    }

    #[test]
    fn an_account_file_that_is_damaged_is_asked_for_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let certs = Certs::new(dir.path().join("certs"));
        certs.write_paper("https://ca.test/dir", Paper::Account, b"{ half").expect("written");
        let accounts = Accounts::new(certs);
        assert!(matches!(accounts.kept("https://ca.test/dir"), Ok(None)));
    }
}
