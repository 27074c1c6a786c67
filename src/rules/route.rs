//! Routing rule: which site a host belongs to, and which of its routes a path.
//!
//! Pure. Paths are matched as an app will read them: percent-decoded once, slashes merged, dot segments resolved ([`normal`]), as nginx does. So neither
//! `/%61dmin`, `/public/../admin` nor `//admin` dodges the gates of `/admin`.
//! Shape: exact, then regexes in file order, then the longest prefix. The order of exact and prefix routes in the file never matters.
//! Source: nginx `location`; RFC 3986 §5.2.4 (dot segments), RFC 6125 §6.4.3 read wider: a wildcard stands for one label or more.

use std::{borrow::Cow, collections::HashMap};

use regex::{Regex, RegexBuilder};

use crate::{
    plan::{PathMatch, Site},
    vocab::HostPattern,
};

/// Which site answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    Serve(usize),
    /// A redirected name of that site.
    Canonical(usize),
}

impl Found {
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Serve(index) | Self::Canonical(index) => index,
        }
    }
}

/// Every host and route of a plan, ready to be asked.
#[derive(Debug)]
pub struct Router {
    hosts: HashMap<Box<str>, Found, ahash::RandomState>,
    /// By the part after `*.`
    wildcards: HashMap<Box<str>, usize, ahash::RandomState>,
    longest_wildcard: usize,
    any: Option<usize>,
    sites: Box<[Routes]>,
}

impl Router {
    #[must_use]
    pub fn new(sites: &[Site]) -> Self {
        let mut router = Self {
            hosts: HashMap::default(),
            wildcards: HashMap::default(),
            longest_wildcard: 0,
            any: None,
            sites: sites.iter().map(|site| Routes::new(site.routes.iter().map(|route| &route.path))).collect(),
        };
        for (at, site) in sites.iter().enumerate() {
            for host in &site.hosts {
                match host {
                    HostPattern::Exact(host) => {
                        router.hosts.entry(host.as_str().into()).or_insert(Found::Serve(at));
                    }
                    HostPattern::Wildcard(host) => {
                        router.longest_wildcard = router.longest_wildcard.max(host.as_str().len());
                        router.wildcards.entry(host.as_str().into()).or_insert(at);
                    }
                    HostPattern::Any => router.any = router.any.or(Some(at)),
                }
            }
            for host in &site.redirected {
                router.hosts.entry(host.as_str().into()).or_insert(Found::Canonical(at));
            }
        }
        router
    }

    /// The site of `host`, which is in its normal form (`rules::header::host`): exact, then the longest wildcard, then `_`.
    #[must_use]
    pub fn site(&self, host: &str) -> Option<Found> {
        if let Some(found) = self.hosts.get(host) {
            return Some(*found);
        }
        if !self.wildcards.is_empty() {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if parent.len() <= self.longest_wildcard
                    && let Some(at) = self.wildcards.get(parent)
                {
                    return Some(Found::Serve(*at));
                }
                rest = parent;
            }
        }
        self.any.map(Found::Serve)
    }

    /// The index in `Site.routes` of the route for `path`: the path of the target as received, without the query.
    #[must_use]
    pub fn route(&self, site: usize, path: &str) -> Option<usize> {
        self.sites.get(site)?.find(&normal(path))
    }
}

/// The routes of one site.
#[derive(Debug)]
struct Routes {
    exact: HashMap<Box<str>, usize, ahash::RandomState>,
    /// In file order.
    regexes: Box<[(Regex, usize)]>,
    /// Sorted by text.
    prefixes: Box<[Prefix]>,
}

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    route: usize,
    /// The longest other prefix that this one begins with.
    parent: Option<usize>,
}

