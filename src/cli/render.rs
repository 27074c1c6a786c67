//! What people see of the running gateway: tables of plain columns.
//!
//! Pure. Every text that came over the socket is escaped here, cell by cell.

use comfy_table::{CellAlignment, Table, presets};
use jiff::{SignedDuration, Timestamp};

use super::terminal::{Paint, Tone, escape};
use crate::{
    admin::view,
    ipc::{
        control::ReleaseRow,
        message::{Duty, InstanceState},
    },
    vocab::units::duration_text,
};

pub mod why;

/// How the text is to look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub paint: Paint,
    /// For ages.
    pub now: Timestamp,
}

/// `gateway status`
#[must_use]
pub fn status(status: &view::Status, look: Look) -> String {
    let view::Process { master_pid, edge_pid, edge_restarts, generation, .. } = status.process;
    let file = Some(escape(&status.process.config)).filter(|file| !file.is_empty()).map(|file| format!(" of {file}")).unwrap_or_default();
    let verdict = look.paint.with(verdict_tone(status.status), status.status.as_str());
    let message =
        if status.message.is_empty() || !status.faults.is_empty() { String::new() } else { format!(": {}", escape(&status.message)) };
    let mut text = format!("gateway {} is {verdict}{message}\n", escape(&status.version));
    for fault in &status.faults {
        text += &format!("- {}\n", look.paint.with(verdict_tone(fault.status), &escape(&fault.to_string())));
    }
    let uptime = duration_text(std::time::Duration::from_secs(coarse(status.uptime_seconds)));
    text += &format!("up {uptime}, configuration {generation}{file}, master {master_pid}, edge {edge_pid}");
    text += &if edge_restarts > 0 { format!(" (restarted {edge_restarts} times)\n") } else { "\n".to_owned() };
    let traffic = &status.traffic;
    let pace = traffic.recent.map(|recent| format!(", {:.1}/s", recent.requests_per_second)).unwrap_or_default();
    text += &format!(
        "{} requests{pace}, {} failed ({:.2} %), {} in flight, {} connections\n",
        traffic.requests,
        traffic.errors,
        traffic.error_rate * 100.0,
        traffic.in_flight,
        traffic.connections
    );
    let listeners: Vec<_> = status
        .listeners
        .iter()
        .map(|listener| {
            let accepting = if listener.accepting { "" } else { " (not accepting)" };
            format!("{} {}{accepting}", escape(&listener.role), escape(&listener.bound))
        })
        .collect();
    if status.banned > 0 {
        text += &format!("{} banned: see `gateway bans`\n", status.banned);
    }
    text += &format!("listening on {}\n", if listeners.is_empty() { "nothing".to_owned() } else { listeners.join(", ") });
    for certificate in &status.certificates {
        // It stands among the faults where there are any.
        if let Some(problem) = certificate.problem.as_ref().filter(|_| status.faults.is_empty()) {
            let line = format!("certificate of {}: {}", escape(&certificate.host), escape(problem));
            text += &format!("{}\n", look.paint.with(Tone::Bad, &line));
        }
    }
    for (some, table) in [
        (!status.sites.is_empty(), sites(&status.sites, look)),
        (!status.apps.is_empty(), apps(&status.apps, look)),
        (!status.upstreams.is_empty(), upstreams(&status.upstreams, look)),
        (!status.zones.is_empty(), zones(&status.zones, look)),
    ] {
        if some {
            text += &format!("\n{table}");
        }
    }
    text
}

fn sites(sites: &[view::Site], look: Look) -> String {
    let mut rows = Rows::new(&["SITE", "TLS", "REQUESTS", "FAILED", "IN FLIGHT"], &[2, 3, 4]);
    for site in sites {
        rows.add([
            if site.maintenance { (format!("{} (maintenance)", site.name), Some(Tone::Wait)) } else { plain(&site.name) },
            plain(&site.tls),
            plain(&site.requests.to_string()),
            plain(&site.errors.to_string()),
            plain(&site.in_flight.to_string()),
        ]);
    }
    rows.text(look.paint)
}

