//! The servers of a pool as the tries of one request see them: what is picked is leased, and given back unless it is taken.

use super::{Lease, Pool, Pools, ServerId, Unavailable};
use crate::{
    plan::Retry,
    rules::attempt::{Found, Servers, Trust},
};

/// For one step of a request.
pub struct Choice<'a> {
    pool: &'a Pool,
    /// Where the time comes from.
    pools: &'a Pools,
    /// The budget was asked already.
    paid: bool,
    lease: Option<Lease>,
    refused: Option<Unavailable>,
}

impl<'a> Choice<'a> {
    #[must_use]
    pub fn new(pool: &'a Pool, pools: &'a Pools) -> Self {
        Self { pool, pools, paid: false, lease: None, refused: None }
    }

    /// The retry that this step may need is paid for.
    #[must_use]
    pub fn paid(self) -> Self {
        Self { paid: true, ..self }
    }

    /// The server that was picked last, or why none was.
    #[must_use]
    pub fn made(self) -> (Option<Lease>, Option<Unavailable>) {
        (self.lease, self.refused)
    }

    fn holds(&mut self, lease: Option<Lease>) -> Option<Found<ServerId>> {
        self.lease = lease;
        self.lease.as_ref().map(|lease| Found { id: lease.id(), on_trial: lease.is_on_trial() })
    }
}

impl Servers for Choice<'_> {
    type Id = ServerId;

    fn rule(&self) -> &Retry {
        self.pool.retry()
    }

    fn enter(&mut self) {
        self.pool.enter(self.pools.now());
    }

    fn spend(&mut self) -> bool {
        self.paid || self.pool.spend(self.pools.now())
    }

    fn pick(&mut self, but: &[ServerId], trust: Trust) -> Option<Found<ServerId>> {
        let picked = self.pool.pick(self.pools.now(), but, trust, &mut || fastrand::u64(..));
        self.refused = picked.as_ref().err().copied();
        self.holds(picked.ok())
    }

    fn again(&mut self, server: ServerId) -> Option<Found<ServerId>> {
        self.holds(self.pool.again(server))
    }

    fn has_proven(&self) -> bool {
        self.pool.has_proven(self.pools.now())
    }

    fn comes(&self) -> bool {
        self.pool.waiting_room().is_some()
    }
}
