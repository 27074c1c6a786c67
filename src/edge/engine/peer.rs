//! Where a try goes, in pingora's terms.

use std::{sync::Arc, time::Duration};

use pingora::{Error, ErrorType, OrErr, Result, upstreams::peer::HttpPeer};

use super::{
    super::{exchange::Exchange, upstream::PeerAddr, warden::Watched},
    tunnel::{Gate, GateConnect},
};
use crate::plan::{UpstreamHttp, UpstreamTimeouts};

/// Concurrent requests on one h2c connection to an upstream.
const STREAMS: usize = 100;

/// Puts the request on the server that was picked for it.
pub fn next(exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
    let pool = exchange.pool().cloned().ok_or_else(|| Error::new(ErrorType::InternalError))?;
    let (upgrade, new_connection) = (exchange.upgrade, exchange.needs_new_connection());
    let watched = if upgrade { exchange.live.sentry.watch(exchange.client) } else { None };
    let cut = watched.as_ref().map(Watched::cut).unwrap_or_default();
    exchange.watched = watched;
    let lease = exchange.begin_try().ok_or_else(|| Error::new(ErrorType::HTTPStatus(503)))?;
    let leave = upgrade.then(|| lease.leave());
    let mut peer = match lease.addr() {
        PeerAddr::Tcp(addr) => HttpPeer::new(*addr, false, String::new()),
        PeerAddr::Unix(path) => {
            let path = path.to_str().ok_or_else(|| Error::explain(ErrorType::ConnectError, "the socket's path is no text"))?;
            HttpPeer::new_uds(path, false, String::new()).or_err(ErrorType::ConnectError, "no socket can have that path")?
        }
    };
    let UpstreamTimeouts { connect, read, send, idle } = *pool.timeouts();
    let mut group = lease.group();
    let options = &mut peer.options;
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.read_timeout = Some(read);
    options.write_timeout = Some(send);
    options.idle_timeout = Some(idle);
    if new_connection {
        group = group.alone(fastrand::u64(..));
        peer.options.idle_timeout = Some(Duration::from_millis(1));
    }
    let options = &mut peer.options;
    match pool.http() {
        UpstreamHttp::V1 => {}
        UpstreamHttp::V2 => {
            options.set_http_version(2, 2);
            options.max_h2_streams = STREAMS;
        }
    }
    if upgrade {
        // The gate keeps the deadlines until the tunnel stands; from there on it may be silent.
        options.read_timeout = None;
        options.set_http_version(1, 1);
        options.custom_l4 = Some(Arc::new(GateConnect { connect, read, gate: Gate::Shut, leave: leave.unwrap_or_default(), cut }));
        group = group.tunnel();
    }
    peer.group_key = group.key();
    Ok(Box::new(peer))
}
