//! Worker threads: each accepts on its share of every listener's sockets and serves what it accepts, on one runtime with one proxy.
//!
//! Shape: a [`Worker`] opens and closes [`Door`]s by [`Order`]; a door owns the tasks of its connections.
//!        Closing: what waits in the accept queue is still taken, then idle connections are closed (after [`COURTESY`] where another edge serves), requests in flight end with `Connection: close`,
//!        HTTP/2 gets a GOAWAY, and what is left at the deadline is cut.
//! Source: socket(7) on SO_REUSEPORT.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    conn::{buffers::Buffers, leftover::Leftovers, linger::Lingerer, pressure::Pressure},
    live::LiveCell,
    upstream::waits,
};
use crate::{
    ipc::message::Role,
    telemetry::{ListenerMetrics, Refusal, TlsMetrics},
};

mod neighbours;
mod pulse;
mod serve;

use neighbours::{Neighbours, Place};
use pulse::Pulse;
pub use pulse::{BEAT, Pulses};
use serve::{Proxy, Service};

/// How long a worker leaves a listener alone whose accept fails: descriptors come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where another edge serves beside us: how long an idle connection may still bring a request, whose answer says that it is the last.
/// Closed at once, it might meet a request on its way: a client would see an error, not a close.
const COURTESY: Duration = Duration::from_secs(2);

/// Names a listener: its role and its address as configured.
pub type DoorKey = (Role, SocketAddr);

/// What a worker is told.
#[derive(Debug)]
pub enum Order {
    Open {
        key: DoorKey,
        socket: std::net::TcpListener,
        metrics: Arc<ListenerMetrics>,
    },
    Close {
        key: DoorKey,
        within: Duration,
    },
    /// Every door; then the worker ends.
    Stop {
        within: Duration,
        sockets: Afterwards,
    },
}

/// What becomes of a socket that is accepted on no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Afterwards {
    /// Nobody shall accept on it: whoever comes is refused.
    Shut,
    /// Another edge accepts on it.
    Shared,
}

/// Connections over all listeners and threads, against `max_connections`; and by where they come from, against `max_connections_per_ip`.
#[derive(Debug, Default)]
pub struct Crowd {
    all: AtomicU64,
    neighbours: Arc<Neighbours>,
}

/// One of the crowd; gone when dropped.
#[derive(Debug)]
pub struct Seat(Arc<Crowd>);

impl Crowd {
    fn sit(self: &Arc<Self>, cap: u64) -> Option<Seat> {
        if self.all.fetch_add(1, Relaxed) < cap {
            return Some(Seat(self.clone()));
        }
        self.all.fetch_sub(1, Relaxed);
        None
    }

    fn sit_beside(&self, ip: IpAddr, cap: u32) -> Option<Place> {
        self.neighbours.sit(ip, cap)
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.all.load(Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.all.fetch_sub(1, Relaxed);
    }
}

/// What all workers share.
#[derive(Clone)]
pub struct Common {
    pub live: LiveCell,
    pub crowd: Arc<Crowd>,
    pub pressure: Arc<Pressure>,
    pub leftovers: Arc<Leftovers>,
    pub buffers: Arc<Buffers>,
    pub pulses: Arc<Pulses>,
    pub tls_metrics: Arc<TlsMetrics>,
}

/// One thread's part of the edge.
pub struct Worker {
    common: Common,
    proxy: Arc<Proxy>,
    orders: mpsc::Receiver<Order>,
}

impl Worker {
    /// `roots` is any file with a certificate in it: pingora would else read all of the system's, twice a thread, for TLS upstreams that we do not have.
    #[must_use]
    pub fn new(common: Common, roots: &std::path::Path, orders: mpsc::Receiver<Order>) -> Self {
        let proxy = Arc::new(serve::proxy(&common, roots));
        Self { common, proxy, orders }
    }

    /// Serves until it is told to stop, or nobody is left who could tell it.
    pub async fn run(mut self) {
        let (lingerer, linger) = Lingerer::new();
        let service = Arc::new(Service::new(self.common.clone(), self.proxy.clone(), linger));
        let mut doors: Vec<(DoorKey, mpsc::Sender<Closing>)> = Vec::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(lingerer.run());
        // Ends with the worker, and not before its last request.
        let mut keeper = JoinSet::new();
        keeper.spawn(waits::keep());
        let mut last = Closing { within: Duration::ZERO, sockets: Afterwards::Shut };
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Open { key, socket, metrics }) => match TcpListener::from_std(socket) {
                        Ok(listener) => {
                            hold_little(&listener);
                            // One word is ever said over it.
                            let (close, closing) = mpsc::channel(1);
                            let pulse = self.common.pulses.turn(key);
                            let door = Door { role: key.0, listener, metrics, service: service.clone(), closing, pulse };
                            tasks.spawn(door.run());
                            doors.push((key, close));
                        }
                        Err(error) => tracing::error!(listener = %key.1, %error, "listener not opened"),
                    },
                    Some(Order::Close { key, within }) => {
                        doors.retain(|(open, close)| *open != key || close.try_send(Closing { within, sockets: Afterwards::Shut }).is_err() && !close.is_closed());
                    }
                    Some(Order::Stop { within, sockets }) => {
                        last = Closing { within, sockets };
                        break;
                    }
                    None => break,
                },
                Some(ended) = tasks.join_next() => report(ended),
            }
        }
        for (_, close) in doors {
            // A door that is closed already needs no telling.
            let _ = close.try_send(last);
        }
        drop(service);
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    }
}

