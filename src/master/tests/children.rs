//! Real processes, named by their vice.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    path::Path,
    sync::mpsc::{Receiver, channel},
};

use nix::sys::signal::Signal;

use super::{lives, pids, until};
use crate::{
    master::{
        cgroup::{self, Cage},
        child::{self, Identity, Launch, Limits, SpawnError, Step},
        nursery::{Nursery, Strangers},
    },
    rules::restart::Exit,
};

struct Yard {
    nursery: Nursery,
    dir: tempfile::TempDir,
    reaper: tokio::task::JoinSet<()>,
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.nursery.kill_all();
    }
}

impl Yard {
    fn new() -> Self {
        let nursery = Nursery::new(Strangers::Leave).expect("guard");
        let mut reaper = tokio::task::JoinSet::new();
        let children = nursery.clone();
        reaper.spawn(async move { children.run().await.expect("signals") });
        Self { nursery, dir: tempfile::tempdir().expect("dir"), reaper }
    }

    fn launch(&self, script: &str) -> Launch {
        let out = || File::create(self.dir.path().join("out")).expect("file");
        Launch {
            argv: ["sh", "-c", script].map(OsString::from).to_vec(),
            nice: None,
            arg0: None,
            dir: Some(self.dir.path().into()),
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            identity: Identity::of(None, None).expect("us"),
            umask: 0o022,
            limits: Limits::default(),
            memory: None,
            stdout: out().into(),
            stderr: out().into(),
            descriptors: Vec::new(),
        }
    }

    fn start(&self, launch: Launch) -> Result<(nix::unistd::Pid, Receiver<Exit>), SpawnError> {
        let (send, exits) = channel();
        let pid = self.nursery.spawn(launch, move |exit| {
            let _ = send.send(exit);
        })?;
        Ok((pid, exits))
    }

