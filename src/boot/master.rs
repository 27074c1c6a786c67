//! The master put together: what `gateway -c FILE` is, from the first line of the configuration to the exit code.

use std::{error::Error as StdError, path::Path, sync::Arc, time::Duration};

use crate::{
    config::load,
    master::{
        child,
        clock::Clock,
        control,
        edge_link::Program,
        handoff,
        nursery::{Nursery, Strangers},
        output::{Files, Output},
        places::{self, Places},
        releases::{Ledger, Moment, Overlay},
        sockets::Sockets,
        upgrade,
    },
    plan::{Plan, clear},
    store::{lock::StateLock, releases::Releases},
    telemetry::log,
};

mod conduct;
mod fatal;
mod post;
mod signals;
mod takeover;

#[cfg(test)]
mod tests;

use conduct::{Conduct, Parts};
pub use fatal::Fatal;
use fatal::os;
use takeover::TakeOver;
pub use takeover::{Refusal, self_check};
pub use upgrade::REFUSED;

/// Runs until TERM or INT. Returns when everything has stopped.
pub fn run(config: &Path) -> Result<(), Fatal> {
    run_with(config, Program::this())
}

fn run_with(config: &Path, program: Program) -> Result<(), Fatal> {
    let path = config.to_owned();
    let env = |name: &str| std::env::var(name).ok();
    let upgrades_to = handoff::program();
    let before = handoff::inherited()?;
    let _low = child::reserve_low_descriptors().map_err(os("open /dev/null"))?;
    let Begun { plan, ledger, overlay, places, nursery, lock, sockets, listener, output, clock, carried } = match before {
        Some(state) => takeover::begin(state, &path)?,
        None => begin(&path)?,
    };
    let log = log::install_master(plan.log.level, plan.log.format, output.own_log())?;
    warn(&plan);
    let parts = Parts {
        load: Arc::new({
            let path = path.clone();
            move || load::load_running(&path, &env).map_err(|complaints| Box::new(complaints) as Box<dyn StdError + Send + Sync>)
        }),
        in_force: Box::new(move |plan| {
            log.set(plan.log.level, plan.log.format);
            warn(plan);
        }),
        config: path,
        upgrades_to,
        plan,
        ledger,
        overlay,
        places,
        nursery,
        lock,
        sockets,
        listener,
        output,
        clock,
        carried,
        program,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(os("start the runtime"))?;
    runtime.block_on(async { Conduct::set_up(parts)?.run().await })
}

/// Of what is allowed, and yet hardly meant.
fn warn(plan: &Plan) {
    for site in clear::in_the_clear(plan) {
        tracing::warn!(
            site = site.name,
            "passwords cross the network in the clear: give the site a certificate, or listen on loopback alone"
        );
    }
}

/// The first start: nothing is there yet.
fn begin(path: &Path) -> Result<Begun, Fatal> {
    child::lower_oom_score();
    // The guard is a fork: before any thread, and while there is little to copy.
    let nursery = Nursery::new(Strangers::Reap).map_err(os("start the guard"))?;
    let mut plan = load::load_to_start(path, &|name| std::env::var(name).ok()).map_err(Fatal::Configuration)?;
    let lock = StateLock::take(&plan.state)?;
    let ledger = Ledger::new(Releases::of(&plan.state));
    let overlay = ledger.overlay(&mut plan.apps, Moment::Start);
    let places = Places::prepare(&plan)?;
    places::inspect(&plan)?;
    let sockets = Sockets::bind(&plan, &Sockets::default())?;
    let listener = control::open(&places.control())?;
    let output = Output::start(&Files::of(&plan)).map_err(os("start the log threads"))?;
    Ok(Begun { plan, ledger, overlay, places, nursery, lock, sockets, listener, output, clock: Clock::start(), carried: None })
}

/// What stands before the runtime does, new or taken over.
struct Begun {
    plan: Plan,
    ledger: Ledger,
    overlay: Overlay,
    places: Places,
    nursery: Nursery,
    lock: StateLock,
    sockets: Sockets,
    listener: std::os::unix::net::UnixListener,
    output: Output,
    clock: Clock,
    carried: Option<TakeOver>,
}
