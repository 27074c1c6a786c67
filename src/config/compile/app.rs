//! `[app.NAME]`: a supervised program.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    path::Path,
};

use super::{
    Blocks, Context,
    envfile::{self, is_variable},
    job,
    listener::{Claims, pace},
    log::rotation,
    probe,
    upstream::timeouts,
};
use crate::{
    config::{
        complaint::{Code, Place, did_you_mean, nearest},
        defaults, file,
        shape::{At, Either, Field, List, Named, OneOrMore, OrOff, Whole, not_yet},
        tree::Text,
        value::FilePath,
    },
    plan::{self, app::Policy, app::StopSignal},
    rules::program,
    vocab::{AppName, Secret},
};

/// Filled in for each instance.
const TOKENS: [&str; 4] = ["socket", "port", "n", "exe"];
/// `sockaddr_un` holds 108 bytes with the closing zero.
const SOCKET_PATH: usize = 107;

pub fn compile(
    field: Field<Named<file::App>>,
    run: &Path,
    rotate: &plan::Rotation,
    routed: &BTreeSet<String>,
    claims: &mut Claims,
    c: &mut Context<'_>,
) -> Blocks<AppName, plan::App> {
    let mut apps = Blocks::new();
    let mut around = Around { run, rotate, routed, claims, waits: Vec::new() };
    for (name, table) in field.value().map(|named| named.0).unwrap_or_default() {
        match AppName::parse(&name.value) {
            Ok(parsed) => {
                let app = table.value().and_then(|table| app(&parsed, name.place, table, &mut around, c));
                apps.insert(parsed, app);
            }
            Err(error) => c.out.add(Code::BadName, name.place, format!("app {:?}: {error}", name.value)),
        }
    }
    check_waits(&around.waits, &apps, c);
    apps
}

/// What an app must know of the rest.
struct Around<'a> {
    run: &'a Path,
    rotate: &'a plan::Rotation,
    /// What sites and routes name.
    routed: &'a BTreeSet<String>,
    claims: &'a mut Claims,
    waits: Vec<Wait>,
}

/// `after`: who waits for whom, and where that is written.
struct Wait {
    app: AppName,
    other: AppName,
    written: Text,
    place: Place,
}

/// Every app that is waited for exists and is one that becomes ready, and nobody waits for himself in the end.
fn check_waits(waits: &[Wait], apps: &Blocks<AppName, plan::App>, c: &mut Context<'_>) {
    for Wait { app, other, written, place } in waits {
        match apps.get(other) {
            None => {
                c.dangling(Code::UnknownApp, *place, &format!("app {app} waits for app"), written, apps.keys().map(AppName::as_str));
            }
            Some(Some(job)) if job.schedule.is_some() => {
                c.out.add(Code::Conflict, *place, format!("app {app} waits for {other}, which is a job and never ready"));
            }
            Some(_) if waits_for(waits, other, app) => {
                c.out.add(Code::Conflict, *place, format!("app {app} waits for {other}, which waits for {app}: neither would start"));
            }
            Some(_) => {}
        }
    }
}

/// Whether `app` waits for `goal`, over others too.
fn waits_for(waits: &[Wait], app: &AppName, goal: &AppName) -> bool {
    let mut seen = vec![app];
    let mut next = 0;
    while let Some(app) = seen.get(next).copied() {
        next += 1;
        for wait in waits.iter().filter(|wait| wait.app == *app) {
            if wait.other == *goal {
                return true;
            }
            if !seen.contains(&&wait.other) {
                seen.push(&wait.other);
            }
        }
    }
    false
}

