//! Certificates that clients ask for.

use std::{io, time::Duration};

use super::{Done, Steward, now};
use crate::{
    acme::{
        vault::{Demand, WAITING},
        ward::Reason,
    },
    vocab::Host,
};

/// Certificates on demand; more are refused.
const ON_DEMAND: usize = 1000;

impl Steward {
    /// A client asks for a name without a certificate. Gives whether anything is looked after that was not before.
    pub(super) fn wanted(&mut self, demand: Demand) -> bool {
        let Demand { name, ask, answer } = demand;
        if let Some(ward) = self.wards.get(&name) {
            if ward.slot.pair().is_some() {
                let _ = answer.send(true);
                return false;
            }
            if !ward.busy && ward.next().0 > now() {
                // It has just failed: nobody waits for the next try.
                let _ = answer.send(false);
                return false;
            }
        }
        // Those who have gone make room.
        self.waiting.values_mut().for_each(|waiting| waiting.retain(|answer| !answer.is_closed()));
        if self.waiting.values().map(Vec::len).sum::<usize>() >= WAITING {
            let _ = answer.send(false);
            return false;
        }
        let under_way = self.waiting.contains_key(&name) || self.wards.contains_key(&name);
        self.waiting.entry(name.clone()).or_default().push(answer);
        if under_way {
            return false;
        }
        if let Some(yes) = self.asker.known(&name, &ask, now()) {
            return self.asked(name, ask, yes);
        }
        match self.asker.ask(&name, &ask) {
            Some(asking) => {
                let fallback = Done::Asked { name: name.clone(), ask: ask.clone(), answer: Err(io::ErrorKind::Other.into()) };
                self.spawn(async move { Done::Asked { answer: asking.await, name, ask } }, fallback);
            }
            None => self.tell(&name, false),
        }
        false
    }

    pub(super) fn answered(&mut self, name: Host, ask: String, answer: io::Result<bool>) -> bool {
        let yes = answer.unwrap_or_else(|error| {
            if let Some(muted) = self.unanswered.may() {
                tracing::warn!(cert = %name, ask, error = %error, muted, "could not ask whether a name may have a certificate");
            }
            false
        });
        self.asker.heard(&name, &ask, yes, now());
        self.asked(name, ask, yes)
    }

    pub(super) fn asked(&mut self, name: Host, ask: String, yes: bool) -> bool {
        let on_demand = self.wards.values().filter(|ward| ward.reason != Reason::Site).count();
        if !yes || self.wards.contains_key(&name) {
            let there = yes && self.wards.get(&name).is_some_and(|ward| ward.slot.pair().is_some());
            self.tell(&name, there);
            return false;
        }
        if on_demand < ON_DEMAND && self.take(name.clone(), vec![name.clone()], Reason::Demand { ask }, &[]).is_some() {
            self.prove(&name, Duration::ZERO);
            self.tell(&name, true);
            return true;
        }
        // What is on disk already costs no order.
        if on_demand >= ON_DEMAND || !self.asker.may_order(now()) {
            if let Some(muted) = self.refused.may() {
                tracing::warn!(cert = %name, on_demand, muted, "too many certificates on demand: this one is refused");
            }
            self.wards.remove(&name);
            self.vault.remove(&name);
            self.tell(&name, false);
            return false;
        }
        true
    }

    pub(super) fn tell(&mut self, name: &Host, there: bool) {
        for answer in self.waiting.remove(name).unwrap_or_default() {
            // The client may be gone.
            let _ = answer.send(there);
        }
    }
}