/// `gateway apps`
#[must_use]
pub fn apps(apps: &[view::App], look: Look) -> String {
    if apps.is_empty() {
        return "no apps\n".to_owned();
    }
    // A column only where something was deployed.
    let released = apps.iter().flat_map(|app| &app.instances).any(|instance| instance.release.is_some());
    let mut header = vec!["INSTANCE", "STATE", "FOR", "PID", "RESTARTS", "MEMORY", "CPU", "ADDRESS", "LAST EXIT"];
    if released {
        header.push("RELEASE");
    }
    let mut rows = Rows::new(&header, &[3, 4, 5, 6]);
    for instance in apps.iter().flat_map(|app| &app.instances) {
        let due = instance.next_start.as_deref().and_then(|at| ahead(at, look.now)).map(|wait| format!("starts in {wait}"));
        let last = instance.last_exit.as_deref().map(|exit| {
            let ago = instance.last_exit_at.as_deref().and_then(|at| ago(at, look.now)).map(|age| format!(" {age} ago"));
            format!("{exit}{}", ago.unwrap_or_default())
        });
        let last = last.into_iter().chain(due).chain(instance.note.clone()).collect::<Vec<_>>().join(", ");
        let cells = [
            plain(&instance.id),
            (format!("{}{}", instance.state.as_str(), duty_text(instance.duty)), Some(state_tone(instance.state))),
            plain(&ago(&instance.since, look.now).unwrap_or_default()),
            plain(&instance.pid.map(|pid| pid.to_string()).unwrap_or_default()),
            plain(&instance.restarts.to_string()),
            plain(&bytes(instance.memory_bytes)),
            plain(&format!("{:.1}s", instance.cpu_seconds)),
            plain(instance.address.as_deref().unwrap_or_default()),
            plain(&last),
        ];
        let release = plain(instance.release.as_deref().unwrap_or_default());
        rows.add(cells.into_iter().chain(released.then_some(release)));
    }
    rows.text(look.paint)
}

/// `gateway releases`
#[must_use]
pub fn release_list(releases: &[ReleaseRow], look: Look) -> String {
    if releases.is_empty() {
        return "nothing was deployed: it runs from its `dir`\n".to_owned();
    }
    let mut rows = Rows::new(&["N", "RELEASE", "STATE", "DEPLOYED", "DIR", "REASON"], &[0]);
    for ReleaseRow { n, id, dir, at, by, state, reason } in releases {
        let tone = match state.as_str() {
            "current" => Some(Tone::Good),
            "failed" => Some(Tone::Bad),
            _ => None,
        };
        let when = ago(at, look.now).map(|age| format!("{age} ago")).unwrap_or_else(|| at.clone());
        let who = by.map_or_else(|| "before the first deploy".to_owned(), |_| when);
        rows.add([
            plain(&n.to_string()),
            plain(id),
            (state.clone(), tone),
            plain(&who),
            plain(&dir.display().to_string()),
            plain(reason.as_deref().unwrap_or_default().lines().next().unwrap_or_default()),
        ]);
    }
    rows.text(look.paint)
}

fn duty_text(duty: Duty) -> &'static str {
    match duty {
        Duty::Serves => "",
        Duty::OnTrial => " (on trial)",
        Duty::StandsBy => " (stands by)",
    }
}

/// `gateway upstreams`
#[must_use]
pub fn upstreams(upstreams: &[view::Upstream], look: Look) -> String {
    if upstreams.is_empty() {
        return "no upstreams\n".to_owned();
    }
    let mut rows = Rows::new(&["UPSTREAM", "SERVER", "ADDRESS", "STATE", "IN FLIGHT", "WEIGHT", "REASON"], &[4, 5]);
    for upstream in upstreams {
        let panic = upstream.panic.then_some("none is up, the last ones are used all the same");
        if upstream.servers.is_empty() {
            let none = if upstream.app { "no instance runs" } else { "no servers" };
            rows.add([
                plain(&upstream.name),
                plain(""),
                plain(""),
                ("down".to_owned(), Some(Tone::Bad)),
                plain(""),
                plain(""),
                plain(none),
            ]);
        }
        for server in &upstream.servers {
            let state = (escape(&server.state), Some(if server.up { Tone::Good } else { Tone::Bad }));
            let backup = if server.backup { " (backup)" } else { "" };
            // Where there is no other reason than the state, it is said once.
            let reason = server.reason.as_deref().filter(|reason| *reason != server.state);
            let reason: Vec<_> = reason.into_iter().chain(panic).collect();
            rows.add([
                plain(&upstream.name),
                plain(&format!("{}{backup}", server.server)),
                plain(if server.address == server.server { "" } else { &server.address }),
                state,
                plain(&server.in_flight.to_string()),
                plain(&server.weight.to_string()),
                plain(&reason.join("; ")),
            ]);
        }
    }
    rows.text(look.paint)
}

