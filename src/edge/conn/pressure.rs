//! Pressure: what answers that wait on their clients hold, over all connections and threads, and who must go when it is too much.
//!
//! A client that reads slowly is served for as long as it reads within `send`. Thousands of them, or those that mean to, would take all memory: the engine reads some hundred KB ahead
//! of each. Beyond [`MUCH`] whoever has taken nothing for a while is given up, the sooner the more is held.
//!
//! Shape: the hooks say what an answer holds, a connection of HTTP/1 that it holds nothing any more ([`holds`]); the task that serves it counts that while it waits ([`Pressure::watch`]). An answer that never waits is never counted.
//! Units: bytes that were handed to the client's side and not taken; with what lies in buffers of the engine it is three to four times as much (400 answers: 1 MB each).

use std::{
    cell::Cell,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;

use super::{alarm::Alarm, cut};
use crate::edge::refused;

const MUCH: u64 = 32 << 20;
/// Between two looks at an answer that waits.
const LOOK: Duration = Duration::from_millis(250);

tokio::task_local! {
    static HELD: Cell<Option<(u64, Instant)>>;
}

/// So many bytes wait on the client, since now.
pub fn holds(bytes: u64) {
    // Without a watch nobody counts.
    let _ = HELD.try_with(|held| held.set((bytes > 0).then(|| (bytes, Instant::now()))));
}

/// How long an answer may hold what it holds; `None`: `send` alone says.
fn patience(all: u64, much: u64) -> Option<Duration> {
    match all / much {
        0 => None,
        1 => Some(Duration::from_secs(3)),
        _ => Some(Duration::from_millis(750)),
    }
}

/// Of all answers.
#[derive(Debug)]
pub struct Pressure {
    all: AtomicU64,
    much: u64,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { all: AtomicU64::new(0), much: MUCH }
    }
}

/// What one answer adds; gone with it.
struct Share<'a> {
    of: &'a Pressure,
    bytes: u64,
}

impl Share<'_> {
    fn set(&mut self, bytes: u64) {
        if bytes != self.bytes {
            self.of.all.fetch_add(bytes, Relaxed);
            self.of.all.fetch_sub(self.bytes, Relaxed);
            self.bytes = bytes;
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Pressure {
    /// Serves one request; `None`: given up, for others.
    ///
    /// Cancel-safety: as that of `serve`.
    pub async fn watch<T>(self: Arc<Self>, serve: impl Future<Output = T>) -> Option<T> {
        let watched = async {
            let mut serve = pin!(serve);
            let (mut alarm, mut share) = (Alarm::default(), Share { of: &self, bytes: 0 });
            std::future::poll_fn(|cx| {
                if let Poll::Ready(served) = serve.as_mut().poll(cx) {
                    return Poll::Ready(Some(served));
                }
                let Some((bytes, since)) = HELD.with(Cell::get) else {
                    share.set(0);
                    return Poll::Pending;
                };
                share.set(bytes);
                loop {
                    let now = Instant::now();
                    let all = self.all.load(Relaxed);
                    if patience(all, self.much).is_some_and(|patience| now.duration_since(since) >= patience) {
                        cut::begins(refused::PRESSURE);
                        return Poll::Ready(None);
                    }
                    if alarm.poll(now + LOOK, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            })
            .await
        };
        let served = HELD.scope(Cell::new(None), watched).await;
        if served.is_none() {
            cut::ends();
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure() -> Arc<Pressure> {
        Arc::new(Pressure { all: AtomicU64::new(0), much: 1000 })
    }

    /// Hands over so much and waits on a client that takes nothing.
    async fn stuck(pressure: &Arc<Pressure>, bytes: u64) -> Option<()> {
        let serve = async {
            holds(bytes);
            std::future::pending().await
        };
        pressure.clone().watch(serve).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_be_while_there_is_room() {
        let pressure = pressure();
        let waits = tokio::time::timeout(Duration::from_secs(1000), stuck(&pressure, 999)).await;
        assert!(waits.is_err());
        assert_eq!(pressure.all.load(Relaxed), 0, "nothing is left of it");
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_none_the_first_to_be_found_stuck_goes_and_the_rest_stays() {
        let pressure = pressure();
        let began = Instant::now();
        let (first, second) = (stuck(&pressure, 600), stuck(&pressure, 600));
        tokio::pin!(first, second);
        let gone = tokio::select! { biased; gone = &mut first => gone, gone = &mut second => gone };
        assert_eq!(gone, None);
        assert!((Duration::from_secs(3)..Duration::from_secs(4)).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert!(tokio::time::timeout(Duration::from_secs(1000), second).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_taking_stays_however_much_is_held() {
        let pressure = pressure();
        let reads = pressure.clone().watch(async {
            for _ in 0..100 {
                holds(5000);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            holds(0);
        });
        assert_eq!(reads.await, Some(()));
        let began = Instant::now();
        assert_eq!(stuck(&pressure, 5000).await, None);
        assert!(began.elapsed() < Duration::from_secs(2), "the sooner the more is held: {:?}", began.elapsed());
    }
}
