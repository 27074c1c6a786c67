//! The status page: one HTML document, its style and twenty lines of script that bring it up to date.
//!
//! Pure. Works without script, in the dark and on a phone; nothing comes from elsewhere. Every value is escaped.

use std::fmt::{self, Display, Write as _};

use super::view::{App, Certificate, Fault, Listener, Site, Status, System, Traffic, Upstream, Zone};
use crate::ipc::message::InstanceState;

pub const CSS: &str = include_str!("page.css");
pub const JS: &str = include_str!("page.js");

/// The whole document.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = String::with_capacity(16 * 1024);
    // A String takes all that is written to it.
    let _ = document(status, &mut out);
    out
}

fn document(status: &Status, out: &mut String) -> fmt::Result {
    let verdict = status.status.as_str();
    write!(
        out,
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <meta name=color-scheme content=\"light dark\">\n<title>{verdict} · gateway</title>\n<link rel=icon href=\"data:,\">\n\
         <link rel=stylesheet href=/page.css>\n<script src=/page.js defer></script>\n<main id=page>\n"
    )?;
    header(status, out)?;
    tiles(&status.traffic, status.banned, &status.system, out)?;
    sites(&status.sites, out)?;
    apps(&status.apps, out)?;
    upstreams(&status.upstreams, out)?;
    out.write_str("<div class=columns>\n")?;
    zones(&status.zones, out)?;
    certificates(&status.certificates, out)?;
    listeners(&status.listeners, out)?;
    out.write_str("</div>\n")?;
    write!(
        out,
        "<footer>As of {} · <a href=/api/status>JSON</a> · <a href=/metrics>metrics</a> · <a href=/health/detailed>health</a></footer>\n</main>\n",
        Moment(&status.timestamp)
    )
}

fn header(status: &Status, out: &mut String) -> fmt::Result {
    let Status { status: verdict, message, faults, version, uptime_seconds, process, .. } = status;
    write!(out, "<header class={v}>\n<h1><span class=dot></span>gateway <em>{v}</em></h1>\n", v = verdict.as_str())?;
    if faults.is_empty() {
        writeln!(out, "<p class=message>{}</p>", Text(message))?;
    } else {
        out.write_str("<ul class=faults>\n")?;
        for Fault { status, what, so } in faults {
            write!(out, "<li class={}>{}", status.as_str(), Text(what))?;
            so.iter().try_for_each(|so| write!(out, "<small>so {}</small>", Text(so)))?;
            out.write_char('\n')?;
        }
        out.write_str("</ul>\n")?;
    }
    write!(
        out,
        "<p class=facts>version {} · up {} · <code>{}</code> · generation {} ({}) · master {} · edge {} ({})</p>\n</header>\n",
        Text(version),
        Span(*uptime_seconds),
        Text(&process.config),
        process.generation,
        refused(process.reloads, process.reloads_refused),
        process.master_pid,
        process.edge_pid,
        counted(process.edge_restarts, "restart"),
    )
}

fn refused(done: u64, refused: u64) -> String {
    if refused == 0 { counted(done, "reload") } else { format!("{}, {refused} refused", counted(done, "reload")) }
}

fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", Grouped(n), if n == 1 { "" } else { "s" })
}

fn tiles(traffic: &Traffic, banned: u64, system: &System, out: &mut String) -> fmt::Result {
    let mut tile = |name: &str, value: &dyn Display, note: &dyn Display| {
        writeln!(out, "<div class=tile><span>{name}</span><b>{value}</b><small>{note}</small></div>")
    };
    let pace = traffic.recent.map_or_else(|| "–".to_owned(), |recent| format!("{:.1}", recent.requests_per_second));
    let errors = traffic.recent.map_or(traffic.error_rate, |recent| recent.error_rate);
    tile("Requests a second", &pace, &format_args!("{} in all", Grouped(traffic.requests)))?;
    tile(
        "Errors",
        &format_args!("{:.2} %", errors * 100.0),
        &format_args!("{} × 5xx · {} × 4xx", Grouped(traffic.errors), Grouped(traffic.client_errors)),
    )?;
    tile("In flight", &Grouped(traffic.in_flight), &counted(traffic.connections, "connection"))?;
    if banned > 0 {
        tile("Banned", &Grouped(banned), &"gateway bans")?;
    }
    tile("Sent", &Bytes(traffic.sent_bytes), &format_args!("{} received", Bytes(traffic.received_bytes)))?;
    tile("CPU", &format_args!("{:.0} %", system.cpu.usage_ratio * 100.0), &format_args!("load {:.2}", system.cpu.load1))?;
    let memory = &system.memory;
    tile(
        "Memory",
        &format_args!("{:.0} %", memory.used_ratio * 100.0),
        &format_args!("{} of {}", Bytes(memory.used_bytes), Bytes(memory.total_bytes)),
    )?;
    for disk in &system.disk {
        let free = format!("{} free of {}", Bytes(disk.free_bytes), Bytes(disk.total_bytes));
        tile(&format!("Disk {}", Text(&disk.mount)), &format_args!("{:.0} %", disk.used_ratio * 100.0), &free)?;
    }
    Ok(())
}

