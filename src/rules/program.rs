//! Program rule: what an app's command says about the program, where its block does not.
//!
//! Pure.
//!
//! Shape: the program is the command's first word, seen through what only starts another in its own place (`env`, `nice`, `sh -c 'exec …'`) and
//!        through what hands signals on to it (`tini`). Anything less plain than that is not guessed at: it gets TERM.
//! Source: nginx(8), php-fpm(8), httpd(8) "graceful-stop", postgres(1) "fast shutdown", haproxy management guide "soft stop",
//!         lighttpd(8), unicorn SIGNALS, uwsgi "Controlling uWSGI with signals".

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
