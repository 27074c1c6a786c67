//! nginx, HAProxy and Caddy before a recording backend of their own: what they make of the same bytes.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{good, wire::Backend};
use crate::harness::{
    gateway::workdir,
    proc, upstream,
    wait::{eventually_async, secs},
};

pub struct Peer {
    pub name: &'static str,
    pub addr: SocketAddr,
    pub backend: Backend,
    _child: Kept,
    _dir: TempDir,
}

struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        proc::kill(self.0.id(), Signal::SIGTERM);
        drop(self.0.wait());
    }
}

impl Peer {
    pub async fn all() -> [Self; 3] {
        [Self::start("nginx", nginx).await, Self::start("haproxy", haproxy).await, Self::start("caddy", caddy).await]
    }

    async fn start(name: &'static str, command: fn(&Path, SocketAddr, SocketAddr) -> Command) -> Self {
        let (dir, backend, addr) = (workdir(), Backend::start().await, upstream::refuses().await);
        let mut command = command(dir.path(), addr, backend.addr);
        let log = fs::File::create(dir.path().join("log")).expect("a file");
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = Kept(command.spawn().unwrap_or_else(|error| panic!("{name} is installed (./dev tools): {error}")));
        let peer = Self { name, addr, backend, _child: child, _dir: dir };
        eventually_async(&format!("{name} serves"), secs(20), || async {
            if tokio::net::TcpStream::connect(peer.addr).await.is_err() {
                return Err("no listener".into());
            }
            good(peer.addr, 0).await
        })
        .await;
        peer
    }
}

/// Debian has some of them where a user's PATH does not lead.
fn program(name: &str) -> PathBuf {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| name.into())
}

fn nginx(dir: &Path, at: SocketAddr, to: SocketAddr) -> Command {
    let dir = dir.display();
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().map(|kind| format!("{kind}_temp_path {dir}/{kind};\n")).collect();
    let text = format!(
        "daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;\nevents {{}}\nhttp {{ access_log off; {temporary}\nclient_header_timeout 1s; client_body_timeout 400ms; proxy_send_timeout 400ms;\n\
         upstream u {{ server {to}; keepalive 8; }}\nserver {{ listen {at}; location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host; proxy_request_buffering off; }} }} }}\n"
    );
    fs::write(format!("{dir}/nginx.conf"), text).expect("written");
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(dir.to_string()).arg("-c").arg("nginx.conf");
    command
}

fn haproxy(dir: &Path, at: SocketAddr, to: SocketAddr) -> Command {
    let text = format!(
        "global\n nbthread 1\ndefaults\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n timeout http-request 1s\n http-reuse always\nfrontend f\n bind {at}\n default_backend b\nbackend b\n server s {to}\n"
    );
    fs::write(dir.join("haproxy.cfg"), text).expect("written");
    let mut command = Command::new(program("haproxy"));
    command.arg("-db").arg("-f").arg("haproxy.cfg");
    command
}

fn caddy(dir: &Path, at: SocketAddr, to: SocketAddr) -> Command {
    let text = format!(
        "{{\n admin off\n auto_https off\n servers {{\n  timeouts {{\n   read_header 1s\n   read_body 400ms\n   idle 2s\n  }}\n }}\n}}\nhttp://:{} {{\n bind {}\n reverse_proxy {to}\n}}\n",
        at.port(),
        at.ip()
    );
    fs::write(dir.join("Caddyfile"), text).expect("written");
    let mut command = Command::new(program("caddy"));
    command
        .args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"])
        .env("HOME", dir)
        .env("XDG_DATA_HOME", dir)
        .env("XDG_CONFIG_HOME", dir);
    command
}
