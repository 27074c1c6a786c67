//! `gateway why ID`: what became of a request, and what to do next.
//!
//! Pure. Every text that came over the socket is escaped here.

use jiff::{SignedDuration, Timestamp};

use super::{Look, span};
use crate::{
    cli::terminal::{Tone, escape},
    ipc::{
        message::InstanceState,
        why::{Account, End, Failed, Fate, Fault, Now, Suspect},
    },
};

/// In a few lines, the cause before the details.
#[must_use]
pub fn why(account: &Account, look: Look) -> String {
    let Account { request, process, ended, now } = account;
    let mut text = head(request, look);
    let mut row = |title: &str, value: &str| text += &format!("  {title:<9} {value}\n");
    row("cause", &cause(request));
    row("times", &times(request));
    let had = request.n.is_some();
    match process {
        Some(fate) => {
            row(if had { "process" } else { "before it" }, &who(fate, look));
            row("ended", &end(fate.end.as_ref(), look));
        }
        None if had => row("process", "nothing is remembered of it any more: of each instance the last starts are"),
        None => {}
    }
    for fate in ended.iter().filter(|fate| process.as_ref().is_none_or(|known| known.incarnation != fate.incarnation)) {
        row("ended too", &format!("{}, pid {}: {}", escape(&fate.instance), fate.pid, end(fate.end.as_ref(), look)));
    }
    if ended.len() > 1 {
        row("suspect", "each of these processes ended while it had this request: it probably kills them, so it was not sent again");
    }
    for Suspect { id, request: what, again } in process.iter().flat_map(|fate| &fate.suspects).filter(|suspect| suspect.id != request.id) {
        let again = if *again { ", which another process had when it ended" } else { "" };
        row("it had", &format!("{} ({}){again}", escape(what), escape(id)));
    }
    for Now { instance, state, pid, last_exit } in now {
        let pid = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let last = last_exit.as_deref().map(|exit| format!(", last exit: {}", escape(exit))).unwrap_or_default();
        row("now", &format!("{} is {}{pid}{last}", escape(instance), state.as_str()));
    }
    if let Some(Fate { stderr, .. }) = process.as_ref().filter(|fate| !fate.stderr.is_empty()) {
        text += "  its last lines on stderr:\n";
        for line in stderr {
            text += &format!("  | {}\n", escape(line));
        }
    }
    text + &format!("{} {}\n", look.paint.with(Tone::Bold, "next:"), next(account))
}

fn head(request: &Failed, look: Look) -> String {
    let Failed { at_ms, site, route, method, path, status, .. } = request;
    let site = site.as_deref().map(|site| format!(" on {}", escape(site))).unwrap_or_default();
    let route = route.as_deref().map(|route| format!(" (route {})", escape(route))).unwrap_or_default();
    let what = format!("{status} for {} {}{site}{route}", escape(method), escape(path));
    format!("{}, {}\n", look.paint.with(Tone::Bad, &what), moment(*at_ms, look))
}

fn cause(request: &Failed) -> String {
    let Failed { upstream, server, tries, fault, refused, status, deadline_ms, detail, .. } = request;
    let upstream = escape(upstream.as_deref().unwrap_or("the upstream"));
    let server = escape(server.as_deref().unwrap_or(&upstream));
    let within = deadline_ms.map(|ms| format!(" within {}", time(ms))).unwrap_or_default();
    let tries = if *tries > 1 { format!("; {tries} tries, this was the last") } else { String::new() };
    let detail = detail.as_deref().map(|detail| format!(" [{}]", escape(detail))).unwrap_or_default();
    let words = match fault {
        Fault::NoServer => format!("nothing of {upstream} was up"),
        Fault::Full => format!("every server of {upstream} had all the requests it may have"),
        Fault::HoldFull => format!("no process of {upstream} was ready, and as many requests waited for one as may"),
        Fault::HoldTimedOut => format!("no process of {upstream} was ready in the time that requests wait for one"),
        Fault::ConnectRefused => format!("{server} refused the connection: nothing listened there"),
        Fault::ConnectTimeout => format!("{server} took no connection{within}"),
        Fault::Connect => format!("no connection to {server} could be made"),
        Fault::Reset => format!("{server} broke the connection off before its answer began"),
        Fault::ReadTimeout => format!("{server} did not begin to answer{within}"),
        Fault::SendTimeout => format!("{server} did not take the request{within}"),
        Fault::BadAnswer => format!("what {server} answered was no HTTP, or broke off"),
        Fault::Door => "the server of `auth.forward` could not be asked who may come in".to_owned(),
        Fault::DoorBusy => "as many passwords waited for their verification as may".to_owned(),
        Fault::Refused => refusal(refused.as_deref().unwrap_or_default()),
        Fault::Answered => format!("the app itself answered {status}: {server} wrote this answer, gateway passed it on"),
        Fault::Other => "none that is known".to_owned(),
    };
    format!("{words}{tries}{detail}")
}