/// What an answer may have waiting in the kernel, beyond what is on its way. Its buffer would else grow to megabytes for a client that reads slowly, and would take a third of
/// them before it takes more: longer than a deadline between two writes.
const UNSENT: u32 = 256 * 1024;

/// Connections have it from their listener.
fn hold_little(listener: &TcpListener) {
    if let Err(error) = socket2::SockRef::from(listener).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT not set");
    }
}

/// A task that panicked took one connection with it; the hook has logged where.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("connection lost by a fault of ours");
    }
}

/// How a door closes.
#[derive(Clone, Copy, Debug)]
struct Closing {
    within: Duration,
    sockets: Afterwards,
}

/// One accept loop and its connections.
struct Door {
    role: Role,
    listener: TcpListener,
    metrics: Arc<ListenerMetrics>,
    service: Arc<Service>,
    closing: mpsc::Receiver<Closing>,
    pulse: Pulse,
}

impl Door {
    async fn run(mut self) {
        let drain = CancellationToken::new();
        // pingora's own word for the same: `true` makes it say GOAWAY.
        let (goaway, shutdown) = watch::channel(false);
        let leave = Leave { drain, close: CancellationToken::new(), shutdown };
        let mut connections = JoinSet::new();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Closing { within, sockets } = loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        self.pulse.accepted();
                        self.admit(tcp, peer, &leave, &mut connections);
                    }
                    Err(error) => self.pause(&error).await,
                },
                _ = beat.tick() => self.pulse.beat(),
                Some(ended) = connections.join_next() => report(ended),
                closing = self.closing.recv() => break closing.unwrap_or(Closing { within: Duration::ZERO, sockets: Afterwards::Shut }),
            }
        };
        match sockets {
            Afterwards::Shut => {
                self.empty_queue(&leave, &mut connections);
                // The master has the socket too: if it were only closed here, new connections would wait in a queue that nobody empties.
                if let Err(error) = socket2::SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both) {
                    tracing::debug!(%error, "listener was closed already");
                }
            }
            // What waits in the queue is the other edge's.
            Afterwards::Shared => {}
        }
        drop((self.listener, self.pulse));
        leave.drain.cancel();
        goaway.send_replace(true);
        let deadline = Instant::now() + within;
        match sockets {
            Afterwards::Shut => {}
            Afterwards::Shared => {
                let courtesy = deadline.min(Instant::now() + COURTESY);
                while let Ok(Some(ended)) = timeout_at(courtesy, connections.join_next()).await {
                    report(ended);
                }
            }
        }
        leave.close.cancel();
        while let Ok(Some(ended)) = timeout_at(deadline, connections.join_next()).await {
            report(ended);
        }
        connections.shutdown().await;
    }

    fn admit(&self, tcp: TcpStream, peer: SocketAddr, leave: &Leave, connections: &mut JoinSet<()>) {
        // Before anything else is done for it; who speaks for others is looked at again when it has said for whom.
        if self.service.drops(self.role, peer) {
            self.metrics.refused(Refusal::Banned);
            return;
        }
        let cap = self.service.cap();
        let Some(seat) = self.service.common().crowd.sit(cap) else {
            self.metrics.refused(Refusal::Full);
            return;
        };
        let open = self.metrics.open();
        let (service, role, leave, metrics) = (self.service.clone(), self.role, leave.clone(), self.metrics.clone());
        connections.spawn(async move {
            let _guards = (seat, open);
            service.serve(role, tcp, peer, leave, &metrics).await;
        });
    }

    /// Connections that the kernel has taken for us are ours.
    fn empty_queue(&self, leave: &Leave, connections: &mut JoinSet<()>) {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while let std::task::Poll::Ready(Ok((tcp, peer))) = self.listener.poll_accept(&mut cx) {
            self.admit(tcp, peer, leave, connections);
        }
    }

    async fn pause(&self, error: &io::Error) {
        match error.kind() {
            // The client was gone before we came to it.
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
            _ => {
                self.pulse.failed();
                self.metrics.refused(Refusal::Accept);
                tracing::debug!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How a connection learns that its door closes.
#[derive(Clone, Debug)]
pub struct Leave {
    /// Its next answer is the last.
    pub drain: CancellationToken,
    /// What has no request by now is closed.
    pub close: CancellationToken,
    pub shutdown: watch::Receiver<bool>,
}
