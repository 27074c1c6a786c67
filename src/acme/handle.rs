//! What others may ask of the steward, and what they see of it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::standing::Standing;

/// Renewals by hand that may wait for the steward. Full: the next is refused, for whoever asks can ask again.
const ORDERS: usize = 16;

/// A renewal by hand.
#[derive(Debug)]
pub struct Order {
    /// A name that one of the certificates is for.
    pub host: String,
    /// What will be done, or why nothing: said at once, not when the order is over.
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// Cloneable; outlives the steward, and then says that nobody is there.
#[derive(Clone, Debug)]
pub struct Handle {
    standings: watch::Receiver<Arc<Vec<Standing>>>,
    orders: mpsc::Sender<Order>,
}

/// The steward's end.
#[derive(Debug)]
pub struct Desk {
    pub standings: watch::Sender<Arc<Vec<Standing>>>,
    pub orders: mpsc::Receiver<Order>,
}

/// Both ends. Nothing stands anyhow yet.
#[must_use]
pub fn handle() -> (Handle, Desk) {
    let (publish, standings) = watch::channel(Arc::default());
    let (orders, waiting) = mpsc::channel(ORDERS);
    (Handle { standings, orders }, Desk { standings: publish, orders: waiting })
}

impl Handle {
    /// Of one that nobody tends: no certificate is looked after.
    #[must_use]
    pub fn nobody() -> Self {
        handle().0
    }

    #[must_use]
    pub fn standings(&self) -> Arc<Vec<Standing>> {
        self.standings.borrow().clone()
    }

    /// Asks for a renewal of the certificate that is for `host`; what comes of it stands in [`Self::standings`].
    ///
    /// Errors: in words, why it is not done.
    /// Cancel-safety: may be dropped at any moment; the order stands once it is taken.
    pub async fn renew(&self, host: &str) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        match self.orders.try_send(Order { host: host.to_owned(), reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err("the gateway is stopping".to_owned())),
            Err(mpsc::error::TrySendError::Full(_)) => Err("too many renewals wait already: try again".to_owned()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err("no certificate of this gateway is ordered from a CA".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_answered_by_whoever_sits_at_the_desk() {
        let (handle, mut desk) = handle();
        let asked = async { handle.renew("a.example").await };
        let tended = async {
            let Order { host, reply } = desk.orders.recv().await.expect("an order");
            let _ = reply.send(Ok(format!("{host} is being renewed")));
        };
        assert_eq!(tokio::join!(asked, tended).0.as_deref(), Ok("a.example is being renewed"));
    }

    #[tokio::test]
    async fn where_nobody_sits_a_renewal_is_refused_and_nothing_stands() {
        let handle = Handle::nobody();
        assert!(handle.renew("a.example").await.is_err_and(|why| why.contains("no certificate")));
        assert!(handle.standings().is_empty());
    }

    #[tokio::test]
    async fn more_orders_than_the_desk_holds_are_refused_at_once() {
        let (handle, desk) = handle();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..ORDERS {
            let handle = handle.clone();
            waiting.spawn(async move { handle.renew("a.example").await });
        }
        while desk.orders.len() < ORDERS {
            tokio::task::yield_now().await;
        }
        assert!(handle.renew("a.example").await.is_err_and(|why| why.contains("try again")));
        drop(desk);
        while let Some(answer) = waiting.join_next().await {
            assert!(answer.expect("no panic").is_err());
        }
    }
}
