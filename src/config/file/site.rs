//! `[[site]]` and its routes, as they may be written.

use crate::config::{
    shape::{Either, List, Named, OneOrMore, OrOff, table, words},
    tree::Text,
    value::{AskUrl, DoorUrl, FilePath, Hosts, Net, Origins, Peer, Size, Status, Time},
};

words! {
    TlsWord { Acme = "acme", Internal = "internal", Off = "off", }
}

table! {
    /// A certificate of your own, { cert, key } or { dir }, or one by ACME for each name that is asked for, { on_demand }.
    TlsTable {
        /// PEM, the whole chain.
        cert: FilePath,
        /// PEM.
        key: FilePath,
        /// Pairs NAME.pem and NAME.key; the one that fits the asked name is served.
        dir: FilePath,
        /// An http URL, asked with ?domain=NAME before a certificate is ordered; 200 allows it. Every host is "_" or a wildcard.
        on_demand: AskUrl,
    }
}

words! {
    HeadersWord { Standard = "standard", Strict = "strict", Off = "off", }
}

words! {
    FilterWord {
        BadUri = "bad-uri", BadMethod = "bad-method", ScannerUa = "scanner-ua",
        Traversal = "traversal", DotFile = "dot-file", Extension = "extension", Probe = "probe", Sql = "sql", Xss = "xss", Command = "command",
        Template = "template", Code = "code", Inclusion = "inclusion", Splitting = "splitting",
    }
}

words! {
    FilterMode { Off = "off", Observe = "observe", Certain = "certain", Enforce = "enforce", }
}

words! {
    FilterSet { Balanced = "balanced", Strict = "strict", Observe = "observe", Off = "off", }
}

table! {
    /// What each filter does. One that is not named does what `base` does; a family is as bad-uri is, if that is named. "certain" refuses what nobody honest sends and observes what is only likely to be an attack.
    FilterTable {
        /// The set that the table is laid over. Default: balanced.
        base: FilterSet,
        /// All of the families below, in the target and in header fields.
        bad_uri = "bad-uri": FilterMode,
        /// TRACE, CONNECT and unknown methods.
        bad_method = "bad-method": FilterMode,
        /// Well-known scanners.
        scanner_ua = "scanner-ua": FilterMode,
        /// Ways up in the path.
        traversal: FilterMode,
        /// Hidden and backup files.
        dot_file = "dot-file": FilterMode,
        /// Programs of other kinds of servers: .php, .asp, .jsp, cgi-bin. A route's `extensions` pass.
        extension: FilterMode,
        /// Paths that are asked for to learn whether a certain program, appliance or leftover is there; WordPress and phpMyAdmin where `extensions` has "php" pass.
        probe: FilterMode,
        /// SQL injection, document stores and directories included.
        sql: FilterMode,
        /// Script, and markup that runs or loads.
        xss: FilterMode,
        /// Commands of shells.
        command: FilterMode,
        /// Expressions of template engines; JNDI lookups.
        template: FilterMode,
        /// Code and objects of PHP, Java, Python, Node.
        code: FilterMode,
        /// Files and schemes in parameters.
        inclusion: FilterMode,
        /// Line ends that would begin a header; zero bytes.
        splitting: FilterMode,
        /// What a hit of `patterns` does. Default: enforce.
        own: FilterMode,
        /// Regular expressions of your own for the target: path and query, decoded and in lower case.
        patterns: OneOrMore<Text>,
        /// Whether the families look at all header fields (true) or at none. Default, where the base is balanced: at those that no browser sends by itself, the others only for look-ups.
        headers: bool,
        /// So much of a form (urlencoded or multipart) or of JSON is looked at as well, before the app gets any of it; what is compressed passes unseen. At most 1MB. Default: none.
        body: Size,
    }
}

table! {
    /// What a request of a site or a route may cost.
    RequestLimits {
        /// More is answered 413. Default: that of [limits].
        body: Size,
        /// So much of a body is there before a process is chosen; "off" for streams. Default: that of [limits].
        buffer: OrOff<Size>,
    }
}

