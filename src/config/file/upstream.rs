//! `[upstream.NAME]`, as it may be written.

use crate::config::{
    shape::{Either, List, OneOrMore, Whole, table, words},
    tree::Text,
    value::{FilePath, Peer, ProbePath, Status, Time},
};

table! {
    /// Servers that someone else runs.
    Upstream {
        servers: OneOrMore<Either<Peer, Server>>,
        /// Default: round_robin.
        balance: Either<BalanceWord, BalanceTable>,
        /// Not supported yet.
        sticky: Sticky,
        /// Active probes; a new server is down until it passes once.
        health: Either<ProbePath, Health>,
        /// Out of rotation for a time after failures of real requests; never the last server.
        passive: Passive,
        retry: Retry,
        timeouts: UpstreamTimeouts,
        /// Not supported yet.
        slow_start: Time,
        /// Not supported yet.
        tls: UpstreamTls,
        /// "2" is h2c with prior knowledge. Default: 1.
        http: HttpWord,
    }
}

table! {
    /// A server of an upstream.
    Server {
        addr: Peer,
        /// Default: 1.
        weight: Whole<1, 1000>,
        /// Used only while no other server is up.
        backup: bool,
        /// Connections at once.
        max_conns: Whole<1, 10_000_000>,
    }
}

table! {
    /// Probes.
    Health {
        /// 2xx or 3xx on this path, unless `expect` says otherwise.
        path: ProbePath,
        /// The Host header of the probe. Default: the server's address.
        host: Text,
        /// Default: 10s.
        interval: Time,
        /// Default: 5s.
        timeout: Time,
        /// Failures in a row that take a server out. Default: 3.
        fail: Whole<1, 1000>,
        /// Passes in a row that bring it back. Default: 2.
        pass: Whole<1, 1000>,
        /// Statuses that pass, as in "200", "200-299" or "200,301-308". Default: 200-399.
        expect: Either<Text, Status<100, 599>>,
        /// Default: http.
        kind = "type": ProbeWord,
    }
}

words! {
    ProbeWord { Http = "http", Tcp = "tcp", Grpc = "grpc", }
}

words! {
    BalanceWord { RoundRobin = "round_robin", LeastConn = "least_conn", P2c = "p2c", Hash = "hash", Random = "random", }
}

table! {
    /// Not supported yet.
    BalanceTable {
        /// Not supported yet.
        hash: Hash,
    }
}

table! {
    /// Out of rotation `for` a time after `fails` failures in a row `within` a time.
    Passive {
        /// Default: 3.
        fails: Whole<1, 1000>,
        /// Default: 10s.
        within: Time,
        /// Default: 10s.
        eject = "for": Time,
    }
}

table! {
    /// Never a request that may have had effect, unless its method is idempotent.
    Retry {
        /// Servers tried in all; 1 is no retry. Default: 2.
        tries: Whole<1, 10>,
        /// "connect", "timeout", or a status from "500" to "599". Default: connect, timeout, 502, 503, 504.
        on: List<Text>,
        /// Retries may be this share of requests. Default: 0.2.
        budget: f64,
    }
}

table! {
    /// How requests travel to a server.
    UpstreamTimeouts {
        /// Default: 5s.
        connect: Time,
        /// For the whole head of the answer, interim ones before it included; then between two reads. Default: 60s.
        read: Time,
        /// Between two writes of the request. Default: 30s.
        send: Time,
        /// Keep-alive without a request; shorter than the server's own. Default: 4s.
        idle: Time,
    }
}

words! {
    HttpWord { V1 = "1", V2 = "2", Auto = "auto", }
}

table! {
    /// What the server is chosen by. Not supported yet.
    Hash {
        /// "ip", "header:X", "cookie:X" or "uri".
        key: Text,
    }
}

table! {
    /// A client stays with its server. Not supported yet.
    Sticky {
        cookie: Text,
        ttl: Time,
    }
}

table! {
    /// TLS towards the servers. Not supported yet.
    UpstreamTls {
        sni: Text,
        ca: FilePath,
        cert: FilePath,
        key: FilePath,
        verify: bool,
    }
}
