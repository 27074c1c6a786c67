//! What a service manager hears, and the unit that comes with us.

use std::{os::unix::net::UnixDatagram, process::Command};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{
    Gateway,
    gateway::workdir,
    wait::{eventually, secs},
};

const TEXT: &str = "[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"ok\" }\n\
                    [app.env]\ncommand = [\"sh\", \"-c\", \"env > env.txt; exec sleep 1000\"]\n";

/// Reads until a message has all of these lines.
fn hear(socket: &UnixDatagram, lines: &[&str]) -> String {
    let mut seen = Vec::new();
    eventually(&format!("the manager hears {lines:?}"), secs(40), || {
        let mut buffer = [0; 4096];
        while let Ok(bytes) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
            if lines.iter().all(|line| text.lines().any(|said| said.starts_with(line))) {
                return Ok(text);
            }
            seen.push(text);
        }
        Err(seen.clone())
    })
}

#[test]
fn a_service_manager_hears_of_everything_that_concerns_it() {
    let dir = workdir();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_nonblocking(true).expect("its mode");
    let name = path.to_str().expect("text");
    let mut gateway = Gateway::start_copy(TEXT, &[("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "400000")]);
    let main = format!("MAINPID={}", gateway.pid());
    let ready = hear(&socket, &["READY=1", &main, "STATUS="]);
    assert!(ready.contains("serves http://"), "{ready}");
    hear(&socket, &["WATCHDOG=1"]);
    gateway.ask(&json!({ "command": "reload" })).expect("a reload");
    let said = hear(&socket, &["RELOADING=1", "MONOTONIC_USEC="]);
    let usec = said.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).and_then(|text| text.parse::<u64>().ok());
    assert!(usec.is_some_and(|usec| usec > 0), "{said}");
    hear(&socket, &["READY=1"]);
    gateway.ask(&json!({ "command": "upgrade" })).expect("an upgrade");
    hear(&socket, &["RELOADING=1", "MONOTONIC_USEC="]);
    hear(&socket, &["READY=1", &main]);
    hear(&socket, &["WATCHDOG=1"]);
    let env = std::fs::read_to_string(gateway.dir().join("env.txt")).expect("the app wrote it");
    assert!(!env.contains("NOTIFY_SOCKET") && !env.contains("WATCHDOG") && !env.contains("GATEWAY_HANDOFF"), "{env}");
    gateway.signal(Signal::SIGTERM);
    // 30 s for the edge, 20 s for the app, 10 s beside them: longer than the manager's own patience, if that is what it takes.
    hear(&socket, &["STOPPING=1", "EXTEND_TIMEOUT_USEC=60000000"]);
    assert_eq!(gateway.wait_end(secs(20)).code(), Some(0));
}

/// Whatever the version of systemd: ExecReload= is run, and its exit code is what `systemctl reload` reports.
#[test]
fn systemctl_reload_of_the_shipped_unit_tells_whether_the_configuration_is_in_force() {
    let unit = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/gateway.service")).expect("the unit");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecReload=")).expect("ExecReload=");
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/gateway"));
    let gateway =
        Gateway::start("[[site]]\nhost = \"a.test\"\ntls = \"off\"\n[site.route.\"/\"]\nrespond = { status = 200, body = \"one\" }\n");
    let config = gateway.config().display().to_string();
    let words: Vec<String> = words.map(|word| if word == "/etc/gateway/gateway.toml" { config.clone() } else { word.to_owned() }).collect();
    // As systemd runs it: no terminal, no shell, few variables.
    let reload = || {
        let mut command = Command::new(crate::harness::binary());
        command.args(&words).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").output().expect("it runs")
    };
    let good = reload();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(String::from_utf8_lossy(&good.stdout).contains("configuration 2 is in force"), "{good:?}");
    let broken = std::fs::read_to_string(gateway.config()).expect("text") + "\n[[[\n";
    std::fs::write(gateway.config(), broken).expect("written");
    let bad = reload();
    assert_eq!(bad.status.code(), Some(78), "{bad:?}");
    assert!(String::from_utf8_lossy(&bad.stderr).contains("this is not TOML"), "{bad:?}");
}

#[test]
fn the_unit_is_one_that_systemd_reads() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/gateway.service")).expect("the unit");
    let settings: Vec<&str> = text.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty()).collect();
    assert!(settings.iter().all(|line| line.split_once('=').is_some_and(|(key, _)| !key.is_empty() && !key.contains(' '))), "{settings:?}");
    for line in ["Type=notify", "KillMode=mixed", "Delegate=yes", "Restart=always", "OOMPolicy=continue", "NoNewPrivileges=yes"] {
        assert!(settings.contains(&line), "{line}");
    }
    // Known only to systemd 253 and later: before it, such a unit has no reload at all.
    assert!(!text.lines().any(|line| line.starts_with("Type=notify-reload")), "Debian 12 and Ubuntu 22.04 do not know it");
    let dir = workdir();
    let unit = dir.path().join("gateway.service");
    std::fs::write(&unit, text.replace("/usr/local/bin/gateway", crate::harness::binary())).expect("a copy");
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    let Ok(verified) = verified else {
        return eprintln!("systemd-analyze is not installed: the unit was read by ourselves alone");
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert_eq!(said.lines().filter(|line| line.contains("gateway.service")).collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
}
