//! Keys of session tickets: kept here, so that clients take up their sessions again after an edge has died.
//!
//! Units: a key makes tickets for [`ROTATE_EVERY`] and opens them for as long again: 12 h in all.
//! Source: RFC 5077 §5.5 (keys are to be changed), RFC 8446 §4.6.1 (a ticket lives seven days at most).

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, interval_at},
};

use crate::{
    ipc::message::{TicketKey, TicketKeys},
    vocab::{Secret, lock},
};

const ROTATE_EVERY: Duration = Duration::from_secs(6 * 3600);

/// The actor: puts a new key in the place of the current one, and the current one in the place of the previous.
pub struct Rotator {
    keys: watch::Sender<TicketKeys>,
    due: Due,
}

/// When the next key is made.
type Due = Arc<Mutex<Instant>>;

/// The keys, and what is left of the current one's time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried {
    keys: TicketKeys,
    left: Duration,
}

/// Where the keys are read.
#[derive(Clone)]
pub struct Keys {
    pub seen: watch::Receiver<TicketKeys>,
    due: Due,
}

impl Keys {
    #[must_use]
    pub fn export(&self) -> Carried {
        let due = *lock(&self.due);
        Carried { keys: self.seen.borrow().clone(), left: due.saturating_duration_since(Instant::now()) }
    }
}

impl Rotator {
    /// Errors: the system gives no randomness.
    pub fn new() -> io::Result<(Self, Keys)> {
        Ok(Self::adopt(Carried { keys: TicketKeys { current: fresh()?, previous: None }, left: ROTATE_EVERY }))
    }

    /// Goes on where the binary before stopped.
    #[must_use]
    pub fn adopt(carried: Carried) -> (Self, Keys) {
        let (keys, seen) = watch::channel(carried.keys);
        let due: Due = Arc::new(Mutex::new(Instant::now() + carried.left.min(ROTATE_EVERY)));
        (Self { keys, due: due.clone() }, Keys { seen, due })
    }

    /// Until nobody needs keys.
    pub async fn run(self) {
        let first = *lock(&self.due);
        let mut due = interval_at(first, ROTATE_EVERY);
        loop {
            tokio::select! {
                at = due.tick() => {
                    *lock(&self.due) = at + ROTATE_EVERY;
                    match fresh() {
                        Ok(key) => self.keys.send_modify(|keys| keys.previous = Some(std::mem::replace(&mut keys.current, key))),
                        Err(error) => tracing::error!(%error, "ticket keys kept as they were: no randomness"),
                    }
                }
                () = self.keys.closed() => return,
            }
        }
    }
}

fn fresh() -> io::Result<TicketKey> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| error.raw_os_error().map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error))?;
    Ok(TicketKey(Secret::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_current_for_six_hours_and_previous_for_six_more() {
        let (rotator, Keys { mut seen, .. }) = Rotator::new().expect("randomness");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(rotator.run());
        let first = seen.borrow_and_update().clone();
        assert_eq!(first.previous, None);
        let began = Instant::now();
        seen.changed().await.expect("rotated");
        assert_eq!(began.elapsed(), ROTATE_EVERY);
        let second = seen.borrow_and_update().clone();
        assert_eq!(second.previous.as_ref(), Some(&first.current));
        assert_ne!(second.current, first.current);
        seen.changed().await.expect("rotated");
        assert_eq!(began.elapsed(), 2 * ROTATE_EVERY);
        assert_eq!(seen.borrow_and_update().previous, Some(second.current));
        assert!(!format!("{first:?}").contains(|c: char| c.is_ascii_digit()), "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_handed_over_grows_no_older_for_it() {
        let (rotator, keys) = Rotator::new().expect("randomness");
        drop(rotator);
        tokio::time::advance(ROTATE_EVERY * 2 / 3).await;
        let (rotator, keys) = Rotator::adopt(keys.export());
        let mut seen = keys.seen;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(rotator.run());
        let first = seen.borrow_and_update().clone();
        let began = Instant::now();
        seen.changed().await.expect("rotated");
        assert_eq!(began.elapsed(), ROTATE_EVERY / 3);
        assert_eq!(seen.borrow_and_update().previous, Some(first.current));
    }
}
