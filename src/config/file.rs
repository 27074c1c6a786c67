//! Every table of `gateway.toml`, as it may be written.
//!
//! Pure. What stands here may still be wrong as a whole; `compile` decides. One list of keys serves the reader and `gateway config schema`.
//! A key of the contract whose function is not built yet has its shape here too, says so, and is refused by `compile`.

use super::{
    shape::{Anything, Either, List, Named, OrOff, Some1, Whole, table, words},
    tree::Text,
    value::{Address, FilePath, Hosts, Net, Pattern, Pause, Peer, ProbePath, Rate, Size, Status, Time},
};

table! {
    /// gateway.toml: what is served, guarded and supervised.
    Root {
        /// ACME contact. Not supported yet.
        email: Text,
        /// More files, by path or glob, relative to the file that names them. Tables merge, arrays of tables append, a name defined twice is an error.
        include: Some1<Text>,
        /// Certificates, account key, releases; kept 0700. Default: /var/lib/gateway when root, else ./gateway-state.
        state: FilePath,
        /// Control socket and app sockets. Default: /run/gateway when root, else STATE/run.
        run: FilePath,
        /// The user that the edge becomes when started as root. Default: nobody.
        user: Text,
        /// Edge threads, one runtime each; "auto" is one a core.
        workers: Either<Auto, Whole<1, 128>>,
        /// Whose X-Forwarded-For and PROXY header is believed: the rightmost untrusted hop is the client.
        trusted_proxies: Some1<Net>,
        /// Where we listen.
        listen: Listen,
        /// Deadlines of every wait on a client.
        timeouts: Timeouts,
        /// What one request or connection may cost.
        limits: Limits,
        /// TLS towards clients.
        tls: Tls,
        /// Status page, JSON API, health endpoints, metrics.
        admin: Admin,
        /// What is written where.
        log: Log,
        /// Webhooks. Not supported yet.
        alerts: Anything,
        /// Supervised programs, by name.
        app: Named<App>,
        /// Servers that someone else runs, by name.
        upstream: Named<Upstream>,
        /// Rate limits, by name.
        zone: Named<Zone>,
        /// Clients that misbehave are shut out. Not supported yet.
        ban: Anything,
        /// Values for the keys that a site does not set itself.
        defaults: Site,
        /// What one set of host names serves.
        site: List<Site>,
    }
}

words! {
    Auto { Auto = "auto", }
}

table! {
    /// Where we listen.
    Listen {
        /// Redirects to https; serves sites with tls = "off". Default: 0.0.0.0:80 and [::]:80.
        http: Some1<Address>,
        /// Default: 0.0.0.0:443 and [::]:443.
        https: Some1<Address>,
        /// PROXY protocol v1 and v2, from trusted_proxies only. Default: false.
        proxy_protocol: bool,
        /// Over all listeners. Default: 10000.
        max_connections: Whole<1, 10_000_000>,
    }
}

table! {
    /// Deadlines of every wait on a client.
    Timeouts {
        /// Request line and headers, in total. Default: 10s.
        header: Time,
        /// Keep-alive without a request. Default: 75s.
        idle: Time,
        /// Between two reads of a request body. Default: 30s.
        body: Time,
        /// Between two writes to a client. Default: 30s.
        send: Time,
        /// In-flight requests and tunnels at reload of a listener, upgrade, shutdown. Default: 30s.
        drain: Pause,
    }
}

table! {
    /// What one request or connection may cost.
    Limits {
        /// Request line and headers. Default: 16KB.
        headers: Size,
        /// Default: 100.
        header_count: Whole<1, 10_000>,
        /// Default: 8KB.
        uri: Size,
        /// Request body; more is answered 413. Sites and routes may have their own. Default: 10MB.
        body: Size,
        /// Concurrent HTTP/2 streams a connection. Default: 100.
        streams: Whole<1, 10_000>,
        /// HTTP/2 resets by a client before its connection is closed. Default: 100r/10s.
        resets: Rate,
    }
}

words! {
    MinTls { V1_2 = "1.2", V1_3 = "1.3", }
}