table! {
    /// What one set of host names serves.
    Site {
        /// The first is canonical, the others redirect to it; "*.example.com"; "_" is any other name.
        host: OneOrMore<Hosts>,
        /// Served, not redirected.
        aliases: OneOrMore<Hosts>,
        /// "acme" (a certificate from [tls] ca), "internal" (own CA, for development), "off", { cert, key }, { dir } or { on_demand }. Default: acme.
        tls: Either<TlsWord, TlsTable>,
        /// PEM of the authorities, one of which must have signed the certificate that a client shows. Default: clients show none.
        client_ca: FilePath,
        /// "standard" (breaks no honest site), "strict", "off", or a table laid over one of them: { base = "strict", … }, without base over standard; a value of "" removes. Default: standard.
        headers: Either<HeadersWord, Named<Text>>,
        /// "balanced" refuses what nobody honest sends and observes what is likely an attack; "strict" refuses both, and other servers' extensions, probes, unusual methods and scanners; "observe"; "off"; a list names what is enforced, everything else is off; a table is laid over a set. Default: balanced.
        filters: Either<FilterSet, Either<List<FilterWord>, FilterTable>>,
        /// Every zone that must admit a request.
        zone: OneOrMore<Text>,
        /// What a client has to prove before it is answered: { basic } asks for a name and a password, { forward } asks another server.
        auth: OrOff<Auth>,
        /// Whose pages may read the answers: a list of origins, or a table. Default: what the app says.
        cors: OrOff<Either<OneOrMore<Origins>, Cors>>,
        /// Everyone else gets 403.
        allow: OneOrMore<Net>,
        /// These get 403; wins over allow.
        deny: OneOrMore<Net>,
        /// Own extensions that the bad-uri filter lets pass, as in ["php"].
        extensions: OneOrMore<Text>,
        limits: RequestLimits,
        /// Not supported yet.
        compress: bool,
        /// A page in place of the site.
        maintenance: Maintenance,
        /// Not supported yet.
        errors: Named<FilePath>,
        /// Short for one route "/".
        app: Text,
        /// Short for one route "/".
        upstream: Text,
        /// Not supported yet.
        root: FilePath,
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
        zone: OneOrMore<Text>,
        /// Any other is answered 405.
        methods: List<Text>,
        /// Set on the way to the upstream; "" removes.
        request_headers: Named<Text>,
        /// Set on the answer; "" removes. Wins over what the app sends.
        response_headers: Named<Text>,
        redirect: Either<Text, Redirect>,
        respond: Either<Text, Respond>,
        limits: RequestLimits,
        /// Instead of the site's.
        filters: Either<FilterSet, Either<List<FilterWord>, FilterTable>>,
        /// Instead of the site's.
        allow: OneOrMore<Net>,
        /// Instead of the site's.
        deny: OneOrMore<Net>,
        /// Instead of the site's: own extensions that the bad-uri filter lets pass here, as in ["php"]; [] lets none pass.
        extensions: OneOrMore<Text>,
        /// Instead of the site's; "off" lets everyone in.
        auth: OrOff<Auth>,
        /// Instead of the site's; "off" leaves it to the app.
        cors: OrOff<Either<OneOrMore<Origins>, Cors>>,
        /// Not supported yet.
        compress: bool,
        /// Not supported yet.
        root: FilePath,
        /// Not supported yet.
        cache: Text,
        /// Not supported yet.
        fastcgi: Peer,
        /// Not supported yet.
        try_ = "try": List<Text>,
        /// Not supported yet.
        errors: Named<FilePath>,
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

table! {
    /// Who may come in.
    Auth {
        /// An htpasswd file: bcrypt (`htpasswd -B`), argon2, SHA-crypt, {SHA} or {SSHA}. Read at the start and at each reload.
        basic: FilePath,
        /// What a browser shows where it asks for the password. Default: Restricted.
        realm: Text,
        /// Who is asked instead: a GET with the request's headers; 2xx lets the client in, any other answer goes to the client. Silence refuses.
        forward: DoorUrl,
        /// Headers of that answer that the app gets, as in ["Remote-User"]; what a client sends by these names is taken away.
        headers: OneOrMore<Text>,
        /// How long the answer may take. Default: 5s.
        timeout: Time,
    }
}

table! {
    /// Whose pages may read the answers, and what they may ask.
    Cors {
        /// As in ["https://app.example.com", "https://*.example.com"]; "*" is everyone, without credentials.
        origins: OneOrMore<Origins>,
        /// Default: GET, HEAD, POST, PUT, PATCH, DELETE.
        methods: List<Text>,
        /// That a page may send beside the harmless ones. Default: those that it asks for.
        headers: OneOrMore<Text>,
        /// Whether cookies and passwords may come along. Default: false.
        credentials: bool,
        /// How long a browser may remember that. Default: 10m.
        max_age: Time,
        /// That a page may read beside the harmless ones. Default: none.
        expose: OneOrMore<Text>,
    }
}

table! {
    /// A page in place of the site, for everyone but those who know a word.
    Maintenance {
        /// Whether it is shown; `gateway maintenance SITE on|off` says otherwise until this is changed. Default: false.
        on: bool,
        /// HTML of at most 256KB, without files of its own. Default: our page.
        page: FilePath,
        /// Who opens any address with ?gateway-maintenance=SECRET gets a cookie and sees the site. Default: nobody does.
        secret: Text,
        /// When clients are told to come again. Default: 60s.
        retry_after: Time,
    }
}
