//! What no path of an honest request has: a way up, a hidden or backup file, an extension that is not ours.
//!
//! Segment by segment, without a pattern engine; it sees the raw path when that is plain, else the normal form.

use super::{
    Certainty::{Certain, Likely},
    Family, Hit, Watch, probe,
};

/// The root and what lies right below it: where a deployment leaves its own hidden files.
const DEEPEST: usize = 2;

/// The first family that recognises the path. A backslash divides segments as a slash does: some servers read it so.
pub(super) fn judge(path: &[u8], watch: &Watch<'_>) -> Option<Hit> {
    let mut segments = path.split(|byte| matches!(byte, b'/' | b'\\')).enumerate().peekable();
    let mut before: &[u8] = b"";
    while let Some((depth, segment)) = segments.next() {
        let last = segments.peek().is_none();
        if let Some(hit) = judge_segment(segment, before, last, depth, watch) {
            return Some(hit);
        }
        before = segment;
    }
    let probe = Hit { family: Family::Probe, certainty: Likely };
    (watch.families.sees(probe) && probe::path(path)).then_some(probe)
}

fn judge_segment(segment: &[u8], before: &[u8], last: bool, depth: usize, watch: &Watch<'_>) -> Option<Hit> {
    let Watch { extensions, .. } = watch;
    let watched = |family, certainty| watch.families.sees(Hit { family, certainty });
    let found = |family, certainty| watched(family, certainty).then_some(Hit { family, certainty });
    // Deeper, a name is that of a file that somebody shows.
    let near = if depth <= DEEPEST { Certain } else { Likely };
    let is = |name: &[u8]| segment.eq_ignore_ascii_case(name);
    match segment {
        [] => return None,
        // The way up; `..;x` is one to servlet containers, `...` and longer to nobody honest.
        [b'.', b'.', rest @ ..]
            if matches!(rest, [] | [b'.' | b';' | b' '])
                || matches!(rest, [b'.' | b';' | b' ', second, ..] if !second.is_ascii_alphanumeric())
                || matches!(rest, [b';', ..]) =>
        {
            return found(Family::Traversal, Certain);
        }
        [b'.'] | [b'.', b';', ..] => return None,
        [b'.', second, ..] if *second != b'.' => {
            let certainty = if is_secret(segment) { near } else { Likely };
            let open = is(b".well-known")
                || before.eq_ignore_ascii_case(b"node_modules")
                || depth <= 1 && is(b".auth")
                || segment.len() > 3 && segment[..4].eq_ignore_ascii_case(b".net");
            if !open && watched(Family::DotFile, certainty) {
                return found(Family::DotFile, certainty);
            }
        }
        [.., b'~'] if watched(Family::DotFile, Likely) && segment.len() > 1 && segment.contains(&b'.') => {
            return found(Family::DotFile, Likely);
        }
        // `/static../secret`: the off-by-slash of an alias.
        [.., other, b'.', b'.'] if watched(Family::Traversal, Certain) && *other != b'.' && !last => {
            return found(Family::Traversal, Certain);
        }
        _ => {}
    }
    let hidden = match segment.len() {
        6 => is(b"id_rsa") || ((is(b"passwd") || is(b"shadow")) && before.eq_ignore_ascii_case(b"etc")),
        7 => is(b"web-inf") || is(b"win.ini"),
        8 => is(b"meta-inf") || is(b"boot.ini"),
        9 => is(b"wp-config") || is(b"thumbs.db"),
        10 => is(b"web.config") || is(b"id_ed25519"),
        _ => false,
    };
    if watched(Family::Probe, Likely) && probe::segment(segment, depth, watch) {
        return found(Family::Probe, Likely);
    }
    if hidden && watched(Family::DotFile, near) {
        return found(Family::DotFile, near);
    }
    if is(b"cgi-bin") && watched(Family::Extension, Likely) && !lists(extensions, b"cgi") {
        return found(Family::Extension, Likely);
    }
    let dot = segment.iter().position(|byte| *byte == b'.')?;
    // Every dotted part counts, not the last alone: `shell.php.jpg` is run by servers that look at all of them, `x.php;.jpg` and `x.asp::$DATA` by others.
    let mut parts =
        segment[dot + 1..].split(|byte| matches!(byte, b'.' | b';' | b':' | b'?' | b'#' | b' ' | b'\n' | b'*' | b'&' | b',')).peekable();
    while let Some(part) = parts.next() {
        let Some(packed) = pack(part) else { continue };
        if watched(Family::Extension, Likely) && FOREIGN.binary_search(&packed).is_ok() && !lists(extensions, part) {
            return found(Family::Extension, Likely);
        }
        if watched(Family::DotFile, Likely)
            && parts.peek().is_none()
            && last
            && BACKUP.binary_search(&packed).is_ok()
            && !lists(extensions, part)
        {
            return found(Family::DotFile, Likely);
        }
    }
    None
}

/// Whether a hidden name is one of those that hold secrets or all of a source.
fn is_secret(segment: &[u8]) -> bool {
    let is = |name: &[u8]| segment.eq_ignore_ascii_case(name);
    [&b".git"[..], b".svn", b".hg", b".ssh", b".aws", b".htpasswd", b".ds_store"].iter().any(|name| is(name))
        || segment.split_at_checked(4).is_some_and(|(name, more)| name.eq_ignore_ascii_case(b".env") && is_suffix(more))
}