/// `gateway zones`
#[must_use]
pub fn zones(zones: &[view::Zone], look: Look) -> String {
    if zones.is_empty() {
        return "no zones\n".to_owned();
    }
    let mut rows = Rows::new(
        &["ZONE", "KEY", "LIMIT", "MODE", "KEYS", "WAITING", "PASSED", "DELAYED", "REJECTED", "WOULD REJECT"],
        &[4, 5, 6, 7, 8, 9],
    );
    for zone in zones {
        let warned = |count: u64| (count.to_string(), (count > 0).then_some(Tone::Wait));
        rows.add([
            plain(&zone.name),
            plain(&zone.key),
            plain(&zone.limit()),
            plain(&zone.mode),
            plain(&format!("{}/{}", zone.keys, zone.max_keys)),
            plain(&zone.waiting.to_string()),
            plain(&zone.passed.to_string()),
            plain(&zone.delayed.to_string()),
            warned(zone.rejected),
            warned(zone.would_reject),
        ]);
    }
    rows.text(look.paint)
}

/// `gateway bans`
#[must_use]
pub fn bans(bans: &view::Bans, look: Look) -> String {
    if bans.bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let mut rows = Rows::new(&["ADDRESS", "REASON", "SINCE", "UNTIL", "LEFT", "TIMES"], &[4, 5]);
    for view::Ban { address, reason, since, until, times, enforced } in &bans.bans {
        let observed = if *enforced { "" } else { " (observed)" };
        rows.add([
            plain(address),
            plain(&format!("{reason}{observed}")),
            plain(&minute(since)),
            plain(&minute(until)),
            plain(&ahead(until, look.now).unwrap_or_else(|| "0s".to_owned())),
            plain(&times.to_string()),
        ]);
    }
    let more = bans.count.saturating_sub(bans.bans.len() as u64);
    let rest = if more > 0 { format!("and {more} more\n") } else { String::new() };
    rows.text(look.paint) + &rest
}

/// `gateway certs`
#[must_use]
pub fn certs(certificates: &[view::Certificate], look: Look) -> String {
    if certificates.is_empty() {
        return "no certificates\n".to_owned();
    }
    let mut rows = Rows::new(&["SITE", "NAMES", "ISSUER", "NOT AFTER", "LEFT", "NEXT RENEWAL", "STATE"], &[4]);
    for certificate in certificates {
        let view::Certificate { host, not_after, source, problem, names, issuer, state, renew_at, renew_why, at_risk, .. } = certificate;
        let left = not_after.as_deref().map(|at| ahead(at, look.now));
        let over = left == Some(None);
        let renewal = renew_at.as_deref().map_or_else(String::new, |at| {
            let why = renew_why.as_deref().map(|why| format!(", {why}")).unwrap_or_default();
            format!("{}{why}", ahead(at, look.now).map_or_else(|| "now".to_owned(), |wait| format!("in {wait}")))
        });
        let bad = problem.is_some() || *at_risk || over;
        let word = state.as_deref().unwrap_or(if bad { "faulty" } else { "served" });
        rows.add([
            plain(host),
            plain(&few(names)),
            plain(issuer.as_deref().unwrap_or(source)),
            plain(&not_after.as_deref().map(minute).unwrap_or_default()),
            (left.map(|left| left.unwrap_or_else(|| "over".to_owned())).unwrap_or_default(), (*at_risk || over).then_some(Tone::Bad)),
            plain(&renewal),
            (format!("{word}{}", if *at_risk { ", at risk" } else { "" }), Some(if bad { Tone::Bad } else { Tone::Good })),
        ]);
    }
    let mut text = rows.text(look.paint);
    for view::Certificate { host, problem, problem_at, advice, failures, .. } in certificates {
        let Some(problem) = problem else { continue };
        let ago = problem_at.as_deref().and_then(|at| ago(at, look.now)).map(|age| format!("{age} ago")).into_iter();
        let tries = (*failures > 1).then(|| format!("{failures} tries so far"));
        let when: Vec<_> = ago.chain(tries).collect();
        let when = if when.is_empty() { String::new() } else { format!(" ({})", when.join(", ")) };
        let line = format!("{}: {}{when}", escape(host), escape(problem));
        text += &format!("\n{}\n", look.paint.with(Tone::Bad, &line));
        if let Some(advice) = advice {
            text += &format!("  {}\n", escape(advice));
        }
    }
    text
}

