//! Who listens on a port: before a start whether it is free, after it whether the listener is the app's own.
//!
//! Shape: what is known blocks, what is not known is said and trusted. Known is a listener that none of the app's processes holds while all that they hold
//!        could be seen, or one of another user where the app cannot change its own. Not known is what a container engine publishes for a client that the app runs,
//!        what another user may not look at, and what a program of ours left behind that was started after the app.
//! Source: proc_pid_net(5) tcp and tcp6: listeners come first. proc_pid_fd(5): `socket:[INODE]`. proc_pid_stat(5) fields 2, 4, 5, 6 and 22.
//!         A bind with SO_REUSEADDR fails where somebody listens, and not for connections in TIME_WAIT of a program that set it as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use nix::unistd::{Gid, Pid, Uid, User, setfsgid, setfsuid};
use socket2::{Domain, SockAddr, Socket, Type};

/// The most processes that one look at /proc goes through.
const MOST: usize = 65_536;
/// The most listeners that are read of a table.
const LISTENERS: usize = 16_384;
const ANSWERS_WITHIN: Duration = Duration::from_millis(50);
/// What asks somebody else to run a program, and to listen for it.
const CLIENTS: [&str; 16] = [
    "docker",
    "docker-compose",
    "podman",
    "podman-compose",
    "nerdctl",
    "ctr",
    "crictl",
    "kubectl",
    "lxc",
    "incus",
    "machinectl",
    "systemd-run",
    "systemctl",
    "flatpak",
    "toolbox",
    "distrobox",
];
/// What listens for a container. The kernel cuts names after 15 bytes.
const PUBLISHERS: [&str; 10] =
    ["docker-proxy", "rootlessport", "rootlessport-ch", "rootlesskit", "slirp4netns", "pasta", "pasta.avx2", "passt", "gvproxy", "conmon"];

/// Whose listener a port has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Owner {
    Ours,
    Nobody,
    /// Known to be another's: in words.
    Stranger(String),
    /// In words.
    Unknown(String),
}

/// What takes a port, in words, if anything does: "pid 12 (nginx)".
///
/// What is not a clear "address in use" (no right to bind, no such address) says nothing: the program will see for itself.
#[must_use]
pub fn taken(port: u16) -> Option<String> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    if !in_use(loopback, port, Reuse::Address) {
        return None;
    }
    let found: Vec<Listener> = listeners(port).into_iter().filter(|listener| listener.hears(loopback)).collect();
    if found.is_empty() {
        // The remains of a program that shared its port, which is how the next one binds as well.
        let remains = !in_use(loopback, port, Reuse::AddressAndPort);
        return (!remains).then(|| "connections of an earlier process that are not over yet".to_owned());
    }
    let people = People::look();
    Some(people.words(&found))
}

/// Whether nobody at all listens on this port, whatever the address.
#[must_use]
pub fn is_free(port: u16) -> bool {
    !in_use(Ipv4Addr::UNSPECIFIED.into(), port, Reuse::Address) && !in_use(Ipv6Addr::UNSPECIFIED.into(), port, Reuse::Address)
}

/// Whose the listener is that a connection to `addr` reaches. `leader`: of the app's process; `kids`: the leaders of all processes of ours.
#[must_use]
pub fn owner(addr: SocketAddr, leader: Pid, kids: &[Pid]) -> Owner {
    let found: Vec<Listener> = listeners(addr.port()).into_iter().filter(|listener| listener.hears(addr.ip())).collect();
    if found.is_empty() {
        return Owner::Nobody;
    }
    let inodes: BTreeSet<u64> = found.iter().map(|listener| listener.inode).collect();
    // The usual case costs one directory.
    if matches!(holds(leader, &inodes), Some(true)) {
        return Owner::Ours;
    }
    let people = People::look();
    people.owner(&found, leader, kids)
}