/// A section with a table; says so where there is nothing.
fn table<T>(title: &str, heads: &[&str], rows: &[T], out: &mut String, mut row: impl FnMut(&T, &mut String) -> fmt::Result) -> fmt::Result {
    write!(out, "<section>\n<h2>{title}</h2>\n")?;
    if rows.is_empty() {
        return out.write_str("<p class=none>None.</p>\n</section>\n");
    }
    out.write_str("<div class=scroll><table>\n<thead><tr>")?;
    heads.iter().try_for_each(|head| write!(out, "<th>{head}"))?;
    out.write_str("</tr></thead>\n<tbody>\n")?;
    rows.iter().try_for_each(|item| row(item, out))?;
    out.write_str("</tbody></table></div>\n</section>\n")
}

fn sites(sites: &[Site], out: &mut String) -> fmt::Result {
    table("Sites", &["Site", "Hosts", "TLS", "Routes", "Requests", "5xx", "In flight"], sites, out, |site, out| {
        write!(out, "<tr><th>{}<td>", Text(&site.name))?;
        list(site.hosts.iter().map(|host| Text(host)), out)?;
        write!(out, "<td>{}<td>", Text(&site.tls))?;
        list(site.routes.iter().map(|route| format!("<code>{}</code> → {}", Text(&route.path), Text(&route.action))), out)?;
        writeln!(out, "<td class=n>{}<td class=n>{}<td class=n>{}", Grouped(site.requests), Grouped(site.errors), Grouped(site.in_flight))
    })
}

fn list<T: Display>(items: impl Iterator<Item = T>, out: &mut String) -> fmt::Result {
    for (n, item) in items.enumerate() {
        write!(out, "{}{item}", if n == 0 { "" } else { "<br>" })?;
    }
    Ok(())
}

fn apps(apps: &[App], out: &mut String) -> fmt::Result {
    let rows: Vec<_> = apps.iter().flat_map(|app| &app.instances).collect();
    table(
        "Apps",
        &["Instance", "State", "Since", "PID", "Address", "Restarts", "Last exit", "CPU", "Memory"],
        &rows,
        out,
        |instance, out| {
            let colour = match instance.state {
                InstanceState::Ready => "good",
                InstanceState::Starting | InstanceState::Draining | InstanceState::Stopping => "busy",
                InstanceState::Backoff | InstanceState::Cooldown | InstanceState::Taken | InstanceState::Failed => "bad",
                InstanceState::Stopped | InstanceState::Exited => "off",
            };
            write!(out, "<tr><th>{}<td><span class=\"pill {colour}\">{}</span>", Text(&instance.id), instance.state.as_str())?;
            if let Some(due) = &instance.next_start {
                write!(out, "<small>next start {}</small>", Moment(due))?;
            }
            if let Some(note) = &instance.note {
                write!(out, "<small>{}</small>", Text(note))?;
            }
            write!(out, "<td>{}<td class=n>{}", Moment(&instance.since), instance.pid.map(|pid| pid.to_string()).unwrap_or_default())?;
            write!(
                out,
                "<td><code>{}</code><td class=n>{}<td>",
                Text(instance.address.as_deref().unwrap_or_default()),
                Grouped(instance.restarts)
            )?;
            if let (Some(how), Some(at)) = (&instance.last_exit, &instance.last_exit_at) {
                write!(out, "{}<small>{}</small>", Text(how), Moment(at))?;
            }
            writeln!(out, "<td class=n>{:.1} s<td class=n>{}", instance.cpu_seconds, Bytes(instance.memory_bytes))
        },
    )
}

fn upstreams(upstreams: &[Upstream], out: &mut String) -> fmt::Result {
    let rows: Vec<_> = upstreams.iter().flat_map(|upstream| upstream.servers.iter().map(move |server| (upstream, server))).collect();
    table("Upstreams", &["Upstream", "Server", "State", "Address", "In flight", "Weight"], &rows, out, |(upstream, server), out| {
        let (colour, word) = if server.up { ("good", "up") } else { ("bad", "down") };
        write!(out, "<tr><th>{}<td><code>{}</code>", Text(&upstream.name), Text(&server.server))?;
        write!(out, "<td><span class=\"pill {colour}\">{word}</span>")?;
        if upstream.panic {
            out.write_str("<small>used all the same: no other is up</small>")?;
        }
        if let Some(reason) = &server.reason {
            write!(out, "<small>{}</small>", Text(reason))?;
        }
        let backup = if server.backup { " backup" } else { "" };
        writeln!(
            out,
            "<td><code>{}</code><td class=n>{}<td class=n>{}{backup}",
            Text(&server.address),
            Grouped(server.in_flight),
            server.weight
        )
    })
}

