//! Attempt rule: the tries of one request, from its first server to its last word.
//!
//! Pure. `edge::exchange` tells what happened and brings the [`Servers`] to go to; it performs the [`Next`] that it gets.
//!
//! Shape: Fresh ─Wanted→ On ─Connected, Sent→ On ─Status→ Answering.
//!        On ─Failed→ On another server, Waiting for a process, or Over. Waiting ─Rang→ On, or Over. Whatever fails while Answering: Over.
//!        Total: every state answers every event, so a late or doubled event is a no-op, not a bug.
//! Law:   What was sent goes out again only where that does no harm ([`Repeat`]), and not a third time where the first two were lost: a request whose processes die
//!        is most likely what they die of. After the first word of an answer nothing moves.
//!        A kept connection that breaks says nothing of its server, which has most likely given it up: the same server is asked once more, on a new connection, which
//!        is no retry. If it does not take that one, it has died with the request.
//!        A server on trial fails for free: what it could not do goes to a proven one, once.
//! Source: RFC 9110 §9.2.2 (what may be repeated); RFC 9112 §9.3.1 (kept connections that close); Envoy's retry budgets.

use crate::plan::{Retry, RetryOn};

#[cfg(test)]
mod tests;

/// Tries of one request, those after a wait included.
pub const MOST_TRIES: u32 = 12;
/// A request that so many servers have lost is not sent any more.
pub const MOST_LOST: u32 = 2;

/// How a request on a server failed, or which answer it gave that might be better elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Refused, unreachable, or no connection within `timeouts.connect`: nothing was sent.
    Connect,
    /// A kept connection was closed before a byte of the answer. No strike against the server.
    Stale,
    /// A new connection broke before a byte of the answer.
    Reset,
    /// The server said that it has not looked at it (HTTP/2: REFUSED_STREAM, or a GOAWAY that leaves it out). No strike either: whatever it is, it may be sent again.
    NotTaken,
    /// The connection broke before a byte of the answer, and the server had been told to go: a restart, not a death. No strike either.
    Left,
    /// No answer within `timeouts.read`.
    Timeout,
    /// An answer with this status, before a byte of it went to the client.
    Status(u16),
    /// Broke after bytes of the answer went to the client, or the answer was no HTTP.
    Broken,
    /// It could not be sent as it is, or by us: nobody else would do better, and the server has nothing to do with it.
    Unsendable,
}

impl Cause {
    /// The status it counts as.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Connect | Self::Stale | Self::Reset | Self::NotTaken | Self::Left | Self::Broken => 502,
            Self::Timeout => 504,
            Self::Unsendable => 500,
            Self::Status(status) => status,
        }
    }

    /// Whether `rule` names it. `connect` in `retry.on` covers a broken connection too.
    fn is_in(self, rule: &Retry) -> bool {
        match self {
            Self::Connect | Self::Stale | Self::Reset | Self::NotTaken | Self::Left => rule.on.contains(&RetryOn::Connect),
            Self::Timeout => rule.on.contains(&RetryOn::Timeout),
            Self::Status(status) => rule.on.contains(&RetryOn::Status(status)),
            Self::Broken | Self::Unsendable => false,
        }
    }

    /// Whether the next process of the app may do better. Of one that is there, and slow or wrong, the next try would find the same.
    fn ends_with_its_process(self) -> bool {
        match self {
            Self::Connect | Self::Stale | Self::Reset | Self::NotTaken | Self::Left => true,
            Self::Timeout | Self::Status(_) | Self::Broken | Self::Unsendable => false,
        }
    }
}

/// Whether sending a request twice does no harm: its method says so, and all of its body is still here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Repeat {
    Harmless,
    Harmful,
}

impl Repeat {
    /// Source: RFC 9110 §9.2.2.
    #[must_use]
    pub fn of(method: &http::Method, body_is_whole: bool) -> Self {
        use http::Method;
        let idempotent = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE].contains(method);
        if idempotent && body_is_whole { Self::Harmless } else { Self::Harmful }
    }
}

/// Which servers will do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    Any,
    /// None that is on trial.
    Proven,
}

/// A server that has taken the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found<Id> {
    pub id: Id,
    /// Of a release that is not proven yet.
    pub on_trial: bool,
}

/// Who could take the request, as they are at the moment. What is picked is on hold for it; what was picked before is given back.
pub trait Servers {
    type Id: Copy + Eq;

    fn rule(&self) -> &Retry;
    /// Counts the request towards the budget of retries.
    fn enter(&mut self);
    /// Takes one retry of the budget; `false`: it is spent.
    fn spend(&mut self) -> bool;
    /// One but for these.
    fn pick(&mut self, but: &[Self::Id], trust: Trust) -> Option<Found<Self::Id>>;
    /// This very one, if it still takes requests.
    fn again(&mut self, server: Self::Id) -> Option<Found<Self::Id>>;
    /// Whether one that is proven would take requests.
    fn has_proven(&self) -> bool;
    /// Whether a process of the app may come in time, so that a request may wait for it.
    fn comes(&self) -> bool;
}