/// Whether what listens on this port of the loopback has IPv6 alone: `[::1]`, or `[::]` and not the other family with it.
#[must_use]
pub fn is_six_alone(port: u16) -> bool {
    let found = listeners(port);
    let six = |listener: &Listener| listener.addr.ip().to_canonical().is_ipv6() && listener.hears(Ipv6Addr::LOCALHOST.into());
    if !found.iter().any(six)
        || found.iter().any(|listener| listener.addr.ip().to_canonical().is_ipv4() && listener.hears(Ipv4Addr::LOCALHOST.into()))
    {
        return false;
    }
    // Of a wildcard the table does not say which families it has. The loopback answers at once.
    let refused = || {
        TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), ANSWERS_WITHIN)
            .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    };
    found.iter().filter(|listener| six(listener)).all(|listener| !listener.addr.ip().is_unspecified()) || refused()
}

/// Who listens on this port, whatever the address, in words.
#[must_use]
pub fn anybody(port: u16) -> Option<String> {
    let found = listeners(port);
    let addr = found.first()?.addr;
    Some(format!("{addr} is taken by {}", People::look().words(&found)))
}

/// Where processes of the app listen, at most three of them, other than on `but`.
#[must_use]
pub fn elsewhere(leader: Pid, but: SocketAddr) -> Vec<SocketAddr> {
    let people = People::look();
    let mut sockets = BTreeSet::new();
    for pid in people.family(leader) {
        sockets.extend(sockets_of(pid).into_iter().flatten());
    }
    let mine = all_listeners(|_| true).into_iter().filter(|listener| sockets.contains(&listener.inode));
    let mut found: Vec<SocketAddr> = mine.map(|listener| listener.addr).filter(|addr| *addr != but).collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(3);
    found
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reuse {
    Address,
    AddressAndPort,
}

/// A bind is tried and given back at once; nothing ever listens, so nobody can connect to it.
fn in_use(ip: IpAddr, port: u16, reuse: Reuse) -> bool {
    let addr = SocketAddr::new(ip, port);
    let bound = || -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        if reuse == Reuse::AddressAndPort {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&SockAddr::from(addr))
    };
    bound().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// A line of the kernel's table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Listener {
    addr: SocketAddr,
    uid: u32,
    inode: u64,
}

impl Listener {
    /// Whether a connection to `ip` may reach it. A wildcard of IPv6 is taken for one of IPv4 too: the table does not say.
    fn hears(&self, ip: IpAddr) -> bool {
        let own = self.addr.ip().to_canonical();
        match (own, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => own == ip || own.is_unspecified(),
            (IpAddr::V6(own), IpAddr::V6(ip)) => own == ip || own.is_unspecified(),
            (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified(),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

fn listeners(port: u16) -> Vec<Listener> {
    all_listeners(|listener| listener.addr.port() == port)
}

fn all_listeners(wanted: impl Fn(&Listener) -> bool) -> Vec<Listener> {
    let mut found = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        // A kernel without IPv6 has no such table.
        let Ok(file) = fs::File::open(table) else { continue };
        // What listens comes first; the rest, which may be long, is left unread.
        let lines = BufReader::new(file).lines().map_while(Result::ok).skip(1).take(LISTENERS);
        found.extend(lines.map_while(|line| listener(&line)).filter(|listener| wanted(listener)));
    }
    found
}

/// `None`: it does not listen.
fn listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, "0A", _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, each in the order of the machine.
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(Listener { addr: SocketAddr::new(ip, port), uid: uid.parse().ok()?, inode: inode.parse().ok()? })
}

/// Of one process.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Person {
    name: String,
    parent: i32,
    group: i32,
    session: i32,
    /// Clock ticks since the machine was started.
    began: u64,
}

/// All processes, as they stood when they were looked at.
struct People(BTreeMap<i32, Person>);

impl People {
    fn look() -> Self {
        let mut people = BTreeMap::new();
        let entries = fs::read_dir("/proc").into_iter().flatten();
        for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).take(MOST) {
            // The name is any bytes.
            let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
            if let Some(person) = person(&String::from_utf8_lossy(&stat)) {
                people.insert(pid, person);
            }
        }
        Self(people)
    }

