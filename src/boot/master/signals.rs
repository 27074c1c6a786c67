//! The signals that concern the master, and how they are carried over an exec.
//!
//! Shape: between [`Signals::hold`] and [`release`] none is delivered; what comes then waits, over an exec too, for the one who releases.

use std::{io, time::Duration};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number, pthread_sigmask, raise};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

/// The runtime looks at what was delivered before when it waits.
const TURN: Duration = Duration::from_millis(1);

pub struct Signals {
    pub hup: Signal,
    pub usr1: Signal,
    pub usr2: Signal,
    pub stop: Stop,
}

/// TERM and INT mean the same.
pub struct Stop {
    term: Signal,
    int: Signal,
}

/// What had been delivered already.
pub struct Held {
    pub stop: bool,
}

impl Signals {
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            stop: Stop { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? },
        })
    }

    /// Holds all of them back. One that was delivered and not yet acted on is raised again, so that it waits with the others; with `reload`, HUP too.
    pub async fn hold(&mut self, reload: bool) -> Held {
        // Refused only for a number that is no signal.
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&ours()), None);
        sleep(TURN).await;
        let stop = came(&mut self.stop.term).await || came(&mut self.stop.int).await;
        for (number, again) in [
            (Number::SIGHUP, came(&mut self.hup).await || reload),
            (Number::SIGUSR1, came(&mut self.usr1).await),
            (Number::SIGUSR2, came(&mut self.usr2).await),
        ] {
            if again {
                let _ = raise(number);
            }
        }
        Held { stop }
    }
}

/// Lets them come again.
pub fn release() {
    // Refused only for a number that is no signal.
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&ours()), None);
}

fn ours() -> SigSet {
    [Number::SIGHUP, Number::SIGUSR1, Number::SIGUSR2, Number::SIGTERM, Number::SIGINT].into_iter().collect()
}

/// Whether one has been delivered, without waiting.
async fn came(signal: &mut Signal) -> bool {
    tokio::select! {
        biased;
        _ = signal.recv() => true,
        () = std::future::ready(()) => false,
    }
}

impl Stop {
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