fn app(name: &AppName, named: Place, table: file::App, around: &mut Around<'_>, c: &mut Context<'_>) -> Option<plan::App> {
    let file::App {
        place,
        command,
        dir,
        user,
        group,
        env,
        env_file,
        procs,
        port,
        http,
        autostart,
        nice,
        before_start,
        ready,
        live,
        health,
        restart,
        stop,
        timeouts: travel,
        recycle,
        hold,
        memory_max,
        limits,
        umask,
        after,
        schedule,
        before,
        watchdog,
        deploy,
        log,
    } = table;
    let cure = "add one, as in command = \"uvicorn main:app --uds {socket}\"";
    let command = command.required(&format!("app {name} has no command"), place, cure, c.out);
    let command = command.and_then(|at| self::command(at, c));
    let procs = self::procs(procs, c);
    let routed = schedule.is_absent() && around.routed.contains(name.as_str());
    let filled: Vec<&str> = env
        .as_ref()
        .map(|named| named.value.0.iter().filter_map(|(_, value)| Some(value.as_ref()?.value.value.as_str())))
        .into_iter()
        .flatten()
        .collect();
    let listens = command.as_ref().map(|command| self::port(command, &filled, port, procs, name, around.claims, c));
    let listens = listens.map(|reach| if reach == plan::AppPort::None && routed { plan::AppPort::Allotted } else { reach });
    let reach = listens.clone().unwrap_or(plan::AppPort::None);
    if reach == plan::AppPort::Socket {
        let longest = around.run.as_os_str().len() + format!("/app/{name}/{}.1.sock", procs.get() - 1).len();
        if longest > SOCKET_PATH {
            let message = format!("the sockets of app {name} would have paths of {longest} bytes; the kernel takes at most {SOCKET_PATH}");
            c.out.add_with_cure(Code::BadPath, named, message, "set `run` to a shorter directory, or use {port}");
        }
    }
    let at = listens.is_some().then_some(reach != plan::AppPort::None);
    if schedule.place().is_some() {
        let idle = [
            ("ready", ready.place()),
            ("live", live.place()),
            ("health", health.place()),
            ("recycle", recycle.place()),
            ("after", after.place()),
            ("before", before.place()),
            ("watchdog", watchdog.place()),
            ("deploy", deploy.place()),
            ("http", http.place()),
            ("autostart", autostart.place()),
            ("before_start", before_start.place()),
            ("restart, but for restart.success,", job::restart(&restart)),
        ];
        job::idle(name, &idle, c);
    }
    let (ready, live) = probe::probes(name, at, ready, live, health, c);
    let restart = self::restart(restart, reach != plan::AppPort::None, c);
    let stop = self::stop(stop, command.as_ref().map_or(&[], |command| &command.0));
    let env_file = literal(env_file, c);
    let env = environment(env, at == Some(true), c);
    let dir = dir.value().map_or_else(|| c.out.dir(place.file).to_path_buf(), |path| path.0);
    let listens = listens?;
    let reach = listens != plan::AppPort::None;
    let hold = self::hold(hold, reach, c);
    let recycle = self::recycle(recycle, reach, c);
    let schedule = job::schedule(schedule, reach, procs, c);
    let deploy = self::deploy(deploy, reach, c);
    deaf("http", http.place(), reach || schedule.is_some(), c);
    let before_start = self::before_start(before_start, c);
    let before = before.value().map(|list| list.0).unwrap_or_default();
    let before = before.into_iter().filter_map(|at| words(at, c)).collect();
    let waits = self::after(name, after, c);
    let after = waits.iter().map(|wait| wait.other.clone()).collect();
    around.waits.extend(waits);
    if c.here.root && user.is_absent() {
        let cure = "set `user` to one without privileges, or write user = \"root\" if it must";
        c.out.add_with_cure(Code::RunsAsRoot, named, format!("app {name} would run as root, as gateway does"), cure);
    }
    let file::AppLog { place: _, rotate: own } = log.value().unwrap_or_else(|| file::AppLog::empty(place));
    Some(plan::App {
        dir: Some(c.absolute(&dir)),
        user: c.text(user, "a user"),
        group: c.text(group, "a group"),
        env,
        env_file,
        before_start: before_start?,
        autostart: autostart.or(true),
        nice: nice.value().map(|nice| nice.0),
        procs,
        port: listens,
        http: match http.or(file::AppHttp::V1) {
            file::AppHttp::V1 => plan::UpstreamHttp::V1,
            file::AppHttp::V2 => plan::UpstreamHttp::V2,
        },
        ready: ready?,
        live,
        restart,
        stop,
        limits: self::limits(limits, place),
        umask: umask.value().map(|bits| bits.0),
        recycle,
        hold,
        memory_max: memory_max.value().map(|size| size.0.0),
        after,
        schedule,
        before,
        watchdog: watchdog.value().map(|time| time.0),
        deploy,
        release: None,
        log: own.value().map_or_else(|| around.rotate.clone(), |table| rotation(table, around.rotate)),
        timeouts: timeouts(travel),
        command: command?.0,
    })
}