    /// From a process upwards.
    fn line(&self, pid: i32) -> impl Iterator<Item = i32> {
        let up = |pid: &i32| self.0.get(pid).map(|person| person.parent).filter(|parent| *parent > 0);
        // A number may be given anew while we look: no circle is walked for ever.
        std::iter::successors(Some(pid), up).take(256)
    }

    /// The leader, what it started, and what is still in its session or group.
    fn family(&self, leader: Pid) -> Vec<Pid> {
        let leader = leader.as_raw();
        let kin = |(pid, person): &(&i32, &Person)| {
            person.session == leader || person.group == leader || self.line(**pid).any(|above| above == leader)
        };
        self.0.iter().filter(kin).map(|(pid, _)| Pid::from_raw(*pid)).collect()
    }

    /// The first that is seen to hold one of these sockets.
    fn holder(&self, inodes: &BTreeSet<u64>) -> Option<(i32, &Person)> {
        let holds = |(pid, _): &(&i32, &Person)| holds(Pid::from_raw(**pid), inodes) == Some(true);
        self.0.iter().find(holds).map(|(pid, person)| (*pid, person))
    }

    /// In words, of listeners of which there is at least one.
    fn words(&self, found: &[Listener]) -> String {
        match self.holder(&found.iter().map(|listener| listener.inode).collect()) {
            Some((pid, person)) => Named(pid, person).to_string(),
            None => {
                found.first().map_or_else(String::new, |listener| format!("a program of {} that is hidden from us", account(listener.uid)))
            }
        }
    }

    fn owner(&self, found: &[Listener], leader: Pid, kids: &[Pid]) -> Owner {
        let inodes: BTreeSet<u64> = found.iter().map(|listener| listener.inode).collect();
        let family = self.family(leader);
        let seen: Vec<Option<bool>> = family.iter().map(|pid| holds(*pid, &inodes)).collect();
        if seen.contains(&Some(true)) {
            return Owner::Ours;
        }
        let name_of = |pid: &Pid| self.0.get(&pid.as_raw()).map(|person| person.name.as_str());
        if let Some(client) = family.iter().filter_map(name_of).find(|name| CLIENTS.contains(name)) {
            return Owner::Unknown(format!("{client} has it opened by another process: who listens is not known, its answer is believed"));
        }
        let born = self.0.get(&leader.as_raw()).map_or(0, |person| person.began);
        if let Some((pid, person)) = self.holder(&inodes) {
            let named = Named(pid, person);
            if PUBLISHERS.contains(&person.name.as_str()) {
                return Owner::Unknown(format!("{named} listens for a container: whose it is is not known, its answer is believed"));
            }
            return if in_the_cage_of(leader, pid) {
                Owner::Ours
            } else if self.is_left_to_us(pid, kids) && person.began >= born {
                Owner::Unknown(format!("{named} listens, which left its parents: whose it is is not known, its answer is believed"))
            } else {
                Owner::Stranger(named.to_string())
            };
        }
        // Nobody that we may look at has it.
        let whole = seen.iter().all(Option::is_some);
        let words = self.words(found);
        // A process that is not root's keeps its user: we start it so that no program gives it another.
        let uid = fs::metadata(format!("/proc/{leader}")).map_or(0, |data| data.uid());
        let foreign = uid != 0 && found.iter().all(|listener| listener.uid != uid);
        if whole || foreign { Owner::Stranger(words) } else { Owner::Unknown(format!("{words} listens, and its answer is believed")) }
    }

    /// Whether its parents are gone and it was given to us, who know it as none of ours.
    fn is_left_to_us(&self, pid: i32, kids: &[Pid]) -> bool {
        let us = Pid::this().as_raw();
        let line: Vec<i32> = self.line(pid).collect();
        let below = line.iter().position(|above| *above == us).and_then(|at| line.get(at.checked_sub(1)?));
        below.is_some_and(|top| !kids.contains(&Pid::from_raw(*top)))
    }
}

