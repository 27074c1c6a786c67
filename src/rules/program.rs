//! Program rule: what an app's command says about the program, where its block does not.
//!
//! Pure.
//!
//! Shape: the program is the command's first word, seen through what only starts another in its own place (`env`, `nice`, `sh -c 'exec …'`) and
//!        through what hands signals on to it (`tini`). Anything less plain than that is not guessed at: it gets TERM.
//! Source: nginx(8), php-fpm(8), httpd(8) "graceful-stop", postgres(1) "fast shutdown", haproxy management guide "soft stop",
//!         lighttpd(8), unicorn SIGNALS, uwsgi "Controlling uWSGI with signals".

use super::restart::Exit;
use crate::plan::app::StopSignal;

/// What the program takes for an orderly end: finish what is under way, begin nothing.
#[must_use]
pub fn stop_signal(command: &[String]) -> StopSignal {
    let Some((program, arguments)) = program(command) else { return StopSignal::Term };
    // Versions stand at the end of some names: php-fpm8.2, postgres16.
    match program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
        "php-fpm" | "nginx" | "openresty" | "unicorn" | "unicorn_rails" => StopSignal::Quit,
        "apache" | "httpd" | "apache2-foreground" | "httpd-foreground" => StopSignal::Winch,
        // TERM waits for every client to go by itself.
        "postgres" | "postmaster" | "lighttpd" => StopSignal::Int,
        "haproxy" => StopSignal::Usr1,
        // To it TERM means "start again", unless it is told otherwise.
        "uwsgi" if !arguments.iter().any(|word| word == "--die-on-term") => StopSignal::Int,
        // uvicorn, gunicorn, hypercorn, node, redis, supervisord, mysqld, java and nearly all others.
        _other => StopSignal::Term,
    }
}

/// Whether a process of this command line only waits for another that it started, so that what it is told may never reach the one that is meant.
///
/// `words`: as /proc/PID/cmdline has them. A program that writes its title there has one word.
#[must_use]
pub fn wraps(words: &[String]) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    let named = |word: &str| {
        let name = word.rsplit('/').next().unwrap_or(word);
        // npm and its kin call themselves "npm start".
        let name = name.split_ascii_whitespace().next().unwrap_or(name).trim_start_matches('-');
        name.strip_suffix(".js").or_else(|| name.strip_suffix(".cjs")).or_else(|| name.strip_suffix(".mjs")).unwrap_or(name).to_owned()
    };
    match named(first).as_str() {
        "sh" | "bash" | "dash" | "ash" | "ksh" | "mksh" | "zsh" | "fish" | "busybox" => true,
        "npm" | "npx" | "yarn" | "yarnpkg" | "pnpm" | "pnpx" | "corepack" | "make" | "just" | "composer" | "flock" | "su" | "runuser" => {
            true
        }
        "bun" => rest.first().is_some_and(|word| word == "run" || word == "x"),
        // Scripts of package managers, in front of which their interpreter stands.
        "node" | "nodejs" => rest.iter().find(|word| !word.starts_with('-')).is_some_and(|script| {
            matches!(named(script).as_str(), "npm" | "npm-cli" | "npx" | "npx-cli" | "yarn" | "yarnpkg" | "pnpm" | "pnpx" | "corepack")
        }),
        _server => false,
    }
}

/// How the end of a leader is told that left these running. One that ends well and leaves others has gone to the background.
#[must_use]
pub fn left(exit: Exit, command: &[String], names: &[String]) -> String {
    if exit != Exit::Code(0) {
        return exit.to_string();
    }
    let of_command = program(command).and_then(|(name, _)| foreground(name));
    let cure = of_command.or_else(|| names.iter().find_map(|name| foreground(name)));
    let cure = cure.unwrap_or("give it the option that keeps it in the foreground, or end its script with `exec` or `wait`");
    format!("{exit}: it went to the background; {cure}")
}

