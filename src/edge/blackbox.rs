//! The black box: the last requests that failed or were refused, so that one can be asked for by its id.
//!
//! Shape: two bounded rings that grow only as requests fail or are refused; the oldest falls out. However many are refused, what failed stays. Every text is cut when it
//!        comes in, so [`MOST_BYTES`] holds whatever clients send. It dies with the edge.

use std::{collections::VecDeque, fmt::Write as _, mem::size_of, sync::Mutex};

use crate::{
    ipc::{
        message::{Incarnation, InstanceId},
        why::{Failed, Fault, LONGEST_ID, RequestId},
    },
    rules::attempt::MOST_LOST,
    vocab::{AppName, UpstreamName, lock::lock},
};

/// How many failed requests are remembered.
pub const KEPT: usize = 4096;
/// How many refused ones are.
pub const REFUSED: usize = 2048;
/// The longest of a text but the id.
const LONGEST: usize = 200;
/// Of every text that comes from outside.
const TEXTS: usize = 7;
/// What the rings can take at most: about 12 MB, where every request brings the longest texts.
pub const MOST_BYTES: usize =
    (KEPT + REFUSED) * (size_of::<Entry>() + LONGEST_ID + TEXTS * LONGEST + MOST_LOST as usize * size_of::<(u16, Incarnation)>());

/// A request that failed, as the engine knows it when it is over.
#[derive(Debug)]
pub struct Failure<'a> {
    pub id: &'a str,
    pub at_ms: u64,
    pub site: Option<&'a str>,
    pub route: Option<&'a str>,
    pub method: &'a str,
    /// As received.
    pub path: &'a [u8],
    pub status: u16,
    pub upstream: Option<&'a UpstreamName>,
    pub app: Option<&'a AppName>,
    pub server: Option<&'a str>,
    pub instance: Option<&'a (InstanceId, Incarnation)>,
    pub tries: u32,
    /// The processes that broke off while they had it: a few.
    pub lost_by: &'a [(InstanceId, Incarnation)],
    pub fault: Fault,
    /// See [`crate::edge::refused`].
    pub refused: Option<&'a str>,
    pub deadline_ms: Option<u64>,
    pub detail: Option<&'a str>,
    pub queue_ms: u64,
    pub connect_ms: Option<u64>,
    pub upstream_ms: u64,
    pub total_ms: u64,
}

impl<'a> Failure<'a> {
    /// Of a request that came to nobody.
    #[must_use]
    pub fn new(id: &'a str, at_ms: u64, method: &'a str, path: &'a [u8], status: u16, fault: Fault) -> Self {
        Self {
            id,
            at_ms,
            site: None,
            route: None,
            method,
            path,
            status,
            upstream: None,
            app: None,
            server: None,
            instance: None,
            tries: 0,
            lost_by: &[],
            fault,
            refused: None,
            deadline_ms: None,
            detail: None,
            queue_ms: 0,
            connect_ms: None,
            upstream_ms: 0,
            total_ms: 0,
        }
    }
}

#[derive(Debug)]
struct Entry {
    id: Box<str>,
    at_ms: u64,
    site: Option<Box<str>>,
    route: Option<Box<str>>,
    method: Box<str>,
    path: Box<str>,
    status: u16,
    upstream: Option<UpstreamName>,
    app: Option<AppName>,
    server: Option<Box<str>>,
    instance: Option<(u16, Incarnation)>,
    tries: u32,
    lost_by: Box<[(u16, Incarnation)]>,
    fault: Fault,
    refused: Option<Box<str>>,
    deadline_ms: Option<u64>,
    detail: Option<Box<str>>,
    queue_ms: u64,
    connect_ms: Option<u64>,
    upstream_ms: u64,
    total_ms: u64,
}

#[derive(Debug, Default)]
pub struct BlackBox {
    failed: Mutex<VecDeque<Entry>>,
    refused: Mutex<VecDeque<Entry>>,
}

impl BlackBox {
    pub fn keep(&self, failure: &Failure<'_>) {
        // Made before the lock is taken: a burst of failures must not line up the threads.
        let entry = Entry::of(failure);
        let (ring, most) = if entry.refused.is_some() { (&self.refused, REFUSED) } else { (&self.failed, KEPT) };
        let mut ring = lock(ring);
        let oldest = if ring.len() == most { ring.pop_front() } else { None };
        ring.push_back(entry);
        drop(ring);
        drop(oldest);
    }

    /// The newest of this id: a trusted peer may have sent it more than once.
    #[must_use]
    pub fn find(&self, id: &RequestId, edge_started_ms: u64) -> Option<Failed> {
        let newest = |ring: &Mutex<VecDeque<Entry>>| {
            lock(ring).iter().rev().find(|entry| &*entry.id == id.as_str()).map(|entry| entry.tell(edge_started_ms))
        };
        let (failed, refused) = (newest(&self.failed), newest(&self.refused));
        failed.into_iter().chain(refused).max_by_key(|found| found.at_ms)
    }
}

impl Entry {
    fn of(failure: &Failure<'_>) -> Self {
        let Failure {
            id,
            at_ms,
            site,
            route,
            method,
            path,
            status,
            upstream,
            app,
            server,
            instance,
            tries,
            lost_by,
            fault,
            refused,
            deadline_ms,
            detail,
            queue_ms,
            connect_ms,
            upstream_ms,
            total_ms,
        } = *failure;
        let text = |text: &str| plain(text.as_bytes(), LONGEST);
        Self {
            id: plain(id.as_bytes(), LONGEST_ID),
            at_ms,
            site: site.map(text),
            route: route.map(text),
            method: text(method),
            path: plain(path, LONGEST),
            status,
            upstream: upstream.cloned(),
            app: app.cloned(),
            server: server.map(text),
            instance: instance.map(|(id, incarnation)| (id.n, *incarnation)),
            tries,
            lost_by: lost_by.iter().take(MOST_LOST as usize).map(|(id, incarnation)| (id.n, *incarnation)).collect(),
            fault,
            refused: refused.map(text),
            deadline_ms,
            detail: detail.map(text),
            queue_ms,
            connect_ms,
            upstream_ms,
            total_ms,
        }
    }