impl Routes {
    fn new<'a>(paths: impl Iterator<Item = &'a PathMatch>) -> Self {
        let mut exact = HashMap::default();
        let mut regexes = Vec::new();
        let mut prefixes: Vec<Prefix> = Vec::new();
        for (route, path) in paths.enumerate() {
            match path {
                PathMatch::Exact(path) => {
                    exact.entry(path.as_str().into()).or_insert(route);
                }
                PathMatch::Prefix(path) => prefixes.push(Prefix { text: path.as_str().into(), route, parent: None }),
                // `.` takes a newline too: `/admin/%0a` must not slip past `^/admin/.*$`. A pattern that does not compile was refused at load.
                PathMatch::Regex(pattern) => {
                    regexes.extend(RegexBuilder::new(pattern).dot_matches_new_line(true).build().map(|r| (r, route)))
                }
            }
        }
        // A stable sort: of two equal prefixes the first in the file stays.
        prefixes.sort_by(|a, b| a.text.cmp(&b.text));
        prefixes.dedup_by(|later, first| later.text == first.text);
        // What begins with P stands right after P in the order, so the open ones form a chain.
        let mut open: Vec<usize> = Vec::new();
        for at in 0..prefixes.len() {
            while open.last().is_some_and(|&top| !prefixes[at].text.starts_with(&*prefixes[top].text)) {
                open.pop();
            }
            prefixes[at].parent = open.last().copied();
            open.push(at);
        }
        Self { exact, regexes: regexes.into(), prefixes: prefixes.into() }
    }

    fn find(&self, path: &str) -> Option<usize> {
        if !self.exact.is_empty()
            && let Some(route) = self.exact.get(path)
        {
            return Some(*route);
        }
        if let Some((_, route)) = self.regexes.iter().find(|(regex, _)| regex.is_match(path)) {
            return Some(*route);
        }
        // Every prefix of `path` is also one of the last text that does not stand after `path`.
        let mut at = self.prefixes.partition_point(|prefix| &*prefix.text <= path).checked_sub(1);
        while let Some(prefix) = at.map(|at| &self.prefixes[at]) {
            if path.starts_with(&*prefix.text) {
                return Some(prefix.route);
            }
            at = prefix.parent;
        }
        None
    }
}

/// The path that routes are matched against: decoded once, slashes merged, dot segments resolved; above the root is the root. Bytes that are no UTF-8 read as U+FFFD.
///
/// Shape: begins with `/` if `path` does; borrowed where there is nothing to do, which is nearly always.
#[must_use]
pub fn normal(path: &str) -> Cow<'_, str> {
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    let (bytes, _) = resolve(path);
    Cow::Owned(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// What to send on instead of `path` where the path as received has dot segments, plain or encoded: the same path without them, encoded anew.
///
/// Shape: `None`: send on what was received. An app that does not resolve dot segments itself would otherwise see another path than the gates did.
#[must_use]
pub fn resolved(path: &str) -> Option<String> {
    if is_normal(path) {
        return None;
    }
    let (bytes, dots) = resolve(path);
    dots.then(|| {
        bytes.iter().fold(String::with_capacity(path.len()), |mut text, &byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' => text.push(byte.into()),
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => text.push(byte.into()),
                _ => {
                    text.push('%');
                    for digit in [byte >> 4, byte & 15] {
                        text.push(char::from_digit(digit.into(), 16).expect("four bits are a hexadecimal digit").to_ascii_uppercase());
                    }
                }
            }
            text
        })
    })
}

/// No escape, no `//`, no segment that begins with a dot (such as `/.well-known`, which is only copied).
fn is_normal(path: &str) -> bool {
    let bytes = path.as_bytes();
    let escape = bytes.iter().fold(false, |found, &byte| found | (byte == b'%'));
    // Neighbours by two slices of one length: no bounds checks, a few vector instructions.
    let next = bytes.get(1..).unwrap_or_default();
    let pair = bytes.iter().zip(next).fold(false, |found, (&a, &b)| found | ((a == b'/') & ((b == b'/') | (b == b'.'))));
    !escape && !pair
}

