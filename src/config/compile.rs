//! From what is written to what is meant: shapes → [`Plan`], gathering every complaint.
//!
//! Pure and total. What files hold is asked of [`Outside`]; whether we are root, how many cores there are and where we stand is told in [`Surroundings`].

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use super::{
    complaint::{Code, Complaints, Place, did_you_mean},
    defaults, file,
    shape::{At, Either, Field, List, OneOrMore},
    tree::{Outside, Text},
    value::Net,
};
use crate::plan::{Plan, User};

mod access;
mod acme;
mod app;
mod ban;
mod certificates;
mod cors;
mod envfile;
mod filter;
mod header;
mod job;
mod listener;
mod log;
mod maintenance;
mod methods;
mod probe;
mod route;
mod site;
mod tls;
mod upstream;
mod zone;

/// Where a configuration is compiled for.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub root: bool,
    pub cores: NonZeroUsize,
    /// The working directory, absolute.
    pub dir: PathBuf,
}

/// Descriptors that one message to the edge carries at most.
const SOCKETS: usize = 250;

/// What every noun needs while it is compiled.
struct Context<'a> {
    here: &'a Surroundings,
    outside: &'a dyn Outside,
    out: &'a mut Complaints,
    /// Of every htpasswd file that was named; `None`: it is bad, and its complaint is filed.
    users: BTreeMap<PathBuf, Option<Vec<User>>>,
}

/// The plan, or `None` where there is anything to complain of.
pub fn compile(root: file::Root, here: &Surroundings, outside: &dyn Outside, out: &mut Complaints) -> Option<Plan> {
    let file::Root {
        place,
        email,
        include: _, // followed by `load`
        state,
        run,
        user,
        workers,
        trusted_proxies,
        listen,
        timeouts,
        limits,
        tls,
        admin,
        log,
        alerts,
        app,
        upstream,
        zone,
        ban,
        defaults,
        site,
    } = root;
    let files = out.files().map(|path| absolute(here, path)).collect();
    let mut context = Context { here, outside, out, users: BTreeMap::new() };
    let c = &mut context;
    alerts.not_yet("alerting", "take [alerts] out, and watch /metrics of [admin] from outside", c.out);

    let state = state.value().map_or_else(|| default_dir(here, defaults::STATE_ROOT, defaults::STATE), |path| absolute(here, &path.0));
    let default_run = if here.root { PathBuf::from(defaults::RUN_ROOT) } else { state.join("run") };
    let run = run.value().map_or(default_run, |path| absolute(here, &path.0));
    let user = c.text(user, "a user").unwrap_or_else(|| defaults::USER.into());
    let trusted_proxies = c.nets(trusted_proxies);

    let (log_plan, rotation) = log::compile(log.value().unwrap_or_else(|| file::Log::empty(place)), c);
    let limits = listener::limits(limits.value().unwrap_or_else(|| file::Limits::empty(place)), c);
    let timeouts = listener::timeouts(timeouts.value().unwrap_or_else(|| file::Timeouts::empty(place)));
    let tls = tls::policy(tls.value().unwrap_or_else(|| file::Tls::empty(place)), email, c);
    let mut claims = listener::Claims::default();
    let listen = listener::listen(listen.value().unwrap_or_else(|| file::Listen::empty(place)), trusted_proxies.is_empty(), &mut claims, c);
    let admin = listener::admin(admin.value().unwrap_or_else(|| file::Admin::empty(place)), &mut claims, c);
    let workers = workers_of(workers, listen.http.len() + listen.https.len(), c);

    let apps = app::compile(app, &run, &rotation, &routed(&site, &defaults), &mut claims, c);
    let upstreams = upstream::compile(upstream, &apps, c);
    let zones = zone::compile(zone, c);
    let ban = ban::compile(ban, c);
    let names = Names::of(&apps, &upstreams, &zones);
    let sites = site::compile(site, defaults, &listen, &limits, &tls, &names, c);

    let users = good(std::mem::take(&mut c.users));
    if !out.is_empty() {
        return None;
    }
    Some(Plan {
        files,
        state,
        run,
        user,
        workers,
        trusted_proxies,
        listen,
        timeouts,
        limits,
        tls,
        admin,
        log: log_plan,
        apps: good(apps),
        upstreams: good(upstreams),
        zones: good(zones),
        users,
        ban,
        sites,
    })
}

/// What a block of a name became; a name whose block is bad is still a name.
type Blocks<N, T> = BTreeMap<N, Option<T>>;

