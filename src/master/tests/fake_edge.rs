//! An edge that is this test binary, run again: it speaks the link's language and has the vice that it is told.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    ipc::{
        fds,
        link::Link,
        message::{Build, Drain, Health, Query, ToEdge, ToMaster, WarmUp},
    },
    master::edge_link::Program,
};

const VICE: &str = "GATEWAY_TEST_EDGE";

/// `good`, or a vice.
pub fn program(vice: &str) -> Program {
    let exe = std::env::current_exe().expect("us");
    let argv = vec![exe.into(), "master::tests::fake_edge::act".into(), "--exact".into(), "--nocapture".into()];
    Program { argv, env: BTreeMap::from([(VICE.into(), vice.into())]) }
}

/// Not a test of its own: the edge of others.
#[test]
fn act() {
    let Ok(vice) = std::env::var(VICE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(play(&vice));
    std::process::exit(0);
}

async fn play(vice: &str) {
    if vice == "exits" {
        std::process::exit(3);
    }
    let link = fds::inherited(3).expect("the link");
    let access = fds::inherited(4).expect("the access log");
    let (mut to_master, mut from_master) = Link::<ToMaster, ToEdge>::from_std(link.into()).expect("link").split();
    let build = if vice == "foreign" { Build("other".into()) } else { Build::this() };
    to_master.send(&ToMaster::Hello { build }, &[]).await.expect("sent");
    let mut alive = tokio::time::interval(Duration::from_millis(200));
    let mut held = Vec::new();
    eprintln!("<6>fake edge speaks");
    std::io::Write::write_all(&mut std::fs::File::from(access), b"fake edge was here\n").expect("written");
    loop {
        tokio::select! {
            _ = alive.tick(), if vice != "silent" => {
                to_master.send(&ToMaster::Alive { connections: 1, in_flight: 0 }, &[]).await.expect("sent");
            }
            message = from_master.receive() => {
                let Ok(Some((message, descriptors))) = message else { return };
                held.extend(descriptors);
                let answer = match message {
                    ToEdge::Hello { config, .. } => {
                        let expected: usize = config.listeners.iter().map(|l| usize::from(l.descriptors)).sum();
                        assert_eq!(held.len(), expected);
                        (vice != "never-ready" && config.plan.user != "bad").then_some(ToMaster::Ready { generation: config.generation })
                    }
                    ToEdge::Apply(config) if config.plan.user == "bad" => {
                        Some(ToMaster::Refused { generation: config.generation, reason: "bad user".into() })
                    }
                    ToEdge::Apply(config) if config.plan.user == "deadly" => panic!("{}", config.plan.user),
                    ToEdge::Apply(config) => Some(ToMaster::Applied { generation: config.generation }),
                    // Every instance that starts is ready at once.
                    ToEdge::Apps(table) => {
                        for row in table.instances.into_iter().filter(|row| row.pid.is_some() && row.addr.is_some()) {
                            let health = ToMaster::Health { id: row.id, incarnation: row.incarnation, health: Health::Ready };
                            to_master.send(&health, &[]).await.expect("sent");
                        }
                        None
                    }
                    ToEdge::Drain(drains) => {
                        for Drain { id, incarnation, .. } in drains.into_iter().filter(|_| vice != "never-drained") {
                            to_master.send(&ToMaster::Drained { id, incarnation, in_flight: 0 }, &[]).await.expect("sent");
                        }
                        None
                    }
                    ToEdge::Ask { ask, query: Query::Renew(host) } => {
                        let json = serde_json::json!({ "error": format!("nothing renews {}", host.as_str()) }).to_string();
                        Some(ToMaster::Answer { ask, json })
                    }
                    ToEdge::Ask { ask, query } => Some(ToMaster::Answer { ask, json: format!("{{\"asked\":\"{query:?}\"}}") }),
                    ToEdge::Warm(warm_ups) => {
                        for WarmUp { id, incarnation, .. } in warm_ups {
                            to_master.send(&ToMaster::Warmed { id, incarnation, result: Ok(()) }, &[]).await.expect("sent");
                        }
                        None
                    }
                    ToEdge::AccessLost(_) | ToEdge::Materials(_) | ToEdge::Tickets(_) | ToEdge::ReloadRefused => None,
                    ToEdge::Shutdown { .. } if vice == "stubborn" => None,
                    ToEdge::Shutdown { .. } => return,
                };
                if let Some(answer) = answer {
                    to_master.send(&answer, &[]).await.expect("sent");
                }
            }
        }
    }
}
