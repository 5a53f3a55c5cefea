//! Ten thousand servers that cost nothing: one nginx on one port of every address of the loopback network.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{nginx, write};
use crate::process::{Running, free_addresses};

/// Hosts of one of these networks: 127.N.1.1 to 127.N.250.250.
const HOSTS: usize = 250;

/// The address of a server; at most 250 × 250 × 254.
pub fn address(number: usize, port: u16) -> Result<SocketAddr> {
    let byte = |number: usize| u8::try_from(number + 1).context("too many servers");
    let ip = Ipv4Addr::new(
        127,
        byte(number / (HOSTS * HOSTS))?,
        byte(number / HOSTS % HOSTS)?,
        byte(number % HOSTS)?,
    );
    Ok((ip, port).into())
}

/// Starts it; its port.
pub fn start(scratch: &Path) -> Result<(u16, Running)> {
    let [free] = free_addresses()?;
    let port = free.port();
    let folder = scratch.join("anywhere");
    std::fs::create_dir_all(&folder)?;
    let configuration = folder.join("nginx.conf");
    let text = format!(
        "{main}
http {{
  {temporary}
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  server {{ listen 0.0.0.0:{port}; location / {{ return 200 \"here\"; }} }}
}}
",
        main = nginx::main_context(&folder, 1),
        temporary = nginx::temporary_paths(&folder),
    );
    write(&configuration, &text)?;
    let mut command = Command::new(nginx::program()?);
    command
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(&configuration)
        .args(["-e", "stderr"]);
    let mut running = Running::start("anywhere", command, None, &folder)?;
    running.until_listening(address(0, port)?)?;
    Ok((port, running))
}
