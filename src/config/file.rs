//! Every table of `gateway.toml`, as it may be written.
//!
//! Pure. What stands here may still be wrong as a whole; `compile` decides. One list of keys serves the reader and `gateway config schema`.
//! A key of the contract whose function is not built yet has its shape here too, says so, and is refused by `compile`.

mod app;
mod site;
mod upstream;

pub use app::*;
pub use site::*;
pub use upstream::*;

use super::{
    shape::{Either, List, Named, OneOrMore, OrOff, Whole, table, words},
    tree::Text,
    value::{Address, CaName, DirectoryUrl, EabKey, FilePath, Mail, Net, Pause, Profile, Rate, Size, Status, Time},
};

table! {
    /// gateway.toml: what is served, guarded and supervised.
    Root {
        /// Where a certificate authority may write to, should a certificate be in danger.
        email: Mail,
        /// More files, by path or glob, relative to the file that names them. Tables merge, arrays of tables append, a name defined twice is an error.
        include: OneOrMore<Text>,
        /// Certificates, account key, releases; kept 0700. Default: /var/lib/gateway when root, else ./gateway-state.
        state: FilePath,
        /// Control socket and app sockets. Default: /run/gateway when root, else STATE/run.
        run: FilePath,
        /// The user that the edge becomes when started as root. Default: nobody.
        user: Text,
        /// Edge threads, one runtime each; "auto" is one a core.
        workers: Either<Auto, Whole<1, 128>>,
        /// Whose X-Forwarded-For, X-Forwarded-Proto and PROXY header is believed: the rightmost untrusted hop is the client, and https there is https here.
        trusted_proxies: OneOrMore<Net>,
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
        alerts: Alerts,
        /// Supervised programs, by name.
        app: Named<App>,
        /// Servers that someone else runs, by name.
        upstream: Named<Upstream>,
        /// Rate limits, by name.
        zone: Named<Zone>,
        /// Clients that misbehave are shut out: by points for what they do, for a time. Without this table only those are that `gateway ban` names.
        ban: Ban,
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
        http: OneOrMore<Address>,
        /// Default: 0.0.0.0:443 and [::]:443.
        https: OneOrMore<Address>,
        /// PROXY protocol v1 and v2, from trusted_proxies only. Default: false.
        proxy_protocol: bool,
        /// Over all listeners. Default: 10000.
        max_connections: Whole<1, 10_000_000>,
        /// Of one address (IPv6: of one /64), not for trusted_proxies. Default: 256, and none for loopback, from where a tunnel on this machine brings everybody's.
        max_connections_per_ip: Whole<1, 10_000_000>,
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
        /// Request line and headers. Default: 32KB.
        headers: Size,
        /// Default: 128; the parser knows no more than 256. Cookies that HTTP/2 brings in pieces are one.
        header_count: Whole<1, 256>,
        /// Default: 8KB; the parser knows no more than 60KB.
        uri: Size,
        /// Request body; more is answered 413. Sites and routes may have their own. It is streamed. Default: 100MB.
        body: Size,
        /// So much of a request's body is there before a process is chosen, so that a slow upload occupies none: a body up to it is whole by then, a larger one streams on from there. At most 64KB; "off": nothing is held back. Sites and routes may have their own. gRPC and tunnels never wait. Default: 64KB.
        buffer: OrOff<Size>,
        /// Of all bodies held back so, in memory; of one client (IPv6: one /64) an eighth of it, but at least one body. When it is full, newcomers get 503 and the slowest 408. Default: a sixteenth of the machine's memory, at least 16MB, at most 256MB.
        buffers: Size,
        /// Concurrent HTTP/2 streams a connection. Default: 100.
        streams: Whole<1, 10_000>,
        /// HTTP/2 resets by a client before its connection is closed. Default: 100r/10s.
        resets: Rate,
        /// Header fields with an underscore in their names, which CGI, WSGI and PHP apps cannot tell from those with a hyphen: "drop", or "pass" but for those that read as a field that the gateway sets, or as another one of the request. Default: drop.
        underscores: UnderscoresWord,
    }
}

words! {
    UnderscoresWord { Drop = "drop", Pass = "pass", }
}

words! {
    MinTls { V1_2 = "1.2", V1_3 = "1.3", }
}

table! {
    /// TLS towards clients.
    Tls {
        /// The oldest version spoken. Default: 1.2.
        min: MinTls,
        /// Certificate authorities, in the order in which they are tried. Default: letsencrypt.
        ca: OneOrMore<Either<CaWord, Ca>>,
        /// How a name is proven to be ours, in the order in which it is tried. Default: tls-alpn-01, http-01. dns-01 is refused for now.
        challenges: List<Challenge>,
        /// Asked for where the authority offers it, as in "tlsserver" or "shortlived".
        profile: Profile,
    }
}