/// What keeps a well-known program in front.
fn foreground(name: &str) -> Option<&'static str> {
    Some(match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
        "nginx" | "openresty" => "keep it in front: add -g 'daemon off;'",
        "redis-server" | "redis-sentinel" | "valkey-server" | "valkey-sentinel" | "keydb-server" => "keep it in front: --daemonize no",
        "gunicorn" => "keep it in front: leave out --daemon (-D), also in its configuration",
        "php-fpm" => "keep it in front: add -F",
        "apache" | "httpd" | "apachectl" | "apache2ctl" | "apachectl.sh" => "keep it in front: -DFOREGROUND",
        "uwsgi" => "keep it in front: leave out --daemonize",
        "unicorn" | "unicorn_rails" | "rainbows" => "keep it in front: leave out --daemonize (-D)",
        "puma" | "memcached" | "thin" => "keep it in front: leave out -d",
        "haproxy" => "keep it in front: -db, or -W without -D",
        "lighttpd" => "keep it in front: add -D",
        "varnishd" => "keep it in front: add -F",
        "mongod" | "mongos" => "keep it in front: leave out --fork",
        "mysqld" | "mariadbd" => "keep it in front: leave out --daemonize",
        "postgres" | "pg_ctl" | "pg_ctlcluster" => "keep it in front: run `postgres -D DIR` itself, or pg_ctlcluster with --foreground",
        "caddy" => "keep it in front: `caddy run` in the place of `caddy start`",
        "pm" | "PM" => "keep it in front: `pm2-runtime` in the place of `pm2 start`",
        "supervisord" => "keep it in front: add -n",
        "celery" => "keep it in front: `celery worker` without --detach, not `celery multi`",
        "sshd" | "dovecot" => "keep it in front: sshd -D, dovecot -F",
        "cron" | "crond" => "keep it in front: cron -f, crond -n or -f",
        "dnsmasq" => "keep it in front: --keep-in-foreground",
        "named" => "keep it in front: add -f",
        "squid" => "keep it in front: --foreground",
        "rabbitmq-server" => "keep it in front: leave out -detached",
        "catalina.sh" | "startup.sh" => "keep it in front: `catalina.sh run`",
        _other => return None,
    })
}

/// The file name of the program and its arguments.
fn program(command: &[String]) -> Option<(&str, &[String])> {
    let (first, rest) = command.split_first()?;
    let name = first.rsplit('/').next().unwrap_or(first);
    match name {
        "env" => program(after_env(rest)?),
        "nohup" | "setsid" => program(rest),
        "nice" => match rest.split_first() {
            Some((option, rest)) if option == "-n" => program(rest.get(1..)?),
            Some((option, rest)) if option.starts_with("-n") || option.starts_with("--adjustment=") => program(rest),
            Some(_) | None => program(rest),
        },
        "tini" | "dumb-init" => {
            let options = rest.iter().take_while(|word| word.starts_with('-') && *word != "--").count();
            let rest = rest.get(options..)?;
            program(rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest))
        }
        "sh" | "bash" | "dash" | "ash" => match rest {
            [option, script, ..] if option == "-c" => Some((executed(script).unwrap_or(name), &[])),
            _script => Some((name, rest)),
        },
        _program => Some((name, rest)),
    }
}

/// Past the options of `env` that are plain, and the variables that it sets.
fn after_env(mut words: &[String]) -> Option<&[String]> {
    loop {
        let (first, rest) = words.split_first()?;
        words = match first.as_str() {
            "-i" | "-" | "--ignore-environment" | "--" => rest,
            "-u" | "-C" => rest.get(1..)?,
            option if option.starts_with('-') => return None,
            variable if variable.contains('=') => rest,
            _program => return Some(words),
        };
    }
}