table! {
    /// TLS towards clients.
    Tls {
        /// The oldest version spoken. Default: 1.2.
        min: MinTls,
        /// Certificate authorities. Not supported yet.
        ca: Anything,
        /// ACME challenges. Not supported yet.
        challenges: Anything,
        /// ACME profile. Not supported yet.
        profile: Anything,
    }
}

table! {
    /// Status page, JSON API, health endpoints, metrics.
    Admin {
        /// An address, or "off" to close. Default: 127.0.0.1:9900.
        listen: OrOff<Address>,
        /// Required on any address that is not loopback.
        token: Text,
    }
}

words! {
    Level { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace", }
}

words! {
    LogFormat { Text = "text", Json = "json", }
}

words! {
    AccessWord { Json = "json", Combined = "combined", Off = "off", }
}

words! {
    AccessFormat { Json = "json", Combined = "combined", }
}

table! {
    /// What is written where.
    Log {
        /// Default: info.
        level: Level,
        /// Default: text.
        format: LogFormat,
        /// Holds gateway.log, error.log, access.log and APP.log; without it our own log goes to stderr.
        dir: FilePath,
        /// A line a request. Default: JSON where `dir` is set, else off.
        access: Either<AccessWord, Access>,
        /// When a file is put aside.
        rotate: Rotate,
    }
}

table! {
    /// A line a request.
    Access {
        /// "combined" is as nginx writes it. Default: json.
        format: AccessFormat,
        /// Share of requests that are logged; answers of 500 and above always are. Default: 1.0.
        sample: f64,
    }
}

table! {
    /// When a log file is put aside: at `size` or at `age`, whichever comes first.
    Rotate {
        /// Default: 50MB.
        size: Size,
        /// "off": by size alone. Default: 1d.
        age: OrOff<Time>,
        /// Files kept. Default: 10.
        keep: Whole<1, 10_000>,
        /// Default: true.
        compress: bool,
    }
}

table! {
    /// A supervised program. Its name is an upstream too, if it has a port or socket.
    App {
        /// Program and arguments, as a shell splits them, or as a list. {socket} {port} {n} are filled in for each instance; {exe} is the path of gateway itself.
        command: Either<Text, List<Text>>,
        /// Working directory. Default: the directory of the file that names the app.
        dir: FilePath,
        /// Who it runs as.
        user: Text,
        group: Text,
        /// Environment. Wins over env_file.
        env: Named<Text>,
        /// A file of NAME=value lines.
        env_file: FilePath,
        /// Processes. Default: 1.
        procs: Either<Whole<1, 1000>, Scale>,
        /// First port of a fixed range of procs ports. Default: {port} from a private range.
        port: Whole<1, 65_535>,
        /// What proves that a process may serve: { http = "/path" }, { log = "regex" }, { notify = true } or { tcp = true }. Default: tcp where it has a port.
        ready: Either<ProbePath, Ready>,
        /// A process that keeps failing this is restarted.
        live: Either<ProbePath, Live>,
        /// Short for ready.http and live.http.
        health: Either<ProbePath, Health>,
        restart: Either<PolicyWord, Restart>,
        stop: Stop,
        /// How requests travel to it.
        timeouts: UpstreamTimeouts,
        /// Not supported yet.
        recycle: Anything,
        /// Not supported yet.
        hold: Anything,
        /// Not supported yet.
        memory_max: Anything,
        limits: AppLimits,
        /// Not supported yet.
        after: Anything,
        /// Not supported yet.
        schedule: Anything,
        /// Not supported yet.
        before: Anything,
        /// Not supported yet.
        watchdog: Anything,
        log: AppLog,
    }
}

table! {
    /// Processes by load. Not supported yet.
    Scale {
        /// Not supported yet.
        min: Anything,
        /// Not supported yet.
        max: Anything,
        /// Not supported yet.
        queue_time: Anything,
    }
}

table! {
    /// What proves that a process may serve; one of http, log, notify, tcp.
    Ready {
        /// 2xx or 3xx on this path.
        http: ProbePath,
        /// A line of output matches.
        log: Pattern,
        /// READY=1 on NOTIFY_SOCKET.
        notify: bool,
        /// The port or socket accepts.
        tcp: bool,
        /// How long a start may take. Default: 30s.
        timeout: Time,
    }
}

table! {
    /// A process that keeps failing this is restarted, one at a time.
    Live {
        /// 2xx or 3xx on this path.
        http: ProbePath,
        /// Default: 10s.
        interval: Time,
        /// Default: 5s.
        timeout: Time,
        /// Failures in a row. Default: 3.
        fail: Whole<1, 1000>,
        /// Passes in a row. Default: 2.
        pass: Whole<1, 1000>,
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
    PolicyWord { Always = "always", OnFailure = "on-failure", Never = "never", }
}

table! {
    /// What follows an exit that nobody asked for.
    Restart {
        /// Default: always for an app that listens, on-failure for a worker.
        policy: PolicyWord,
        /// The first pause; it doubles. Default: 250ms.
        delay: Time,
        /// The longest pause. Default: 30s.
        max_delay: Time,
        /// Exits of the whole app in a time; when spent, one try a minute. Default: 5/1m.
        budget: Rate,
    }
}

words! {
    Signal { Term = "TERM", Int = "INT", Quit = "QUIT", Hup = "HUP", Usr1 = "USR1", Usr2 = "USR2", Kill = "KILL", }
}

table! {
    /// Out of rotation, wait for requests in flight up to `drain`, `signal`, after `timeout` KILL to the whole group.
    Stop {
        /// Default: TERM.
        signal: Signal,
        /// Default: 20s.
        timeout: Time,
        /// Default: 15s.
        drain: Pause,
    }
}

table! {
    /// Limits of a process.
    AppLimits {
        /// Open files.
        nofile: Whole<16, 10_000_000>,
    }
}

table! {
    /// Output of an app.
    AppLog {
        /// What is not set here is as in [log].
        rotate: Rotate,
    }
}

table! {
    /// Servers that someone else runs.
    Upstream {
        servers: Some1<Either<Peer, Server>>,
        /// Default: round_robin.
        balance: Either<BalanceWord, BalanceTable>,
        /// Not supported yet.
        sticky: Anything,
        /// Active probes; a new server is down until it passes once.
        health: Either<ProbePath, Health>,
        /// Out of rotation for a time after failures of real requests; never the last server.
        passive: Passive,
        retry: Retry,
        timeouts: UpstreamTimeouts,
        /// Not supported yet.
        slow_start: Anything,
        /// Not supported yet.
        tls: Anything,
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

words! {
    BalanceWord { RoundRobin = "round_robin", LeastConn = "least_conn", P2c = "p2c", Hash = "hash", Random = "random", }
}

table! {
    /// Not supported yet.
    BalanceTable {
        /// Not supported yet.
        hash: Anything,
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
        /// Between two reads of the answer; the wait for its first byte too. Default: 60s.
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
    /// A rate limit, in nginx's words.
    Zone {
        /// What is counted apart: "ip" (v6 by /64) or "header:NAME"; empty falls back to ip. Default: ip.
        key: Some1<Text>,
        rate: Rate,
        /// Requests admitted at once beyond the rate. Default: 0.
        burst: Whole<0, 1_000_000>,
        /// Requests within burst do not wait. Default: true. Anything else is not supported yet.
        nodelay: Either<bool, Whole<0, 1_000_000>>,
        /// Not supported yet.
        delay: Anything,
        /// Not supported yet.
        concurrent: Anything,
        /// Default: 429.
        status: Status<400, 599>,
        /// Not supported yet.
        count: Anything,
        /// Not supported yet.
        mode: Anything,
        /// Not supported yet.
        headers: Anything,
        /// Default: 100000.
        max_keys: Whole<16, 100_000_000>,
    }
}

words! {
    TlsWord { Acme = "acme", Internal = "internal", Off = "off", }
}

table! {
    /// A certificate of your own: { cert, key } or { dir }.
    TlsFiles {
        /// PEM, the whole chain.
        cert: FilePath,
        /// PEM.
        key: FilePath,
        /// Pairs NAME.pem and NAME.key; the one that fits the asked name is served.
        dir: FilePath,
    }
}

words! {
    HeadersWord { Strict = "strict", Off = "off", }
}

words! {
    FilterWord { BadUri = "bad-uri", BadMethod = "bad-method", ScannerUa = "scanner-ua", }
}

words! {
    FilterMode { Off = "off", Observe = "observe", Enforce = "enforce", }
}

table! {
    /// What each filter does.
    FilterTable {
        /// Path traversal, hidden files, SQL injection, XSS, foreign extensions.
        bad_uri = "bad-uri": FilterMode,
        /// TRACE, CONNECT and unknown methods.
        bad_method = "bad-method": FilterMode,
        /// Well-known scanners.
        scanner_ua = "scanner-ua": FilterMode,
    }
}

table! {
    /// What a request of a site or a route may cost.
    BodyLimit {
        /// More is answered 413. Default: that of [limits].
        body: Size,
    }
}

table! {
    /// What one set of host names serves.
    Site {
        /// The first is canonical, the others redirect to it; "*.example.com"; "_" is any other name.
        host: Some1<Hosts>,
        /// Served, not redirected.
        aliases: Some1<Hosts>,
        /// "internal" (own CA, for development), "off", { cert, key } or { dir }. "acme", the default, is not supported yet.
        tls: Either<TlsWord, TlsFiles>,
        /// Not supported yet.
        client_ca: Anything,
        /// "strict", "off", or a table laid over the strict set; a value of "" removes. Default: strict.
        headers: Either<HeadersWord, Named<Text>>,
        /// Default: bad-uri.
        filters: Either<List<FilterWord>, FilterTable>,
        /// Every zone that must admit a request.
        zone: Some1<Text>,
        /// Not supported yet.
        auth: Anything,
        /// Everyone else gets 403.
        allow: Some1<Net>,
        /// These get 403; wins over allow.
        deny: Some1<Net>,
        limits: BodyLimit,
        /// Not supported yet.
        compress: Anything,
        /// Not supported yet.
        maintenance: Anything,
        /// Not supported yet.
        errors: Anything,
        /// Short for one route "/".
        app: Text,
        /// Short for one route "/".
        upstream: Text,
        /// Not supported yet.
        root: Anything,
        /// Which requests go where: "/prefix", "= /exact" or "~ regex".
        route: Named<Route>,
    }
}

table! {
    /// Which requests of a site go where, and how they change on the way.
    Route {
        app: Text,
        upstream: Text,
        /// Taken off the path before it goes to the upstream.
        strip: Text,
        /// [pattern, replacement], as in ["^/old/(.*)", "/new/$1"].
        rewrite: List<Text>,
        /// Instead of the site's.
        zone: Some1<Text>,
        /// Any other is answered 405.
        methods: List<Text>,
        /// Set on the way to the upstream; "" removes.
        request_headers: Named<Text>,
        /// Set on the answer; "" removes. Wins over what the app sends.
        response_headers: Named<Text>,
        redirect: Either<Text, Redirect>,
        respond: Either<Text, Respond>,
        limits: BodyLimit,
        /// Instead of the site's.
        filters: Either<List<FilterWord>, FilterTable>,
        /// Instead of the site's.
        allow: Some1<Net>,
        /// Instead of the site's.
        deny: Some1<Net>,
        /// Own extensions that the bad-uri filter lets pass here, as in ["php"].
        extensions: Some1<Text>,
        /// Not supported yet.
        auth: Anything,
        /// Not supported yet.
        compress: Anything,
        /// Not supported yet.
        root: Anything,
        /// Not supported yet.
        cache: Anything,
        /// Not supported yet.
        fastcgi: Anything,
        /// Not supported yet.
        try_ = "try": Anything,
        /// Not supported yet.
        errors: Anything,
    }
}

table! {
    /// An answer that sends the client elsewhere.
    Redirect {
        /// {path} and {query} are filled in.
        to: Text,
        /// Default: 308.
        status: Status<301, 308>,
    }
}

table! {
    /// An answer of our own.
    Respond {
        /// Default: 200.
        status: Status<200, 599>,
        body: Text,
        /// Default: text/plain; charset=utf-8.
        content_type: Text,
    }
}
