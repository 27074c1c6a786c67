//! `[site.route."PATH"]`, and what a site gives to all of its routes.

use http::{HeaderValue, StatusCode};
use ipnet::IpNet;

use super::{Context, Names, access, cors, filter, header::edits, listener, methods::methods, zone::zones};
use crate::{
    config::{
        complaint::{Code, Place},
        defaults, file,
        shape::{At, Either, Field, List, Named},
        tree::Text,
        value::{FilePath, regex},
    },
    plan::{self, Action, Filters, PathMatch},
    vocab::{ByteSize, Host, UpstreamName, ZoneName},
};

/// At most so many bytes of an answer stand in a configuration.
const RESPOND: usize = 64 << 10;

/// What a route has where it does not say otherwise.
pub struct Shared {
    pub zones: Vec<ZoneName>,
    pub filters: Filters,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub extensions: Vec<String>,
    pub auth: Option<plan::Auth>,
    pub cors: Option<plan::Cors>,
    pub body: ByteSize,
    pub buffer: Option<ByteSize>,
}

impl Shared {
    /// The route `/` of a site that has not written one.
    fn everything_else(&self, action: Action) -> plan::Route {
        plan::Route {
            path: PathMatch::Prefix("/".into()),
            action,
            strip: None,
            rewrite: None,
            zones: self.zones.clone(),
            methods: Vec::new(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            body_limit: self.body,
            buffer: self.buffer,
            filters: self.filters.clone(),
            extensions: self.extensions.clone(),
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            auth: self.auth.clone(),
            cors: self.cors.clone(),
        }
    }
}

/// Takes the shared keys out of a site.
pub fn shared(table: &mut file::Site, limits: &plan::Limits, names: &Names, c: &mut Context<'_>) -> Shared {
    let take = |field: &mut Field<_>| std::mem::replace(field, Field::Absent);
    let zone = std::mem::replace(&mut table.zone, Field::Absent);
    let filters = std::mem::replace(&mut table.filters, Field::Absent);
    let (body, buffer) = request_limits(std::mem::replace(&mut table.limits, Field::Absent), c);
    Shared {
        zones: zones(zone, "a site", names, c).unwrap_or_default(),
        filters: filters.value().map_or(filter::SAFE, |filters| filter::compile(filters, c)),
        allow: c.nets(take(&mut table.allow)),
        deny: c.nets(take(&mut table.deny)),
        extensions: extensions(std::mem::replace(&mut table.extensions, Field::Absent), c),
        auth: access::auth(std::mem::replace(&mut table.auth, Field::Absent), c).flatten(),
        cors: cors::cors(std::mem::replace(&mut table.cors, Field::Absent), c).flatten(),
        body: body.unwrap_or(limits.body),
        buffer: buffer.unwrap_or(limits.buffer),
    }
}

/// The most of a body, and how much of it is held back; `None`: it is not said here.
fn request_limits(field: Field<file::RequestLimits>, c: &mut Context<'_>) -> (Option<ByteSize>, Option<Option<ByteSize>>) {
    let Some(file::RequestLimits { place: _, body, buffer }) = field.value() else { return (None, None) };
    (body.value().map(|size| size.0), listener::buffer(buffer, c))
}

#[expect(clippy::too_many_arguments, reason = "the keys of a site that are short for a route, each in its own shape")]
pub fn routes(
    site: &str,
    place: Place,
    app: Field<Text>,
    upstream: Field<Text>,
    root: &Field<FilePath>,
    table: Field<Named<file::Route>>,
    shared: &Shared,
    names: &Names,
    c: &mut Context<'_>,
) -> Option<Vec<plan::Route>> {
    let mut all: Vec<plan::Route> = Vec::new();
    let (mut whole, mut slash) = (true, false);
    let listed = !table.is_absent();
    for (path, route) in table.value().map(|named| named.0).unwrap_or_default() {
        let matched = path_match(&path, c);
        slash |= matched == Some(PathMatch::Prefix("/".into()));
        if let Some(matched) = &matched
            && all.iter().any(|other| other.path == *matched)
        {
            c.out.add(Code::DuplicateRoute, path.place, format!("site {site:?} has the route {:?} twice", path.value));
        }
        match route.value().and_then(|table| self::route(site, &path.value, matched, table, shared, names, c)) {
            Some(route) => all.push(route),
            None => whole = false,
        }
    }
    let short = app.place().or(upstream.place());
    if let Some(place) = short {
        if slash {
            let cure = "keep one of them";
            c.out.add_with_cure(Code::Conflict, place, format!("site {site:?} has an app or upstream of its own and a route \"/\""), cure);
        }
        match proxy(&format!("site {site:?}"), app, upstream, names, c) {
            Some(upstream) => all.push(shared.everything_else(Action::Proxy { upstream })),
            None => whole = false,
        }
    } else if !listed && root.is_absent() {
        let cure = "add app = \"…\" or upstream = \"…\", or routes such as [site.route.\"/\"]";
        c.out.add_with_cure(Code::MissingKey, place, format!("site {site:?} serves nothing"), cure);
        whole = false;
    } else if !slash {
        // So that what no route fits passes the same gates before it is refused: https, addresses, zones, the screen.
        all.push(shared.everything_else(Action::NotFound));
    }
    whole.then_some(all)
}

/// `= /exact`, `~ regex`, `/prefix`.
fn path_match(path: &At<String>, c: &mut Context<'_>) -> Option<PathMatch> {
    let text = path.value.trim();
    let place = path.place;
    if let Some(pattern) = text.strip_prefix('~') {
        if pattern.starts_with('*') {
            let cure = format!("write \"~ (?i){}\"", pattern.trim_start_matches('*').trim());
            c.out.add_with_cure(Code::BadRoute, place, "\"~*\" is nginx's word for a regex that does not mind case", cure);
            return None;
        }
        let pattern = pattern.trim();
        return match regex(pattern) {
            Ok(_) if pattern.is_empty() => {
                c.out.add(Code::BadRoute, place, "a route may not be empty");
                None
            }
            Ok(_) => Some(PathMatch::Regex(pattern.to_owned())),
            Err(message) => {
                c.out.add(Code::BadRegex, place, message);
                None
            }
        };
    }
    let exact = text.strip_prefix('=').map(str::trim);
    let wanted = exact.unwrap_or(text);
    let good = wanted.starts_with('/') && !wanted.contains(['?', '#']) && !wanted.chars().any(|ch| ch.is_control() || ch.is_whitespace());
    if !good {
        let cure = "write \"/prefix/\", \"= /exact\" or \"~ regex\", without a query";
        c.out.add_with_cure(Code::BadRoute, place, format!("{:?} is not a route", path.value), cure);
        return None;
    }
    Some(if exact.is_some() { PathMatch::Exact(wanted.to_owned()) } else { PathMatch::Prefix(wanted.to_owned()) })
}

fn route(
    site: &str,
    written: &str,
    path: Option<PathMatch>,
    table: file::Route,
    shared: &Shared,
    names: &Names,
    c: &mut Context<'_>,
) -> Option<plan::Route> {
    let file::Route {
        place,
        app,
        upstream,
        strip,
        rewrite,
        zone,
        methods,
        request_headers,
        response_headers,
        redirect,
        respond,
        limits,
        filters,
        allow,
        deny,
        extensions,
        auth,
        cors,
        compress,
        root,
        cache,
        fastcgi,
        try_,
        errors,
    } = table;
    let who = format!("route {written:?} of site {site:?}");
    compress.not_yet("compress", "take it out: what the app compresses passes as it is", c.out);
    root.not_yet("root", "take this route out, and let an app serve the files", c.out);
    cache.not_yet("cache", "write response_headers = { \"Cache-Control\" = \"public, max-age=31536000, immutable\" }", c.out);
    fastcgi.not_yet("fastcgi", "take this route out, and let an app that speaks HTTP serve it", c.out);
    try_.not_yet("try", "take it out", c.out);
    errors.not_yet("errors", "take it out: our own pages are shown", c.out);

    let unbuilt = !root.is_absent() || !fastcgi.is_absent();
    let proxied = !app.is_absent() || !upstream.is_absent();
    let answers = [proxied.then(|| app.place().or(upstream.place())).flatten(), redirect.place(), respond.place()];
    if let [_, second, ..] = answers.into_iter().flatten().collect::<Vec<_>>()[..] {
        c.out.add_with_cure(Code::Conflict, second, format!("{who} has two answers"), "keep one of app, upstream, redirect and respond");
    }
    for (key, at) in [("strip", strip.place()), ("rewrite", rewrite.place()), ("request_headers", request_headers.place())] {
        if let Some(place) = at.filter(|_| !proxied && !unbuilt) {
            c.out.add(Code::Conflict, place, format!("{who} goes to no app or upstream: {key} has no meaning here"));
        }
    }
    if let Some(place) = rewrite.place().filter(|_| !strip.is_absent()) {
        c.out.add_with_cure(
            Code::Conflict,
            place,
            format!("{who} has both strip and rewrite"),
            "keep one of them: rewrite can do what strip does",
        );
    }
    let strip = self::strip(strip, path.as_ref(), &who, c);
    let rewrite = self::rewrite(rewrite, c);
    let zones = zones(zone, &who, names, c);
    let methods = self::methods(methods, c);
    let request_headers = request_headers.value().map(|table| edits(table, c)).unwrap_or_default();
    let response_headers = response_headers.value().map(|table| edits(table, c)).unwrap_or_default();
    let extensions = if extensions.is_absent() { shared.extensions.clone() } else { self::extensions(extensions, c) };
    let auth = access::auth(auth, c);
    let cors = cors::cors(cors, c);
    let redirect = redirect.given().map(|at| self::redirect(at, c));
    let respond = respond.given().map(|at| self::respond(at, c));
    let action = if proxied {
        proxy(&who, app, upstream, names, c).map(|upstream| Action::Proxy { upstream })
    } else if let Some(redirect) = redirect {
        redirect
    } else if let Some(respond) = respond {
        respond
    } else {
        if answers.iter().all(Option::is_none) && !unbuilt {
            c.out.add_with_cure(Code::MissingKey, place, format!("{who} answers nothing"), "add app, upstream, redirect or respond");
        }
        None
    };
    let filters = filters.value().map_or_else(|| shared.filters.clone(), |filters| filter::compile(filters, c));
    let (body, buffer) = request_limits(limits, c);
    let own = |own: Field<_>, site: &Vec<IpNet>, c: &mut Context<'_>| if own.is_absent() { site.clone() } else { c.nets(own) };
    Some(plan::Route {
        allow: own(allow, &shared.allow, c),
        deny: own(deny, &shared.deny, c),
        path: path?,
        action: action?,
        strip,
        rewrite,
        zones: zones.unwrap_or_else(|| shared.zones.clone()),
        methods,
        request_headers,
        response_headers,
        body_limit: body.unwrap_or(shared.body),
        buffer: buffer.unwrap_or(shared.buffer),
        filters,
        extensions,
        auth: auth.unwrap_or_else(|| shared.auth.clone()),
        cors: cors.unwrap_or_else(|| shared.cors.clone()),
    })
}

/// Where requests go; the name exists and listens.
fn proxy(who: &str, app: Field<Text>, upstream: Field<Text>, names: &Names, c: &mut Context<'_>) -> Option<UpstreamName> {
    if let (Some(_), Some(place)) = (app.place(), upstream.place()) {
        c.out.add_with_cure(Code::Conflict, place, format!("{who} has both app and upstream"), "keep one of them");
        return None;
    }
    let is_app = !app.is_absent();
    let At { value: name, place } = app.given().or(upstream.given())?;
    match names.apps.get(&name.value) {
        Some(Some(true) | None) => return UpstreamName::parse(&name.value).ok(),
        Some(Some(false)) => {
            let cure = "take its schedule out, or send these requests elsewhere";
            c.out.add_with_cure(Code::MissingPort, place, format!("{who} proxies to app {}, which is a job", name.shown()), cure);
            return None;
        }
        None if !is_app && names.upstreams.contains(&name.value) => return UpstreamName::parse(&name.value).ok(),
        None => {}
    }
    let apps = names.apps.keys().map(String::as_str);
    if is_app {
        if names.upstreams.contains(&name.value) {
            let message = format!("{who} proxies to app {}, which is an upstream", name.shown());
            c.out.add_with_cure(Code::UnknownApp, place, message, format!("write upstream = {}", name.shown()));
        } else {
            c.dangling(Code::UnknownApp, place, &format!("{who} proxies to app"), &name, apps);
        }
    } else {
        let known = apps.chain(names.upstreams.iter().map(String::as_str));
        // A server, where the name of several would stand.
        let server = name.value.split_once("://").map_or(name.value.as_str(), |(_, rest)| rest).trim_end_matches('/');
        if server.contains(':') && !name.is_hidden() {
            let cure = format!("write [upstream.api] with servers = [{server:?}], and upstream = \"api\" here");
            c.out.add_with_cure(
                Code::UnknownUpstream,
                place,
                format!("{who} names a server, {}, where the name of an upstream stands", name.shown()),
                cure,
            );
        } else {
            c.dangling(Code::UnknownUpstream, place, &format!("{who} proxies to upstream"), &name, known);
        }
    }
    None
}

fn strip(field: Field<Text>, path: Option<&PathMatch>, who: &str, c: &mut Context<'_>) -> Option<String> {
    let At { value: text, place } = field.given()?;
    if !text.value.starts_with('/') || text.value == "/" {
        c.out.add(Code::BadPath, place, format!("{} is not a prefix to take off: write it as in \"/api\"", text.shown()));
        return None;
    }
    if let Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) = path
        && !path.starts_with(text.value.trim_end_matches('/'))
    {
        c.out.add(Code::Conflict, place, format!("{who} never starts with {}", text.shown()));
    }
    Some(text.value)
}