    fn tell(&self, edge_started_ms: u64) -> Failed {
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        Failed {
            id: self.id.to_string(),
            at_ms: self.at_ms,
            site: text(&self.site),
            route: text(&self.route),
            method: self.method.to_string(),
            path: self.path.to_string(),
            status: self.status,
            upstream: self.upstream.as_ref().map(ToString::to_string),
            app: self.app.clone(),
            server: text(&self.server),
            n: self.instance.map(|(n, _)| n),
            incarnation: self.instance.map(|(_, incarnation)| incarnation),
            tries: self.tries,
            lost_by: self
                .app
                .iter()
                .flat_map(|app| self.lost_by.iter().map(|(n, at)| (InstanceId { app: app.clone(), n: *n }, *at)))
                .collect(),
            fault: self.fault,
            refused: text(&self.refused),
            deadline_ms: self.deadline_ms,
            detail: text(&self.detail),
            queue_ms: self.queue_ms,
            connect_ms: self.connect_ms,
            upstream_ms: self.upstream_ms,
            total_ms: self.total_ms,
            edge_started_ms,
        }
    }
}

/// Visible ASCII and spaces as they are, any other byte as `\xNN`; at most `longest` bytes, of which the last ones say where it was cut.
#[must_use]
pub fn plain(text: &[u8], longest: usize) -> Box<str> {
    const CUT: &str = "...";
    let mut out = String::with_capacity(text.len().min(longest));
    // Where the text may end if it turns out to be too long.
    let mut fits = 0;
    for byte in text {
        if byte.is_ascii_graphic() || *byte == b' ' {
            out.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
        if out.len() <= longest - CUT.len() {
            fits = out.len();
        }
        if out.len() > longest {
            out.truncate(fits);
            out.push_str(CUT);
            break;
        }
    }
    out.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure<'a>(id: &'a str, path: &'a [u8]) -> Failure<'a> {
        Failure { site: Some("a.test"), ..Failure::new(id, 1, "GET", path, 502, Fault::Reset) }
    }

    fn id(text: &str) -> RequestId {
        RequestId::parse(text).expect("an id")
    }

    #[test]
    fn the_newest_are_remembered_and_found_by_their_whole_id() {
        let all = BlackBox::default();
        for n in 0..KEPT + 10 {
            all.keep(&failure(&format!("id-{n}"), b"/"));
        }
        assert_eq!(lock(&all.failed).len(), KEPT);
        assert_eq!(all.find(&id("id-9"), 0), None, "the oldest fell out");
        assert_eq!(all.find(&id("id-10"), 7).map(|found| (found.id, found.edge_started_ms)), Some(("id-10".to_owned(), 7)));
        assert_eq!(all.find(&id("id-"), 0), None, "no part of an id is one");
        assert_eq!(all.find(&id("ID-10"), 0), None);
    }

    #[test]
    fn a_flood_of_refusals_pushes_no_failure_out() {
        let all = BlackBox::default();
        all.keep(&failure("broken", b"/"));
        for n in 0..KEPT + REFUSED {
            all.keep(&Failure { refused: Some("zone:api"), ..failure(&format!("id-{n}"), b"/") });
        }
        assert!(all.find(&id("broken"), 0).is_some());
        assert_eq!(all.find(&id(&format!("id-{}", KEPT + REFUSED - 1)), 0).and_then(|found| found.refused).as_deref(), Some("zone:api"));
        assert_eq!(all.find(&id("id-0"), 0), None);
    }

    #[test]
    fn of_two_with_one_id_the_newer_is_told() {
        let all = BlackBox::default();
        all.keep(&failure("same", b"/old"));
        all.keep(&failure("same", b"/new"));
        assert_eq!(all.find(&id("same"), 0).map(|found| found.path), Some("/new".to_owned()));
    }

    #[test]
    fn whatever_comes_in_the_box_stays_within_its_bytes() {
        let all = BlackBox::default();
        let (long, bytes) = ("\u{202e}".repeat(100_000), vec![0xff; 100_000]);
        let hostile = Failure {
            site: Some(&long),
            route: Some(&long),
            method: &long,
            server: Some(&long),
            detail: Some(&long),
            refused: Some(&long),
            ..failure(&long, &bytes)
        };
        all.keep(&hostile);
        let ring = lock(&all.refused);
        let entry = ring.front().expect("one");
        let texts = [&entry.site, &entry.route, &entry.server, &entry.detail, &entry.refused].map(|text| text.as_ref().expect("given"));
        let bytes: usize = texts.into_iter().chain([&entry.id, &entry.method, &entry.path]).map(|text| text.len()).sum();
        assert!((KEPT + REFUSED) * (size_of::<Entry>() + bytes) <= MOST_BYTES);
        const { assert!(MOST_BYTES <= 12 << 20) };
    }

    proptest! {
        #[test]
        fn a_text_is_short_and_plain_and_whole_where_it_fits(text: Vec<u8>, longest in 4usize..300) {
            let cut = plain(&text, longest);
            prop_assert!(cut.len() <= longest);
            prop_assert!(cut.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            if text.is_ascii() && text.iter().all(u8::is_ascii_graphic) && text.len() <= longest {
                prop_assert_eq!(cut.as_bytes(), &text[..]);
            }
        }
    }
}
