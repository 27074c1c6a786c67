//! Conditions with deadlines: the only way a test waits.

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, MutexGuard};

/// Asks until there is an answer; panics with the last refusal when the deadline passes.
pub fn eventually<T, E: Debug>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match ask() {
            Ok(value) => return value,
            Err(refusal) if Instant::now() > end => panic!("not within {deadline:?}: {what}; last: {refusal:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(15)),
        }
    }
}

/// As [`eventually`], for a question that is itself asynchronous.
pub async fn eventually_async<T, E: Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(refusal) if Instant::now() > end => panic!("not within {deadline:?}: {what}; last: {refusal:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(15)).await,
        }
    }
}

/// The future's value, or a panic that says what did not happen.
pub async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {deadline:?}: {what}"),
    }
}

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Only one test at a time loads the machine.
pub async fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