words! {
    CaWord { LetsEncrypt = "letsencrypt", LetsEncryptStaging = "letsencrypt-staging", ZeroSsl = "zerossl", }
}

table! {
    /// A certificate authority by its ACME directory.
    Ca {
        /// For status and logs. Default: the host of its directory.
        name: CaName,
        /// An https URL.
        directory: DirectoryUrl,
        /// Another directory of it, where failed validations are rehearsed until they pass.
        staging: DirectoryUrl,
        /// PEM of the root that the certificate of the directory itself leads to. Default: the public ones.
        root: FilePath,
        /// External account binding: the key's name. With eab_key.
        eab_kid: Text,
        /// External account binding: the key, base64url as the authority gives it.
        eab_key: EabKey,
    }
}

words! {
    Challenge { TlsAlpn01 = "tls-alpn-01", Http01 = "http-01", Dns01 = "dns-01", }
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
    /// A limit of requests, in nginx's words: `rate`, `concurrent` or both.
    Zone {
        /// What is counted apart: "ip" (v6 by /64), "header:NAME", "cookie:NAME", "query:NAME", "path" (normalised, without the query), "site", or a list of them, which is one key. Missing, empty or given twice falls back to ip. Default: ip.
        key: OneOrMore<Text>,
        /// A pace, as in "10r/s".
        rate: Rate,
        /// Requests admitted beyond the rate. Default: 0.
        burst: Whole<0, 1_000_000>,
        /// Requests within burst go on at once; false: each waits until it is within the rate, at most 1000 of a zone. Default: true.
        nodelay: bool,
        /// So many requests of the burst go on at once, the others wait for their turn.
        delay: Whole<0, 1_000_000>,
        /// Requests of a key at once, from their first byte to the end of the answer; a tunnel counts until it is closed.
        concurrent: Whole<1, 10_000_000>,
        /// Default: 429.
        status: Status<400, 599>,
        /// Only answers with these statuses spend, as in [401, 403]. A request is let in while something is left, and spends when its answer is there; while the rest is taken by requests that are not answered yet, others wait, up to 10s.
        count: List<Status<100, 599>>,
        /// "observe": counts what would be refused, and lets it pass. Default: enforce.
        mode: Mode,
        /// Says what is left on every answer: "draft" is RateLimit-Policy and RateLimit, "legacy" is X-RateLimit-Limit, -Remaining and -Reset (seconds until all is back). Default: neither; Retry-After is always sent.
        headers: RateHeaders,
        /// Keys kept apart at most; beyond, new ones share cells, each never beyond its own budget. Default: 100000.
        max_keys: Whole<16, 100_000_000>,
    }
}

words! {
    Mode { Enforce = "enforce", Observe = "observe", }
}

words! {
    RateHeaders { Draft = "draft", Legacy = "legacy", }
}

table! {
    /// Events, pushed as JSON. Not supported yet.
    Alerts {
        /// Not supported yet.
        webhooks: List<Webhook>,
    }
}

table! {
    /// Where an event goes. Not supported yet.
    Webhook {
        url: Text,
        kind: WebhookKind,
        on: List<Event>,
    }
}

words! {
    WebhookKind { Json = "json", Slack = "slack", Teams = "teams", }
}

words! {
    Event { App = "app", Upstream = "upstream", Certificate = "certificate", Errors = "errors", Latency = "latency", Ban = "ban", }
}

table! {
    /// Clients that misbehave are shut out: who collects `max` points within `find_time` gets 403 for `ban_time`, and new TLS connections are closed at once.
    Ban {
        /// What counts how much: a refusal by a filter ("bad-uri", "bad-method", "scanner-ua"), what a filter only observes ("observed"), a path that scanners ask for
        /// and that was not there ("probe"), a refusal by a zone ("zone"), one after fifty others without a good answer between them ("zone-row"), a failed login
        /// ("auth"), or the status of an answer ("404", or "4xx" and "5xx" for those without points of their own). 404, 410 and probe count once for each path; a 401
        /// for a request without credentials counts nothing. A request counts once, by the dearest.
        /// Default: bad-uri = 3, probe = 2, auth = 1, zone-row = 1.
        points: Named<Whole<0, 10_000>>,
        /// Good answers raise it up to threefold, but not for what a filter refuses. Default: 10.
        max: Whole<1, 10_000>,
        /// Points older than this count no more, to a sixteenth of it. Default: 10m.
        find_time: Time,
        /// Default: 1h.
        ban_time: Time,
        /// Twice as long each time, up to 7d; a ban is forgotten 7d after its end. Default: true.
        grow: bool,
        /// Addresses and networks that are never banned; nor are trusted_proxies. Default: none.
        ignore: OneOrMore<Net>,
        /// "observe" counts and lists, and lets pass; bans by hand hold all the same. Default: enforce.
        mode: Mode,
    }
}