/// The words of a command, and where it stands.
struct Command(Vec<String>, Place);

fn command(at: At<Either<Text, List<Text>>>, c: &mut Context<'_>) -> Option<Command> {
    let words = match at.value {
        Either::This(text) => words(At { value: text, place: at.place }, c)?,
        Either::That(list) => good_words(list.0.into_iter().map(|word| word.value.value).collect(), at.place, c)?,
    };
    for token in words.iter().flat_map(|word| tokens(word)).filter(|token| !TOKENS.contains(token)) {
        // Braces have other uses in commands: only what is nearly a token of ours is taken for one.
        if nearest(token, TOKENS).is_some() && token.len() > 2 {
            c.out.add(Code::BadPlaceholder, at.place, format!("unknown placeholder {{{token}}}{}", did_you_mean(token, TOKENS)));
        }
    }
    Some(Command(words, at.place))
}

/// A command line, as a shell splits it.
fn words(at: At<Text>, c: &mut Context<'_>) -> Option<Vec<String>> {
    match shlex::split(&at.value.value) {
        Some(words) => good_words(words, at.place, c),
        None => {
            c.out.add(Code::BadCommand, at.place, format!("{} cannot be split into words: a quote is not closed", at.value.shown()));
            None
        }
    }
}

fn good_words(words: Vec<String>, place: Place, c: &mut Context<'_>) -> Option<Vec<String>> {
    if words.first().is_none_or(|program| program.trim().is_empty()) {
        c.out.add(Code::EmptyValue, place, "a command may not be empty");
        return None;
    }
    if words.iter().any(|word| word.contains('\0')) {
        c.out.add(Code::BadCommand, place, "a command may not hold a zero byte");
        return None;
    }
    Some(words)
}

/// What makes sense only for an app that requests go to.
fn deaf(what: &str, place: Option<Place>, listens: bool, c: &mut Context<'_>) {
    if let (Some(place), false) = (place, listens) {
        let cure = "name the app in a site, put {port} or {socket} into its command, set `port`, or take it out";
        c.out.add_with_cure(Code::MissingPort, place, format!("{what} is about requests, and this app has no port or socket"), cure);
    }
}

fn hold(field: Field<OrOff<file::Hold>>, listens: bool, c: &mut Context<'_>) -> Option<plan::Hold> {
    deaf("hold", field.place(), listens, c);
    let file::Hold { place: _, time, requests, bytes } = match field.value() {
        Some(OrOff::Off) => return None,
        Some(OrOff::On(table)) => table,
        None => file::Hold::empty(Place::default()),
    };
    listens.then(|| plan::Hold {
        time: time.value().map_or(defaults::HOLD_TIME, |time| time.0),
        requests: requests.value().map_or(defaults::HOLD_REQUESTS, |n| n.0),
        bytes: bytes.value().map_or(defaults::HOLD_BYTES, |size| size.0).0,
    })
}

fn recycle(field: Field<file::Recycle>, listens: bool, c: &mut Context<'_>) -> plan::Recycle {
    let Some(file::Recycle { place: _, requests, age, memory }) = field.value() else { return plan::Recycle::default() };
    deaf("recycle.requests", requests.place(), listens, c);
    plan::Recycle {
        requests: requests.value().map(|n| u64::from(n.0)),
        age: age.value().map(|time| time.0),
        memory: memory.value().map(|size| size.0.0),
    }
}

