//! Listening sockets: bound here, kept for the life of their listener, accepted on by whichever edge there is.
//!
//! Shape: K = workers sockets with SO_REUSEPORT for each http and https listener, all on one port; one for admin. A reload keeps those it still names.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::{
    ipc::{
        codec::MAX_DESCRIPTORS,
        message::{Listener, Role},
    },
    plan::Plan,
};

/// The kernel lowers it to net.core.somaxconn. Connections wait here while an edge is replaced.
const BACKLOG: i32 = 16 * 1024;

/// Why a listening socket could not be opened.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("listen on {addr}: not permitted")]
    Denied { addr: SocketAddr },
    #[error("listen on {addr}: the port is taken")]
    Taken { addr: SocketAddr },
    #[error("listen on {addr}: this machine has no such address")]
    NoAddress { addr: SocketAddr },
    #[error("listen on {addr}")]
    Os {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl BindError {
    /// How to mend it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Denied { .. } => Some("ports below 1024 need root, or: setcap cap_net_bind_service=+ep on the gateway binary"),
            Self::Taken { .. } => Some("find who has it with: ss -ltnp; or choose another address in [listen] or [admin]"),
            Self::NoAddress { .. } => Some("use an address of this machine (ip addr), or 0.0.0.0 and [::] for all"),
            Self::Os { .. } => None,
        }
    }

    fn new(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { addr },
            io::ErrorKind::AddrInUse => Self::Taken { addr },
            io::ErrorKind::AddrNotAvailable => Self::NoAddress { addr },
            _ => Self::Os { addr, source },
        }
    }
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Open {
    pub role: Role,
    pub asked: SocketAddr,
    pub bound: SocketAddr,
    pub sockets: Vec<Arc<OwnedFd>>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    pub open: Vec<Open>,
}

impl Sockets {
    /// Opens what `plan` names; what `old` has of it is shared, not opened again.
    ///
    /// Errors: the first that cannot be had; nothing stays open of what is new, and `old` is untouched.
    pub fn bind(plan: &Plan, old: &Self) -> Result<Self, BindError> {
        let listen = &plan.listen;
        let streams = listen.http.len() + listen.https.len();
        // All descriptors of a plan travel beside one message.
        let most = (usize::from(MAX_DESCRIPTORS) - 1) / streams.max(1);
        let workers = plan.workers.get().clamp(1, most.max(1));
        let wanted = (listen.http.iter().map(|addr| (Role::Http, *addr, workers)))
            .chain(listen.https.iter().map(|addr| (Role::Https, *addr, workers)))
            .chain(plan.admin.iter().map(|admin| (Role::Admin, admin.listen, 1)));
        let mut open = Vec::new();
        for (role, asked, count) in wanted {
            match old.open.iter().find(|open| open.role == role && open.asked == asked) {
                Some(kept) => open.push(kept.clone()),
                None => {
                    let ours = asked.port() != 0 && old.open.iter().any(|open| open.bound.port() == asked.port());
                    open.push(listener(role, asked, count, ours)?);
                }
            }
        }
        Ok(Self { open })
    }

    /// For the edge: the list, and the descriptors of all listeners that `has` lacks.
    #[must_use]
    pub fn parcel(&self, has: &Self) -> (Vec<Listener>, Vec<Arc<OwnedFd>>) {
        let mut descriptors = Vec::new();
        let listeners = self.open.iter().map(|open| {
            let known = has.open.iter().any(|other| other.role == open.role && other.asked == open.asked && other.bound == open.bound);
            let sockets: &[Arc<OwnedFd>] = if known { &[] } else { &open.sockets };
            descriptors.extend(sockets.iter().cloned());
            let count = u8::try_from(sockets.len()).unwrap_or(u8::MAX);
            Listener { role: open.role, asked: open.asked, bound: open.bound, descriptors: count }
        });
        (listeners.collect(), descriptors)
    }
}

/// Whether this address could be listened on now.
///
/// Errors: as a start would meet it.
pub fn probe(addr: SocketAddr) -> Result<(), BindError> {
    socket(addr, false, false).map(drop).map_err(|source| BindError::new(addr, source))
}

fn listener(role: Role, asked: SocketAddr, count: usize, ours: bool) -> Result<Open, BindError> {
    let fail = |source| BindError::new(asked, source);
    let share = role != Role::Admin;
    if share && asked.port() != 0 && !ours {
        // SO_REUSEPORT would let two gateways of one user share a port without a word: ask without it first.
        drop(socket(asked, false, false).map_err(fail)?);
    }
    let first = socket(asked, share, true).map_err(fail)?;
    let bound = first.local_addr().map_err(fail)?.as_socket().unwrap_or(asked);
    let mut sockets = vec![Arc::new(OwnedFd::from(first))];
    for _ in 1..count {
        sockets.push(Arc::new(socket(bound, share, true).map_err(fail)?.into()));
    }
    Ok(Open { role, asked, bound, sockets })
}

fn socket(addr: SocketAddr, share: bool, listen: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    if listen || !share {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::master::tests::plan;

    #[test]
    fn all_sockets_of_a_listener_share_the_port_the_kernel_gave() {
        let mut plan = plan();
        plan.workers = std::num::NonZeroUsize::new(3).expect("some");
        plan.listen.http = vec!["127.0.0.1:0".parse().expect("valid")];
        let sockets = Sockets::bind(&plan, &Sockets::default()).expect("bound");
        let (listeners, descriptors) = sockets.parcel(&Sockets::default());
        assert_eq!((listeners[0].descriptors, descriptors.len()), (3, 3));
        assert_ne!(listeners[0].bound.port(), 0);
        for fd in descriptors {
            let socket = Socket::from(fd.try_clone().expect("copy"));
            assert_eq!(socket.local_addr().expect("bound").as_socket(), Some(listeners[0].bound));
        }
    }

    #[test]
    fn a_reload_keeps_what_it_still_names() {
        let mut plan = plan();
        plan.listen.http = vec!["127.0.0.1:0".parse().expect("valid")];
        let old = Sockets::bind(&plan, &Sockets::default()).expect("bound");
        plan.listen.https = vec!["127.0.0.1:0".parse().expect("valid")];
        let new = Sockets::bind(&plan, &old).expect("bound");
        assert!(Arc::ptr_eq(&old.open[0].sockets[0], &new.open[0].sockets[0]));
        let (listeners, descriptors) = new.parcel(&old);
        assert_eq!((listeners[0].descriptors, listeners[1].descriptors, descriptors.len()), (0, 1, 1));
    }

    #[test]
    fn a_taken_port_is_an_error_with_advice_even_among_ourselves() {
        let mut plan = plan();
        plan.listen.http = vec!["127.0.0.1:0".parse().expect("valid")];
        let first = Sockets::bind(&plan, &Sockets::default()).expect("bound");
        plan.listen.http = vec![first.open[0].bound];
        let error = Sockets::bind(&plan, &Sockets::default()).expect_err("another gateway has it");
        assert!(matches!(error, BindError::Taken { .. }) && error.advice().is_some());
        let other = TcpListener::bind("127.0.0.1:0").expect("bound");
        plan.listen.http = vec![other.local_addr().expect("address")];
        assert!(matches!(Sockets::bind(&plan, &first), Err(BindError::Taken { .. })));
    }

    #[test]
    fn a_foreign_address_is_named_as_such() {
        let mut plan = plan();
        plan.listen.http = vec!["192.0.2.1:0".parse().expect("valid")];
        assert!(matches!(Sockets::bind(&plan, &Sockets::default()), Err(BindError::NoAddress { .. })));
    }
}