/// The decoded, resolved path, and whether a dot segment was in it.
fn resolve(path: &str) -> (Vec<u8>, bool) {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        match rest {
            [b'%', high, low, tail @ ..] if let (Some(high), Some(low)) = (hex(*high), hex(*low)) => {
                decoded.push(high << 4 | low);
                rest = tail;
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    let absolute = decoded.first() == Some(&b'/');
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut dots = false;
    let mut segments = decoded.split(|byte| *byte == b'/').peekable();
    if absolute {
        segments.next();
        out.push(b'/');
    }
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" => {}
            b"." => dots = true,
            b".." => {
                dots = true;
                // `out` ends in a slash or is empty here.
                out.pop();
                let keep = out.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
                out.truncate(keep);
                if out.is_empty() && absolute {
                    out.push(b'/');
                }
            }
            _ => {
                out.extend_from_slice(segment);
                if !last {
                    out.push(b'/');
                }
            }
        }
    }
    (out, dots)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::testing;

    fn routes(paths: &[&str]) -> Routes {
        let paths: Vec<PathMatch> = paths
            .iter()
            .map(|path| match path.split_once(' ') {
                Some(("=", path)) => PathMatch::Exact(path.into()),
                Some(("~", pattern)) => PathMatch::Regex(pattern.into()),
                Some(_) | None => PathMatch::Prefix((*path).into()),
            })
            .collect();
        Routes::new(paths.iter())
    }

    fn find(paths: &[&str], path: &str) -> Option<usize> {
        routes(paths).find(&normal(path))
    }

    #[test]
    fn exact_before_regex_before_the_longest_prefix() {
        let paths = ["/", "/api/", "= /api/health", "~ ^/api/v[0-9]+/", "~ \\.css$", "/api/v1/users"];
        assert_eq!(find(&paths, "/"), Some(0));
        assert_eq!(find(&paths, "/api/x"), Some(1));
        assert_eq!(find(&paths, "/api/health"), Some(2));
        assert_eq!(find(&paths, "/api/healthy"), Some(1));
        assert_eq!(find(&paths, "/api/v1/users"), Some(3));
        assert_eq!(find(&paths, "/api/v1/x.css"), Some(3));
        assert_eq!(find(&paths, "/x.css"), Some(4));
        assert_eq!(find(&["/api/"], "/apix"), None);
    }

    #[test]
    fn no_spelling_of_a_path_dodges_its_route() {
        let paths = ["/", "/admin/", "~ ^/secret/.*$"];
        for path in [
            "/admin/x",
            "/%61dmin/x",
            "//admin/x",
            "/./admin/x",
            "/a/../admin/x",
            "/a/%2e%2e/admin/x",
            "/a%2f..%2fadmin/x",
            "/%2e/admin/",
            "/../admin/",
            "/a/b/../../admin/",
            "/admin/%ff",
            "/admin//x",
            "/admin%2fx",
            "///admin/",
            "/admin/./",
        ] {
            assert_eq!(find(&paths, path), Some(1), "{path}");
        }
        for path in ["/secret/", "/secret/%0a", "/secret/%ff", "/secret//x"] {
            assert_eq!(find(&paths, path), Some(2), "{path}");
        }
        // Decoded once, as the app does.
        assert_eq!(find(&paths, "/%2561dmin/"), Some(0));
        assert_eq!(find(&paths, "/admin/../x"), Some(0));
    }

    #[test]
    fn what_is_sent_on_has_no_dot_segments() {
        assert_eq!(resolved("/a/b%20c"), None);
        assert_eq!(resolved("/a//b"), None);
        assert_eq!(resolved("/.well-known/x"), None);
        assert_eq!(resolved("/admin/../b%20c?").as_deref(), Some("/b%20c%3F"));
        assert_eq!(resolved("/admin/..%2fx").as_deref(), Some("/x"));
        assert_eq!(resolved("/a/%2e%2e/%C3%A9").as_deref(), Some("/%C3%A9"));
        assert_eq!(resolved("/..").as_deref(), Some("/"));
    }

    fn site(hosts: &[&str], redirected: &[&str]) -> Site {
        let host = |text: &&str| crate::vocab::Host::parse(text).expect("a host");
        Site {
            name: hosts[0].into(),
            hosts: hosts.iter().map(|text| HostPattern::parse(text).expect("a pattern")).collect(),
            redirected: redirected.iter().map(host).collect(),
            ..testing::site("example.com")
        }
    }

    #[test]
    fn the_nearest_name_answers() {
        let sites = [
            site(&["example.com", "*.example.com"], &["www.example.com"]),
            site(&["*.api.example.com"], &[]),
            site(&["api.example.com", "::1"], &[]),
        ];
        let router = Router::new(&sites);
        assert_eq!(router.site("example.com"), Some(Found::Serve(0)));
        assert_eq!(router.site("www.example.com"), Some(Found::Canonical(0)));
        assert_eq!(router.site("a.b.example.com"), Some(Found::Serve(0)));
        assert_eq!(router.site("api.example.com"), Some(Found::Serve(2)));
        assert_eq!(router.site("v1.api.example.com"), Some(Found::Serve(1)));
        assert_eq!(router.site("::1"), Some(Found::Serve(2)));
        assert_eq!(router.site("notexample.com"), None);
        assert_eq!(router.site(""), None);
        let any = Router::new(&[site(&["_"], &[]), site(&["a.b"], &[])]);
        assert_eq!((any.site("x.y"), any.site("a.b"), any.site("")), (Some(Found::Serve(0)), Some(Found::Serve(1)), Some(Found::Serve(0))));
        assert_eq!(any.route(0, "/"), None);
        assert_eq!(any.route(7, "/"), None);
    }

    /// What nginx's manual says, word by word.
    fn naive(paths: &[PathMatch], path: &str) -> Option<usize> {
        let exact = paths.iter().position(|p| matches!(p, PathMatch::Exact(p) if p == path));
        let regex = paths.iter().position(|p| matches!(p, PathMatch::Regex(r) if Regex::new(r).expect("a pattern").is_match(path)));
        let longest = |(at, p): (usize, &PathMatch)| match p {
            PathMatch::Prefix(p) if path.starts_with(p.as_str()) => Some((p.len(), std::cmp::Reverse(at))),
            PathMatch::Prefix(_) | PathMatch::Exact(_) | PathMatch::Regex(_) => None,
        };
        exact.or(regex).or_else(|| paths.iter().enumerate().filter_map(longest).max().map(|(_, at)| at.0))
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab]{1,2}", 0..4).prop_flat_map(|s| {
            prop::bool::ANY.prop_map(move |end| format!("/{}{}", s.join("/"), if end && !s.is_empty() { "/" } else { "" }))
        })
    }

    fn path_match() -> impl Strategy<Value = PathMatch> {
        prop_oneof![
            3 => path().prop_map(PathMatch::Prefix),
            1 => path().prop_map(PathMatch::Exact),
            1 => path().prop_map(|p| PathMatch::Regex(format!("{p}b"))),
        ]
    }

    proptest! {
        #[test]
        fn the_table_says_what_the_naive_scan_says(paths in prop::collection::vec(path_match(), 0..12), asked in path()) {
            prop_assert_eq!(Routes::new(paths.iter()).find(&asked), naive(&paths, &asked));
        }

        #[test]
        fn the_order_of_prefixes_never_matters(paths in prop::collection::hash_set(path(), 0..12), asked in path()) {
            let there: Vec<PathMatch> = paths.iter().cloned().map(PathMatch::Prefix).collect();
            let back: Vec<PathMatch> = there.iter().rev().cloned().collect();
            let found = Routes::new(there.iter()).find(&asked).map(|at| &there[at]);
            prop_assert_eq!(found, Routes::new(back.iter()).find(&asked).map(|at| &back[at]));
        }

        #[test]
        fn normalising_a_decoded_path_again_changes_nothing(path in "/[a-c./]{0,20}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(normal(&once).into_owned(), once.clone());
            prop_assert!(once.starts_with('/') && !once.contains("//") && !once.split('/').any(|s| s == "." || s == ".."));
        }

        #[test]
        fn what_is_sent_on_is_matched_as_what_was_received(path in "/([a-c./]|%2e|%2f|%20|%ff|%25){0,12}") {
            if let Some(sent) = resolved(&path) {
                prop_assert_eq!(normal(&sent), normal(&path));
                prop_assert_eq!(resolved(&sent), None);
            }
        }
    }
}