fn rewrite(field: Field<List<Text>>, c: &mut Context<'_>) -> Option<plan::Rewrite> {
    let At { value: List(parts), place } = field.given()?;
    let [pattern, to] = <[At<Text>; 2]>::try_from(parts)
        .map_err(|_| c.out.add(Code::BadValue, place, "rewrite is a pattern and a replacement, as in [\"^/old/(.*)\", \"/new/$1\"]"))
        .ok()?;
    let compiled = match regex(&pattern.value.value) {
        Ok(compiled) => compiled,
        Err(message) => {
            c.out.add(Code::BadRegex, pattern.place, message);
            return None;
        }
    };
    if !to.value.value.starts_with('/') && !to.value.value.starts_with('$') {
        c.out.add(Code::BadPath, to.place, format!("{} is not a path: it must start with '/'", to.value.shown()));
    }
    for group in groups(&to.value.value) {
        let known = match group.parse::<usize>() {
            Ok(number) => number < compiled.captures_len(),
            Err(_) => compiled.capture_names().flatten().any(|name| name == group),
        };
        if !known {
            let message = format!("the pattern has no group ${group}");
            c.out.add_with_cure(Code::BadRegex, to.place, message, "groups are numbered from 1; write ${1} before a letter or a digit");
        }
    }
    Some(plan::Rewrite { pattern: pattern.value.value, to: to.value.value })
}

