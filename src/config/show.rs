//! `gateway config show`: the effective configuration, with every default and every include filled in.
//!
//! Pure. Shape: it is a configuration itself and compiles to an equal plan, but for secrets, which are masked (`token`, `eab_key`, every value of an `env`).

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use http::Method;
use ipnet::IpNet;

use super::{defaults, value::host_of};
use crate::{
    plan::{self, Action, AppPort, FilterMode, HeaderEdit, HeaderFields, PathMatch, Plan, app::Policy, app::StopSignal},
    vocab::{ByteSize, Secret, ServerAddr, units::duration_text},
};

/// Stands for every secret.
const MASK: &str = "…";
/// Stands for a secret that must have a form: base64, or what may stand in an address.
const MASKED_KEY: &str = "not-shown-------";

/// Keys whose strings are the user's own, and so may hold a secret that came from outside.
const FREE: [&str; 6] = ["command", "before", "before_start", "headers", "request_headers", "response_headers"];
/// Stands for what was filled in: a header holds ASCII only.
const FILLED: &str = "***";
/// A shorter value is no secret, and to look for it would mask half the text.
const SHORTEST: usize = 4;

/// TOML of the whole plan, without what was filled in from outside where that may be a secret: commands and headers.
#[must_use]
pub fn without(plan: &Plan, filled: &[String]) -> String {
    let mut filled: Vec<String> = filled.iter().filter(|value| value.len() >= SHORTEST).map(|value| quote(value)).collect();
    // The longest first: one may hold another.
    filled.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let masked = |line: &str| {
        let (key, value) = line.split_once(" = ").filter(|(key, _)| FREE.contains(key))?;
        let value = filled.iter().fold(value.to_owned(), |value, quoted| value.replace(&quoted[1..quoted.len() - 1], FILLED));
        Some(format!("{key} = {value}"))
    };
    effective(plan).lines().map(|line| masked(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// TOML of the whole plan.
#[must_use]
pub fn effective(plan: &Plan) -> String {
    let Plan {
        files,
        state,
        run,
        user,
        workers,
        trusted_proxies,
        listen,
        timeouts,
        limits,
        tls,
        admin,
        log,
        apps,
        upstreams,
        zones,
        // Of the files that `auth` names.
        users: _,
        ban,
        sites,
    } = plan;
    let mut to = Writer(String::new());
    for file in files {
        to.comment(&format!("from {}", file.display()));
    }
    if let Some(email) = &tls.acme.email {
        to.pair("email", quote(email));
    }
    to.pair("state", path(state));
    to.pair("run", path(run));
    to.pair("user", quote(user));
    to.pair("workers", workers);
    to.pair("trusted_proxies", nets(trusted_proxies));
    self::listen(&mut to, listen, timeouts, limits);
    self::tls(&mut to, tls);
    to.table("[admin]");
    to.pair("listen", quote(&admin.as_ref().map_or("off".into(), |admin| admin.listen.to_string())));
    if admin.as_ref().is_some_and(|admin| admin.token.is_some()) {
        to.pair("token", quote(MASK));
    }
    self::log(&mut to, log);
    for (name, app) in apps {
        to.table(&format!("[app.{}]", key(name.as_str())));
        self::app(&mut to, app);
    }
    for (name, upstream) in upstreams {
        to.table(&format!("[upstream.{}]", key(name.as_str())));
        self::upstream(&mut to, upstream);
    }
    for (name, zone) in zones {
        to.table(&format!("[zone.{}]", key(name.as_str())));
        self::zone(&mut to, zone);
    }
    if let Some(ban) = ban {
        self::ban(&mut to, ban);
    }
    for site in sites {
        self::site(&mut to, site);
    }
    to.0
}

fn listen(to: &mut Writer, listen: &plan::Listen, timeouts: &plan::Timeouts, limits: &plan::Limits) {
    to.table("[listen]");
    let plan::Listen { http, https, proxy_protocol, max_connections, max_connections_per_ip } = listen;
    to.pair("http", quoted(http));
    to.pair("https", quoted(https));
    to.pair("proxy_protocol", proxy_protocol);
    to.pair("max_connections", max_connections);
    if let Some(cap) = max_connections_per_ip {
        to.pair("max_connections_per_ip", cap);
    }
    to.table("[timeouts]");
    let plan::Timeouts { header, idle, body, send, drain } = timeouts;
    for (key, value) in [("header", header), ("idle", idle), ("body", body), ("send", send), ("drain", drain)] {
        to.pair(key, time(*value));
    }
    to.table("[limits]");
    let plan::Limits { headers, header_count, uri, body, buffer, buffers, streams, resets, underscores } = limits;
    to.pair("headers", quote(&headers.to_string()));
    to.pair("header_count", header_count);
    to.pair("uri", quote(&uri.to_string()));
    to.pair("body", quote(&body.to_string()));
    to.pair("buffer", self::buffer(*buffer));
    if let Some(buffers) = buffers {
        to.pair("buffers", quote(&buffers.to_string()));
    }
    to.pair("streams", streams);
    to.pair("resets", quote(&resets.to_string()));
    let underscores = match underscores {
        plan::Underscores::Drop => "drop",
        plan::Underscores::Pass => "pass",
    };
    to.pair("underscores", quote(underscores));
}

fn buffer(buffer: Option<ByteSize>) -> String {
    quote(&buffer.map_or_else(|| "off".into(), |size| size.to_string()))
}

fn tls(to: &mut Writer, tls: &plan::TlsPolicy) {
    let plan::TlsPolicy { min, acme: plan::Acme { email: _, cas, challenges, profile } } = tls;
    to.table("[tls]");
    let min = match min {
        plan::TlsVersion::V1_2 => "1.2",
        plan::TlsVersion::V1_3 => "1.3",
    };
    to.pair("min", quote(min));
    to.pair("ca", list(cas.iter().map(ca)));
    to.pair("challenges", quoted(challenges.iter().map(|challenge| challenge.as_str())));
    if let Some(profile) = profile {
        to.pair("profile", quote(profile));
    }
}

fn ban(to: &mut Writer, ban: &plan::Ban) {
    let plan::Ban { points, max, find_time, ban_time, grow, ignore, mode } = ban;
    to.table("[ban]");
    let points: Vec<_> = points.iter().map(|(offence, points)| (offence.to_string(), points.to_string())).collect();
    to.pair("points", inline(&points.iter().map(|(offence, points)| (offence.as_str(), points.clone())).collect::<Vec<_>>()));
    to.pair("max", max);
    to.pair("find_time", time(*find_time));
    to.pair("ban_time", time(*ban_time));
    to.pair("grow", grow);
    to.pair("ignore", nets(ignore));
    to.pair(
        "mode",
        quote(match mode {
            plan::BanMode::Observe => "observe",
            plan::BanMode::Enforce => "enforce",
        }),
    );
}

fn ca(ca: &plan::Ca) -> String {
    if [defaults::letsencrypt(), defaults::letsencrypt_staging()].contains(ca) {
        return quote(&ca.name);
    }
    let plan::Ca { name, directory, staging, root, eab } = ca;
    let mut pairs = vec![("directory", quote(directory))];
    // A name that is the host is the default, and may have a port, which a written name may not.
    if *name != host_of(directory) {
        pairs.push(("name", quote(name)));
    }
    pairs.extend(staging.as_ref().map(|staging| ("staging", quote(staging))));
    pairs.extend(root.as_ref().map(|root| ("root", path(root))));
    if let Some(plan::Eab { kid, key: _ }) = eab {
        pairs.extend([("eab_kid", quote(kid)), ("eab_key", quote(MASKED_KEY))]);
    }
    inline(&pairs)
}

fn log(to: &mut Writer, log: &plan::Log) {
    let plan::Log { level, format, dir, access, rotate } = log;
    to.table("[log]");
    to.pair(
        "level",
        quote(match level {
            plan::LogLevel::Error => "error",
            plan::LogLevel::Warn => "warn",
            plan::LogLevel::Info => "info",
            plan::LogLevel::Debug => "debug",
            plan::LogLevel::Trace => "trace",
        }),
    );
    to.pair(
        "format",
        quote(match format {
            plan::LogFormat::Text => "text",
            plan::LogFormat::Json => "json",
        }),
    );
    if let Some(dir) = dir {
        to.pair("dir", path(dir));
    }
    match access {
        None => to.pair("access", quote("off")),
        Some(plan::AccessLog { format, sample }) => {
            let format = match format {
                plan::AccessFormat::Json => "json",
                plan::AccessFormat::Combined => "combined",
            };
            to.pair("access", inline(&[("format", quote(format)), ("sample", format!("{sample:?}"))]));
        }
    }
    to.pair("rotate", rotation(rotate));
}

fn rotation(rotate: &plan::Rotation) -> String {
    let plan::Rotation { size, age, keep, compress } = rotate;
    let age = age.map_or_else(|| quote("off"), time);
    inline(&[("size", quote(&size.to_string())), ("age", age), ("keep", keep.to_string()), ("compress", compress.to_string())])
}

fn app(to: &mut Writer, app: &plan::App) {
    let plan::App {
        command,
        dir,
        user,
        group,
        env,
        env_file,
        before_start,
        autostart,
        nice,
        procs,
        port,
        http,
        ready,
        live,
        restart,
        stop,
        limits,
        umask,
        recycle,
        hold,
        memory_max,
        after,
        schedule,
        before,
        watchdog,
        deploy,
        release: _,
        log,
        timeouts,
    } = app;
    to.pair("command", quoted(command));
    if let Some(dir) = dir {
        to.pair("dir", path(dir));
    }
    for (key, value) in [("user", user), ("group", group)] {
        if let Some(value) = value {
            to.pair(key, quote(value));
        }
    }
    environment(to, env, env_file);
    before_start_of(to, before_start, schedule.is_some());
    if !autostart {
        to.pair("autostart", autostart);
    }
    if let Some(nice) = nice {
        to.pair("nice", nice);
    }
    to.pair("procs", procs);
    if *http == plan::UpstreamHttp::V2 {
        to.pair("http", quote("2"));
    }
    // {port} and {socket} stand in the command or in `env`, or a site names the app.
    if let AppPort::Fixed { first } = port {
        to.pair("port", first);
    }
    let proof = match ready {
        plan::Ready::Http { path, .. } => Some(("http", quote(path))),
        plan::Ready::Tcp { .. } => Some(("tcp", "true".into())),
        plan::Ready::Log { pattern, .. } => Some(("log", quote(pattern))),
        plan::Ready::Notify { .. } => Some(("notify", "true".into())),
        plan::Ready::Started => None,
    };
    if let (Some((key, value)), Some(timeout)) = (proof, ready.timeout()) {
        let mut parts = vec![(key, value), ("timeout", time(timeout))];
        if let plan::Ready::Http { host: Some(host), .. } = ready {
            parts.push(("host", quote(host)));
        }
        to.pair("ready", inline(&parts));
    }
    if let Some(plan::Live { path, host, interval, timeout, fail, pass }) = live {
        let (interval, timeout) = (time(*interval), time(*timeout));
        let (fail, pass) = (fail.to_string(), pass.to_string());
        let mut parts = vec![("http", quote(path)), ("interval", interval), ("timeout", timeout), ("fail", fail), ("pass", pass)];
        parts.extend(host.as_ref().map(|host| ("host", quote(host))));
        to.pair("live", inline(&parts));
    }
    let plan::RestartPolicy { policy, delay, max_delay, budget, success, give_up } = restart;
    let policy = match policy {
        Policy::Always => "always",
        Policy::OnFailure => "on-failure",
        Policy::Never => "never",
    };
    let (delay, max_delay) = (time(*delay), time(*max_delay));
    let success = ("success", format!("{success:?}"));
    // A job is not started again, and its block may not speak of it.
    let again = match schedule {
        Some(_) => vec![success],
        None => vec![
            ("policy", quote(policy)),
            ("delay", delay),
            ("max_delay", max_delay),
            ("budget", quote(&budget.to_string())),
            success,
            ("give_up", format!("{give_up:?}")),
        ],
    };
    to.pair("restart", inline(&again));
    let plan::Stop { signal, timeout, drain } = stop;
    let signal = match signal {
        StopSignal::Term => "TERM",
        StopSignal::Int => "INT",
        StopSignal::Quit => "QUIT",
        StopSignal::Hup => "HUP",
        StopSignal::Usr1 => "USR1",
        StopSignal::Usr2 => "USR2",
        StopSignal::Winch => "WINCH",
        StopSignal::Kill => "KILL",
    };
    to.pair("stop", inline(&[("signal", quote(signal)), ("timeout", time(*timeout)), ("drain", time(*drain))]));
    app_limits(to, limits);
    if let Some(bits) = umask {
        to.pair("umask", quote(&format!("{bits:03o}")));
    }
    let plan::Recycle { requests, age, memory } = recycle;
    let recycle = [
        ("requests", requests.map(|n| n.to_string())),
        ("age", age.map(time)),
        ("memory", memory.map(|bytes| quote(&ByteSize(bytes).to_string()))),
    ];
    some(to, "recycle", &recycle);
    match hold {
        Some(plan::Hold { time: longest, requests, bytes }) => {
            let bytes = quote(&ByteSize(*bytes).to_string());
            to.pair("hold", inline(&[("time", time(*longest)), ("requests", requests.to_string()), ("bytes", bytes)]));
        }
        None if *port == AppPort::None => {}
        None => to.pair("hold", quote("off")),
    }
    if let Some(bytes) = memory_max {
        to.pair("memory_max", quote(&ByteSize(*bytes).to_string()));
    }
    if !after.is_empty() {
        to.pair("after", quoted(after));
    }
    if let Some(plan::Schedule { cron, zone, timeout }) = schedule {
        let parts = [("cron", Some(quote(cron))), ("zone", zone.as_ref().map(|zone| quote(zone))), ("timeout", timeout.map(time))];
        some(to, "schedule", &parts);
    }
    if !before.is_empty() {
        let lines = before.iter().map(|words| shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default());
        to.pair("before", quoted(lines.collect::<Vec<_>>().iter()));
    }
    if let Some(within) = watchdog {
        to.pair("watchdog", time(*within));
    }
    let plan::DeployPolicy { warm, guard, errors, before_timeout } = deploy;
    let errors = format!("{errors:?}");
    let mut parts = vec![("guard", time(*guard)), ("errors", errors), ("before_timeout", time(*before_timeout))];
    if !warm.is_empty() {
        parts.push(("warm", quoted(warm)));
    }
    if schedule.is_none() {
        to.pair("deploy", inline(&parts));
    }
    to.pair("timeouts", self::timeouts(timeouts));
    to.pair("log", inline(&[("rotate", rotation(log))]));
}

/// Without the values, but for what is filled in for each process: it says how the app is reached.
fn environment(to: &mut Writer, env: &BTreeMap<String, Secret<String>>, env_file: &BTreeMap<String, Secret<String>>) {
    let masked = |value: &Secret<String>| {
        let filled = ["{port}", "{socket}"].into_iter().filter(|token| value.reveal().contains(token)).collect::<String>();
        quote(&if value.reveal() == &filled { filled } else { format!("{MASK}{filled}") })
    };
    let mut all: BTreeMap<&str, String> = env_file.keys().map(|name| (name.as_str(), quote(MASK))).collect();
    all.extend(env.iter().map(|(name, value)| (name.as_str(), masked(value))));
    if !all.is_empty() {
        to.pair("env", inline(&all.into_iter().collect::<Vec<_>>()));
    }
}

fn before_start_of(to: &mut Writer, before_start: &plan::BeforeStart, job: bool) {
    let plan::BeforeStart { commands, timeout } = before_start;
    if commands.is_empty() || job {
        return;
    }
    let lines = commands.iter().map(|words| shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default());
    let run = quoted(lines.collect::<Vec<_>>().iter());
    to.pair("before_start", inline(&[("run", run), ("timeout", time(*timeout))]));
}

fn app_limits(to: &mut Writer, limits: &plan::AppLimits) {
    let plan::AppLimits { nofile, nproc, core, fsize, stack, address_space } = limits;
    let size = |bytes: &Option<u64>| bytes.map(|bytes| quote(&ByteSize(bytes).to_string()));
    let limits = [
        ("nofile", nofile.map(|n| n.to_string())),
        ("nproc", nproc.map(|n| n.to_string())),
        ("core", size(core)),
        ("fsize", size(fsize)),
        ("stack", size(stack)),
        ("address_space", size(address_space)),
    ];
    some(to, "limits", &limits);
}

/// A table of those that are set; none: no table.
fn some(to: &mut Writer, key: &str, parts: &[(&str, Option<String>)]) {
    let set: Vec<_> = parts.iter().filter_map(|(key, value)| Some((*key, value.clone()?))).collect();
    if !set.is_empty() {
        to.pair(key, inline(&set));
    }
}

fn timeouts(timeouts: &plan::UpstreamTimeouts) -> String {
    let plan::UpstreamTimeouts { connect, read, send, idle } = timeouts;
    inline(&[("connect", time(*connect)), ("read", time(*read)), ("send", time(*send)), ("idle", time(*idle))])
}

fn zone(to: &mut Writer, zone: &plan::Zone) {
    let plan::Zone { key, rate, burst, delay, concurrent, status, count, mode, headers, max_keys } = zone;
    match &key[..] {
        [one] => to.pair("key", quote(&one.to_string())),
        several => to.pair("key", quoted(several)),
    }
    if let Some(rate) = rate {
        to.pair("rate", quote(&rate.to_string()));
        to.pair("burst", burst);
        match delay {
            delay if delay == burst => to.pair("nodelay", true),
            delay => to.pair("delay", delay),
        }
    }
    if let Some(concurrent) = concurrent {
        to.pair("concurrent", concurrent);
    }
    to.pair("status", status.as_u16());
    if !count.is_empty() {
        to.pair("count", list(count.iter().map(|status| status.as_u16().to_string())));
    }
    if let Some(headers) = headers {
        to.pair("headers", quote(headers.as_str()));
    }
    to.pair("mode", quote(mode.as_str()));
    to.pair("max_keys", max_keys);
}

fn upstream(to: &mut Writer, upstream: &plan::Upstream) {
    let plan::Upstream { servers, balance, health, passive, retry, timeouts, http } = upstream;
    let server = |server: &plan::Server| {
        let plan::Server { addr, weight, backup, max_conns } = server;
        let mut pairs = vec![("addr", quote(&addr.to_string())), ("weight", weight.to_string()), ("backup", backup.to_string())];
        pairs.extend(max_conns.map(|most| ("max_conns", most.to_string())));
        inline(&pairs)
    };
    to.pair("servers", list(servers.iter().map(server)));
    to.pair(
        "balance",
        quote(match balance {
            plan::Balance::RoundRobin => "round_robin",
            plan::Balance::LeastConn => "least_conn",
            plan::Balance::P2c => "p2c",
        }),
    );
    if let Some(plan::Health { kind, interval, timeout, fail, pass }) = health {
        let mut pairs = match kind {
            plan::HealthKind::Tcp => vec![("type", quote("tcp"))],
            plan::HealthKind::Http { path, host, expect } => {
                let expect: Vec<_> = expect.iter().map(|(from, to)| format!("{from}-{to}")).collect();
                let mut pairs = vec![("path", quote(path)), ("expect", quote(&expect.join(",")))];
                pairs.extend(host.as_ref().map(|host| ("host", quote(host))));
                pairs
            }
        };
        pairs.extend([("interval", time(*interval)), ("timeout", time(*timeout)), ("fail", fail.to_string()), ("pass", pass.to_string())]);
        to.pair("health", inline(&pairs));
    }
    let plan::Passive { fails, within, eject } = passive;
    to.pair("passive", inline(&[("fails", fails.to_string()), ("within", time(*within)), ("for", time(*eject))]));
    let plan::Retry { tries, on, budget } = retry;
    let on = list(on.iter().map(|on| match on {
        plan::RetryOn::Connect => quote("connect"),
        plan::RetryOn::Timeout => quote("timeout"),
        plan::RetryOn::Status(status) => quote(&status.to_string()),
    }));
    to.pair("retry", inline(&[("tries", tries.to_string()), ("on", on), ("budget", format!("{budget:?}"))]));
    to.pair("timeouts", self::timeouts(timeouts));
    to.pair(
        "http",
        quote(match http {
            plan::UpstreamHttp::V1 => "1",
            plan::UpstreamHttp::V2 => "2",
        }),
    );
}

fn site(to: &mut Writer, site: &plan::Site) {
    let plan::Site { name: _, hosts, redirected, canonical: _, tls, client_ca, headers, filters, allow, deny, maintenance, routes } = site;
    to.table("[[site]]");
    let first = hosts.first().map(ToString::to_string);
    to.pair("host", quoted(first.into_iter().chain(redirected.iter().map(ToString::to_string))));
    to.pair("aliases", quoted(hosts.iter().skip(1)));
    to.pair(
        "tls",
        match tls {
            plan::SiteTls::Off => quote("off"),
            plan::SiteTls::Internal => quote("internal"),
            plan::SiteTls::Acme => quote("acme"),
            plan::SiteTls::OnDemand { ask } => inline(&[("on_demand", quote(ask))]),
            plan::SiteTls::Files { cert, key } => inline(&[("cert", path(cert)), ("key", path(key))]),
            plan::SiteTls::Directory { dir } => inline(&[("dir", path(dir))]),
        },
    );
    if let Some(ca) = client_ca {
        to.pair("client_ca", path(ca));
    }
    to.pair("headers", header_set(headers));
    to.pair("filters", self::filters(filters));
    to.pair("allow", nets(allow));
    to.pair("deny", nets(deny));
    let plan::Maintenance { on, page, secret, retry_after } = maintenance;
    let mut pairs = vec![("on", on.to_string()), ("retry_after", time(*retry_after))];
    pairs.extend(page.as_ref().map(|page| ("page", path(&page.file))));
    pairs.extend(secret.as_ref().map(|_| ("secret", quote(MASKED_KEY))));
    to.pair("maintenance", inline(&pairs));
    // What no route fits has no table of its own: it is refused under the words of the site.
    for rest in routes.iter().filter(|route| route.action == Action::NotFound) {
        to.pair("zone", quoted(&rest.zones));
        to.pair("limits", request_limits(rest));
        to.pair("extensions", quoted(&rest.extensions));
        to.pair("auth", self::auth(rest.auth.as_ref()));
        to.pair("cors", self::cors(rest.cors.as_ref()));
    }
    for route in routes.iter().filter(|route| route.action != Action::NotFound) {
        self::route(to, route);
    }
}

fn request_limits(route: &plan::Route) -> String {
    inline(&[("body", quote(&route.body_limit.to_string())), ("buffer", buffer(route.buffer))])
}

fn route(to: &mut Writer, route: &plan::Route) {
    let plan::Route {
        path,
        action,
        strip,
        rewrite,
        zones,
        methods,
        request_headers,
        response_headers,
        body_limit: _,
        buffer: _,
        filters,
        extensions,
        allow,
        deny,
        auth,
        cors,
    } = route;
    let path = match path {
        PathMatch::Exact(path) => format!("= {path}"),
        PathMatch::Prefix(path) => path.clone(),
        PathMatch::Regex(pattern) => format!("~ {pattern}"),
    };
    to.table(&format!("[site.route.{}]", quote(&path)));
    match action {
        Action::Proxy { upstream } => to.pair("upstream", quote(upstream.as_str())),
        Action::Redirect { to: target, status } => {
            to.pair("redirect", inline(&[("to", quote(target)), ("status", status.as_u16().to_string())]))
        }
        Action::Respond { status, body, content_type } => to.pair(
            "respond",
            inline(&[("status", status.as_u16().to_string()), ("body", quote(body)), ("content_type", quote(content_type))]),
        ),
        // It has no table.
        Action::NotFound => {}
    }
    if let Some(strip) = strip {
        to.pair("strip", quote(strip));
    }
    if let Some(plan::Rewrite { pattern, to: target }) = rewrite {
        to.pair("rewrite", list([quote(pattern), quote(target)].into_iter()));
    }
    to.pair("zone", quoted(zones));
    to.pair("methods", quoted(methods.iter().map(Method::as_str)));
    if !request_headers.is_empty() {
        to.pair("request_headers", edits(request_headers));
    }
    if !response_headers.is_empty() {
        to.pair("response_headers", edits(response_headers));
    }
    to.pair("limits", request_limits(route));
    to.pair("filters", self::filters(filters));
    to.pair("extensions", quoted(extensions));
    to.pair("allow", nets(allow));
    to.pair("deny", nets(deny));
    to.pair("auth", self::auth(auth.as_ref()));
    to.pair("cors", self::cors(cors.as_ref()));
}

fn cors(cors: Option<&plan::Cors>) -> String {
    let Some(plan::Cors { origins, methods, headers, credentials, max_age, expose }) = cors else { return quote("off") };
    inline(&[
        ("origins", quoted(origins)),
        ("methods", quoted(methods.iter().map(Method::as_str))),
        ("headers", quoted(headers)),
        ("credentials", credentials.to_string()),
        ("max_age", time(*max_age)),
        ("expose", quoted(expose)),
    ])
}

fn auth(auth: Option<&plan::Auth>) -> String {
    match auth {
        None => quote("off"),
        Some(plan::Auth::Basic(plan::Basic { file, realm })) => inline(&[("basic", path(file)), ("realm", quote(realm))]),
        Some(plan::Auth::Forward(plan::Forward { server, host, path, headers, timeout })) => {
            let url = match server {
                ServerAddr::Unix(socket) => format!("unix:{}:{path}", socket.display()),
                ServerAddr::Tcp(_) | ServerAddr::Name { .. } => format!("http://{host}{path}"),
            };
            inline(&[("forward", quote(&url)), ("headers", quoted(headers)), ("timeout", time(*timeout))])
        }
    }
}

fn filters(filters: &plan::Filters) -> String {
    let mode = |mode| {
        quote(match mode {
            FilterMode::Off => "off",
            FilterMode::Observe => "observe",
            FilterMode::Certain => "certain",
            FilterMode::Enforce => "enforce",
        })
    };
    let plan::Filters { families, bad_method, scanner_ua, headers, body, patterns } = filters;
    if let Some(name) = filters.name().filter(|_| body.is_none() && patterns.is_empty()) {
        return quote(name);
    }
    // Where there are no patterns, theirs is what bad-uri is.
    let bad_uri = families.of(if patterns.is_empty() { plan::Family::Own } else { plan::Family::Traversal });
    let mut pairs = vec![("bad-uri", mode(bad_uri)), ("bad-method", mode(*bad_method)), ("scanner-ua", mode(*scanner_ua))];
    for family in plan::Family::ALL {
        let of = families.of(family);
        let told = if family == plan::Family::Own { !patterns.is_empty() } else { of != bad_uri };
        if told {
            pairs.push((family.as_str(), mode(of)));
        }
    }
    if !patterns.is_empty() {
        pairs.push(("patterns", quoted(patterns)));
    }
    match headers {
        HeaderFields::None => pairs.push(("headers", "false".into())),
        HeaderFields::Unusual => {}
        HeaderFields::All => pairs.push(("headers", "true".into())),
    }
    if let Some(body) = body {
        pairs.push(("body", quote(&body.to_string())));
    }
    inline(&pairs)
}

fn header_set(plan::HeaderSet { base, own }: &plan::HeaderSet) -> String {
    if own.is_empty() {
        return quote(base.as_str());
    }
    let mut pairs = vec![("base".to_owned(), quote(base.as_str()))];
    pairs.extend(own.iter().map(header));
    inline(&pairs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect::<Vec<_>>())
}

fn header(edit: &HeaderEdit) -> (String, String) {
    let value = edit.value.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    (edit.name.to_string(), quote(&value.unwrap_or_default()))
}

fn edits(edits: &[HeaderEdit]) -> String {
    let pairs: Vec<_> = edits.iter().map(header).collect();
    inline(&pairs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect::<Vec<_>>())
}

fn nets(nets: &[IpNet]) -> String {
    quoted(nets)
}

fn path(path: &std::path::Path) -> String {
    quote(&path.display().to_string())
}

fn time(duration: Duration) -> String {
    quote(&duration_text(duration))
}

fn quoted<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    list(items.into_iter().map(|item| quote(&item.to_string())))
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn inline(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{} = {value}", key(name))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { quote(name) }
}

/// A basic string of TOML.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

struct Writer(String);

impl Writer {
    fn comment(&mut self, text: &str) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.0.push_str(&format!("# {text}\n"));
    }

    fn table(&mut self, header: &str) {
        self.0.push_str(&format!("\n{header}\n"));
    }

    fn pair(&mut self, name: &str, value: impl Display) {
        self.0.push_str(&format!("{} = {value}\n", key(name)));
    }
}
