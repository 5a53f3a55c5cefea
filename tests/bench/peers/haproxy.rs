//! HAProxy: one frontend, two backends.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{SECOND_ROUTE, Task, peer_program, write};
use crate::process::first_line;

pub fn program() -> Result<PathBuf> {
    peer_program("haproxy")
}

pub fn version(program: &Path) -> String {
    let line = first_line(program, &["-v"]);
    line.split(" - ")
        .next()
        .unwrap_or_default()
        .replace("HAProxy version", "HAProxy")
}

pub fn command(program: &Path, task: &Task<'_>) -> Result<Command> {
    let configuration = task.folder.join("haproxy.cfg");
    write(&configuration, &text(task))?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&configuration);
    Ok(command)
}

fn text(task: &Task<'_>) -> String {
    let servers = |addresses: &[std::net::SocketAddr]| -> String {
        addresses
            .iter()
            .enumerate()
            .map(|(number, address)| format!("  server s{number} {address}\n"))
            .collect()
    };
    let (log, format) = match task.access_log {
        Some(_) => (
            "log stdout format raw local0 info",
            "log global\n  option httplog",
        ),
        None => ("", ""),
    };
    format!(
        "global
  nbthread {workers}
  maxconn 8192
  {log}
defaults
  mode http
  {format}
  timeout client 120s
  timeout server 120s
  timeout connect 5s
  timeout http-keep-alive 120s
  option http-keep-alive
  http-reuse always
  balance roundrobin
frontend web
  bind {listen}
  option forwardfor
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto http
  use_backend images if {{ path_beg {SECOND_ROUTE} }}
  default_backend shop
backend shop
{shop}backend images
{images}",
        workers = task.workers,
        listen = task.listen,
        shop = servers(&task.backends.shop),
        images = servers(&task.backends.images),
    )
}
