//! Which kept connections may serve which request: those of the same group alone.
//!
//! Shape: a group is what two connections must agree in, written out; the engine wants it as a number ([`Group::key`]). The same input gives the same number, also after a
//!        reload, so that connections are kept over it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

use crate::{
    ipc::message::{Incarnation, InstanceId},
    plan::{UpstreamHttp, UpstreamTimeouts},
};

/// How connections to an upstream are made.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Manner(u64);

impl Manner {
    pub(super) fn of(timeouts: &UpstreamTimeouts, http: &UpstreamHttp) -> Self {
        Self(number(&(format!("{timeouts:?}"), format!("{http:?}"))))
    }
}

/// What two connections must agree in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Group {
    /// Upstream, server and manner, and of an app the very process.
    server: u64,
    /// Of a name: connections to the address that it no longer has are not used.
    resolved: Option<SocketAddr>,
    /// Its bytes are nobody's but one client's.
    tunnel: bool,
    /// Shared with no other request.
    alone: Option<u64>,
}

impl Group {
    pub(super) fn of(upstream: &str, server: &str, manner: Manner, process: &Option<(InstanceId, Incarnation)>) -> Self {
        Self { server: number(&(upstream, server, manner, process)), resolved: None, tunnel: false, alone: None }
    }

    /// With an address that its name was resolved to.
    pub(super) fn at(self, addr: SocketAddr) -> Self {
        Self { resolved: Some(addr), ..self }
    }

    /// Of connections that become tunnels, which are never kept.
    #[must_use]
    pub fn tunnel(self) -> Self {
        Self { tunnel: true, ..self }
    }

    /// Of one request: what is kept under it is never found again. `dice` differ from request to request.
    #[must_use]
    pub fn alone(self, dice: u64) -> Self {
        Self { alone: Some(dice), ..self }
    }

    #[must_use]
    pub fn key(self) -> u64 {
        number(&self)
    }
}

fn number(value: &impl Hash) -> u64 {
    // Fixed keys: nothing hostile goes in.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::testing, vocab::AppName};

    #[test]
    fn whatever_differs_is_another_group_and_the_same_is_the_same_again() {
        let (fast, slow) = (testing::upstream_timeouts(), UpstreamTimeouts { read: 9 * testing::SECOND, ..testing::upstream_timeouts() });
        let manner = Manner::of(&fast, &UpstreamHttp::V1);
        let process = |incarnation| Some((InstanceId { app: AppName::parse("web").expect("a name"), n: 0 }, Incarnation(incarnation)));
        let addr = |text: &str| text.parse().expect("an address");
        let group = Group::of("web", "a:1", manner, &None);
        let all = [
            group,
            Group::of("api", "a:1", manner, &None),
            Group::of("web", "b:1", manner, &None),
            Group::of("web", "a:1", Manner::of(&slow, &UpstreamHttp::V1), &None),
            Group::of("web", "a:1", Manner::of(&fast, &UpstreamHttp::V2), &None),
            Group::of("web", "a:1", manner, &process(1)),
            Group::of("web", "a:1", manner, &process(2)),
            group.at(addr("127.0.0.1:1")),
            group.at(addr("127.0.0.2:1")),
            group.tunnel(),
            group.alone(1),
            group.alone(2),
            group.alone(1).tunnel(),
        ];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(one.key() == other.key(), i == j, "{one:?} {other:?}");
            }
        }
        assert_eq!(Group::of("web", "a:1", Manner::of(&fast, &UpstreamHttp::V1), &None).key(), group.key(), "after a reload");
    }
}
