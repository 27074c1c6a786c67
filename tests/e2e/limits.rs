//! What a process may use and who it is, asked of the kernel; and what happens to one that takes more memory than it may.

use std::{collections::BTreeMap, fs};

use crate::harness::{
    Gateway, child, eventually, proc,
    wait::{eventually_async, secs},
};

/// What a process of the app sees of itself.
fn seen(gateway: &Gateway, app: &str) -> String {
    gateway.wait_app(app, "ready");
    eventually("it has written all of it", secs(10), || {
        let text = fs::read_to_string(gateway.dir().join(format!("logs/{app}.log"))).unwrap_or_default();
        if text.contains("that is all") { Ok(text) } else { Err(text) }
    })
}

const LOOK: &str = r#"["sh", "-c", '''cat /proc/self/limits; echo "umask $(umask)"; echo "uid $(id -u) gid $(id -g) groups $(id -G)"; grep NoNewPrivs /proc/self/status; echo that is all; exec sleep 1000''']"#;

/// Soft and hard limit by the kernel's name.
fn limits(text: &str) -> BTreeMap<String, (String, String)> {
    let lines = text.lines().filter(|line| line.starts_with("Max "));
    let columns = |line: &str| {
        let (name, rest) = line.split_at_checked(26)?;
        let mut words = rest.split_whitespace();
        Some((name.trim().to_owned(), (words.next()?.to_owned(), words.next()?.to_owned())))
    };
    lines.filter_map(columns).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_reaches_the_kernel_soft_and_hard_alike() {
    let gateway = Gateway::start(&format!(
        "[app.small]\ncommand = {LOOK}\numask = \"027\"\nlimits = {{ nofile = 321, nproc = 3000, core = \"0B\", fsize = \"64MB\", stack = \"4MB\", address_space = \"512MB\" }}\n[log]\ndir = \"logs\"\n"
    ));
    let text = seen(&gateway, "small");
    let limits = limits(&text);
    for (name, value) in [
        ("Max open files", 321_u64),
        ("Max processes", 3000),
        ("Max core file size", 0),
        ("Max file size", 64 << 20),
        ("Max stack size", 4 << 20),
        ("Max address space", 512 << 20),
    ] {
        let value = value.to_string();
        assert_eq!(limits.get(name), Some(&(value.clone(), value)), "{name} in {text}");
    }
    assert!(text.contains("umask 0027"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_it_is_and_that_it_can_become_nobody_more() {
    if !nix::unistd::Uid::effective().is_root() {
        let gateway = Gateway::start(&format!("[app.us]\ncommand = {LOOK}\n[log]\ndir = \"logs\"\n"));
        assert!(seen(&gateway, "us").contains("NoNewPrivs:\t1"));
        return;
    }
    let apps = [("named", "user = \"nobody\""), ("numbered", "user = \"54321\"\ngroup = \"54322\""), ("rooted", "user = \"root\"")];
    let blocks: String = apps.iter().map(|(app, who)| format!("[app.{app}]\ncommand = {LOOK}\n{who}\n")).collect();
    let gateway = Gateway::start(&format!("{blocks}[log]\ndir = \"logs\"\n"));
    let nobody = nix::unistd::User::from_name("nobody").expect("a database").expect("nobody is everywhere");
    let named = seen(&gateway, "named");
    assert!(named.contains(&format!("uid {} gid {} groups {}", nobody.uid, nobody.gid, nobody.gid)), "{named}");
    assert!(named.contains("NoNewPrivs:\t1"), "{named}");
    let numbered = seen(&gateway, "numbered");
    assert!(numbered.contains("uid 54321 gid 54322 groups 54322\n") && numbered.contains("NoNewPrivs:\t1"), "{numbered}");
    let rooted = seen(&gateway, "rooted");
    assert!(rooted.contains("uid 0 ") && rooted.contains("NoNewPrivs:\t0"), "{rooted}");
}

/// Which way memory is kept on this machine: said once, with the reason where it is the poorer one.
fn way(gateway: &Gateway) -> &'static str {
    let output = gateway.output();
    let (cgroups, looks) = (output.matches("memory_max is kept by cgroups").count(), output.matches("memory_max is looked at").count());
    assert_eq!(cgroups + looks, 1, "said once: {output}");
    if cgroups == 1 {
        "cgroups"
    } else {
        println!(
            "this machine forbids cgroups, the sampled path is tested: {:?}",
            output.lines().find(|line| line.contains("memory_max is looked"))
        );
        assert!(output.contains("could not"), "and why: {output}");
        "looks"
    }
}

async fn ends_for_memory(command: &str) {
    let quick =
        "restart = { policy = \"on-failure\", delay = \"100ms\", max_delay = \"300ms\", budget = \"2/5m\" }\nstop = { timeout = \"2s\" }";
    let gateway = Gateway::start(&format!(
        "[app.leak]\ncommand = {command}\nmemory_max = \"100MB\"\n{quick}\n[app.calm]\ncommand = \"sleep 1000\"\nmemory_max = \"100MB\"\n"
    ));
    let first = gateway.wait_app("leak", "ready")[0].pid.expect("it runs");
    let family = proc::children(first);
    let ended = eventually("it has ended for memory", secs(60), || {
        let now = gateway.instance("leak", 0);
        if now.last_exit.contains("over memory_max 100MB") { Ok(now) } else { Err(now) }
    });
    assert!(ended.last_exit.contains("killed for memory"), "{ended:?}");
    for pid in family.into_iter().chain([first]) {
        assert!(!proc::alive(pid), "nothing of it is left");
    }
    eventually_async("it is started again, and the reason is counted", secs(20), || async {
        let counted = gateway.metric("gateway_app_restarts_total", &["app=\"leak\"", "reason=\"memory\""]).await;
        if counted >= 1.0 { Ok(()) } else { Err(counted) }
    })
    .await;
    assert_eq!(gateway.instance("calm", 0).restarts, 0);
    way(&gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_leaks_ends_at_memory_max_and_is_reported_as_such() {
    ends_for_memory(&child::leaks()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_children_counts_and_one_that_does_not_listen_is_killed() {
    let script = r#"trap "" TERM; python3 -c "import time; x = [b'x' * (10 << 20) for _ in range(12)]; time.sleep(1000)" & while :; do sleep 1; done"#;
    ends_for_memory(&format!("[\"sh\", \"-c\", '''{script}''']")).await;
}