/// `$1`, `${1}`, `$name` as the regex crate expands them; `$$` is a dollar.
fn groups(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            found.push(name);
            rest = after;
        } else {
            let end = rest.find(|ch: char| ch != '_' && !ch.is_ascii_alphanumeric()).unwrap_or(rest.len());
            if end > 0 {
                found.push(&rest[..end]);
            }
            rest = &rest[end..];
        }
    }
    found
}

fn extensions(field: Field<crate::config::shape::OneOrMore<Text>>, c: &mut Context<'_>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for At { value, place } in field.value().map(|list| list.0).unwrap_or_default() {
        let text = value.value.strip_prefix('.').unwrap_or(&value.value).to_ascii_lowercase();
        if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            c.out.add(Code::BadValue, place, format!("{} is not an extension: write it as in \"php\"", value.shown()));
        } else if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

fn redirect(at: At<Either<Text, file::Redirect>>, c: &mut Context<'_>) -> Option<Action> {
    let (to, place, status) = match at.value {
        Either::This(to) => (to, at.place, None),
        Either::That(file::Redirect { place, to, status }) => {
            let to = to.required("a redirect goes nowhere", place, "add to = \"https://example.com/\"", c.out)?;
            (to.value, to.place, status.given())
        }
    };
    if let Some(At { value, place }) = &status
        && !matches!(value.0.as_u16(), 301 | 302 | 303 | 307 | 308)
    {
        c.out.add(Code::BadValue, *place, format!("{} is not a redirect: write 301, 302, 303, 307 or 308", value.0.as_u16()));
    }
    let to = match as_sent(&to.value) {
        Some(value) => Text { value, ..to },
        None => to,
    };
    let good = (to.value.starts_with('/') || to.value.starts_with("https://") || to.value.starts_with("http://"))
        && HeaderValue::from_str(&to.value).is_ok()
        && !to.value.contains(' ');
    if !good {
        c.out.add(
            Code::BadPath,
            place,
            format!("{} is not where one can be sent: write a path or a URL with http:// or https://", to.shown()),
        );
        return None;
    }
    Some(Action::Redirect { to: to.value, status: status.map_or(defaults::REDIRECT, |status| status.value.0) })
}