fn deploy(field: Field<file::Deploy>, listens: bool, c: &mut Context<'_>) -> plan::DeployPolicy {
    let file::Deploy { place, warm, guard, errors, before_timeout } =
        field.value().unwrap_or_else(|| file::Deploy::empty(Place::default()));
    deaf("deploy.warm", warm.place(), listens, c);
    let at = errors.place().unwrap_or(place);
    let errors = errors.or(defaults::GUARD_ERRORS);
    if !(0.0..=1.0).contains(&errors) {
        c.out.add(Code::BadValue, at, format!("deploy.errors is a part of all answers, from 0 to 1, not {errors}"));
    }
    plan::DeployPolicy {
        warm: warm.value().map(|list| list.0.into_iter().map(|path| path.value.0).collect()).unwrap_or_default(),
        guard: guard.value().map_or(defaults::GUARD, |time| time.0),
        errors,
        before_timeout: before_timeout.value().map_or(defaults::BEFORE_TIMEOUT, |time| time.0),
    }
}

/// Names only; [`check_waits`] knows all apps.
fn after(name: &AppName, field: Field<OneOrMore<Text>>, c: &mut Context<'_>) -> Vec<Wait> {
    let mut found: Vec<Wait> = Vec::new();
    for At { value, place } in field.value().map(|list| list.0).unwrap_or_default() {
        match AppName::parse(&value.value) {
            Ok(other) if other == *name => c.out.add(Code::Conflict, place, format!("app {name} cannot wait for itself")),
            Ok(other) if found.iter().any(|wait| wait.other == other) => {}
            Ok(other) => found.push(Wait { app: name.clone(), other, written: value, place }),
            Err(error) => c.out.add(Code::BadName, place, format!("app {:?}: {error}", value.value)),
        }
    }
    found
}

fn limits(field: Field<file::AppLimits>, place: Place) -> plan::AppLimits {
    let file::AppLimits { place: _, nofile, nproc, core, fsize, stack, address_space } =
        field.value().unwrap_or_else(|| file::AppLimits::empty(place));
    plan::AppLimits {
        nofile: nofile.value().map(|n| u64::from(n.0)),
        nproc: nproc.value().map(|n| u64::from(n.0)),
        core: core.value().map(|size| size.0.0),
        fsize: fsize.value().map(|size| size.0.0),
        stack: stack.value().map(|size| size.0.0),
        address_space: address_space.value().map(|size| size.0.0),
    }
}

/// `{word}` in a text.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(token, _)| token)
        .filter(|token| token.bytes().all(|b| b.is_ascii_lowercase()))
}

fn has<'w>(words: impl IntoIterator<Item = &'w str>, token: &str) -> bool {
    words.into_iter().any(|word| tokens(word).any(|found| found == token))
}

fn before_start(field: Field<Either<OneOrMore<Text>, file::BeforeStart>>, c: &mut Context<'_>) -> Option<plan::BeforeStart> {
    let Some(At { value, place }) = field.given() else {
        return Some(plan::BeforeStart { commands: Vec::new(), timeout: defaults::BEFORE_START_TIMEOUT });
    };
    let (run, timeout) = match value {
        Either::This(run) => (run, None),
        Either::That(file::BeforeStart { place, run, timeout }) => {
            let run = run.required("this before_start runs nothing", place, "add run = [\"…\"]", c.out)?;
            (run.value, timeout.value())
        }
    };
    if run.0.is_empty() {
        c.out.add(Code::EmptyValue, place, "before_start runs nothing: write a command, or take it out");
    }
    let commands = run.0.into_iter().filter_map(|at| words(at, c)).collect();
    Some(plan::BeforeStart { commands, timeout: timeout.map_or(defaults::BEFORE_START_TIMEOUT, |time| time.0) })
}