/// What happened to the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// It has passed the gates.
    Wanted,
    /// The connection stands.
    Connected,
    /// From here on the server may have seen it.
    Sent,
    Failed(Cause, Repeat),
    /// The head of an answer.
    Status(u16, Repeat),
    /// The servers have changed. `afresh`: those that it has been to may do by now.
    Rang {
        afresh: bool,
    },
    /// Waiting: its time is over. On a server: nothing comes from there, while others answer.
    Late(Repeat),
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// To the server that was picked.
    Go,
    /// Until the servers change.
    Wait,
    /// Nothing: it is where it should be.
    Stay,
    /// The server's answer goes to the client.
    Answer,
    /// The client is told what went wrong.
    End,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State<Id> {
    Fresh,
    On(On<Id>),
    Waiting,
    Answering,
    Over,
}

/// On a server, or on the way to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct On<Id> {
    server: Id,
    on_trial: bool,
    sent: bool,
    /// Some server before it may have seen the request.
    seen_before: bool,
}

/// Whether a kept connection has failed the request. From then on it goes on new connections only, so that this happens once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stale<Id> {
    Never,
    /// This server is asked whether it lives.
    On(Id),
    Settled,
}

/// The tries of one request.
#[derive(Debug)]
pub struct Attempt<Id> {
    state: State<Id>,
    /// Where it has failed.
    tried: Vec<Id>,
    tries: u32,
    stale: Stale<Id>,
    /// Some server may have seen it.
    sent: bool,
    /// Servers that have lost it.
    lost: u32,
    trust: Trust,
    failure: Option<Cause>,
}