/// The program that a script turns into: its first word is `exec`, so no shell is left between it and us.
fn executed(script: &str) -> Option<&str> {
    let word = script.trim_start().strip_prefix("exec ")?.split_ascii_whitespace().next()?;
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'));
    word.rsplit('/').next().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> StopSignal {
        stop_signal(&shlex::split(command).expect("a command"))
    }

    #[test]
    fn each_program_gets_what_it_takes_for_an_orderly_end() {
        for (command, signal) in [
            ("php-fpm -F", StopSignal::Quit),
            ("/usr/sbin/php-fpm8.2 --nodaemonize", StopSignal::Quit),
            ("nginx -g 'daemon off;'", StopSignal::Quit),
            ("apache2 -D FOREGROUND", StopSignal::Winch),
            ("/usr/local/bin/apache2-foreground", StopSignal::Winch),
            ("postgres -D /var/lib/postgresql", StopSignal::Int),
            ("haproxy -W -db", StopSignal::Usr1),
            ("uwsgi --ini app.ini", StopSignal::Int),
            ("uwsgi --die-on-term --ini app.ini", StopSignal::Term),
            ("uvicorn main:app --uds {socket}", StopSignal::Term),
            ("gunicorn main:app -k uvicorn.workers.UvicornWorker", StopSignal::Term),
            ("hypercorn main:app", StopSignal::Term),
            ("python3 -m uvicorn main:app", StopSignal::Term),
            ("node server.js", StopSignal::Term),
            ("redis-server --port {port}", StopSignal::Term),
            ("supervisord -n", StopSignal::Term),
            ("/srv/nginx/our-own-thing", StopSignal::Term),
        ] {
            assert_eq!(of(command), signal, "{command}");
        }
        assert_eq!(stop_signal(&[]), StopSignal::Term);
    }

    #[test]
    fn what_only_starts_another_is_seen_through() {
        for command in [
            "env nginx",
            "env -i -u LANG PATH=/bin A=b /usr/sbin/nginx -g 'daemon off;'",
            "nice -n 5 nginx",
            "nice -n5 nginx",
            "nice nginx",
            "nohup env A=b nginx",
            "tini -g -- nginx",
            "dumb-init nginx",
            "sh -c 'exec nginx -g \"daemon off;\"'",
            "/bin/bash -c ' exec /usr/sbin/nginx'",
        ] {
            assert_eq!(of(command), StopSignal::Quit, "{command}");
        }
    }

    #[test]
    fn what_only_waits_for_another_is_told_from_what_serves() {
        let words = |text: &str| shlex::split(text).expect("words");
        for wrapper in [
            "sh -c 'node x; true'",
            "/bin/bash ./start.sh",
            "-bash",
            "'npm start'",
            "'npm run serve'",
            "node /usr/bin/npm start",
            "node --no-warnings /usr/lib/node_modules/npm/bin/npm-cli.js start",
            "/usr/bin/node /usr/bin/yarn.js start",
            "pnpm start",
            "bun run start",
            "make serve",
        ] {
            assert!(wraps(&words(wrapper)), "{wrapper}");
        }
        for server in [
            "node server.js",
            "node",
            "bun server.ts",
            "'nginx: master process nginx'",
            "gunicorn main:app",
            "/srv/npm/server",
            "bashful",
            "python3 sh",
        ] {
            assert!(!wraps(&words(server)), "{server}");
        }
        assert!(!wraps(&[]));
    }

    #[test]
    fn a_program_that_went_to_the_background_is_told_with_what_keeps_it_in_front() {
        let told = |command: &str, names: &[&str]| {
            left(Exit::Code(0), &shlex::split(command).expect("words"), &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        for (command, names, option) in [
            ("nginx -c nginx.conf", &["nginx"][..], "-g 'daemon off;'"),
            ("env A=b /usr/sbin/php-fpm8.2 -y pool.conf", &["php-fpm8.2"], "-F"),
            ("redis-server redis.conf", &["redis-server"], "--daemonize no"),
            ("apache2 -k start", &["apache2"], "-DFOREGROUND"),
            ("gunicorn -D main:app", &["gunicorn"], "--daemon"),
            ("sh start.sh", &["sleep", "nginx"], "-g 'daemon off;'"),
            ("./own", &["own"], "foreground"),
        ] {
            let text = told(command, names);
            assert!(text.starts_with("exit 0: it went to the background; ") && text.contains(option), "{command}: {text}");
        }
        assert_eq!(left(Exit::Code(1), &["nginx".into()], &["nginx".into()]), "exit 1");
        assert_eq!(left(Exit::Signal(9), &["gunicorn".into()], &[]), "signal 9 (KILL)");
    }

    #[test]
    fn what_is_less_plain_is_not_guessed_at() {
        for command in [
            "sh -c 'nginx; true'",
            "sh -c 'exec $SERVER nginx'",
            "sh nginx",
            "env -S 'nginx -g x'",
            "env",
            "env A=b",
            "nice -n",
            "tini",
            "echo nginx",
        ] {
            assert_eq!(of(command), StopSignal::Term, "{command}");
        }
    }
}