fn procs(field: Field<Either<Whole<1, 1000>, file::Scale>>, c: &mut Context<'_>) -> NonZeroU16 {
    match field.given() {
        Some(At { value: Either::This(count), .. }) => u16::try_from(count.0).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN),
        Some(At { value: Either::That(file::Scale { place, min, max, queue_time }), .. }) => {
            let places: Vec<Place> = [min.place(), max.place(), queue_time.place()].into_iter().flatten().collect();
            for place in if places.is_empty() { vec![place] } else { places } {
                not_yet(place, "scaling by load", "write a number, as in procs = 2", c.out);
            }
            NonZeroU16::MIN
        }
        None => NonZeroU16::MIN,
    }
}

/// `env`: its values, as they are written.
fn port(
    command: &Command,
    env: &[&str],
    port: Field<Whole<1, 65_535>>,
    procs: NonZeroU16,
    name: &AppName,
    claims: &mut Claims,
    c: &mut Context<'_>,
) -> plan::AppPort {
    let words = || command.0.iter().map(String::as_str).chain(env.iter().copied());
    let (socket, allotted) = (has(words(), "socket"), has(words(), "port"));
    let written = port.place();
    if socket && (allotted || written.is_some()) {
        let other = if allotted { "{port}" } else { "port" };
        let place = written.filter(|_| !allotted).unwrap_or(command.1);
        c.out.add_with_cure(Code::Conflict, place, format!("app {name} has both {{socket}} and {other}"), "an app listens on one of them");
    }
    let Some(At { value: Whole(first), place }) = port.given() else {
        return match (socket, allotted) {
            (true, _) => plan::AppPort::Socket,
            (false, true) => plan::AppPort::Allotted,
            (false, false) => plan::AppPort::None,
        };
    };
    let last = first + u32::from(procs.get()) - 1;
    let (Some(first), Some(last)) = (u16::try_from(first).ok().and_then(NonZeroU16::new), u16::try_from(last).ok()) else {
        c.out.add(Code::BadValue, place, format!("{procs} processes from port {first} on would need port {last}; the last one is 65535"));
        return plan::AppPort::None;
    };
    let range = if first.get() == last { format!("port {first}") } else { format!("ports {first} to {last}") };
    if let Some(other) = claims.claim(IpAddr::V4(Ipv4Addr::LOCALHOST), first.get(), last, format!("app {name} on {range}")) {
        c.out.add(Code::OverlappingPorts, place, format!("app {name} on {range} overlaps {other}"));
    }
    plan::AppPort::Fixed { first }
}

fn restart(field: Field<Either<file::PolicyWord, file::Restart>>, listens: bool, c: &mut Context<'_>) -> plan::RestartPolicy {
    let table = match field.given() {
        Some(At { value: Either::This(policy), place }) => {
            let mut table = file::Restart::empty(place);
            table.policy = Field::Given(At { value: policy, place });
            table
        }
        Some(At { value: Either::That(table), .. }) => table,
        None => file::Restart::empty(Place::default()),
    };
    let file::Restart { place: _, policy, delay, max_delay, budget, success, give_up } = table;
    let (delay, max_delay) = (delay.given(), max_delay.given());
    let first = delay.as_ref().map_or(defaults::RESTART_DELAY, |at| at.value.0);
    // A delay longer than the default cap is its own cap, unless the file says otherwise.
    let most = max_delay.as_ref().map_or(defaults::RESTART_MAX_DELAY.max(first), |at| at.value.0);
    if first > most
        && let Some(at) = max_delay
    {
        let texts = (crate::vocab::units::duration_text(first), crate::vocab::units::duration_text(most));
        c.out.add(Code::Conflict, at.place, format!("restart.delay {} is longer than restart.max_delay {}", texts.0, texts.1));
    }
    let default = if listens { file::PolicyWord::Always } else { file::PolicyWord::OnFailure };
    plan::RestartPolicy {
        policy: match policy.or(default) {
            file::PolicyWord::Always => Policy::Always,
            file::PolicyWord::OnFailure => Policy::OnFailure,
            file::PolicyWord::Never => Policy::Never,
        },
        delay: first,
        max_delay: most,
        budget: budget.value().map_or_else(|| pace(defaults::RESTART_BUDGET), |rate| rate.0),
        success: codes(success),
        give_up: codes(give_up),
    }
}