/// In words, and the name that the access log has.
fn refusal(by: &str) -> String {
    let named = escape(by);
    let words = match by.split_once(':') {
        Some(("zone", zone)) => format!("zone {} had let as many pass as it may", escape(zone)),
        Some(("filter", filter)) => match filter.split_once('/') {
            Some((filter, family)) => format!("filter {} took it for an attack of the family {}", escape(filter), escape(family)),
            None => format!("filter {} recognised it", escape(filter)),
        },
        Some(("limit", key)) => format!("it was beyond `{}` of [limits], or of its route", escape(key)),
        Some(("deadline", key)) => format!("its client was slower than `{}` of [timeouts]", escape(key)),
        _ => match by {
            "ban" => "its client is banned".to_owned(),
            "auth" => "`auth` did not let its client in".to_owned(),
            "allow" => "its client is not in `allow`".to_owned(),
            "deny" => "its client is in `deny`".to_owned(),
            "methods" => "its method is not among `methods`".to_owned(),
            "maintenance" => "the site is in maintenance".to_owned(),
            "malformed" => "it was no request that can be read in one way alone".to_owned(),
            "client_ca" | "misdirected" => "it came on a connection that was opened for another site".to_owned(),
            "no-site" => "no site is for the host that it named".to_owned(),
            "no-route" => "the site has nothing at this path".to_owned(),
            "pressure" => "its client took nothing of the answer while memory was short".to_owned(),
            "appetite" => "its client had not taken the answers before it on the connection".to_owned(),
            "cut" => "it was under way when its connection was ended".to_owned(),
            _ => "a rule of the configuration answers so".to_owned(),
        },
    };
    if by.is_empty() { words } else { format!("{words} (refused={named})") }
}

fn times(request: &Failed) -> String {
    let Failed { queue_ms, connect_ms, upstream_ms, total_ms, tries, .. } = request;
    let queued = (*queue_ms > 0).then(|| format!("{} in the queue", time(*queue_ms)));
    let connected = connect_ms.map(|ms| format!("connected after {}", time(ms)));
    let upstream = (*tries > 0).then(|| format!("{} on the upstream", time(*upstream_ms)));
    let all: Vec<_> = queued.into_iter().chain(connected).chain(upstream).chain([format!("{} in all", time(*total_ms))]).collect();
    all.join(", ")
}

fn who(fate: &Fate, look: Look) -> String {
    let Fate { instance, release, pid, started_ms, restart, .. } = fate;
    let release = release.as_deref().map(|release| format!(" of release {}", escape(release))).unwrap_or_default();
    let restart = if *restart == 0 { "its first start".to_owned() } else { format!("restart {restart}") };
    format!("{}{release}, pid {pid}, {restart}, started {}", escape(instance), moment(*started_ms, look))
}

fn end(end: Option<&End>, look: Look) -> String {
    let Some(End { how, signal, oom, at_ms, .. }) = end else { return "it still runs".to_owned() };
    let oom = match (oom, signal) {
        (Some(true), _) => ", most likely out of memory: the kernel has killed for that meanwhile",
        (None, Some(9)) => ", perhaps out of memory: the kernel does not say",
        (Some(false) | None, _) => "",
    };
    format!("{}{oom}, {}", escape(how), moment(*at_ms, look))
}

