//! Which listeners are open: sockets handed to the threads, the admin server started here.

use std::{collections::HashMap, io, net::TcpListener, os::fd::OwnedFd, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::EdgeSource;
use crate::{
    admin::server::Server,
    edge::listen::{Afterwards, BEAT, DoorKey, Order, Pulses},
    ipc::message::{Config, Listener, Role},
    telemetry::{ListenerMetrics, Metrics},
    vocab::Secret,
};

/// Why listeners could not be taken.
#[derive(Debug, Error)]
pub enum DoorError {
    #[error("match sockets to listeners: {listed} were announced, {came} came")]
    Count { listed: usize, came: usize },
    #[error("use a socket")]
    Socket(#[source] io::Error),
}

/// The open listeners.
pub struct Doors {
    orders: Vec<mpsc::Sender<Order>>,
    metrics: Arc<Metrics>,
    source: Arc<EdgeSource>,
    pulses: Arc<Pulses>,
    open: HashMap<DoorKey, Arc<ListenerMetrics>>,
    admin: Option<Admin>,
    servers: JoinSet<()>,
}

/// The admin listener: its token is part of it.
struct Admin {
    key: DoorKey,
    socket: TcpListener,
    token: Option<Secret<String>>,
    closing: CancellationToken,
}

impl Doors {
    #[must_use]
    pub fn new(orders: Vec<mpsc::Sender<Order>>, metrics: Arc<Metrics>, source: Arc<EdgeSource>, pulses: Arc<Pulses>) -> Self {
        Self { orders, metrics, source, pulses, open: HashMap::new(), admin: None, servers: JoinSet::new() }
    }

    /// Opens what `config` lists and is not open yet; `sockets` came with it.
    ///
    /// Shape: socket n of a listener goes to thread n, round again where there are more sockets than threads: every one of them must be accepted on.
    pub async fn open(&mut self, config: &Config, sockets: Vec<OwnedFd>) -> Result<(), DoorError> {
        let listed = config.listeners.iter().map(|listener| usize::from(listener.descriptors)).sum();
        if listed != sockets.len() {
            return Err(DoorError::Count { listed, came: sockets.len() });
        }
        let mut sockets = sockets.into_iter();
        for listener in &config.listeners {
            let own: Vec<_> = sockets.by_ref().take(listener.descriptors.into()).map(TcpListener::from).collect();
            self.take(listener, own, config).await?;
        }
        Ok(())
    }

    async fn take(&mut self, listener: &Listener, sockets: Vec<TcpListener>, config: &Config) -> Result<(), DoorError> {
        let key = (listener.role, listener.asked);
        match listener.role {
            Role::Http | Role::Https => {
                let metrics = self.open.entry(key).or_insert_with(|| self.metrics.listener(listener.asked)).clone();
                self.pulses.expect(key, sockets.len());
                for (n, socket) in sockets.into_iter().enumerate() {
                    prepare(&socket).map_err(DoorError::Socket)?;
                    let order = Order::Open { key, socket, metrics: metrics.clone() };
                    // A thread that has ended ends the process, which is on its way.
                    let _ = self.orders[n % self.orders.len()].send(order).await;
                }
            }
            Role::Admin => {
                let token = config.plan.admin.as_ref().and_then(|admin| admin.token.clone());
                let socket = match (sockets.into_iter().next(), self.admin.take()) {
                    (Some(socket), old) => {
                        self.admin = old;
                        socket
                    }
                    // A token that was changed is of no use any more: who comes with it is a stranger from now on.
                    (None, Some(open)) if open.token != token => {
                        open.closing.cancel();
                        open.socket
                    }
                    (None, open) => {
                        self.admin = open;
                        return Ok(());
                    }
                };
                self.close_admin();
                let kept = socket.try_clone().map_err(DoorError::Socket)?;
                let server = Server::new(socket, token.clone(), self.source.clone()).map_err(DoorError::Socket)?;
                let closing = CancellationToken::new();
                self.admin = Some(Admin { key, socket: kept, token, closing: closing.clone() });
                self.pulses.forget(&key);
                self.pulses.expect(key, 1);
                let turning = self.pulses.turn(key);
                self.servers.spawn(async move {
                    let serving = server.run(closing.cancelled_owned());
                    let mut serving = std::pin::pin!(serving);
                    let mut beat = tokio::time::interval(BEAT);
                    let ended = loop {
                        tokio::select! {
                            ended = &mut serving => break ended,
                            _ = beat.tick() => turning.beat(),
                        }
                    };
                    if let Err(error) = ended {
                        tracing::error!(%error, "admin listener ended");
                    }
                });
            }
        }
        Ok(())
    }

    /// Closes what is open and not in `config`.
    pub async fn close_others(&mut self, config: &Config, within: Duration) {
        let wanted = |key: &DoorKey| config.listeners.iter().any(|listener| (listener.role, listener.asked) == *key);
        let gone: Vec<_> = self.open.keys().filter(|key| !wanted(key)).copied().collect();
        for key in gone {
            self.open.remove(&key);
            self.pulses.forget(&key);
            for orders in &self.orders {
                let _ = orders.send(Order::Close { key, within }).await;
            }
        }
        if self.admin.as_ref().is_some_and(|admin| !wanted(&admin.key)) {
            self.close_admin();
        }
    }

    fn close_admin(&mut self) {
        if let Some(admin) = self.admin.take() {
            admin.closing.cancel();
        }
    }

    /// Everything, for good. The admin listener goes with the process; where another edge has it, at once.
    pub async fn stop(&mut self, within: Duration, sockets: Afterwards) {
        self.open.clear();
        match sockets {
            Afterwards::Shut => {}
            Afterwards::Shared => self.close_admin(),
        }
        for orders in &self.orders {
            let _ = orders.send(Order::Stop { within, sockets }).await;
        }
    }
}

/// Options that accepted connections inherit: no call for each of them.
fn prepare(socket: &TcpListener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = socket2::SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    // Finds dead peers of tunnels, which have no other deadline.
    socket.set_keepalive(true)
}