fn codes<const MIN: u32>(field: Field<OneOrMore<Whole<MIN, 255>>>) -> Vec<i32> {
    field.value().map(|list| list.0.into_iter().filter_map(|code| i32::try_from(code.value.0).ok()).collect()).unwrap_or_default()
}

/// `command`: whose program chooses the signal that is not written.
fn stop(field: Field<file::Stop>, command: &[String]) -> plan::Stop {
    let file::Stop { place: _, signal, timeout, drain } = field.value().unwrap_or_else(|| file::Stop::empty(Place::default()));
    plan::Stop {
        signal: signal.value().map_or_else(
            || program::stop_signal(command),
            |signal| match signal {
                file::Signal::Term => StopSignal::Term,
                file::Signal::Int => StopSignal::Int,
                file::Signal::Quit => StopSignal::Quit,
                file::Signal::Hup => StopSignal::Hup,
                file::Signal::Usr1 => StopSignal::Usr1,
                file::Signal::Usr2 => StopSignal::Usr2,
                file::Signal::Winch => StopSignal::Winch,
                file::Signal::Kill => StopSignal::Kill,
            },
        ),
        timeout: timeout.value().map_or(defaults::STOP_TIMEOUT, |time| time.0),
        drain: drain.value().map_or(defaults::STOP_DRAIN, |time| time.0),
    }
}

/// `env_file`: nothing of it is filled in.
fn literal(env_file: Field<FilePath>, c: &mut Context<'_>) -> BTreeMap<String, Secret<String>> {
    let Some(At { value: path, place }) = env_file.given() else { return BTreeMap::new() };
    let path = c.absolute(&path.0);
    match c.outside.file(&path) {
        Ok(text) => {
            let (found, faults) = envfile::variables(&text);
            // One complaint: a place has one of a kind.
            if !faults.is_empty() {
                let lines = faults.iter().map(|envfile::Fault { line, what, .. }| format!("{}:{line}: {what}", path.display()));
                let mut cures: Vec<&str> = Vec::new();
                for fault in &faults {
                    if !cures.contains(&fault.cure) {
                        cures.push(fault.cure);
                    }
                }
                c.out.add_with_cure(Code::BadValue, place, lines.collect::<Vec<_>>().join("; "), cures.join("; "));
            }
            found.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
        }
        Err(reason) => {
            c.out.add(Code::UnreadableFile, place, format!("could not read {}: {reason}", path.display()));
            BTreeMap::new()
        }
    }
}

fn environment(env: Field<Named<Text>>, listens: bool, c: &mut Context<'_>) -> BTreeMap<String, Secret<String>> {
    let mut all = BTreeMap::new();
    for (name, value) in env.value().map(|named| named.0).unwrap_or_default() {
        let Some(value) = value.value() else { continue };
        if !is_variable(&name.value) || value.value.contains('\0') {
            c.out.add(
                Code::BadName,
                name.place,
                format!("{:?} cannot be an environment variable: its name holds a space or '=', or its value a zero byte", name.value),
            );
        } else if name.value == "GATEWAY_INSTANCE" || (name.value == "PORT" && listens && value.value != "{port}") {
            let message = format!("{} is set by gateway for each instance", name.value);
            let cure = if name.value == "PORT" { "take it out; `port` chooses the port" } else { "take it out" };
            c.out.add_with_cure(Code::Conflict, name.place, message, cure);
        }
        all.insert(name.value, Secret::new(value.value));
    }
    all
}
