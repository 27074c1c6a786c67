//! nginx with a limit of its own, to compare with.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::harness::{
    get, upstream,
    wait::{eventually_async, secs},
};

/// Dropped: it ends.
pub struct Nginx {
    pub addr: SocketAddr,
    dir: TempDir,
    child: Child,
}

impl Nginx {
    /// What it said of requests that it delayed or refused.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Serves "in" under this limit, three requests a minute of zone `z` for each address.
pub async fn start(limit: &str) -> Nginx {
    let addr = upstream::refuses().await;
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("index.html"), "in").expect("written");
    let conf = format!(
        "daemon off; master_process off; pid nginx.pid; error_log error.log warn;\nevents {{ worker_connections 256; }}\nhttp {{\n  access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n  limit_req_zone $binary_remote_addr zone=z:1m rate=3r/m; limit_req_status 429; limit_req_log_level error;\n  server {{ listen {addr}; root {}; location = /health {{ return 204; }} location / {{ {limit} }} }}\n}}\n",
        dir.path().display()
    );
    std::fs::write(dir.path().join("nginx.conf"), conf).expect("written");
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.expect("nginx is installed: run ./dev tools once, or ./dev test"));
    let child = command.arg("-p").arg(dir.path()).arg("-c").arg("nginx.conf").stderr(Stdio::null()).spawn().expect("nginx starts");
    let nginx = Nginx { addr, dir, child };
    eventually_async("nginx is up", secs(20), || async {
        get(addr, "a.test", "/health").await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    nginx
}
