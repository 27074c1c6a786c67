//! Bodies of forms and JSON: held back until their beginning has been looked at.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};

use super::GateRoute;
use crate::{plan::Hit, rules::screen::BodyKind};

/// One body under way.
///
/// Shape: nothing of it goes on until its end or the route's `filters.body` has come; then all that came, and the rest as it comes.
#[derive(Debug)]
pub struct Inspection {
    kind: BodyKind,
    /// What is looked at.
    most: usize,
    held: BytesMut,
    share: Share,
    /// It was looked at.
    over: bool,
    refused: bool,
    seen: Option<Hit>,
    /// What is held came before the first try and is not sent by anybody else.
    unsent: bool,
    /// The try that it belongs to: the next one begins with the first byte again.
    of: u32,
}

impl Inspection {
    /// `None`: the route looks at no bodies, or not at those of this type.
    #[must_use]
    pub fn new(route: &GateRoute, headers: &HeaderMap) -> Option<Self> {
        let most = usize::try_from(route.body_screen?.0).ok()?;
        let kind = headers.get_all(header::CONTENT_TYPE).iter().find_map(|kind| BodyKind::of(kind.as_bytes()))?;
        Some(Self {
            kind,
            most,
            held: BytesMut::new(),
            share: Share::of(&HELD),
            over: false,
            refused: false,
            seen: None,
            unsent: false,
            of: 0,
        })
    }

    /// A piece that came before there is an upstream. Whether it takes another.
    ///
    /// Errors: as [`Inspection::take`].
    pub fn expect(&mut self, piece: &[u8]) -> Result<bool, StatusCode> {
        self.hold(piece)?;
        Ok(self.held.len() < self.most)
    }

    fn hold(&mut self, piece: &[u8]) -> Result<(), StatusCode> {
        self.share.grow(piece.len())?;
        self.held.extend_from_slice(piece);
        Ok(())
    }

    /// No other comes before the first try. `end`: it was the last at all. `kept`: the engine sends them all again with each try.
    ///
    /// Errors: what the client is told of a body that is refused.
    pub fn begin(&mut self, end: bool, kept: bool, route: &GateRoute) -> Result<(), StatusCode> {
        if end || self.held.len() >= self.most {
            self.judge(route)?;
        }
        self.unsent = !kept;
        Ok(())
    }

    /// Takes a piece of try `of` and leaves what may go on: an empty one says that more is awaited.
    ///
    /// Errors: what the client is told: 403 of a body that is refused, 503 where too much is held already.
    pub fn take(&mut self, piece: &mut Option<Bytes>, end: bool, of: u32, route: &GateRoute) -> Result<(), StatusCode> {
        // Trailers end a body without its stream being over (pingora 0.9.1, `send_body_to2`).
        let end = end || piece.is_none();
        if self.of != of {
            self.of = of;
            if !self.unsent {
                self.held.clear();
                self.share.drop_all();
            }
        }
        if self.over && !self.unsent {
            return Ok(());
        }
        if let Some(piece) = piece {
            self.hold(piece)?;
        }
        if !self.over {
            if !end && self.held.len() < self.most {
                *piece = Some(Bytes::new());
                return Ok(());
            }
            self.judge(route)?;
        }
        self.unsent = false;
        *piece = (!self.held.is_empty()).then(|| std::mem::take(&mut self.held).freeze());
        self.share.drop_all();
        Ok(())
    }

    /// The family that recognised it.
    #[must_use]
    pub fn seen(&self) -> Option<Hit> {
        self.seen
    }

    /// Whether it was found to be hostile.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    fn judge(&mut self, route: &GateRoute) -> Result<(), StatusCode> {
        self.over = true;
        let seen = Cell::new(None);
        let refused = route.bad_uri.refuses_body(&self.kind, &self.held[..self.held.len().min(self.most)], &seen);
        self.seen = seen.get();
        match refused {
            true => {
                self.refused = true;
                Err(StatusCode::FORBIDDEN)
            }
            false => Ok(()),
        }
    }
}

/// What all bodies together may hold: beyond it, one more is answered 503.
const MOST_HELD: usize = 64 << 20;
static HELD: AtomicUsize = AtomicUsize::new(0);

/// A body's part of what all hold.
#[derive(Debug)]
struct Share {
    mine: usize,
    all: &'static AtomicUsize,
}

impl Share {
    fn of(all: &'static AtomicUsize) -> Self {
        Self { mine: 0, all }
    }

