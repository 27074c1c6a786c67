//! One attempt at one certificate: account, order, disk, slot; or why not.
//!
//! Shape: kinds of challenge are tried in their order, each with an order of its own, until one passes. The bundle is on disk before it is served.
//! Cancel-safety: dropped at any moment, what is on disk is whole and the next attempt goes on from it.

use std::{io, sync::Arc, time::SystemTime};

use instant_acme::{Account, CertificateIdentifier};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::{
    account::{AccountError, Accounts, Who},
    challenge::Board,
    client::{self, ClientError, Transport, is_unknown_account},
    demand, disk,
    order::{self, Bundle, OrderError, Wish},
    vault::Slot,
};
use crate::{
    pki::pair::{Pair, PairError},
    plan::{Ca, Challenge},
    rules::renewal::Window,
    store::certs::{Certs, CertsError, Item},
    vocab::{Host, chain},
};

/// Why an attempt came to nothing.
#[derive(Debug, Error)]
pub enum AttemptError {
    #[error("speak with the CA")]
    Client(#[from] ClientError),
    #[error("read the CA's root file: {0}")]
    Root(String),
    #[error("have an account with the CA")]
    Account(#[from] AccountError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("use what the CA has sent")]
    Pair(#[from] PairError),
    #[error("use what the CA has sent: it is not for {0}")]
    Names(Host),
    #[error("keep the certificate")]
    Store(#[from] CertsError),
    #[error("find a listener on which a challenge could be answered")]
    NoListener,
    #[error("ask whether the name is still wanted")]
    Ask(#[source] io::Error),
    #[error("go on: a fault of our own has ended the attempt; the log has more")]
    Fault,
}

/// What an attempt came to.
#[derive(Debug)]
pub enum Outcome {
    /// It is on disk and in its slot.
    Issued(Arc<Pair>),
    /// The staging directory would have issued it.
    Rehearsed,
    /// On demand, and no longer wanted.
    Unwanted,
    Failed {
        error: AttemptError,
        /// Proven by this kind, or tried last.
        challenge: Option<Challenge>,
        /// When the CA will hear us again.
        retry_after: Option<SystemTime>,
    },
}

/// What an attempt works with.
pub struct Bench {
    pub accounts: Arc<Accounts>,
    pub board: Arc<Board>,
    pub certs: Certs,
    pub email: Option<String>,
    pub profile: Option<String>,
}

/// What it is for.
pub struct Job {
    pub name: Host,
    pub names: Vec<Host>,
    pub ca: Ca,
    pub staging: bool,
    /// In the order in which they are tried.
    pub challenges: Vec<Challenge>,
    pub replaces: Option<CertificateDer<'static>>,
    pub slot: Arc<Slot>,
    /// On demand: where to ask whether it is still wanted.
    pub ask: Option<String>,
    /// `Err`: why there is no way to the CA.
    pub transport: Result<Transport, String>,
}

impl Job {
    fn directory(&self) -> &str {
        match (&self.ca.staging, self.staging) {
            (Some(staging), true) => staging,
            (Some(_), false) | (None, _) => &self.ca.directory,
        }
    }
}

/// Makes the attempt.
pub async fn make(job: &Job, bench: &Bench) -> Outcome {
    let transport = match &job.transport {
        Ok(transport) => transport,
        Err(reason) => return Outcome::Failed { error: AttemptError::Root(reason.clone()), challenge: None, retry_after: None },
    };
    if let Some(ask) = &job.ask {
        match demand::question(job.name.clone(), ask.clone(), None).await {
            Ok(true) => {}
            Ok(false) => return Outcome::Unwanted,
            // Who does not answer has not said no: what there is stays in service.
            Err(error) => return Outcome::Failed { error: AttemptError::Ask(error), challenge: None, retry_after: None },
        }
    }
    let mut failed = Outcome::Failed { error: AttemptError::NoListener, challenge: None, retry_after: None };
    for challenge in &job.challenges {
        let (result, retry_after) = client::hearing(order_by(job, bench, transport, *challenge)).await;
        let error = match result {
            Ok(outcome) => return outcome,
            Err(error) => error,
        };
        let other_kind_may_do = matches!(error, AttemptError::Order(OrderError::Validation { .. } | OrderError::NotOffered { .. }));
        tracing::debug!(cert = %job.name, challenge = challenge.as_str(), error = %chain(&error), "an order came to nothing");
        failed = Outcome::Failed { error, challenge: Some(*challenge), retry_after };
        if !other_kind_may_do {
            break;
        }
    }
    failed
}

async fn order_by(job: &Job, bench: &Bench, transport: &Transport, challenge: Challenge) -> Result<Outcome, AttemptError> {
    let wish = Wish {
        name: job.name.clone(),
        names: job.names.clone(),
        challenge,
        profile: bench.profile.clone(),
        replaces: job.replaces.clone().filter(|_| !job.staging),
        directory: job.directory().to_owned(),
    };
    let (bundle, pair) = obtain(job, bench, transport, &wish).await?;
    if job.staging {
        order::done(&bench.certs, &job.name).await?;
        return Ok(Outcome::Rehearsed);
    }
    let (certs, name, pem) = (bench.certs.clone(), job.name.clone(), bundle.pem());
    disk(move || certs.write(&name, Item::Bundle, pem.reveal())).await?;
    order::done(&bench.certs, &job.name).await?;
    let pair = Arc::new(pair);
    job.slot.put(pair.clone());
    Ok(Outcome::Issued(pair))
}

async fn obtain(job: &Job, bench: &Bench, transport: &Transport, wish: &Wish) -> Result<(Bundle, Pair), AttemptError> {
    let account = open(job, bench, transport).await?;
    let result = match order::fulfil(wish, &account, &bench.board, &bench.certs).await {
        Err(OrderError::Acme(error)) if is_unknown_account(&error) => {
            // The CA has lost it: with the same key it is made again.
            bench.accounts.forget(job.directory(), &account).await?;
            let account = open(job, bench, transport).await?;
            order::fulfil(wish, &account, &bench.board, &bench.certs).await
        }
        result => result,
    };
    let bundle = result?;
    match usable(job, &bundle) {
        Ok(pair) => Ok((bundle, pair)),
        Err(error) => {
            // Or the next attempt would go on with this order, and be sent the same again.
            order::done(&bench.certs, &job.name).await?;
            Err(error)
        }
    }
}

fn usable(job: &Job, bundle: &Bundle) -> Result<Pair, AttemptError> {
    let pair = Pair::from_pem(bundle.chain.as_bytes(), bundle.key.reveal().as_bytes())?;
    if let Some(missing) = job.names.iter().find(|name| !pair.is_for(name.as_str())) {
        return Err(AttemptError::Names((*missing).clone()));
    }
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    match pair.valid(now) {
        // Clocks differ: it will be good in a moment.
        Ok(()) | Err(PairError::NotYet { .. }) => Ok(pair),
        Err(error) => Err(error.into()),
    }
}

async fn open(job: &Job, bench: &Bench, transport: &Transport) -> Result<Account, AttemptError> {
    // An external account is one of the CA proper.
    let eab = job.ca.eab.as_ref().filter(|_| !job.staging);
    let who = Who { directory: job.directory(), email: bench.email.as_deref(), eab };
    Ok(bench.accounts.open(who, transport).await?)
}

/// When the CA wants a certificate renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    pub word: Word,
    /// To be asked again after so many seconds.
    pub again: i64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word {
    Within(Window),
    /// It has no say in that.
    None,
    /// It did not answer: what it said last still holds.
    Silence,
}

/// Where the CA has nothing to say, it is asked again after a day.
const UNSUPPORTED: i64 = 24 * 3600;
/// And where it does not answer, after this.
const SILENT: i64 = 3600;

/// Asks the CA that issued `leaf` when to renew it.
///
/// Source: RFC 9773 §4.2, §4.3.
pub async fn look(ca: &Ca, leaf: &CertificateDer<'static>, bench: &Bench, transport: &Transport) -> Look {
    let who = Who { directory: &ca.directory, email: bench.email.as_deref(), eab: ca.eab.as_ref() };
    let asked = async {
        let id =
            CertificateIdentifier::try_from(leaf).map_err(|_| instant_acme::Error::Unsupported("certificates without an authority key"))?;
        let account = bench.accounts.open(who, transport).await.map_err(|error| instant_acme::Error::Other(error.into()))?;
        account.renewal_info(&id).await
    };
    match asked.await {
        Ok((info, again)) => {
            let instant_acme::SuggestedWindow { start, end } = info.suggested_window;
            let window = Window { start: start.unix_timestamp(), end: end.unix_timestamp() };
            Look { word: Word::Within(window), again: i64::try_from(again.as_secs()).unwrap_or(UNSUPPORTED) }
        }
        Err(instant_acme::Error::Unsupported(_)) => Look { word: Word::None, again: UNSUPPORTED },
        Err(error) => {
            tracing::debug!(error = %chain(&error), "the CA does not say when to renew");
            Look { word: Word::Silence, again: SILENT }
        }
    }
}
