//! The worker threads.

use std::{path::Path, thread};

use tokio::sync::mpsc;

use super::Fatal;
use crate::edge::listen::{Common, Order, Worker};

/// Listeners that may be opened or closed while a worker has not looked yet; more wait.
const ORDERS: usize = 64;

/// K threads, each with its own runtime.
pub struct Threads {
    orders: Vec<mpsc::Sender<Order>>,
    left: usize,
    ended: mpsc::UnboundedReceiver<()>,
}

/// Tells that its thread has ended, whichever way.
struct Bell(mpsc::UnboundedSender<()>);

impl Drop for Bell {
    fn drop(&mut self) {
        // Nobody listens when all is over.
        let _ = self.0.send(());
    }
}

impl Threads {
    pub fn start(count: usize, common: &Common, roots: &Path) -> Result<Self, Fatal> {
        // At most one word a thread, ever.
        let (bell, ended) = mpsc::unbounded_channel();
        let mut threads = Self { orders: Vec::new(), left: count, ended };
        for n in 0..count {
            let (orders, inbox) = mpsc::channel(ORDERS);
            let (common, roots, bell) = (common.clone(), roots.to_owned(), Bell(bell.clone()));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Fatal::Thread(n, error))?;
            let work = move || {
                let _bell = bell;
                // Within the runtime: pingora's connectors look for one.
                let worker = {
                    let _inside = runtime.enter();
                    Worker::new(common, &roots, inbox)
                };
                runtime.block_on(worker.run());
            };
            thread::Builder::new().name(format!("edge-{n}")).spawn(work).map_err(|error| Fatal::Thread(n, error))?;
            threads.orders.push(orders);
        }
        Ok(threads)
    }

    #[must_use]
    pub fn orders(&self) -> Vec<mpsc::Sender<Order>> {
        self.orders.clone()
    }

    /// Waits until a thread ends; how many are left.
    ///
    /// Cancel-safety: safe.
    pub async fn ended(&mut self) -> usize {
        self.ended.recv().await;
        self.left = self.left.saturating_sub(1);
        self.left
    }
}