/// `.local`, `-prod`, `.backup.old`, or nothing: not the title of a text.
fn is_suffix(more: &[u8]) -> bool {
    const PARTS: usize = 2;
    const LONGEST: usize = 12;
    let mut parts = more.split(|byte| matches!(byte, b'.' | b'-' | b'_'));
    parts.next().is_some_and(<[u8]>::is_empty) && parts.clone().count() <= PARTS && parts.all(|part| part.len() <= LONGEST)
}

fn lists(extensions: &[String], extension: &[u8]) -> bool {
    extensions.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(extension))
}

/// Up to eight bytes in lower case as one number, so that a look-up is a few comparisons.
const fn pack(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 8 {
        return None;
    }
    let mut packed = 0;
    let mut at = 0;
    while at < text.len() {
        packed = packed << 8 | text[at].to_ascii_lowercase() as u64;
        at += 1;
    }
    Some(packed)
}

const fn table<const N: usize>(names: [&str; N]) -> [u64; N] {
    let mut packed = [0; N];
    let mut at = 0;
    while at < N {
        packed[at] = match pack(names[at].as_bytes()) {
            Some(name) => name,
            None => panic!("an extension has 1 to 8 bytes"),
        };
        at += 1;
    }
    // Insertion sort: the order of the source is for people.
    let mut end = 1;
    while end < N {
        let mut at = end;
        while at > 0 && packed[at - 1] > packed[at] {
            let lower = packed[at];
            packed[at] = packed[at - 1];
            packed[at - 1] = lower;
            at -= 1;
        }
        end += 1;
    }
    packed
}

/// Programs of servers that are not behind this route, unless it lists them. Left out on purpose: `pl` and `do` (names end so), `sh` and `exe` (downloads).
const FOREIGN: [u64; 33] = table([
    "php", "php3", "php4", "php5", "php7", "php8", "phps", "phtml", "pht", "phar", "asp", "aspx", "asmx", "ashx", "asax", "ascx", "axd",
    "cshtml", "vbhtml", "jsp", "jspx", "jspf", "jsw", "jsv", "jhtml", "cfm", "cfml", "cfc", "cgi", "fcgi", "shtml", "stm", "nsf",
]);

/// What editors, dumps and careless copies leave behind; only as the end of the path.
const BACKUP: [u64; 17] = table([
    "bak", "backup", "old", "orig", "save", "swp", "swo", "tmp", "inc", "mdb", "sql", "sqlite", "sqlite3", "dump", "htaccess", "htpasswd",
    "kdbx",
]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Families;

    fn watch(extensions: &[String]) -> Watch<'_> {
        Watch { families: Families::ALL, extensions, own: None }
    }

    #[test]
    fn dots_are_judged_by_where_they_stand() {
        let judge = |path: &str| judge(path.as_bytes(), &watch(&[])).map(|hit| hit.family);
        for (path, family) in [
            ("/a/../b", Family::Traversal),
            ("/..", Family::Traversal),
            ("/a/..;/manager", Family::Traversal),
            ("/a\\..\\b", Family::Traversal),
            ("/static../etc", Family::Traversal),
            ("/.git/config", Family::DotFile),
            ("/a/.ENV", Family::DotFile),
            ("/index.php~", Family::DotFile),
            ("/dump.sql", Family::DotFile),
            ("/x.PHP", Family::Extension),
            ("/x.php/info", Family::Extension),
            ("/x.php.jpg", Family::Extension),
            ("/x.asp::$data", Family::Extension),
            ("/x.jsp;jsessionid=1", Family::Extension),
        ] {
            assert_eq!(judge(path), Some(family), "{path}");
        }
        for path in [
            "/",
            "/.well-known/acme-challenge/x",
            "/realms/main/.well-known/openid-configuration",
            "/a.b/c",
            "/v1.2/x",
            "/wait...",
            "/a./b",
            "/~user/",
            "/photo.old.jpg",
            "/php",
            "/a/./b",
            "/x.phpx",
        ] {
            assert_eq!(judge(path), None, "{path}");
        }
    }

    #[test]
    fn secrets_are_certain_near_the_root_alone() {
        let judge = |path: &str| judge(path.as_bytes(), &watch(&[])).map(|hit| hit.certainty);
        for path in ["/.git/config", "/.env", "/api/.env.local", "/app/.svn/entries", "/.DS_Store", "/web-inf/web.xml"] {
            assert_eq!(judge(path), Some(Certain), "{path}");
        }
        for path in [
            "/browse/main/src/.env",
            "/r/p/raw/.git/x",
            "/.github/workflows",
            "/._photo.jpg",
            "/.envoy/x",
            "/webdav/.env-file-best-practices.md.swx",
            "/dump.sql",
            "/x.php",
            "/a/b/.editorconfig",
        ] {
            assert_eq!(judge(path), Some(Likely), "{path}");
        }
    }

    #[test]
    fn a_route_lets_its_own_extensions_pass() {
        let extensions = ["php".to_owned()];
        let own = watch(&extensions);
        let judge = |path: &[u8], watch: &Watch<'_>| judge(path, watch).map(|hit| hit.family);
        assert_eq!(judge(b"/index.php", &own), None);
        assert_eq!(judge(b"/index.PHP/path", &own), None);
        assert_eq!(judge(b"/index.asp", &own), Some(Family::Extension));
        assert_eq!(judge(b"/.php", &own), Some(Family::DotFile));
        assert_eq!(judge(b"/cgi-bin/x", &own), Some(Family::Extension));
    }
}
