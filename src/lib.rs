//! `gateway`: one binary and one TOML file at the edge of a small server.
//!
//! *Rules decide, shells act. Parse once at the door; inside, every value is already right. A change is prepared whole, swapped once, never half applied.*
//!
//! # Processes
//! - **master** is what the user started; its PID never changes. Binds listening sockets and keeps them; spawns, watches and stops every child (apps, edge);
//!   owns every log file; answers the control socket; writes status.json. Never parses a byte from the network.
//! - **edge** is a child exec'd from `/proc/self/exe` that drops to `user`. Accept, TLS, proxy, gates, upstreams, probes,
//!   certificates by ACME, admin HTTP, metrics. Never forks, never signals an app.
//!
//! # Floors: imports point down only (`tests/architecture.rs`)
//! ```text
//! 5  cli                    words in, exit code out
//! 4  boot                   composition roots: only these know every room
//! 3  admin                  asks the shells through what boot gave it
//! 2  master  edge           hold state, act; never import each other
//!            acme           under the edge, which reads its board and its vault
//! 1  config ipc store telemetry demo   one outside format or device each
//! 0  pki  rules  plan  vocab     pure: no tokio, I/O, clock, dice, logging
//! ```
//!
//! # Decided, beside D1 to D7 of the first design
//! - **D8** The edge owns no file: its log is stderr and the access log a pipe, both written and rotated by the master; certificates are read by the master and
//!   sent as bytes ([`ipc::message::Material`]), because the edge may not read what root may. Its own state is STATE/edge; STATE itself is 0711 where the edge drops
//!   to another user and 0700 else.
//! - **D9** The engine sees an HTTP/1 connection only from a whole head to the end of its answer (`edge::conn`): deadlines, caps and pipelining are ours, and an idle
//!   connection costs a few KB.
//! - **D10** A guard process, forked first of all, ends every app's process group, and whatever carries a mark of the master (D30), when the master is gone: a death signal
//!   reaches leaders only.
//! - **D11** `telemetry` and `admin` may name [`ipc::message`]: pure shapes.
//! - **D12** `pki` reads certificates as bytes and lies on the ground: check (`config`), issue (`acme`) and service (`edge`) must give one verdict on one pair.
//!   It may name [`ipc::message::Material`], a pure shape, and shares rustls with the two rooms above it.
//! - **D13** `acme` runs in the edge, on the thread that serves nothing, and lies one step below it: what traffic threads need of it (a pending challenge, a
//!   certificate) they read from its [`acme::challenge::Board`] and [`acme::vault::Vault`] without a wait. A renewal fills one slot; no `Live` is built for it.
//! - **D14** Challenges are answered before any gate and before TLS asks for anything: whoever could shut the CA out would have no certificate.
//! - **D15** The keys of session tickets are the master's: an edge that is replaced opens the tickets of the one before. Sites that ask for client certificates
//!   have keys of their own, derived from their CAs, so that no session crosses over.
//! - **D16** What failed is told to the one who runs the gateway alone: the edge keeps the last failed requests ([`edge::blackbox`]), the master the last processes of each
//!   instance ([`master::obituary`]), and `gateway why` joins the two by app, instance and incarnation. Neither survives its process: files have the rest.
//! - **D17** A release is a directory without links, laid over the configuration's `dir` when the plan is read (`master::releases`), so that every room below sees one
//!   plan. It counts while `dir` in the file is what it was at the deploy; a reload and the placing of a release never overlap (one gate), or the two would roll one app.
//! - **D18** Jobs are an actor beside the supervisor, with a rule of their own: an app is kept alive, a job is begun. Both write their rows of one table.
//!   What a job was due is accounted for once, on disk, so neither a crash nor a clock makes it run twice; what was missed is said and not made up for.
//! - **D19** `memory_max` is the nursery's: a cage made with the process, or a look at its session. Whoever hears of an exit hears that it was for memory, and needs
//!   to know no more of it. The master moves itself into a leaf of its own cgroup only when the first cage is asked for.
//! - **D20** A request that finds no ready process waits in the edge, within bounds ([`edge::upstream::hold`]); a process is replaced before it goes ([`rules::restart`]): its
//!   successor has the same instance number, another incarnation and another address. So an instance has up to two rows in the table, and whoever needs one takes the one that serves.
//! - **D21** A release on trial serves, and what it answers with 5xx goes to the one that stands by where it may be sent again: its failures are counted and seen by nobody.
//!
//! - **D22** An upgrade is the master executing the binary on disk in its own place: same PID, so children stay children, death signals stay bound and nothing is
//!   re-parented. The new binary first proves itself as a child (`self-check`) on the file and on the state as it is; whatever fails before the exec is undone.
//!   State crosses as JSON in a sealed memfd, descriptors by number. It takes over the plan in force, not the file: nothing is half applied, an edit waits for its
//!   reload; only a build that reads plans otherwise takes the file, and only if the file is what is in force. The edge's wire stays private to a build (D5): the
//!   old edge is told by TERM, as anybody may tell it, and leaves the listening sockets to the next ([`master::elders`]). While it drains, a drain of an instance is
//!   over when the old edge has ended too, or at the instance's own deadline.
//!   After the exec there is no way back: a binary that fails in spite of its proof exits with 1, the guard ends every app, the edges die with it, and the
//!   host starts the whole anew. Orders under way (`gateway restart APP`) go on, but whoever waits for one is told to look for himself.
//!
//! - **D23** Bans are the edge's: it decides and refuses, and writes STATE/edge/bans itself. A ban acts from the next request on, so points are given before an answer
//!   leaves. Who is banned may be a CA (D14): in the clear the challenge is answered first and everything else with 403; over TLS he is dropped before a byte, but
//!   where a tls-alpn-01 challenge is pending not before his first words show that he asks for something else.
//! - **D24** What a plan is to be judged by or served from and the edge may not read (users of an htpasswd file, the page of a maintenance) is part of the plan: it is read
//!   when the plan is made and again at a reload, so that a file and the words that name it never disagree. Certificates are not, for they change on their own (D8).
//! - **D25** Passwords are verified on threads of their own, of low priority, behind a bounded queue ([`edge::access`]): what a stranger can make us do costs those who are
//!   served nothing. Gates stay synchronous; what takes time stands after them, in the engine.
//! - **D26** The screen judges by where a value begins and ends, never by a word: who writes about an attack goes on with a sentence. It is made of patterns and not of a
//!   tokeniser of SQL because the one crate that ports libinjection indexes slices of hostile bytes on trust. A body that is looked at is read before there is an upstream
//!   as far as the engine can send it again, and held back on its way beyond that ([`edge::gate::body`]). The corpora that measure it (`tests/corpus`) are written by
//!   another hand than the patterns, and a fifth of them is held out.
//! - **D27** The arithmetic of the zones (GCRA) is our own, which governor did at first: it decides on one cell at once, and cannot hold the cells of several zones before it
//!   takes of any, nor say when a turn comes, nor give one back. Where a pace is all that is asked, it is governor's: lines that strangers can cause
//!   ([`telemetry::Seldom`]), tokens of `[admin]` that were guessed ([`admin::door`]). What an hour or a window may cost in all (names on demand, frames of an HTTP/2
//!   connection) is counted, because a pace gives it twice.
//! - **D28** Where a request goes, how often, and when it is over is one pure machine ([`rules::attempt`]) over the servers as they are; the engine tells it what happened.
//!   Who dies of a request cannot be told from the connection: the edge tells the master which requests a process had when it broke off ([`edge::witness`]), the master
//!   knows whether it has ended, and joins the two. Such an exit is charged at once and forgiven when the request is known ([`rules::restart`]), whichever comes first.
//! - **D29** Whether a server hangs is decided by comparison ([`rules::suspicion`]): it owes a byte, and a sibling has answered what it was asked meanwhile. A wait for a head is ended from outside
//!   the engine, which has no word for that: the receiving side of the request's own connection is shut down ([`edge::upstream::waits`]), and the hook that hears of its end asks why.
//! - **D30** An app is everything that has come of it, not its leader: a mark that fork, exec, setsid and a change of user hand on says whose a process is
//!   ([`master::kin`]). The stop signal goes to the leader first, because servers with workers want to end those themselves; when the leader has gone, to whoever leads what
//!   remains, one generation after the other; and past a shell or package manager that still stands there after a third of `stop.timeout`. It is over when the
//!   last has ended, and KILL is for the whole of it. So neither a wrapper that hands no signal on nor a program that left for the background loses a request or keeps a port.
//! - **D31** A file says of itself that it is pure ("Pure" begins a line of its head), and what lies below it is pure too: `tests/architecture.rs` learns it there. Files of one
//!   parent import each other in no ring; what two share lies in a file below both. A file has 500 lines at most and a function 60; what is larger is on a list with its
//!   reason, and nothing comes onto the list.
//! - **D32** What every room does is done in one way: causes are told by [`vocab::chain`] and [`vocab::story`], locks taken by [`vocab::lock`](mod@vocab::lock), one client told
//!   from another by [`vocab::Network`], plans for tests made by `plan::testing`.
//! - **D33** A body is waited for before a process is chosen, but never longer than the engine can send it again: HTTP/1 leaves it in the connection's own inbox, unread
//!   ([`edge::conn::collect`]); of HTTP/2, which the engine reads, what it does not keep stands beside it ([`edge::conn::early`]).
//!
//! # Lexicon
//! **site** a set of host names · **route** which of a site's requests go where · **upstream** servers to balance over · **server** one of them ·
//! **app** a supervised program · **release** a directory that was deployed for it · **instance** one process of it · **incarnation** one start of an instance · **successor** the process that is to replace the present one · **job** an app with a schedule · **run** one start of a job · **cage** a cgroup for one process · **zone** a limit of requests · **ban** an address shut out for a time · **offence** what points are given for · **turn** when one that waits in a zone goes on · **plan** the validated intent ·
//! **slot** the place of one certificate · **ward** a certificate that is looked after · **bundle** its key and chain in one file · **stand-in** what is served until there is one ·
//! **live** a plan made runnable · **edge**, **master** the two processes · **attempt** the tries of one request · **suspect** a request that a process had when it ended · **lease** a server picked for one request · **elder** an edge that drains beside the one that serves · **guard** an `auth` made ready · **switch** a word of `gateway maintenance` · **material** bytes of a certificate and its key

pub mod acme;
pub mod admin;
pub mod boot;
pub mod cli;
pub mod config;
pub mod demo;
pub mod edge;
pub mod ipc;
pub mod master;
pub mod pki;
pub mod plan;
pub mod rules;
pub mod store;
pub mod telemetry;
pub mod vocab;
