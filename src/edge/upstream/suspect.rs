//! The looks at a pool's servers that find the ones that hang, and what such a server is asked.

use std::{sync::Arc, time::Duration};

use super::{
    check::Check,
    pool::{AppSpec, Pool, Spec},
    server::Server,
};
use crate::{
    plan::{HealthKind, Live, Ready},
    rules::{
        balance::Standing,
        suspicion::{self, Known, Verdict},
    },
    vocab::ServerAddr,
};

/// What one look at a pool has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// To be asked at once.
    pub(super) question: Vec<Arc<Server>>,
    /// Some server is suspect now that was not, or the other way round.
    pub(super) turned: bool,
}

/// Judges the servers of a pool anew.
pub(super) fn look(pool: &Pool, now: Duration) -> Found {
    let servers = pool.servers();
    let known: Vec<Known> = servers.iter().map(|server| facts(server, now)).collect();
    let mut found = Found::default();
    if known.iter().all(|known| known.owes_since.is_none()) && servers.iter().all(|server| server.vitals.silence.is_trusted()) {
        // Most looks end here; what is left is to say that a suspect has answered.
        for server in &servers {
            found.turned |= note(server, Verdict::Trusted, None, now);
        }
        return found;
    }
    for (at, server) in servers.iter().enumerate() {
        let siblings = || known.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, known)| *known);
        let verdict = suspicion::judge(&known[at], siblings(), now);
        found.turned |= note(server, verdict, known[at].owes_since, now);
        let Some(since) = known[at].owes_since.filter(|_| verdict != Verdict::Trusted) else { continue };
        found.question.push(server.clone());
        if !siblings().any(|sibling| suspicion::vouches(&sibling, since)) {
            let others = servers.iter().zip(&known).enumerate().filter(|(other, (_, known))| *other != at && known.serves);
            found.question.extend(others.map(|(_, (sibling, _))| sibling.clone()));
        }
    }
    found
}

fn facts(server: &Server, now: Duration) -> Known {
    let silence = &server.vitals.silence;
    if let Some(since) = silence.owes_since().filter(|_| server.vitals.in_flight() == 0 && silence.is_trusted()) {
        // Whoever waited has left.
        silence.forget(since);
    }
    silence.known(server.standing(now) != Standing::Out)
}

/// Whether the log was told something.
fn note(server: &Server, verdict: Verdict, since: Option<Duration>, now: Duration) -> bool {
    let silence = &server.vitals.silence;
    let news = silence.judged(verdict, since);
    let (upstream, label) = (&server.shared.name, &server.label);
    match (news, verdict) {
        (false, _) => {}
        (true, Verdict::Suspect) => {
            let silent = since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            tracing::warn!(%upstream, server = %label, silent_ms = silent.as_millis(), "server hangs");
            server.metrics.suspected();
        }
        (true, Verdict::Trusted | Verdict::Questioned) => {
            tracing::info!(%upstream, server = %label, answers = silence.owes_since().is_none(), "server no longer suspect");
        }
    }
    news
}

/// An answer of any kind will do.
const ANY: (u16, u16) = (100, 999);

/// What a server is asked that may hang: what its probes ask, else for the page that every site has.
pub(super) fn question(pool: &Pool, server: &Server) -> Check {
    let (path, host) = match &pool.spec {
        Spec::Upstream(spec) => match spec.health.as_ref().map(|health| &health.kind) {
            Some(HealthKind::Http { path, host, .. }) => (Some(path), host.clone()),
            Some(HealthKind::Tcp) | None => (None, None),
        },
        Spec::App(AppSpec { ready, live, host, .. }) => {
            let path = match (live, ready) {
                (Some(Live { path, .. }), _) | (None, Ready::Http { path, .. }) => Some(path),
                (None, Ready::Tcp { .. } | Ready::Log { .. } | Ready::Notify { .. } | Ready::Started) => None,
            };
            (path, Some(host.clone().unwrap_or_else(|| "localhost".into())))
        }
    };
    let path = path.map_or("/", String::as_str).to_owned();
    Check::Http { path, host: host.unwrap_or_else(|| host_of(server.address.asked())), expect: vec![ANY], version: pool.http() }
}

/// The Host of a probe that has none configured.
pub(super) fn host_of(addr: &ServerAddr) -> String {
    match addr {
        ServerAddr::Name { host, port: 80 } => host.to_string(),
        ServerAddr::Tcp(_) | ServerAddr::Name { .. } => addr.to_string(),
        ServerAddr::Unix(_) => "localhost".into(),
    }
}