/// What to do.
fn next(account: &Account) -> String {
    let Account { request, process, ended, now } = account;
    let app = request.app.as_ref().map(|app| escape(app.as_str()));
    let end = process.as_ref().and_then(|fate| fate.end.as_ref());
    let logs = |app: &str| format!("`gateway logs {app}` has more of its output");
    match (request.fault, app) {
        (_, Some(app)) if ended.len() > 1 => {
            format!("send that request to {app} alone, as on your own machine, and see what it ends of; {}", logs(&app))
        }
        (Fault::Refused, _) => after_refusal(request.refused.as_deref().unwrap_or_default(), request.site.as_deref()),
        (Fault::Answered, Some(app)) => format!("ask the app: `gateway logs {app}` has what it said meanwhile"),
        (Fault::Answered, None) => "the reason is in the logs of that server".to_owned(),
        (Fault::Full, _) => "raise `max_conns` or add servers; `gateway upstreams` shows how many requests each has".to_owned(),
        (_, Some(app)) if end.is_some_and(|end| end.oom == Some(true)) => {
            format!("give {app} more memory or fewer processes, or look for what it keeps; {}", logs(&app))
        }
        (Fault::HoldFull | Fault::HoldTimedOut, Some(app)) => {
            format!("`gateway apps` shows when it is tried again; how many wait and how long is `hold` of [app.{app}]; {}", logs(&app))
        }
        (Fault::NoServer, Some(app)) => {
            let stopped = !now.is_empty() && now.iter().all(|one| one.state == InstanceState::Stopped);
            if stopped {
                format!("`gateway start {app}`: it was stopped")
            } else {
                format!("`gateway apps` shows when it is tried again; {}", logs(&app))
            }
        }
        (Fault::ReadTimeout | Fault::SendTimeout, Some(app)) => {
            format!("find out what {app} waits for; the deadline is `timeouts` of [app.{app}]; {}", logs(&app))
        }
        (_, Some(app)) if end.is_some() => format!("its process ended, the lines above may say why; {}", logs(&app)),
        (_, Some(app)) => format!("its process still runs; {}", logs(&app)),
        (_, None) => "`gateway upstreams` shows who is up and why not; the rest is in the logs of that server".to_owned(),
    }
}

/// What to do about a refusal that is a mistake.
fn after_refusal(by: &str, site: Option<&str>) -> String {
    let site = site.map_or_else(|| "its site".to_owned(), |site| format!("site {}", escape(site)));
    match by.split_once(':').map_or(by, |(kind, _)| kind) {
        "zone" => "`gateway zones` shows what is limited; the access log has the client".to_owned(),
        "filter" => {
            format!("where such a request is honest, let the filter or its family observe it: `filters` of {site}, or of its route")
        }
        "ban" => "`gateway bans` says until when and for what, `gateway unban IP` ends it".to_owned(),
        "maintenance" => format!("`gateway maintenance SITE off` for {site}"),
        "no-site" => "name the host in `host` or `aliases` of a [[site]]".to_owned(),
        "no-route" => format!("a route of {site} could serve the path"),
        "limit" | "deadline" => "raise it where honest clients meet it; the access log has the client".to_owned(),
        "auth" | "allow" | "deny" | "methods" => format!("it is a rule of {site}, or of its route"),
        _ => "the access log has the client and the request".to_owned(),
    }
}

fn moment(ms: u64, look: Look) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    let ago = look.now.duration_since(at);
    let ago = if ago < SignedDuration::ZERO { SignedDuration::ZERO } else { ago };
    format!("{} ago ({at:.3})", span(ago).unwrap_or_default())
}