fn good<N: Ord, T>(blocks: Blocks<N, T>) -> BTreeMap<N, T> {
    blocks.into_iter().filter_map(|(name, block)| Some((name, block?))).collect()
}

/// Whatever sites and routes send requests to, by name.
fn routed(sites: &Field<List<file::Site>>, defaults: &Field<file::Site>) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut add = |app: &Field<Text>, upstream: &Field<Text>| {
        named.extend([app, upstream].into_iter().filter_map(Field::as_ref).map(|at| at.value.value.clone()));
    };
    let sites = sites.as_ref().map(|list| list.value.0.as_slice()).unwrap_or_default();
    for site in sites.iter().map(|site| &site.value).chain(defaults.as_ref().map(|at| &at.value)) {
        add(&site.app, &site.upstream);
        for (_, route) in site.route.as_ref().map(|routes| routes.value.0.as_slice()).unwrap_or_default() {
            if let Some(route) = route.as_ref() {
                add(&route.value.app, &route.value.upstream);
            }
        }
    }
    named
}

/// Every name that sites and routes may use.
struct Names {
    /// Whether it may be proxied to; `None`: its block is bad.
    apps: BTreeMap<String, Option<bool>>,
    upstreams: Vec<String>,
    zones: Vec<String>,
}

impl Names {
    fn of(
        apps: &Blocks<crate::vocab::AppName, crate::plan::App>,
        upstreams: &Blocks<crate::vocab::UpstreamName, crate::plan::Upstream>,
        zones: &Blocks<crate::vocab::ZoneName, crate::plan::Zone>,
    ) -> Self {
        let listens = |app: &crate::plan::App| app.port != crate::plan::AppPort::None;
        Self {
            apps: apps.iter().map(|(name, app)| (name.to_string(), app.as_ref().map(listens))).collect(),
            upstreams: upstreams.keys().map(ToString::to_string).collect(),
            zones: zones.keys().map(ToString::to_string).collect(),
        }
    }
}

fn workers_of(
    workers: Field<Either<file::Auto, crate::config::shape::Whole<1, 128>>>,
    listeners: usize,
    c: &mut Context<'_>,
) -> NonZeroUsize {
    // Every worker has a socket of its own for each listener, and one more is for [admin].
    let most = NonZeroUsize::new((SOCKETS - 1) / listeners.max(1)).unwrap_or(NonZeroUsize::MIN);
    match workers.given() {
        Some(At { value: Either::That(count), place }) => {
            let count = NonZeroUsize::new(count.0 as usize).unwrap_or(NonZeroUsize::MIN);
            if count > most {
                c.out.add(
                    Code::BadValue,
                    place,
                    format!("{count} workers on {listeners} listeners want too many sockets: at most {most} workers"),
                );
            }
            count
        }
        Some(At { value: Either::This(file::Auto::Auto), .. }) | None => c.here.cores.min(most),
    }
}

fn default_dir(here: &Surroundings, root: &str, other: &str) -> PathBuf {
    if here.root { root.into() } else { here.dir.join(other) }
}

/// The same path from anywhere, without `.` components.
fn absolute(here: &Surroundings, path: &Path) -> PathBuf {
    here.dir.join(path).components().collect()
}

impl Context<'_> {
    fn absolute(&self, path: &Path) -> PathBuf {
        absolute(self.here, path)
    }

    /// A text that may not be empty.
    fn text(&mut self, field: Field<Text>, what: &str) -> Option<String> {
        let At { value, place } = field.given()?;
        if value.value.trim().is_empty() {
            self.out.add(Code::EmptyValue, place, format!("{what} may not be empty"));
            return None;
        }
        if value.value.contains('\0') {
            self.out.add(Code::BadValue, place, format!("{what} may not hold a zero byte"));
            return None;
        }
        Some(value.value)
    }

    fn nets(&mut self, field: Field<OneOrMore<Net>>) -> Vec<ipnet::IpNet> {
        field.value().map(|nets| nets.0.into_iter().map(|net| net.value.0).collect()).unwrap_or_default()
    }

    /// Complains of a name that is not defined, unless it may stand in a file that could not be read.
    fn dangling<'k>(&mut self, code: Code, place: Place, what: &str, name: &Text, known: impl IntoIterator<Item = &'k str>) {
        if self.out.is_incomplete() {
            return;
        }
        let meant = if name.is_hidden() { String::new() } else { did_you_mean(&name.value, known) };
        self.out.add(code, place, format!("{what} {}, which is not defined{meant}", name.shown()));
    }
}