impl<Id: Copy + Eq> Attempt<Id> {
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Fresh,
            tried: Vec::new(),
            tries: 0,
            stale: Stale::Never,
            sent: false,
            lost: 0,
            trust: Trust::Any,
            failure: None,
        }
    }

    /// Servers that were picked for it.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// How often it was sent to a server that broke off without a word.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Why the last server did not do.
    #[must_use]
    pub fn failure(&self) -> Option<Cause> {
        self.failure
    }

    /// Whether kept connections are not to be trusted.
    #[must_use]
    pub fn needs_new_connection(&self) -> bool {
        self.stale != Stale::Never
    }

    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// Answers one event.
    pub fn step(&mut self, event: Event, servers: &mut impl Servers<Id = Id>) -> Next {
        match (self.state, event) {
            (State::Fresh, Event::Wanted) => {
                servers.enter();
                if self.pick(servers) { Next::Go } else { self.wait_or_end(servers.comes()) }
            }
            (State::On(on), Event::Connected) => {
                if self.doubts(on.server) {
                    self.stale = Stale::Settled;
                }
                Next::Stay
            }
            (State::On(on), Event::Sent) => {
                self.sent = true;
                self.state = State::On(On { sent: true, ..on });
                Next::Stay
            }
            (State::On(on), Event::Failed(cause, repeat)) => self.failed(on, cause, repeat, servers),
            (State::On(on), Event::Status(status, repeat)) => self.status(on, status, repeat, servers),
            (State::On(on), Event::Late(repeat)) => self.late(on, repeat, servers),
            (State::Waiting, Event::Rang { afresh }) => {
                if afresh {
                    self.tried.clear();
                }
                if self.pick(servers) { Next::Go } else { self.wait_or_end(servers.comes()) }
            }
            (State::Waiting, Event::Late(_)) | (State::Answering, Event::Failed(..)) => self.end(),
            (State::Over, Event::Failed(..) | Event::Late(_) | Event::Rang { .. }) => Next::End,
            (State::Fresh | State::On(_) | State::Waiting | State::Answering | State::Over, _) => Next::Stay,
        }
    }

    fn failed(&mut self, on: On<Id>, cause: Cause, repeat: Repeat, servers: &mut impl Servers<Id = Id>) -> Next {
        self.failure = Some(cause);
        if cause == Cause::NotTaken {
            self.sent = on.seen_before;
        }
        // A kept connection breaks once: on a new one it is the server that does.
        let again = matches!(cause, Cause::Stale | Cause::NotTaken) && self.stale == Stale::Never;
        self.lost = self.loses(on, cause);
        self.leave(on);
        if matches!(cause, Cause::Broken | Cause::Unsendable) || !self.may_go_on(repeat) {
            return self.end();
        }
        if again {
            self.stale = if cause == Cause::Stale && on.sent { Stale::On(on.server) } else { Stale::Settled };
            if let Some(found) = servers.again(on.server) {
                return self.go(found);
            }
            self.lost = self.loses(on, Cause::Connect);
            self.stale = Stale::Settled;
            if !self.may_go_on(repeat) {
                return self.end();
            }
        }
        if self.goes_to_proven(on, servers) || self.retries(cause, servers) {
            return Next::Go;
        }
        self.wait_or_end(cause.ends_with_its_process() && servers.comes())
    }

    /// Servers that have lost it, this one included if it fails so: it broke off with the request in its hands, or does not take the connection that was to tell
    /// whether it lives, and so has died with the kept one.
    fn loses(&self, on: On<Id>, cause: Cause) -> u32 {
        let broke_off = match cause {
            Cause::Stale => on.sent && self.stale != Stale::Never,
            Cause::Reset => on.sent,
            Cause::Connect | Cause::NotTaken | Cause::Left | Cause::Timeout | Cause::Status(_) | Cause::Broken | Cause::Unsendable => false,
        };
        self.lost + u32::from(broke_off || self.doubts(on.server))
    }

    /// Whether this server is being asked whether it lives.
    fn doubts(&self, server: Id) -> bool {
        self.stale == Stale::On(server)
    }

    fn status(&mut self, on: On<Id>, status: u16, repeat: Repeat, servers: &mut impl Servers<Id = Id>) -> Next {
        let cause = Cause::Status(status);
        if self.may_go_on(repeat) {
            let before = self.tried.len();
            self.leave(on);
            let moves = (status >= 500 && self.goes_to_proven(on, servers)) || self.retries(cause, servers);
            if moves {
                self.failure = Some(cause);
                return Next::Go;
            }
            self.tried.truncate(before);
        }
        self.state = State::Answering;
        Next::Answer
    }

    /// Another is tried only if there is one: this one may answer yet.
    fn late(&mut self, on: On<Id>, repeat: Repeat, servers: &mut impl Servers<Id = Id>) -> Next {
        if !self.may_go_on(repeat) || !self.has_tries(servers.rule()) {
            return Next::Stay;
        }
        let lost = self.loses(on, Cause::Timeout);
        let tried = [&self.tried[..], &[on.server]].concat();
        match servers.pick(&tried, self.trust) {
            Some(found) if lost < MOST_LOST && servers.spend() => {
                self.failure = Some(Cause::Timeout);
                self.lost = lost;
                self.leave(on);
                self.go(found)
            }
            Some(_) | None => Next::Stay,
        }
    }

    fn leave(&mut self, on: On<Id>) {
        if !self.tried.contains(&on.server) {
            self.tried.push(on.server);
        }
        if self.doubts(on.server) {
            self.stale = Stale::Settled;
        }
    }

    /// Whether it may be sent once more, to whomever.
    fn may_go_on(&self, repeat: Repeat) -> bool {
        (repeat == Repeat::Harmless || !self.sent) && self.lost < MOST_LOST && self.tries < MOST_TRIES
    }

    /// What a server on trial could not do goes to one that is proven: once, for it is not sent to one on trial again. No retry of anybody's.
    fn goes_to_proven(&mut self, on: On<Id>, servers: &mut impl Servers<Id = Id>) -> bool {
        if !on.on_trial || !servers.has_proven() {
            return false;
        }
        let found = servers.pick(&self.tried, Trust::Proven);
        if let Some(found) = found {
            self.trust = Trust::Proven;
            self.go(found);
        }
        found.is_some()
    }

    /// After a kept connection, a server that has not looked at it, or one that goes, no budget is asked: nobody has failed.
    fn retries(&mut self, cause: Cause, servers: &mut impl Servers<Id = Id>) -> bool {
        let free = matches!(cause, Cause::Stale | Cause::NotTaken | Cause::Left);
        if !(free || cause.is_in(servers.rule()) && self.has_tries(servers.rule())) {
            return false;
        }
        match servers.pick(&self.tried, self.trust) {
            Some(found) if free || servers.spend() => {
                self.go(found);
                true
            }
            Some(found) => {
                self.shun(found.id, servers);
                false
            }
            None => false,
        }
    }

    /// The budget is spent: of the servers that there are none gets it before a pause, only one that is new.
    fn shun(&mut self, server: Id, servers: &mut impl Servers<Id = Id>) {
        let mut known = Some(server);
        while let Some(server) = known {
            self.tried.push(server);
            known = servers.pick(&self.tried, self.trust).map(|found| found.id);
        }
    }

    /// The try on a kept connection that broke is not counted.
    fn has_tries(&self, rule: &Retry) -> bool {
        self.tries - u32::from(self.needs_new_connection()) < rule.tries.get()
    }

    fn pick(&mut self, servers: &mut impl Servers<Id = Id>) -> bool {
        let found = servers.pick(&self.tried, self.trust);
        if let Some(found) = found {
            self.go(found);
        }
        found.is_some()
    }

    fn go(&mut self, Found { id, on_trial }: Found<Id>) -> Next {
        self.tries += 1;
        self.state = State::On(On { server: id, on_trial, sent: false, seen_before: self.sent });
        Next::Go
    }

    fn wait_or_end(&mut self, comes: bool) -> Next {
        if !comes {
            return self.end();
        }
        self.state = State::Waiting;
        Next::Wait
    }

    fn end(&mut self) -> Next {
        self.state = State::Over;
        Next::End
    }
}

impl<Id: Copy + Eq> Default for Attempt<Id> {
    fn default() -> Self {
        Self::new()
    }
}