    async fn exit_of(&self, script: &str) -> Exit {
        let (_, exits) = self.start(self.launch(script)).expect("started");
        ended(&exits).await
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

async fn ended(exits: &Receiver<Exit>) -> Exit {
    let mut exit = None;
    until("the exit", || {
        exit = exits.try_recv().ok();
        exit.is_some()
    })
    .await;
    exit.expect("just seen")
}

#[tokio::test]
async fn every_way_to_end_is_told_apart() {
    let yard = Yard::new();
    assert_eq!(yard.exit_of("exit 0").await, Exit::Code(0));
    assert_eq!(yard.exit_of("exit 7").await, Exit::Code(7));
    assert_eq!(yard.exit_of("kill -SEGV $$").await, Exit::Signal(11));
    assert_eq!(yard.exit_of("kill -KILL $$").await, Exit::Signal(9));
    assert!(!yard.reaper.is_empty());
}

#[tokio::test]
async fn a_child_leads_its_own_session_with_a_clean_environment_and_nothing_of_ours_open() {
    let yard = Yard::new();
    let _ours = File::open("/dev/null").expect("open");
    // The shell reads its own signals: while it starts another program it blocks them all for a moment.
    let script = "cut -d' ' -f1,5,6 /proc/$$/stat > stat; env > env; ls /proc/$$/fd > fds; umask > umask
        while IFS= read -r line; do case $line in Sig[IB]*) echo \"$line\";; esac; done < /proc/$$/status > signals; echo done > done";
    let mut launch = yard.launch(script);
    launch.env.insert("APP".into(), "value with spaces".into());
    launch.umask = 0o007;
    let (pid, exits) = yard.start(launch).expect("started");
    assert_eq!(ended(&exits).await, Exit::Code(0));
    let text = |name| fs::read_to_string(yard.file(name)).expect(name);
    assert_eq!(text("stat").trim(), format!("{pid} {pid} {pid}"));
    let env = text("env");
    assert!(env.contains("APP=value with spaces") && !env.contains("CARGO"), "{env}");
    assert_eq!(
        text("fds").lines().filter(|fd| fd.parse::<u32>().is_ok_and(|fd| fd > 2 && fd != 10 && fd != 255)).count(),
        0,
        "{}",
        text("fds")
    );
    assert_eq!(text("umask").trim(), "0007");
    // 32 and above belong to the C library and whoever started us.
    let mask = |line: &str| u64::from_str_radix(line.rsplit('\t').next().unwrap_or_default(), 16).expect("hex") & 0x7fff_ffff;
    assert_eq!(text("signals").lines().filter(|line| mask(line) == 0).count(), 2, "{}", text("signals"));
}

#[tokio::test]
async fn grandchildren_that_are_left_over_are_killed_before_the_exit_is_told() {
    let yard = Yard::new();
    let script = "(trap '' TERM; echo $$; while :; do sleep 1; done) & echo $! > pids; wait_for() { :; }; exit 3";
    let (_, exits) = yard.start(yard.launch(script)).expect("started");
    assert_eq!(ended(&exits).await, Exit::Code(3));
    let left = pids(&yard.file("pids"));
    assert_eq!(left.len(), 1);
    assert!(!lives(left[0]), "the grandchild is gone when its parent's exit is told");
}

#[tokio::test]
async fn a_child_that_ignores_term_is_killed_with_its_whole_group() {
    let yard = Yard::new();
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > inner; while :; do sleep 1; done' & while :; do sleep 1; done";
    let (pid, exits) = yard.start(yard.launch(script)).expect("started");
    until("the grandchild", || !pids(&yard.file("inner")).is_empty()).await;
    yard.nursery.signal(pid, Signal::SIGTERM);
    assert!(lives(pid.as_raw()));
    yard.nursery.kill_group(pid);
    assert_eq!(ended(&exits).await, Exit::Signal(9));
    assert!(!lives(pids(&yard.file("inner"))[0]));
    assert!(yard.nursery.is_empty());
}

#[tokio::test]
async fn a_stop_signal_goes_to_the_leader_alone() {
    let yard = Yard::new();
    let script = "sh -c 'trap \"echo hit > hit; exit\" USR1; echo $$ > inner; while :; do sleep 0.01; done' & trap 'exit 5' USR1; while :; do sleep 0.01; done";
    let (pid, exits) = yard.start(yard.launch(script)).expect("started");
    until("the grandchild", || !pids(&yard.file("inner")).is_empty()).await;
    yard.nursery.signal(pid, Signal::SIGUSR1);
    assert_eq!(ended(&exits).await, Exit::Code(5));
    assert!(!yard.file("hit").exists());
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_how_to_mend_it() {
    let yard = Yard::new();
    let with = |program: &str| Launch { argv: vec![program.into()], ..yard.launch("") };
    let missing = yard.start(with("no-such-program-at-all")).expect_err("missing");
    assert!(matches!(missing, SpawnError::NotFound { .. }) && missing.advice().is_some(), "{}", missing.story());
    assert!(matches!(yard.start(with("./nothing")), Err(SpawnError::NoFile { .. })));
    fs::write(yard.file("data"), "text").expect("written");
    assert!(matches!(yard.start(with("./data")), Err(SpawnError::NotExecutable { .. })));
    let nowhere = Launch { dir: Some("/no/such/dir".into()), ..yard.launch("") };
    assert!(matches!(yard.start(nowhere), Err(SpawnError::NoDir { .. })));
    assert!(matches!(Identity::of(Some("no-such-user"), None), Err(SpawnError::NoUser { .. })));
    assert!(matches!(Identity::of(None, Some("no-such-group")), Err(SpawnError::NoGroup { .. })));
    assert!(matches!(yard.start(Launch { argv: Vec::new(), ..yard.launch("") }), Err(SpawnError::Empty)));
    if !nix::unistd::Uid::effective().is_root() {
        let greedy = Launch { limits: Limits::nofile(1 << 40, 1 << 40), ..yard.launch("") };
        assert!(matches!(yard.start(greedy), Err(SpawnError::Step { step: Step::Nofile, .. })));
        assert!(matches!(Identity::of(Some("root"), None), Err(SpawnError::NotRoot { .. })));
    }
}

#[tokio::test]
async fn a_cage_holds_even_what_leaves_its_session() {
    let made = cgroup::own().map_err(|error| error.to_string()).and_then(|own| {
        let path = own.join(format!("gateway-test.{}", std::process::id()));
        fs::create_dir(&path).and_then(|()| Cage::at(path)).map_err(|error| error.to_string())
    });
    let cage = match made {
        Ok(cage) => cage,
        Err(why) => return println!("this machine forbids cgroups: {why}"),
    };
    let yard = Yard::new();
    let launch = yard.launch("setsid sh -c 'echo $$ > runaway; exec sleep 1000' & wait");
    let pid = child::spawn(launch, Some(cage.door()), None).expect("started");
    until("the runaway", || !pids(&yard.file("runaway")).is_empty()).await;
    let runaway = pids(&yard.file("runaway"))[0];
    assert!(!cage.remove(), "two live in it");
    cage.kill();
    until("its end", || cage.remove()).await;
    assert!(!lives(runaway));
    until("the leader's end", || child::reap(pid) == Some(Exit::Signal(9))).await;
}

#[tokio::test]
async fn as_root_a_child_becomes_its_user_for_good() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let yard = Yard::new();
    fs::set_permissions(yard.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    let mut launch = yard.launch("id -un > who; grep NoNewPrivs /proc/$$/status > privileges");
    launch.identity = Identity::of(Some("nobody"), None).expect("everywhere");
    let (_, exits) = yard.start(launch).expect("started");
    assert_eq!(ended(&exits).await, Exit::Code(0));
    assert_eq!(fs::read_to_string(yard.file("who")).expect("who").trim(), "nobody");
    assert!(fs::read_to_string(yard.file("privileges")).expect("privileges").contains('1'));
    let secret = tempfile::tempdir().expect("dir");
    fs::set_permissions(secret.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    let mut launch = yard.launch("true");
    launch.identity = Identity::of(Some("nobody"), None).expect("everywhere");
    launch.dir = Some(secret.path().into());
    assert!(matches!(yard.start(launch), Err(SpawnError::Step { step: Step::Dir, .. })));
}

/// Not a test of its own: the process that [`nothing_outlives_a_master_that_is_killed`] kills.
#[test]
fn fake_master() {
    let Some(dir) = std::env::var_os("GATEWAY_TEST_MASTER") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let yard = Yard::new();
        let stubborn =
            "trap '' TERM; echo $$ >> pids; sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 1; done' & while :; do sleep 1; done";
        let polite = "echo $$ >> pids; (echo started; exec sleep 1000) & echo $! >> pids; wait";
        for script in [stubborn, polite, "exit 0"] {
            let launch = Launch { dir: Some(Path::new(&dir).into()), ..yard.launch(script) };
            let _ = yard.start(launch).expect("started");
        }
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn nothing_outlives_a_master_that_is_killed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut master = std::process::Command::new(std::env::current_exe().expect("us"))
        .args(["master::tests::children::fake_master", "--exact", "--nocapture"])
        .env("GATEWAY_TEST_MASTER", dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("started");
    let file = dir.path().join("pids");
    until("four processes", || pids(&file).len() == 4).await;
    let all = pids(&file);
    assert!(all.iter().all(|pid| lives(*pid)));
    master.kill().expect("killed");
    let killed = std::time::Instant::now();
    master.wait().expect("reaped");
    until("their end", || !all.iter().any(|pid| lives(*pid))).await;
    assert!(killed.elapsed() < std::time::Duration::from_secs(2), "took {:?}", killed.elapsed());
}
