//! nginx: `proxy_pass` to an upstream with keep-alive.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Balance, MAX_CONNS, SECOND_ROUTE, Task, peer_program, write};
use crate::process::first_line;

/// How it writes its access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// nginx's default: a write per request.
    Unbuffered,
    /// In pieces of 64 KiB, at least once a second.
    Buffered,
}

pub fn program() -> Result<PathBuf> {
    peer_program("nginx")
}

pub fn version(program: &Path) -> String {
    first_line(program, &["-v"]).replace("nginx version: nginx/", "nginx ")
}

pub fn command(program: &Path, task: &Task<'_>, log: Log) -> Result<Command> {
    let configuration = task.folder.join("nginx.conf");
    write(&configuration, &text(task, log))?;
    let mut command = Command::new(program);
    command
        .arg("-p")
        .arg(&task.folder)
        .arg("-c")
        .arg(&configuration)
        .args(["-e", "stderr"]);
    Ok(command)
}

/// The part outside `http`: in the foreground, as the user that starts it, everything in `folder`.
pub fn main_context(folder: &Path, workers: usize) -> String {
    // Only root may name another user; without the directive root's workers become nobody and cannot write here.
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    format!(
        "daemon off; {user} worker_processes {workers}; worker_rlimit_nofile 8192; error_log stderr warn; pid {}/nginx.pid;
events {{ worker_connections 4096; }}",
        folder.display()
    )
}

pub fn temporary_paths(folder: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", folder.display()))
        .join(" ")
}

fn text(task: &Task<'_>, log: Log) -> String {
    let upstream = |name: &str, servers: &[std::net::SocketAddr]| {
        let servers: String = servers
            .iter()
            .map(|server| match task.balance {
                Balance::RoundRobin => format!("server {server}; "),
                Balance::LeastConn => format!("server {server} max_conns={MAX_CONNS}; "),
            })
            .collect();
        let method = match task.balance {
            Balance::RoundRobin => String::new(),
            Balance::LeastConn => format!("zone {name} 64k; least_conn; "),
        };
        format!("upstream {name} {{ {method}{servers}keepalive 64; keepalive_requests 10000; }}")
    };
    let access_log = match (&task.access_log, log) {
        (None, _) => "off".to_owned(),
        (Some(path), Log::Unbuffered) => format!("{} combined", path.display()),
        (Some(path), Log::Buffered) => format!("{} combined buffer=64k flush=1s", path.display()),
    };
    format!(
        "{main}
http {{
  {temporary}
  access_log {access_log};
  keepalive_requests 1000000000;
  keepalive_timeout 120s;
  {shop}
  {images}
  server {{
    listen {listen} reuseport;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_set_header Host $http_host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    location / {{ proxy_pass http://shop; }}
    location {SECOND_ROUTE} {{ proxy_pass http://images; }}
  }}
}}
",
        main = main_context(&task.folder, task.workers),
        temporary = temporary_paths(&task.folder),
        shop = upstream("shop", &task.backends.shop),
        images = upstream("images", &task.backends.images),
        listen = task.listen,
    )
}
