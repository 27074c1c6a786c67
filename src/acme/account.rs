//! Our account with a CA: made once, kept, and made again with the same key only where the CA has forgotten it.
//!
//! Shape: the key is on disk before the CA hears of it. Whoever comes again with the same key is given the same account (RFC 8555 §7.3), so that a crash at any
//!        moment makes no second one.

use std::collections::HashMap;

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
    /// By directory. Held while one is opened: two orders at a time must not make two.
    open: Mutex<HashMap<String, Account>>,
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
        Self { certs, open: Mutex::default() }
    }

    /// The account with this directory; made if there is none.
    ///
    /// Errors: [`AccountError`]
    pub async fn open(&self, who: Who<'_>, transport: &Transport) -> Result<Account, AccountError> {
        let mut open = self.open.lock().await;
        if let Some(account) = open.get(who.directory) {
            return Ok(account.clone());
        }
        let mut nonces = 0;
        let account = loop {
            let opened = match self.certs.paper_json::<Kept>(who.directory, Paper::Account)? {
                Some(kept) => self.restore(who, transport, kept).await,
                None => self.make(who, transport).await,
            };
            match opened {
                Err(AccountError::Acme(error)) if nonces < NONCES && is_bad_nonce(&error) => nonces += 1,
                opened => break opened?,
            }
        };
        open.insert(who.directory.to_owned(), account.clone());
        Ok(account)
    }

    /// The CA knows nothing of `lost`: the next [`Accounts::open`] makes it again, with the same key. Made again meanwhile, it stays.
    ///
    /// Errors: [`AccountError::Store`]
    pub async fn forget(&self, directory: &str, lost: &Account) -> Result<(), AccountError> {
        let mut open = self.open.lock().await;
        if open.get(directory).is_some_and(|known| known.id() != lost.id()) {
            return Ok(());
        }
        open.remove(directory);
        Ok(self.certs.remove_paper(directory, Paper::Account)?)
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