/// "pid 12 (nginx)"; a name is any bytes that somebody chose.
struct Named<'a>(i32, &'a Person);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name: String = self.1.name.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        write!(f, "pid {} ({name})", self.0)
    }
}

fn person(stat: &str) -> Option<Person> {
    let (head, fields) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once(" (")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |n: usize| fields.get(n - 3);
    Some(Person {
        name: name.to_owned(),
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        began: field(22)?.parse().ok()?,
    })
}

/// Whether it has one of these sockets open; `None`: we may not look.
fn holds(pid: Pid, inodes: &BTreeSet<u64>) -> Option<bool> {
    Some(sockets_of(pid)?.iter().any(|inode| inodes.contains(inode)))
}

/// A process that is gone has none.
///
/// Without CAP_SYS_PTRACE, as in the hardened unit, root sees the descriptors of a process only in the eyes of its user.
fn sockets_of(pid: Pid) -> Option<Vec<u64>> {
    read_sockets(pid).or_else(|| {
        let owner = fs::metadata(format!("/proc/{pid}")).ok().filter(|_| Uid::effective().is_root())?;
        let _eyes = Eyes::of(Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
        read_sockets(pid)
    })
}

/// This thread sees files as another user does, until it is dropped.
struct Eyes {
    uid: Uid,
    gid: Gid,
}

impl Eyes {
    fn of(uid: Uid, gid: Gid) -> Self {
        let gid = setfsgid(gid);
        Self { uid: setfsuid(uid), gid }
    }
}

impl Drop for Eyes {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
    }
}

fn read_sockets(pid: Pid) -> Option<Vec<u64>> {
    let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Vec::new()),
        Err(_) => return None,
    };
    let mut sockets = Vec::new();
    for entry in entries {
        match entry.and_then(|entry| fs::read_link(entry.path())) {
            Ok(link) => sockets.extend(socket_inode(&link)),
            // Closed meanwhile, or the process has ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(_) => return None,
        }
    }
    Some(sockets)
}

fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether it lives in the cgroup of the app's own process, where that is not ours too.
fn in_the_cage_of(leader: Pid, pid: i32) -> bool {
    let cgroup = |of: &str| fs::read_to_string(format!("/proc/{of}/cgroup")).ok();
    let Some(cage) = cgroup(&leader.to_string()) else { return false };
    cgroup("self").is_some_and(|ours| ours != cage) && cgroup(&pid.to_string()).is_some_and(|other| other == cage)
}

