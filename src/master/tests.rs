//! What the tests of the room share.

use std::time::Duration;

pub use crate::plan::testing::plan;
use crate::{
    ipc::message::{TicketKey, TicketKeys},
    plan::{Route, Site, SiteTls, testing},
    vocab::{ByteSize, HostPattern, Secret},
};

/// A site that answers 404, over `tls`.
pub fn site(tls: SiteTls) -> Site {
    let route = Route {
        methods: vec![http::Method::GET],
        body_limit: ByteSize(1),
        allow: vec!["10.0.0.0/8".parse().expect("valid")],
        ..testing::route()
    };
    Site { hosts: vec![HostPattern::parse("*.example.com").expect("valid")], tls, routes: vec![route], ..testing::site("example.com") }
}

mod children;
pub mod fake_edge;
mod link;
pub mod supervise;

/// Waits for a condition of the outside world.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there and not merely unreaped.
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Keys that never change.
pub fn tickets() -> tokio::sync::watch::Receiver<TicketKeys> {
    let keys = TicketKeys { current: TicketKey(Secret::new([7; 32])), previous: None };
    let (sender, seen) = tokio::sync::watch::channel(keys);
    // For the life of the test program: a closed channel would end the link.
    std::mem::forget(sender);
    seen
}

/// Numbers that a script wrote, one a line.
pub fn pids(file: &std::path::Path) -> Vec<i32> {
    std::fs::read_to_string(file).unwrap_or_default().lines().filter_map(|line| line.trim().parse().ok()).collect()
}

#[test]
fn a_whole_plan_travels_over_the_link_as_it_is() {
    use crate::ipc::{
        codec::{Decoder, encode},
        message::{Config, Generation, Materials, ToEdge},
    };
    let mut plan = plan();
    plan.sites = vec![site(SiteTls::Internal)];
    plan.trusted_proxies = vec!["10.0.0.0/8".parse().expect("valid"), "fd00::/8".parse().expect("valid")];
    plan.listen.https = vec!["[::]:443".parse().expect("valid")];
    let config = Config { generation: Generation(7), plan, listeners: Vec::new(), materials: Materials::default() };
    let message = ToEdge::Apply(Box::new(config));
    let mut decoder = Decoder::new();
    decoder.push(&encode(&message, 3).expect("has a wire form"));
    assert_eq!(decoder.pop::<ToEdge>().expect("good"), Some((message, 3)));
}