/// A target in another script as browsers write it: the host in ASCII, the rest as percent-encoded UTF-8. `None`: it is in ASCII, or no URL.
fn as_sent(to: &str) -> Option<String> {
    if to.is_ascii() {
        return None;
    }
    let start = to.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = to.split_at(start);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let mut sent = format!("{scheme}{}", Host::spell_authority(authority)?);
    for byte in path.bytes() {
        if byte.is_ascii() {
            sent.push(char::from(byte));
        } else {
            sent.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(sent)
}

fn respond(at: At<Either<Text, file::Respond>>, c: &mut Context<'_>) -> Option<Action> {
    let file::Respond { place: _, status, body, content_type } = match at.value {
        Either::This(body) => {
            let mut table = file::Respond::empty(at.place);
            table.body = Field::Given(At { value: body, place: at.place });
            table
        }
        Either::That(table) => table,
    };
    let status = status.value().map_or(StatusCode::OK, |status| status.0);
    let body = body.given();
    if let Some(At { value, place }) = &body {
        if value.value.len() > RESPOND {
            c.out.add(
                Code::TooLarge,
                *place,
                format!("an answer of {} bytes is too large for a configuration: at most 64KB", value.value.len()),
            );
        }
        if matches!(status.as_u16(), 204 | 205 | 304) && !value.value.is_empty() {
            c.out.add(Code::Conflict, *place, format!("an answer with status {} has no body", status.as_u16()));
        }
    }
    let kind = content_type.given();
    if let Some(At { value, place }) = &kind
        && (value.value.is_empty() || HeaderValue::from_str(&value.value).is_err())
    {
        c.out.add(Code::BadHeader, *place, format!("{} is not a content type", value.shown()));
    }
    Some(Action::Respond {
        status,
        body: body.map(|at| at.value.value).unwrap_or_default(),
        content_type: kind.map_or_else(|| defaults::CONTENT_TYPE.to_owned(), |at| at.value.value),
    })
}