    fn grow(&mut self, by: usize) -> Result<(), StatusCode> {
        self.mine += by;
        if self.all.fetch_add(by, Relaxed) + by > MOST_HELD {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(())
    }

    fn drop_all(&mut self) {
        self.all.fetch_sub(std::mem::take(&mut self.mine), Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.drop_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::gate::tests::looks_at_bodies;

    fn pieces(inspection: &mut Inspection, of: u32, route: &GateRoute, pieces: &[&'static str]) -> Result<Vec<String>, StatusCode> {
        let last = pieces.len() - 1;
        let go_on = pieces.iter().enumerate().map(|(at, piece)| {
            let mut piece = (!piece.is_empty()).then(|| Bytes::from_static(piece.as_bytes()));
            inspection.take(&mut piece, at == last, of, route)?;
            Ok(piece.map_or("-".to_owned(), |piece| String::from_utf8_lossy(&piece).into_owned()))
        });
        go_on.collect()
    }

    fn inspection(route: &GateRoute, kind: &'static str) -> Option<Inspection> {
        let headers = [(header::CONTENT_TYPE, http::HeaderValue::from_static(kind))].into_iter().collect();
        Inspection::new(route, &headers)
    }

    #[test]
    fn nothing_goes_on_before_it_was_looked_at() {
        let route = looks_at_bodies(20);
        let form = || inspection(&route, "application/x-www-form-urlencoded").expect("a form is looked at");
        assert_eq!(pieces(&mut form(), 1, &route, &["a=b", "&c=d", ""]), Ok(vec!["".into(), "".into(), "a=b&c=d".into()]));
        assert_eq!(pieces(&mut form(), 1, &route, &["a=b"]), Ok(vec!["a=b".into()]));
        assert_eq!(pieces(&mut form(), 1, &route, &[""]), Ok(vec!["-".into()]));
        // Beyond the bound the rest passes as it comes.
        assert_eq!(
            pieces(&mut form(), 1, &route, &["a=bbbbbbbbbb", "bbbbbbbbbbb", "<script>"]),
            Ok(vec!["".into(), "a=bbbbbbbbbbbbbbbbbbbbb".into(), "<script>".into()])
        );
        assert_eq!(pieces(&mut form(), 1, &route, &["a=<scr", "ipt>", ""]), Err(StatusCode::FORBIDDEN));
        assert!(inspection(&route, "image/png").is_none());
    }

    #[test]
    fn a_second_try_begins_with_the_first_byte_again() {
        let route = looks_at_bodies(20);
        let mut form = inspection(&route, "application/x-www-form-urlencoded").expect("a form is looked at");
        let mut piece = Some(Bytes::from_static(b"a=<scr"));
        assert_eq!(form.take(&mut piece, false, 1, &route), Ok(()));
        assert_eq!(pieces(&mut form, 2, &route, &["a=<scr", "ipt>"]), Err(StatusCode::FORBIDDEN));
        let mut form = inspection(&route, "application/x-www-form-urlencoded").expect("a form is looked at");
        assert_eq!(pieces(&mut form, 1, &route, &["a=b"]), Ok(vec!["a=b".into()]));
        assert_eq!(pieces(&mut form, 2, &route, &["a=b"]), Ok(vec!["a=b".into()]));
    }

    #[test]
    fn what_came_before_the_first_try_is_sent_once() {
        let route = looks_at_bodies(20);
        let form = || inspection(&route, "application/x-www-form-urlencoded").expect("a form is looked at");
        // All of it, and the engine has it.
        let mut whole = form();
        assert_eq!(whole.expect(b"a=b"), Ok(true));
        assert_eq!(whole.begin(true, true, &route), Ok(()));
        assert_eq!(pieces(&mut whole, 1, &route, &["a=b"]), Ok(vec!["a=b".into()]));
        let mut bad = form();
        assert_eq!(bad.expect(b"a=<script>"), Ok(true));
        assert_eq!(bad.begin(true, true, &route), Err(StatusCode::FORBIDDEN));
        // Not all of it, and the engine has it.
        let mut part = form();
        assert_eq!(part.expect(b"a=<scr"), Ok(true));
        assert_eq!(part.begin(false, true, &route), Ok(()));
        assert_eq!(pieces(&mut part, 1, &route, &["a=<scr", "ipt>"]), Err(StatusCode::FORBIDDEN));
        // Not all of it, and the engine has it not.
        let mut long = form();
        assert_eq!(long.expect(b"a=bbbbbbbbbbbbbbbbbbbb"), Ok(false));
        assert_eq!(long.begin(false, false, &route), Ok(()));
        assert_eq!(pieces(&mut long, 1, &route, &["c", "d"]), Ok(vec!["a=bbbbbbbbbbbbbbbbbbbbc".into(), "d".into()]));
        let mut torn = form();
        assert_eq!(torn.expect(b"a=<scr"), Ok(true));
        assert_eq!(torn.begin(false, false, &route), Ok(()));
        assert_eq!(pieces(&mut torn, 1, &route, &["ipt>", ""]), Err(StatusCode::FORBIDDEN));
    }

    #[test]
    fn trailers_end_a_body_too() {
        let route = looks_at_bodies(20);
        let mut form = inspection(&route, "application/x-www-form-urlencoded").expect("a form is looked at");
        let mut piece = Some(Bytes::from_static(b"a=b"));
        assert_eq!(form.take(&mut piece, false, 1, &route), Ok(()));
        assert_eq!(piece, Some(Bytes::new()));
        // The engine says that there is no more, and not that it is over.
        let mut none = None;
        assert_eq!(form.take(&mut none, false, 1, &route), Ok(()));
        assert_eq!(none, Some(Bytes::from_static(b"a=b")));
        let mut none = None;
        assert_eq!((form.take(&mut none, false, 1, &route), none), (Ok(()), None));
    }

    #[test]
    fn what_all_bodies_hold_is_bounded_and_given_back() {
        static ALL: AtomicUsize = AtomicUsize::new(0);
        let mut share = Share::of(&ALL);
        assert_eq!(share.grow(MOST_HELD / 2), Ok(()));
        assert_eq!(Share::of(&ALL).grow(MOST_HELD), Err(StatusCode::SERVICE_UNAVAILABLE));
        drop(share);
        assert_eq!(ALL.load(Relaxed), 0, "given back, of those that were refused as well");
    }
}
