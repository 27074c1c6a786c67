//! Figures and soaks that are no tests: `./dev measure` lists them and runs them, `cargo test` leaves them out. What they gave stands in benches/RESULTS.md.

use std::{fs, process::Command};

use crate::{
    access, floods,
    harness::{Load, heavy, load::How, wait::secs},
    real::venv,
    rolling, slow,
};

/// What an app takes to boot that a person waits for.
const BOOT: &str = "3s";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "./dev measure restarts"]
async fn restarts_of_ours() {
    rolling::restarts_of_two(BOOT).await;
    rolling::restarts_of_one(BOOT).await;
}

/// A soak: a hundred processes worn out, and a minute of apps that fall ill as soon as they are up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "./dev measure wear"]
async fn wear_and_illness_for_minutes() {
    rolling::recycled_until(100.0).await;
    rolling::unhealthy_for(secs(60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "./dev measure floods"]
async fn floods_of_ten_seconds_each() {
    floods::floods_for(secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "./dev measure slow"]
async fn slow_clients_for_a_minute() {
    slow::slow_for(60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "./dev measure passwords"]
async fn wrong_passwords_for_a_minute() {
    access::wrong_passwords_for(secs(60)).await;
}

/// The same app under nginx and supervisord, restarted as their manuals say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "./dev measure restarts-nginx"]
async fn restarts_of_nginx_and_supervisord() {
    let _turn = heavy().await;
    let dir = crate::harness::gateway::workdir();
    let [front, first, second] = crate::harness::pebble::free();
    let at = |path: &str| dir.path().join(path);
    let app = |port: u16| {
        format!("[program:web{port}]\ncommand={} demo-app --port {port} --boot {}\nautostart=true\n", crate::harness::binary(), BOOT)
    };
    let supervisord = format!(
        "[supervisord]\nnodaemon=true\nlogfile={}\npidfile={}\n[unix_http_server]\nfile={sock}\n[supervisorctl]\nserverurl=unix://{sock}\n[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n{}{}[group:web]\nprograms=web{first},web{second}\n",
        at("supervisord.log").display(),
        at("supervisord.pid").display(),
        app(first),
        app(second),
        sock = at("s.sock").display(),
    );
    fs::write(at("supervisord.conf"), supervisord).expect("written");
    let nginx = format!(
        "daemon off;\nworker_processes 2;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\nupstream web {{ server 127.0.0.1:{first}; server 127.0.0.1:{second}; keepalive 32; }}\nserver {{ listen 127.0.0.1:{front}; location / {{ proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n}}\n",
        dir = dir.path().display()
    );
    fs::write(at("nginx.conf"), nginx).expect("written");
    let run = |program: std::path::PathBuf, words: &[&str]| {
        std::process::Command::new(program)
            .args(words)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it runs")
    };
    let config = at("supervisord.conf").display().to_string();
    let mut supervisord = run(venv().join("bin/supervisord"), &["-c", &config]);
    let mut nginx =
        run("/usr/sbin/nginx".into(), &["-p", &dir.path().display().to_string(), "-c", &at("nginx.conf").display().to_string()]);
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], front));
    crate::harness::wait::eventually_async("both serve", secs(30), || async {
        match crate::harness::get(addr, "a.test", "/healthz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{:?}", other.map(|answer| answer.status))),
        }
    })
    .await;
    tokio::time::sleep(secs(4)).await;
    let load = Load::new(addr, How::Plain, "a.test", "/healthz", 50).start();
    load.more(200).await;
    for _ in 0..5 {
        let mut restart = run(venv().join("bin/supervisorctl"), &["-c", &config, "restart", "web:"]);
        tokio::task::spawn_blocking(move || restart.wait()).await.expect("joined").expect("waited");
        tokio::time::sleep(secs(5)).await;
    }
    let tally = load.stop().await;
    for child in [&mut nginx, &mut supervisord] {
        crate::harness::proc::kill(child.id(), nix::sys::signal::Signal::SIGTERM);
        child.wait().expect("waited");
    }
    println!("nginx and supervisord, five restarts of two processes with a boot of {}: {tally:?}", BOOT);
}

// ── what `./dev measure` and benches/RESULTS.md say of each other ───────────────────────────────────────────────────

fn listed() -> Vec<String> {
    let output = Command::new("./dev").arg("measure").current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("./dev runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    names.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The names after each `./dev measure` of a text.
fn named(text: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>();
    text.split("./dev measure ").skip(1).map(name).filter(|name| !name.is_empty() && *name != "NAME").collect()
}

#[test]
fn every_figure_names_its_command_and_every_command_is_listed() {
    let listed = listed();
    assert!(listed.len() >= 10, "{listed:?}");
    let results = read("benches/RESULTS.md");
    for section in results.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        // What is still to be done has no figures.
        assert!(title == "Next steps" || !named(section).is_empty(), "benches/RESULTS.md: section {title:?} names no ./dev measure");
    }
    for text in ["benches/RESULTS.md", "benches/README.md", "README.md", "tests/e2e/measure.rs"] {
        for name in named(&read(text)) {
            assert!(listed.contains(&name), "{text} names {name}, which `./dev measure` does not list: {listed:?}");
        }
    }
}

#[test]
fn an_unknown_measurement_is_a_usage_error() {
    let output =
        Command::new("./dev").args(["measure", "no-such-figure"]).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("./dev runs");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-figure"), "{output:?}");
}

/// Unattended upgrades hold apt's locks for minutes after boot, and the option that waits is not heard by `apt-get update`.
#[test]
fn apts_lock_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let apt = "#!/bin/sh\nset -e\necho \"$*\" >> \"$DIR/asked\"\nif [ \"$(wc -l < \"$DIR/asked\")\" -lt 2 ]; then echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)' >&2; exit 100; fi\n";
    fs::write(dir.path().join("apt-get"), apt).expect("written");
    let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path().join("apt-get"), mode).expect("its mode");
    let script = "eval \"$(sed -n '/^say()/p;/^apt_get()/,/^}/p' dev)\"; as_root() { \"$@\"; }; apt_get update";
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-euc", script])
        .env("PATH", path)
        .env("DIR", dir.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{output:?}");
    let asked = fs::read_to_string(dir.path().join("asked")).expect("it was asked");
    assert_eq!(asked.lines().count(), 2, "{asked}");
    assert!(asked.lines().all(|line| line.contains("DPkg::Lock::Timeout=") && line.ends_with("update")), "{asked}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("waiting for it"), "{output:?}");
}