fn account(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {}", user.name),
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        process::{Child, Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_in_the_order_of_the_machine() {
        let line = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4711 1 0000000000000000 100 0 0 10 0";
        let found = listener(line).expect("it listens");
        assert_eq!((found.addr, found.uid, found.inode), ("127.0.0.1:8080".parse().expect("valid"), 33, 4711));
        let line = "   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 5 1 0";
        assert_eq!(listener(line).expect("it listens").addr, "[::1]:8080".parse().expect("valid"));
        // An established connection ends the list.
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn who_listens_is_found_by_the_address_that_is_asked_for() {
        let at = |addr: &str| Listener { addr: addr.parse().expect("valid"), uid: 0, inode: 1 };
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        for (addr, hears) in [
            ("127.0.0.1:80", true),
            ("0.0.0.0:80", true),
            ("[::]:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("10.0.0.1:80", false),
            ("[::1]:80", false),
        ] {
            assert_eq!(at(addr).hears(loopback), hears, "{addr}");
        }
        assert!(at("[::1]:80").hears(Ipv6Addr::LOCALHOST.into()) && !at("0.0.0.0:80").hears(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let mut fields = vec!["0"; 50];
        (fields[0], fields[1], fields[2], fields[3], fields[19]) = ("S", "7", "8", "9", "1234");
        let found = person(&format!("12 (a) b (c) {}", fields.join(" "))).expect("whole");
        assert_eq!(found, Person { name: "a) b (c".into(), parent: 7, group: 8, session: 9, began: 1234 });
    }

    #[test]
    fn a_port_is_taken_while_somebody_listens_and_says_by_whom() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let by = taken(addr.port()).expect("taken");
        assert!(by.starts_with(&format!("pid {} (", std::process::id())), "{by}");
        assert!(!is_free(addr.port()));
        let leader = Pid::this();
        assert_eq!(owner(addr, leader, &[]), Owner::Ours);
        assert_eq!(elsewhere(leader, addr).iter().find(|other| **other == addr), None);
        drop(listener);
        until_free(addr.port());
        assert_eq!(owner(addr, leader, &[]), Owner::Nobody);
    }

    /// What another test forks has our descriptors until it becomes another program.
    fn until_free(port: u16) {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while let Some(by) = taken(port) {
            assert!(std::time::Instant::now() < end, "{by}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_listener_on_every_address_takes_the_port_of_one() {
        for all in ["0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(all) else { continue };
            assert!(taken(listener.local_addr().expect("bound").port()).is_some(), "{all}");
        }
    }

    #[test]
    fn connections_that_are_over_take_no_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let client = std::net::TcpStream::connect(addr).expect("connects");
        // Who closes first is left in TIME_WAIT: the server's side of the port.
        drop(listener.accept().expect("a client").0);
        drop((listener, client));
        until_free(addr.port());
    }

    #[test]
    fn a_port_that_may_be_shared_is_taken_all_the_same() {
        let shared = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        shared.set_reuse_port(true).expect("set");
        shared.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).expect("bound");
        shared.listen(1).expect("listens");
        let port = shared.local_addr().expect("bound").as_socket().expect("an address").port();
        assert!(taken(port).is_some_and(|by| by.starts_with("pid ")));
    }

    /// As under the unit that we ship, whose capabilities do not hold that of looking at other users' processes.
    #[test]
    fn without_a_right_to_look_at_others_root_still_knows_whose_a_listener_is() {
        use std::os::unix::process::CommandExt as _;
        if !Uid::effective().is_root() {
            return;
        }
        // Capabilities are a thread's own.
        let looked = std::thread::spawn(|| {
            let mut sets = rustix::thread::capabilities(None).expect("ours");
            sets.effective.remove(rustix::thread::CapabilitySet::SYS_PTRACE);
            rustix::thread::set_capabilities(None, sets).expect("fewer");
            let script = "import socket, sys, time\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(1)\nprint(s.getsockname()[1], flush=True)\ntime.sleep(60)\n";
            let mut command = Command::new("python3");
            command.args(["-c", script]).current_dir("/").uid(65_534).gid(65_534).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = Sleeper(command.spawn().expect("python3"));
            let mut line = String::new();
            BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).expect("its port");
            let port: u16 = line.trim().parse().expect("a port");
            let leader = Pid::from_raw(child.0.id().cast_signed());
            (owner((Ipv4Addr::LOCALHOST, port).into(), leader, &[leader]), taken(port), child.0.id(), read_sockets(leader).is_some())
        });
        let (owner, by, pid, seen) = looked.join().expect("no panic");
        assert!(!seen, "the right is gone");
        assert_eq!((owner, by), (Owner::Ours, Some(format!("pid {pid} (python3)"))));
        assert!(nix::unistd::Uid::effective().is_root());
    }

    /// Ended with the test.
    struct Sleeper(Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_listener_that_is_not_of_its_family_is_a_strangers() {
        let sleeper = Sleeper(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let leader = Pid::from_raw(sleeper.0.id().cast_signed());
        match owner(addr, leader, &[leader]) {
            Owner::Stranger(by) => assert!(by.starts_with(&format!("pid {} (", std::process::id())), "{by}"),
            other => panic!("{other:?}"),
        }
    }
}
