//! Who may come in: what `auth` of a route asks of a client.
//!
//! Knows nothing of pingora (D7): `engine::access` asks, waits and answers.
//! Shape: what is remembered is said at once, on the thread that serves; whatever takes time is a wait that the engine bounds. Fails closed.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    plan::{self, Plan, User},
    rules::password::HashError,
};

mod basic;
mod forward;
mod verifier;

pub use basic::{Basic, Look, Waiting};
pub use forward::{Asked, Forward, ForwardError, Said};
pub use verifier::{Answer, Question, Verifier};

/// Why an `auth` cannot be run. The loader has checked all of it.
#[derive(Debug, Error)]
pub enum GuardError {
    #[error("use the password of {name:?}")]
    Hash {
        name: String,
        #[source]
        source: HashError,
    },
    #[error("use the name {0:?} in a header")]
    Name(String),
    #[error("ask with the host {0:?}")]
    Host(String),
    #[error("ask for the path {0:?}")]
    Path(String),
    #[error("use the realm {0:?}")]
    Realm(String),
}

/// One `auth` made ready.
pub enum Guard {
    Basic(Basic),
    Forward(Forward),
}

/// Every `auth` of a plan, once each.
#[derive(Default)]
pub struct Guards(Vec<Entry>);

struct Entry {
    auth: plan::Auth,
    /// Of the file that it names.
    users: Vec<User>,
    guard: Arc<Guard>,
}

impl Guards {
    /// One whose words and users are those of one in `old` is carried over.
    ///
    /// Errors: [`GuardError`]
    pub fn build(plan: &Plan, old: Option<&Self>) -> Result<Self, GuardError> {
        let mut all = Self::default();
        for auth in plan.sites.iter().flat_map(|site| &site.routes).filter_map(|route| route.auth.as_ref()) {
            if all.of(auth).is_some() {
                continue;
            }
            let users = match auth {
                plan::Auth::Basic(basic) => plan.users.get(&basic.file).map_or(&[][..], Vec::as_slice),
                plan::Auth::Forward(_) => &[],
            };
            let kept = old.and_then(|old| old.0.iter().find(|entry| entry.auth == *auth && entry.users == users));
            let guard = match (kept, auth) {
                (Some(kept), _) => kept.guard.clone(),
                (None, plan::Auth::Basic(basic)) => Arc::new(Guard::Basic(Basic::new(basic, users)?)),
                (None, plan::Auth::Forward(forward)) => Arc::new(Guard::Forward(Forward::new(forward)?)),
            };
            all.0.push(Entry { auth: auth.clone(), users: users.to_vec(), guard });
        }
        Ok(all)
    }

    #[must_use]
    pub fn of(&self, auth: &plan::Auth) -> Option<Arc<Guard>> {
        self.0.iter().find(|entry| entry.auth == *auth).map(|entry| entry.guard.clone())
    }
}
