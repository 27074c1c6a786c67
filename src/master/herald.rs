//! What the service manager is told: sd_notify, in both its senses of "notify".
//!
//! Shape: silent unless NOTIFY_SOCKET is set; never waits, and a manager that does not listen costs nothing. No child ever sees the variable.
//! Source: sd_notify(3), systemd.service(5) on Type=notify-reload and WatchdogSec=.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::Arc,
    time::Duration,
};

use super::clock;

/// Variables that are for us alone.
pub const OURS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

#[derive(Clone, Debug, Default)]
pub struct Herald {
    to: Option<Arc<(UnixDatagram, SocketAddr)>>,
    /// How often it wants to hear that we live.
    pub watchdog: Option<Duration>,
}

impl Herald {
    /// By the environment of this process.
    #[must_use]
    pub fn of_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self::default() };
        let open = || -> io::Result<_> {
            let addr = match name.as_bytes().split_first() {
                Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
                _ => SocketAddr::from_pathname(&name)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Arc::new((socket, addr)))
        };
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(|usec| Duration::from_micros(usec / 2));
        match open() {
            Ok(to) => Self { to: Some(to), watchdog },
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET is of no use");
                Self::default()
            }
        }
    }

    /// Everything that was told to do is done.
    pub fn ready(&self, status: &str) {
        // What follows a line break would be a word of its own.
        let status = status.replace('\n', " ");
        self.say(&format!("READY=1\nMAINPID={}\nSTATUS={status}", std::process::id()));
    }

    /// A reload or an upgrade is under way; [`Herald::ready`] ends it.
    pub fn reloading(&self, status: &str) {
        match clock::monotonic() {
            Ok(now) => self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS={status}", now.as_micros())),
            Err(error) => tracing::warn!(%error, "service manager not told of a reload"),
        }
    }

    /// It may take so long, whatever the manager's own patience (TimeoutStopSec) is.
    pub fn stopping(&self, within: Duration) {
        self.say(&format!("STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={}", within.as_micros()));
    }

    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, words: &str) {
        let Some((socket, addr)) = self.to.as_deref() else { return };
        if let Err(error) = socket.send_to_addr(words.as_bytes(), addr) {
            tracing::debug!(%error, "service manager not told");
        }
    }
}
