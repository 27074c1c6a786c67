//! `[[site]]`, with what `[defaults]` gives it.

use std::{collections::BTreeMap, path::Path};

use super::{Context, Names, acme, header::headers, maintenance::maintenance, route, tls};
use crate::{
    config::{
        complaint::{Code, Place},
        file,
        shape::{At, Field, List, Named, OneOrMore},
        value::{FilePath, Hosts},
    },
    plan,
    vocab::{Host, HostPattern},
};

pub fn compile(
    sites: Field<List<file::Site>>,
    defaults: Field<file::Site>,
    listen: &plan::Listen,
    limits: &plan::Limits,
    policy: &plan::TlsPolicy,
    names: &Names,
    c: &mut Context<'_>,
) -> Vec<plan::Site> {
    let defaults = defaults.value();
    if let Some(table) = &defaults {
        for (key, place) in [("host", table.host.place()), ("aliases", table.aliases.place()), ("route", table.route.place())] {
            if let Some(place) = place {
                c.out.add(Code::Conflict, place, format!("{key} belongs to a [[site]]: it cannot be a default of all"));
            }
        }
    }
    let mut taken = Taken::new();
    let mut all = Vec::new();
    for At { value, .. } in sites.value().map(|list| list.0).unwrap_or_default() {
        let site = with_defaults(value, defaults.as_ref());
        all.extend(self::site(site, &mut taken, listen, limits, policy, names, c));
    }
    // What no site took over is checked all the same.
    if let Some(mut table) = defaults
        && all.is_empty()
    {
        table.route = Field::Absent;
        route::shared(&mut table, limits, names, c);
        headers(table.headers, c);
        refuse(&table.compress, &table.errors, &table.root, c);
        maintenance(table.maintenance, c);
        tls::client_ca(table.client_ca, None, c);
    }
    all
}

/// A site's own key wins; `app`, `upstream` and `root` are one choice.
fn with_defaults(site: file::Site, defaults: Option<&file::Site>) -> file::Site {
    let Some(defaults) = defaults else { return site };
    fn or<T: Clone>(own: Field<T>, default: &Field<T>) -> Field<T> {
        if own.is_absent() { default.clone() } else { own }
    }
    let slash = |routes: &Named<file::Route>| routes.0.iter().any(|(path, _)| path.value.trim() == "/");
    let serves = !site.app.is_absent()
        || !site.upstream.is_absent()
        || !site.root.is_absent()
        || site.route.as_ref().is_some_and(|at| slash(&at.value));
    let file::Site {
        place,
        host,
        aliases,
        tls,
        client_ca,
        headers,
        filters,
        zone,
        auth,
        cors,
        allow,
        deny,
        extensions,
        limits,
        compress,
        maintenance,
        errors,
        app,
        upstream,
        root,
        route,
    } = site;
    file::Site {
        place,
        host,
        aliases,
        tls: or(tls, &defaults.tls),
        client_ca: or(client_ca, &defaults.client_ca),
        headers: or(headers, &defaults.headers),
        filters: or(filters, &defaults.filters),
        zone: or(zone, &defaults.zone),
        auth: or(auth, &defaults.auth),
        cors: or(cors, &defaults.cors),
        allow: or(allow, &defaults.allow),
        deny: or(deny, &defaults.deny),
        extensions: or(extensions, &defaults.extensions),
        limits: or(limits, &defaults.limits),
        compress: or(compress, &defaults.compress),
        maintenance: or(maintenance, &defaults.maintenance),
        errors: or(errors, &defaults.errors),
        app: if serves { app } else { defaults.app.clone() },
        upstream: if serves { upstream } else { defaults.upstream.clone() },
        root: if serves { root } else { defaults.root.clone() },
        route,
    }
}

