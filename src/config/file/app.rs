//! `[app.NAME]`, as it may be written.

use crate::config::{
    file::{Health, Rotate, UpstreamTimeouts},
    shape::{Either, List, Named, OneOrMore, OrOff, Whole, table, words},
    tree::Text,
    value::{FilePath, Pattern, Pause, ProbePath, Rate, Size, Time},
};

table! {
    /// A supervised program. Its name is an upstream too, if it has a port or socket.
    App {
        /// Program and arguments, as a shell splits them, or as a list. {socket} {port} {n} are filled in for each instance; {exe} is the path of gateway itself.
        command: Either<Text, List<Text>>,
        /// Working directory. Default: the directory of the file that names the app.
        dir: FilePath,
        /// Who it runs as.
        user: Text,
        group: Text,
        /// Environment. Wins over env_file.
        env: Named<Text>,
        /// A file of NAME=value lines.
        env_file: FilePath,
        /// Processes. Default: 1.
        procs: Either<Whole<1, 1000>, Scale>,
        /// First port of a fixed range of procs ports. Default: {port} from a private range.
        port: Whole<1, 65_535>,
        /// What proves that a process may serve: { http = "/path" }, { log = "regex" }, { notify = true } or { tcp = true }. Default: tcp where it has a port.
        ready: Either<ProbePath, Ready>,
        /// A process that keeps failing this is restarted.
        live: Either<ProbePath, Live>,
        /// Short for ready.http and live.http.
        health: Either<ProbePath, Health>,
        restart: Either<PolicyWord, Restart>,
        stop: Stop,
        /// How requests travel to it.
        timeouts: UpstreamTimeouts,
        /// Not supported yet.
        recycle: Recycle,
        /// Not supported yet.
        hold: OrOff<Hold>,
        /// Not supported yet.
        memory_max: Size,
        limits: AppLimits,
        /// Not supported yet.
        after: OneOrMore<Text>,
        /// Not supported yet.
        schedule: Text,
        /// Not supported yet.
        before: OneOrMore<Text>,
        /// Not supported yet.
        watchdog: Time,
        log: AppLog,
    }
}

table! {
    /// Processes by load. Not supported yet.
    Scale {
        /// Not supported yet.
        min: Whole<0, 1000>,
        /// Not supported yet.
        max: Whole<1, 1000>,
        /// Not supported yet.
        queue_time: Time,
    }
}

table! {
    /// What proves that a process may serve; one of http, log, notify, tcp.
    Ready {
        /// 2xx or 3xx on this path.
        http: ProbePath,
        /// A line of output matches.
        log: Pattern,
        /// READY=1 on NOTIFY_SOCKET.
        notify: bool,
        /// The port or socket accepts.
        tcp: bool,
        /// How long a start may take. Default: 30s.
        timeout: Time,
    }
}

table! {
    /// A process that keeps failing this is restarted, one at a time.
    Live {
        /// 2xx or 3xx on this path.
        http: ProbePath,
        /// Default: 10s.
        interval: Time,
        /// Default: 5s.
        timeout: Time,
        /// Failures in a row. Default: 3.
        fail: Whole<1, 1000>,
        /// Passes in a row. Default: 2.
        pass: Whole<1, 1000>,
    }
}

words! {
    PolicyWord { Always = "always", OnFailure = "on-failure", Never = "never", }
}

table! {
    /// What follows an exit that nobody asked for.
    Restart {
        /// Default: always for an app that listens, on-failure for a worker.
        policy: PolicyWord,
        /// The first pause; it doubles. Default: 250ms.
        delay: Time,
        /// The longest pause. Default: 30s.
        max_delay: Time,
        /// Exits of the whole app in a time; when spent, one try a minute. Default: 5/1m.
        budget: Rate,
    }
}

words! {
    Signal { Term = "TERM", Int = "INT", Quit = "QUIT", Hup = "HUP", Usr1 = "USR1", Usr2 = "USR2", Kill = "KILL", }
}

table! {
    /// Out of rotation, wait for requests in flight up to `drain`, `signal`, after `timeout` KILL to the whole group.
    Stop {
        /// Default: TERM.
        signal: Signal,
        /// Default: 20s.
        timeout: Time,
        /// Default: 15s.
        drain: Pause,
    }
}

table! {
    /// Limits of a process.
    AppLimits {
        /// Open files.
        nofile: Whole<16, 10_000_000>,
    }
}

table! {
    /// Output of an app.
    AppLog {
        /// What is not set here is as in [log].
        rotate: Rotate,
    }
}

table! {
    /// A process is replaced after so much. Not supported yet.
    Recycle {
        requests: Whole<1, 4_294_967_295>,
        age: Time,
        memory: Size,
    }
}

table! {
    /// Requests wait here while no process is ready. Not supported yet.
    Hold {
        time: Time,
        requests: Whole<1, 1_000_000>,
        bytes: Size,
    }
}