fn zones(zones: &[Zone], out: &mut String) -> fmt::Result {
    let columns = ["Zone", "Key", "Limit", "Mode", "Keys", "Waiting", "Passed", "Delayed", "Rejected", "Would reject"];
    table("Zones", &columns, zones, out, |zone, out| {
        writeln!(
            out,
            "<tr><th>{}<td>{}<td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
            Text(&zone.name),
            Text(&zone.key),
            Text(&zone.limit()),
            Text(&zone.mode),
            Grouped(zone.keys),
            Grouped(zone.waiting),
            Grouped(zone.passed),
            Grouped(zone.delayed),
            Grouped(zone.rejected),
            Grouped(zone.would_reject)
        )
    })
}

fn certificates(certificates: &[Certificate], out: &mut String) -> fmt::Result {
    table("Certificates", &["Host", "Names", "From", "Ends", "Renewal", "State"], certificates, out, |certificate, out| {
        let Certificate { host, not_after, source, problem, advice, names, issuer, state, renew_at, renew_why, at_risk, .. } = certificate;
        write!(out, "<tr><th>{}<td>", Text(host))?;
        list(names.iter().map(|name| Text(name)), out)?;
        write!(out, "<td>{}", Text(source))?;
        if let Some(issuer) = issuer {
            write!(out, "<small>{}</small>", Text(issuer))?;
        }
        write!(out, "<td>{}<td>", Moment(not_after.as_deref().unwrap_or("unknown")))?;
        if let Some(at) = renew_at {
            write!(out, "{}<small>{}</small>", Moment(at), Text(renew_why.as_deref().unwrap_or_default()))?;
        }
        let colour = if problem.is_some() || *at_risk { "bad" } else { "good" };
        let word = state.as_deref().unwrap_or(if problem.is_some() { "faulty" } else { "served" });
        write!(out, "<td><span class=\"pill {colour}\">{}</span>", Text(word))?;
        if *at_risk {
            out.write_str("<small class=bad>at risk: not renewed in time</small>")?;
        }
        if let Some(problem) = problem {
            write!(out, "<small class=bad>{}</small>", Text(problem))?;
        }
        if let Some(advice) = advice {
            write!(out, "<small>{}</small>", Text(advice))?;
        }
        out.write_char('\n')
    })
}

fn listeners(listeners: &[Listener], out: &mut String) -> fmt::Result {
    table("Listeners", &["Role", "Address", "State"], listeners, out, |listener, out| {
        let (colour, word) = if listener.accepting { ("good", "accepts") } else { ("bad", "closed") };
        writeln!(
            out,
            "<tr><th>{}<td><code>{}</code><td><span class=\"pill {colour}\">{word}</span>",
            Text(&listener.role),
            Text(&listener.bound)
        )
    })
}

/// Text in HTML, between tags or in a quoted attribute.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            _ => f.write_char(c),
        })
    }
}

/// `2026-01-15 10:30:00 UTC`, of an RFC 3339 moment in UTC.
struct Moment<'a>(&'a str);

impl Display for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_suffix('Z').and_then(|text| text.split_once('T')) {
            Some((day, time)) => write!(f, "<time>{} {} UTC</time>", Text(day), Text(time)),
            None => Text(self.0).fmt(f),
        }
    }
}

/// `1,234,567`
struct Grouped(u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        digits.char_indices().try_for_each(|(at, digit)| {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)
        })
    }
}

/// `1.5 GB`
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (size, unit) in [(1_u64 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")] {
            if self.0 >= size {
                return write!(f, "{:.1} {unit}", self.0 as f64 / size as f64);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// `3 d 4 h`, of a number of seconds.
struct Span(u64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s @ 0..60 => write!(f, "{s} s"),
            s @ 60..3_600 => write!(f, "{} min", s / 60),
            s @ 3_600..86_400 => write!(f, "{} h {} min", s / 3_600, s / 60 % 60),
            s => write!(f, "{} d {} h", s / 86_400, s / 3_600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::Verdict;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(|n| Grouped(n).to_string()), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1536, 5 << 30].map(|n| Bytes(n).to_string()), ["0 B", "1.5 KB", "5.0 GB"]);
        assert_eq!([59, 61, 3_700, 90_000].map(|n| Span(n).to_string()), ["59 s", "1 min", "1 h 1 min", "1 d 1 h"]);
        assert_eq!(Text("<a href='x'>&\"").to_string(), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
        assert_eq!(Moment("2026-01-15T10:30:00Z").to_string(), "<time>2026-01-15 10:30:00 UTC</time>");
        assert_eq!(Moment("<").to_string(), "&lt;");
        assert_eq!(Verdict::Degraded.as_str(), "degraded");
    }
}