fn site(
    mut table: file::Site,
    taken: &mut Taken,
    listen: &plan::Listen,
    limits: &plan::Limits,
    policy: &plan::TlsPolicy,
    names: &Names,
    c: &mut Context<'_>,
) -> Option<plan::Site> {
    let place = table.place;
    let host = std::mem::replace(&mut table.host, Field::Absent);
    let aliases = std::mem::replace(&mut table.aliases, Field::Absent);
    let hosts = host.required("a site has no host", place, "add host = \"example.com\", or \"_\" for any name", c.out);
    let hosts = hosts.and_then(|at| self::hosts(at, aliases, taken, c));
    let name = hosts.as_ref().map_or_else(|| "?".to_owned(), |hosts| hosts.served[0].to_string());

    let headers = headers(std::mem::replace(&mut table.headers, Field::Absent), c);
    let tls = tls::of_site(std::mem::replace(&mut table.tls, Field::Absent), place, &name, listen, policy, c);
    if let (Some(tls), Some(hosts)) = (&tls, &hosts) {
        acme::signable(&name, tls, &hosts.written, &policy.acme, c);
    }
    let client_ca = tls::client_ca(std::mem::replace(&mut table.client_ca, Field::Absent), tls.as_ref(), c);
    let shared = route::shared(&mut table, limits, names, c);
    let routes = route::routes(&name, place, table.app, table.upstream, &table.root, table.route, &shared, names, c);
    refuse(&table.compress, &table.errors, &table.root, c);
    let maintenance = maintenance(table.maintenance, c);
    let route::Shared { filters, allow, deny, .. } = shared;
    let Split { served, redirected, canonical, written: _ } = hosts?;
    Some(plan::Site {
        name,
        hosts: served,
        redirected,
        canonical,
        tls: tls?,
        client_ca,
        headers,
        filters,
        allow,
        deny,
        maintenance,
        routes: routes?,
    })
}

fn refuse(compress: &Field<bool>, errors: &Field<Named<FilePath>>, root: &Field<FilePath>, c: &mut Context<'_>) {
    compress.not_yet("compress", "take it out: what the app compresses passes as it is", c.out);
    errors.not_yet("errors", "take it out: our own pages are shown", c.out);
    root.not_yet("root", "take it out, and let an app serve the files", c.out);
}

/// Every host, the site that has it, and where that site names its hosts.
type Taken = BTreeMap<HostPattern, (String, Place)>;

struct Split {
    served: Vec<HostPattern>,
    redirected: Vec<Host>,
    canonical: Option<Host>,
    /// All of them, where they stand.
    written: Vec<At<HostPattern>>,
}

fn hosts(at: At<OneOrMore<Hosts>>, aliases: Field<OneOrMore<Hosts>>, taken: &mut Taken, c: &mut Context<'_>) -> Option<Split> {
    if at.value.0.is_empty() {
        c.out.add(Code::EmptyValue, at.place, "a site has no host: write one, or \"_\" for any name");
        return None;
    }
    let aliases = aliases.value().map(|list| list.0).unwrap_or_default();
    let name = at.value.0[0].value.0.to_string();
    for At { value, place } in at.value.0.iter().chain(&aliases) {
        match taken.get(&value.0) {
            Some((_, first)) if *first == at.place => {
                c.out.add(Code::DuplicateHost, *place, format!("the host \"{}\" is listed twice", value.0));
            }
            Some((other, first)) => {
                let line = c.out.line_and_column(*first).map_or(0, |(line, _)| line);
                let file = c.out.files().nth(first.file).unwrap_or_else(|| Path::new("?")).display();
                let message = format!("the host \"{}\" belongs to site {other:?} already ({file}:{line})", value.0);
                c.out.add(Code::DuplicateHost, *place, message);
            }
            None => drop(taken.insert(value.0.clone(), (name.clone(), at.place))),
        }
    }
    let written = at.value.0.iter().chain(&aliases).map(|at| At { value: at.value.0.clone(), place: at.place }).collect();
    let mut patterns = at.value.0.into_iter().map(|host| host.value.0);
    let mut served: Vec<HostPattern> = patterns.next().into_iter().collect();
    let canonical = match served.first() {
        Some(HostPattern::Exact(host)) => Some(host.clone()),
        Some(HostPattern::Wildcard(_) | HostPattern::Any) | None => None,
    };
    let mut redirected = Vec::new();
    for pattern in patterns {
        match (pattern, &canonical) {
            (HostPattern::Exact(host), Some(_)) => redirected.push(host),
            // A pattern is no single name, and without a canonical name there is nowhere to redirect to: served.
            (pattern, _) => served.push(pattern),
        }
    }
    served.extend(aliases.into_iter().map(|alias| alias.value.0));
    Some(Split { served, redirected, canonical, written })
}