/// The first of many; `--json` has them all.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `2026-01-15 10:30`, of a moment in UTC.
fn minute(moment: &str) -> String {
    moment.parse::<Timestamp>().map_or_else(|_| moment.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

type CellText = (String, Option<Tone>);

fn plain(text: &str) -> CellText {
    (text.to_owned(), None)
}

/// A table without lines.
struct Rows(Table);

/// Invisible marks that stand around a coloured cell until the table is laid out, as its widths must not count the colours. Escaped text has none of them.
const TONES: [(Tone, char); 4] = [(Tone::Good, '\u{200b}'), (Tone::Wait, '\u{200c}'), (Tone::Bad, '\u{200d}'), (Tone::Bold, '\u{2060}')];
const END: char = '\u{feff}';

impl Rows {
    fn new(header: &[&str], right: &[usize]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header.iter().map(|title| marked(title, Tone::Bold)));
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    fn add(&mut self, cells: impl IntoIterator<Item = CellText>) {
        let cells = cells.into_iter().map(|(text, tone)| {
            let text = escape(if text.is_empty() { "-" } else { &text });
            tone.map_or(text.clone(), |tone| marked(&text, tone))
        });
        self.0.add_row(cells);
    }

    fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        for line in self.0.lines() {
            let line = line.trim_end();
            for c in line.chars() {
                match (TONES.iter().find(|(_, mark)| *mark == c), paint) {
                    (Some((tone, _)), Paint::Colours) => text += &format!("\x1b[{}m", tone.sgr()),
                    (None, Paint::Colours) if c == END => text += "\x1b[0m",
                    (Some(_), Paint::Plain) => {}
                    (None, Paint::Plain) if c == END => {}
                    (None, Paint::Colours | Paint::Plain) => text.push(c),
                }
            }
            text.push('\n');
        }
        text
    }
}

fn marked(text: &str, tone: Tone) -> String {
    let mark = TONES.iter().find(|(of, _)| *of == tone).map_or(' ', |(_, mark)| *mark);
    format!("{mark}{text}{END}")
}

fn verdict_tone(verdict: view::Verdict) -> Tone {
    match verdict {
        view::Verdict::Healthy => Tone::Good,
        view::Verdict::Degraded => Tone::Wait,
        view::Verdict::Unhealthy => Tone::Bad,
    }
}

fn state_tone(state: InstanceState) -> Tone {
    match state {
        InstanceState::Ready => Tone::Good,
        InstanceState::Starting | InstanceState::Draining | InstanceState::Stopping | InstanceState::Stopped => Tone::Wait,
        InstanceState::Exited | InstanceState::Backoff | InstanceState::Cooldown | InstanceState::Taken | InstanceState::Failed => {
            Tone::Bad
        }
    }
}

/// The time since a moment; `None` where it is no moment.
fn ago(moment: &str, now: Timestamp) -> Option<String> {
    span(now.duration_since(moment.parse().ok()?))
}

/// The time until a moment; `None` where it has come.
fn ahead(moment: &str, now: Timestamp) -> Option<String> {
    let wait = moment.parse::<Timestamp>().ok()?.duration_since(now);
    (wait.as_secs() > 0).then(|| span(wait)).flatten()
}

fn span(time: SignedDuration) -> Option<String> {
    let seconds = u64::try_from(time.as_secs()).unwrap_or(0);
    Some(duration_text(std::time::Duration::from_secs(coarse(seconds)))).map(|text| if text == "0ms" { "0s".to_owned() } else { text })
}

/// Seconds cut to what one looks at: 59s, 59m, 47h, then days.
fn coarse(seconds: u64) -> u64 {
    let unit = match seconds {
        0..60 => 1,
        60..3600 => 60,
        3600..172_800 => 3600,
        172_800.. => 86_400,
    };
    seconds - seconds % unit
}

fn bytes(count: u64) -> String {
    match count {
        0 => String::new(),
        1..1_048_576 => format!("{}KB", count.div_ceil(1024)),
        1_048_576..10_737_418_240 => format!("{}MB", count / 1_048_576),
        10_737_418_240.. => format!("{}GB", count / 1_073_741_824),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(paint: Paint) -> Look {
        Look { paint, now: "2026-01-15T10:30:00Z".parse().expect("a moment") }
    }

    fn instance(id: &str, state: InstanceState) -> view::Instance {
        view::Instance {
            id: id.into(),
            state,
            duty: Duty::Serves,
            release: None,
            since: "2026-01-15T10:27:48Z".into(),
            pid: Some(4242),
            address: Some("127.0.0.1:20001".into()),
            restarts: 3,
            last_exit: None,
            last_exit_at: None,
            last_restart: None,
            next_start: None,
            manual: false,
            note: None,
            cpu_seconds: 12.34,
            memory_bytes: 48_000_000,
        }
    }

    #[test]
    fn apps_are_a_table_of_instances() {
        let failed = view::Instance {
            pid: None,
            address: None,
            memory_bytes: 0,
            last_exit: Some("signal 9 (KILL)".into()),
            last_exit_at: Some("2026-01-15T10:29:55Z".into()),
            next_start: Some("2026-01-15T10:30:09Z".into()),
            ..instance("web.1", InstanceState::Backoff)
        };
        let instances = vec![instance("web.0", InstanceState::Ready), failed];
        let all = [view::App { name: "web".into(), ready: 1, instances, restarts: Default::default(), job: None }];
        let plain = apps(&all, look(Paint::Plain));
        insta::assert_snapshot!("apps", plain);
        let coloured = apps(&all, look(Paint::Colours));
        assert!(coloured.contains("\x1b[32mready\x1b[0m") && coloured.contains("\x1b[1;31mbackoff\x1b[0m"), "{coloured:?}");
        let mut bare = coloured;
        for code in ["0", "1", "32", "33", "1;31"] {
            bare = bare.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(bare, plain, "colours take no room");
    }

    #[test]
    fn releases_and_trials_show_where_something_is_deployed() {
        let release = |id: &str, release: Option<&str>, duty| view::Instance {
            release: release.map(str::to_owned),
            duty,
            ..instance(id, InstanceState::Ready)
        };
        let instances = vec![
            release("web.0", None, Duty::StandsBy),
            release("web.0", Some("20260115-102930-0"), Duty::OnTrial),
            release("api.0", None, Duty::Serves),
        ];
        let all = [view::App { name: "web".into(), ready: 2, instances, restarts: Default::default(), job: None }];
        insta::assert_snapshot!("releases", apps(&all, look(Paint::Plain)));
    }

    #[test]
    fn upstreams_say_who_is_up_and_why_not() {
        let server = |name: &str, up| view::Server {
            server: name.into(),
            address: name.into(),
            up,
            state: if up { "up" } else { "down" }.into(),
            reason: (!up).then(|| "connect: \x1b[31mrefused".into()),
            in_flight: 2,
            weight: 1,
            backup: name.starts_with("unix"),
        };
        let all = [
            view::Upstream {
                name: "api".into(),
                app: false,
                panic: false,
                servers: vec![server("10.0.0.5:80", true), server("unix:/run/a.sock", false)],
            },
            view::Upstream { name: "web".into(), app: true, panic: false, servers: Vec::new() },
        ];
        insta::assert_snapshot!("upstreams", upstreams(&all, look(Paint::Plain)));
    }

    #[test]
    fn status_is_one_look_at_everything() {
        let server = view::Server {
            server: "web.0".into(),
            address: "127.0.0.1:20001".into(),
            up: true,
            state: "up".into(),
            reason: None,
            in_flight: 1,
            weight: 1,
            backup: false,
        };
        let status = view::Status {
            status: view::Verdict::Degraded,
            message: "1 of 2 instances of web is not ready".into(),
            faults: vec![view::Fault {
                status: view::Verdict::Degraded,
                what: "app web: web.1 backoff (exit 1)".into(),
                so: vec!["site a.example is not served".into()],
            }],
            timestamp: "2026-01-15T10:30:00Z".into(),
            version: "0.1.0".into(),
            uptime_seconds: 7300,
            process: view::Process {
                config: "/etc/gateway/gateway.toml".into(),
                master_pid: 10,
                edge_pid: 12,
                started: "2026-01-15T08:28:20Z".into(),
                edge_started: "2026-01-15T08:28:20Z".into(),
                edge_restarts: 1,
                generation: 3,
                reloads: 2,
                reloads_refused: 0,
            },
            traffic: view::Traffic { requests: 1000, errors: 12, error_rate: 0.012, in_flight: 3, connections: 9, ..Default::default() },
            listeners: vec![view::Listener {
                role: "https".into(),
                address: "0.0.0.0:443".into(),
                bound: "0.0.0.0:443".into(),
                accepting: true,
            }],
            sites: vec![view::Site {
                name: "example.com".into(),
                hosts: vec!["example.com".into()],
                tls: "files".into(),
                routes: Vec::new(),
                requests: 1000,
                errors: 12,
                in_flight: 3,
                maintenance: false,
            }],
            apps: vec![view::App {
                name: "web".into(),
                ready: 1,
                instances: vec![instance("web.0", InstanceState::Ready)],
                restarts: Default::default(),
                job: None,
            }],
            upstreams: vec![view::Upstream { name: "web".into(), app: true, panic: true, servers: vec![server] }],
            zones: Vec::new(),
            banned: 2,
            certificates: vec![view::Certificate {
                host: "example.com".into(),
                not_after: None,
                source: "stand-in".into(),
                problem: Some("chain.pem: no such file".into()),
                ..view::Certificate::default()
            }],
            system: view::System::default(),
        };
        insta::assert_snapshot!("status", super::status(&status, look(Paint::Plain)));
    }

    #[test]
    fn certs_say_until_when_and_what_went_wrong() {
        let good = view::Certificate {
            host: "shop.example".into(),
            not_after: Some("2026-04-01T12:00:00Z".into()),
            source: "acme".into(),
            names: ["shop.example", "www.shop.example", "m.shop.example", "api.shop.example", "x.shop.example"].map(String::from).into(),
            issuer: Some("E7".into()),
            serial: Some("04ab".into()),
            state: Some("served".into()),
            renew_at: Some("2026-03-02T12:00:00Z".into()),
            renew_why: Some("suggested by the CA".into()),
            ..view::Certificate::default()
        };
        let bad = view::Certificate {
            host: "new.example".into(),
            source: "stand-in".into(),
            names: vec!["new.example".into()],
            state: Some("waiting".into()),
            renew_at: Some("2026-01-15T10:40:00Z".into()),
            renew_why: Some("try 3 after a failure".into()),
            problem: Some("could not order a certificate for new.example: \x1b[31mno address".into()),
            problem_at: Some("2026-01-15T10:28:00Z".into()),
            advice: Some("add an A or AAAA record".into()),
            failures: 2,
            at_risk: true,
            ..view::Certificate::default()
        };
        let files = view::Certificate {
            host: "old.example".into(),
            not_after: Some("2026-01-01T00:00:00Z".into()),
            source: "files".into(),
            ..view::Certificate::default()
        };
        insta::assert_snapshot!("certs", certs(&[good, bad, files], look(Paint::Plain)));
        assert_eq!(certs(&[], look(Paint::Plain)), "no certificates\n");
    }

    #[test]
    fn zones_say_what_they_do() {
        let zone = view::Zone {
            name: "api".into(),
            key: "ip + path".into(),
            rate: Some("10r/1s".into()),
            burst: 20,
            delay: Some(8),
            concurrent: Some(5),
            mode: "enforce".into(),
            keys: 4,
            max_keys: 100_000,
            waiting: 2,
            passed: 19,
            delayed: 2,
            rejected: 79,
            ..view::Zone::default()
        };
        let login = view::Zone {
            name: "login".into(),
            key: "ip".into(),
            rate: Some("5r/1m".into()),
            burst: 4,
            count: vec![401, 403],
            mode: "observe".into(),
            keys: 1,
            max_keys: 100_000,
            passed: 7,
            would_reject: 2,
            ..view::Zone::default()
        };
        insta::assert_snapshot!("zones", zones(&[zone, login], look(Paint::Plain)));
        assert_eq!(zones(&[], look(Paint::Plain)), "no zones\n");
    }

    #[test]
    fn bans_say_until_when_and_how_many_are_not_shown() {
        let ban = |address: &str, reason: &str, times, enforced| view::Ban {
            address: address.into(),
            reason: reason.into(),
            since: "2026-01-15T10:00:00Z".into(),
            until: "2026-01-15T12:00:00Z".into(),
            times,
            enforced,
        };
        let bans = view::Bans { count: 12, bans: vec![ban("192.0.2.7", "bad-uri", 2, true), ban("2001:db8:1:2::/64", "404", 1, false)] };
        insta::assert_snapshot!("bans", super::bans(&bans, look(Paint::Plain)));
        assert_eq!(super::bans(&view::Bans { count: 0, bans: Vec::new() }, look(Paint::Plain)), "nobody is banned\n");
    }

    #[test]
    fn ages_are_as_coarse_as_one_looks_at_them() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (132, "2m"), (7300, "2h"), (90_000, "25h"), (200_000, "2d")] {
            assert_eq!(span(SignedDuration::from_secs(seconds)).expect("text"), text);
        }
    }
}
