//! `[app.NAME]`, as it may be written.

use crate::config::{
    file::{Health, Rotate, UpstreamTimeouts},
    shape::{Either, List, Named, OneOrMore, OrOff, Whole, table, words},
    tree::Text,
    value::{Cron, FilePath, MaybeSize, Nice, Pattern, Pause, ProbePath, Rate, Size, Time, Umask, Zone},
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
        /// Environment. Wins over env_file. {socket} {port} {n} {exe} are filled in as in the command.
        env: Named<Text>,
        /// A file of NAME=value lines, as systemd and Docker Compose both read them; what they read differently is refused.
        env_file: FilePath,
        /// Processes. Default: 1.
        procs: Either<Whole<1, 1000>, Scale>,
        /// First port of a fixed range of procs ports. Default: {port} from a private range, which is in PORT too, for an app that a site or route names.
        port: Whole<1, 65_535>,
        /// What is spoken to it: "2" is HTTP/2 in the clear. Default: "1".
        http: AppHttp,
        /// false: it is not started with gateway, nor by a reload, but by `gateway start`. Default: true.
        autostart: bool,
        /// From -20, which goes first, to 19. Default: as gateway itself.
        nice: Nice,
        /// Commands that run before each start of a process, as its user; when one fails, so has the start.
        before_start: Either<OneOrMore<Text>, BeforeStart>,
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
        /// A process is replaced after so much: the new one is ready first.
        recycle: Recycle,
        /// Requests wait here while no process is ready. Default: { time = "15s", requests = 500, bytes = "8MB" }.
        hold: OrOff<Hold>,
        /// Of all memory of one instance: a cgroup where it can be had, else looked at every few seconds.
        memory_max: Size,
        /// Limits of a process.
        limits: AppLimits,
        /// File mode bits that are taken away from what it makes, in octal, as in "027".
        umask: Umask,
        /// Apps that must be ready before this one is started.
        after: OneOrMore<Text>,
        /// A job, not a server: five fields of cron, or @daily and its like; it never overlaps itself.
        schedule: Either<Cron, Schedule>,
        /// Commands that run once a deploy, before the new release is started.
        before: OneOrMore<Text>,
        /// A process that does not send WATCHDOG=1 to NOTIFY_SOCKET for so long is restarted.
        watchdog: Time,
        /// How a new release is proven.
        deploy: Deploy,
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

words! {
    AppHttp { V1 = "1", V2 = "2", }
}

table! {
    /// Commands that run before each start of a process.
    BeforeStart {
        /// One after the other.
        run: OneOrMore<Text>,
        /// Of one of them. Default: 1m.
        timeout: Time,
    }
}

table! {
    /// What proves that a process may serve; one of http, log, notify, tcp.
    Ready {
        /// 2xx or 3xx on this path.
        http: ProbePath,
        /// The Host that it is asked with. Default: the first name that is routed to the app.
        host: Text,
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
        /// The Host that it is asked with. Default: the first name that is routed to the app.
        host: Text,
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
        /// Exit codes that are no failure. Default: [0].
        success: OneOrMore<Whole<0, 255>>,
        /// Exit codes after which it is not started again.
        give_up: OneOrMore<Whole<1, 255>>,
    }
}

words! {
    Signal { Term = "TERM", Int = "INT", Quit = "QUIT", Hup = "HUP", Usr1 = "USR1", Usr2 = "USR2", Winch = "WINCH", Kill = "KILL", }
}

table! {
    /// Out of rotation, wait for requests in flight up to `drain`, `signal`, after `timeout` KILL to whatever of it still runs.
    Stop {
        /// Default: what the program takes for an orderly end; QUIT for nginx and php-fpm, INT for postgres, WINCH for apache, TERM for most.
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
        /// Processes and threads of its user.
        nproc: Whole<1, 4_000_000>,
        /// A core file; "0B" for none.
        core: MaybeSize,
        /// A file that it writes.
        fsize: Size,
        /// Its stack.
        stack: Size,
        /// Its address space.
        address_space: Size,
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
    /// A process is replaced after so much: the new one is ready first, and one at a time.
    Recycle {
        /// Requests that it has answered.
        requests: Whole<1, 4_294_967_295>,
        /// Its age, give or take a tenth.
        age: Time,
        /// Its memory, averaged over three looks.
        memory: Size,
    }
}

table! {
    /// Requests wait here while no process is ready; beyond these bounds they get 503 at once.
    Hold {
        /// Default: 15s.
        time: Time,
        /// Default: 500.
        requests: Whole<1, 1_000_000>,
        /// Bodies that wait with their requests. Default: 8MB.
        bytes: Size,
    }
}

table! {
    /// When a job runs.
    Schedule {
        /// Five fields, minute first, or @hourly, @daily, @weekly, @monthly, @yearly.
        cron: Cron,
        /// As in "Europe/Rome". Default: the zone of the machine.
        zone: Zone,
        /// A run that takes longer is ended. Default: no limit.
        timeout: Time,
    }
}

table! {
    /// How a new release is proven.
    Deploy {
        /// Paths that each new process is asked for before it takes requests; below 500 is well.
        warm: OneOrMore<ProbePath>,
        /// How long the old release stands by. Default: 30s.
        guard: Pause,
        /// Of its answers that may be 5xx meanwhile, 0 to 1. Default: 0.05.
        errors: f64,
        /// Of one command of `before`. Default: 10m.
        before_timeout: Time,
    }
}