fn time(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::terminal::Paint,
        ipc::message::{Incarnation, InstanceId},
        vocab::AppName,
    };

    const AT: u64 = 1_768_473_000_000;

    fn look() -> Look {
        let now = i64::try_from(AT + 65_000).expect("small");
        Look { paint: Paint::Plain, now: Timestamp::from_millisecond(now).expect("a moment") }
    }

    fn died() -> Account {
        Account {
            request: Failed {
                id: "4bf92f".into(),
                at_ms: AT,
                site: Some("example.com".into()),
                route: Some("/".into()),
                method: "POST".into(),
                path: "/orders".into(),
                status: 502,
                upstream: Some("web".into()),
                app: Some(AppName::parse("web").expect("valid")),
                server: Some("web.0".into()),
                n: Some(0),
                incarnation: Some(Incarnation(3)),
                tries: 1,
                lost_by: vec![(InstanceId { app: AppName::parse("web").expect("valid"), n: 0 }, Incarnation(3))],
                fault: Fault::Reset,
                refused: None,
                deadline_ms: None,
                detail: Some("Upstream ConnectionClosed".into()),
                queue_ms: 0,
                connect_ms: Some(1),
                upstream_ms: 12,
                total_ms: 13,
                edge_started_ms: 0,
            },
            process: Some(Fate {
                instance: "web.0".into(),
                incarnation: Incarnation(3),
                release: None,
                pid: 4711,
                started_ms: AT - 3_600_000,
                restart: 2,
                end: Some(End { how: "exit 3".into(), code: Some(3), signal: None, oom: Some(false), at_ms: AT + 1 }),
                stderr: vec!["Traceback (most recent call last):".into(), "KeyError: \u{1b}[31m'id'".into()],
                suspects: Vec::new(),
            }),
            ended: Vec::new(),
            now: vec![Now { instance: "web.0".into(), state: InstanceState::Ready, pid: Some(4712), last_exit: Some("exit 3".into()) }],
        }
    }

    #[test]
    fn a_request_whose_process_died_of_it() {
        insta::assert_snapshot!("why_died", why(&died(), look()));
    }

    #[test]
    fn a_request_that_hung_and_one_for_which_there_was_nobody() {
        let mut hung = died();
        hung.request = Failed {
            status: 504,
            fault: Fault::ReadTimeout,
            deadline_ms: Some(60_000),
            upstream_ms: 60_001,
            total_ms: 60_002,
            tries: 2,
            ..hung.request
        };
        hung.process = hung.process.map(|fate| Fate { end: None, stderr: Vec::new(), ..fate });
        let mut nobody = died();
        nobody.request = Failed {
            status: 503,
            fault: Fault::NoServer,
            server: None,
            n: None,
            incarnation: None,
            tries: 0,
            detail: None,
            connect_ms: None,
            ..nobody.request
        };
        nobody.process = nobody.process.map(|fate| Fate {
            end: Some(End { how: "signal 9 (KILL)".into(), code: None, signal: Some(9), oom: Some(true), at_ms: AT - 500 }),
            ..fate
        });
        insta::assert_snapshot!("why_hung", why(&hung, look()));
        insta::assert_snapshot!("why_nobody", why(&nobody, look()));
    }

    #[test]
    fn a_request_that_met_two_ends() {
        let mut poison = died();
        poison.request = Failed { method: "GET".into(), path: "/crash".into(), tries: 2, ..poison.request };
        let first = poison.process.clone().expect("known");
        let other = Suspect { id: "77aa".into(), request: "GET /slow".into(), again: false };
        poison.process = Some(Fate { suspects: vec![other], ..first.clone() });
        let before = Fate { instance: "web.1".into(), incarnation: Incarnation(2), pid: 4700, ..first };
        poison.ended = vec![before, poison.process.clone().expect("set")];
        insta::assert_snapshot!("why_poison", why(&poison, look()));
    }

    #[test]
    fn a_request_that_was_refused_and_one_that_the_app_itself_answered_so() {
        let mut refused = died();
        (refused.process, refused.now) = (None, Vec::new());
        refused.request = Failed {
            status: 429,
            fault: Fault::Refused,
            refused: Some("zone:api".into()),
            server: None,
            n: None,
            incarnation: None,
            tries: 0,
            detail: None,
            connect_ms: None,
            ..refused.request
        };
        insta::assert_snapshot!("why_refused", why(&refused, look()));
        let mut answered = died();
        answered.request = Failed { status: 503, fault: Fault::Answered, detail: None, ..answered.request };
        answered.process = answered.process.map(|fate| Fate { end: None, stderr: Vec::new(), ..fate });
        insta::assert_snapshot!("why_answered", why(&answered, look()));
    }

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        let text = why(&died(), look());
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("\\u{1b}[31m'id'"), "{text}");
    }
}
