//! What has come to an end: an attempt, a look, a proof, a question.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Steward, now, serves, unix};
use crate::{
    acme::{
        attempt::{AttemptError, Look, Outcome},
        proof::ProofError,
        standing::Trouble,
        trouble,
        ward::validity,
    },
    pki::pair::Pair,
    plan::Challenge,
    rules::renewal::{Attempt, Failure, Fault},
    telemetry::Ordered,
    vocab::{Host, chain},
};

/// A certificate that was not seen on our own listener is looked for again after this.
const PROVE_AGAIN: Duration = Duration::from_secs(60);

/// What a task has found.
pub(super) enum Done {
    Attempt(Ended),
    Look { name: Host, pair: Arc<Pair>, look: Look },
    Proof { name: Host, pair: Arc<Pair>, result: Result<(), ProofError> },
    Asked { name: Host, ask: String, answer: io::Result<bool> },
}

/// An attempt that has ended.
pub(super) struct Ended {
    pub(super) name: Host,
    pub(super) directory: String,
    pub(super) ca: String,
    pub(super) attempt: Attempt,
    pub(super) took: Duration,
    pub(super) outcome: Outcome,
}

/// Why an attempt came to nothing.
struct Refusal {
    error: AttemptError,
    challenge: Option<Challenge>,
    retry_after: Option<SystemTime>,
}

impl Steward {
    pub(super) async fn done(&mut self, done: Done) {
        match done {
            Done::Attempt(ended) => self.ended(ended).await,
            Done::Look { name, pair, look } => {
                // What the CA says of a certificate that is no longer served is no word about the new one.
                if let Some(ward) = self.wards.get_mut(&name).filter(|ward| serves(ward, &pair)) {
                    ward.looked(look, now());
                }
            }
            Done::Proof { name, pair, result } => self.proven(&name, &pair, result),
            Done::Asked { name, ask, answer } => drop(self.answered(name, ask, answer)),
        }
    }

    async fn ended(&mut self, ended: Ended) {
        let Ended { name, directory, ca, attempt, took, outcome } = ended;
        self.running.remove(&name);
        // Its site is gone; what it came to is on disk.
        let Some(ward) = self.wards.get_mut(&name) else { return };
        ward.busy = false;
        match outcome {
            Outcome::Issued(pair) => {
                // The site may have been gone for a while, and have got a slot anew.
                ward.slot.put(pair.clone());
                ward.issued(&pair, directory, now());
                self.metrics.ordered(Ordered::Ok);
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(cert = %name, ca, issuer = pair.issuer, serial = pair.serial, took_ms, "certificate issued");
                self.prove(&name, Duration::ZERO);
            }
            Outcome::Rehearsed => {
                ward.memory.history = ward.memory.history.clone().rehearsed(now());
                self.metrics.ordered(Ordered::Rehearsed);
                tracing::info!(cert = %name, ca, "the rehearsal passed: the order proper follows");
            }
            Outcome::Unwanted => {
                tracing::info!(cert = %name, "certificate on demand is no longer wanted");
                self.wards.remove(&name);
                self.vault.remove(&name);
                return self.tell(&name, false);
            }
            Outcome::Failed { error, challenge, retry_after } => {
                self.failed(&name, &directory, &ca, attempt, Refusal { error, challenge, retry_after });
            }
        }
        // Said already.
        let _ = self.remember(&name).await;
        let there = self.wards.get(&name).is_some_and(|ward| ward.slot.pair().is_some());
        self.tell(&name, there);
    }

    fn failed(&mut self, name: &Host, directory: &str, ca: &str, attempt: Attempt, refusal: Refusal) {
        let Refusal { error, challenge, retry_after } = refusal;
        let (now, options) = (now(), self.setting.options());
        let Some(ward) = self.wards.get_mut(name) else { return };
        let said = trouble::explained(&error, challenge, directory, retry_after.map(unix));
        let failure = said.failure;
        let fault = Fault { failure, retry_after: said.retry_after };
        let served = ward.slot.pair().map(|pair| validity(&pair));
        ward.memory.history = ward.memory.history.clone().failed(&options, attempt, fault, served, now, fastrand::f64());
        ward.memory.trouble = Some(Trouble { at: now, text: said.text.clone(), advice: said.advice.clone() });
        ward.asked = false;
        self.metrics.ordered(Ordered::Failed);
        let next_s = ward.next().0.saturating_sub(now).max(0);
        let advice = said.advice.as_deref().unwrap_or_default();
        let level_up = ward.standing(now, &self.setting.acme.cas, &self.setting.staging, self.setting.challenges.len()).at_risk;
        if level_up || failure == Failure::Validation {
            tracing::error!(cert = %name, ca, staging = attempt.staging, error = said.text, advice, next_s, "certificate not ordered");
        } else {
            tracing::warn!(cert = %name, ca, staging = attempt.staging, error = said.text, advice, next_s, "certificate not ordered");
        }
    }

    fn proven(&mut self, name: &Host, pair: &Arc<Pair>, result: Result<(), ProofError>) {
        let Some(ward) = self.wards.get_mut(name).filter(|ward| serves(ward, pair)) else { return };
        let before = ward.proven.replace(result.is_ok());
        if result.is_ok() && before == Some(false) {
            ward.memory.trouble = None;
        }
        if let Err(error) = result {
            if before != Some(false) {
                tracing::error!(cert = %name, error = %chain(&error), "certificate is in place but was not seen on our own listener");
            }
            let advice = Some(
                "another program may have the port, or a proxy in front that ends TLS; `gateway status` shows the listeners".to_owned(),
            );
            ward.memory.trouble = Some(Trouble { at: now(), text: format!("could not {}", chain(&error)), advice });
            self.prove(name, PROVE_AGAIN);
        }
    }
}
