//! The servers behind the proxies: nginx with a fixed answer of 1 KiB, the cheapest real server there is.
//!
//! One process listens on six ports: three servers for the default route and three for the second one. `…/facts` answers
//! with what the server was told, so that [`crate::features`] can check that every proxy does the whole task.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{SECOND_ROUTE, nginx, write};
use crate::process::{Running, free_addresses};

/// Length of the body of a measured response, in bytes.
pub const BODY_LENGTH: usize = 1024;

#[derive(Debug)]
pub struct Backends {
    pub shop: [SocketAddr; 3],
    pub images: [SocketAddr; 3],
    /// Ends them with this value.
    _running: Running,
}

impl Backends {
    pub fn start(core: usize, scratch: &Path) -> Result<Self> {
        let addresses @ [a, b, c, d, e, f] = free_addresses()?;
        let folder = scratch.join("backends");
        std::fs::create_dir_all(&folder)?;
        let configuration = folder.join("nginx.conf");
        write(&configuration, &text(&folder, &addresses))?;
        let mut command = Command::new(nginx::program()?);
        command
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&configuration)
            .args(["-e", "stderr"]);
        let mut running = Running::start("backends", command, Some(core), &folder)?;
        running.until_listening(f)?;
        Ok(Self {
            shop: [a, b, c],
            images: [d, e, f],
            _running: running,
        })
    }
}

fn text(folder: &Path, addresses: &[SocketAddr]) -> String {
    let listen: String = addresses
        .iter()
        .map(|address| format!("    listen {address};\n"))
        .collect();
    let body = "x".repeat(BODY_LENGTH);
    let facts = "port=$server_port;real_ip=$http_x_real_ip;forwarded_for=$http_x_forwarded_for;host=$http_host";
    format!(
        "{main}
http {{
  {temporary}
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  server {{
{listen}    default_type text/plain;
    location / {{ return 200 \"{body}\"; }}
    location = /facts {{ return 200 \"{facts}\"; }}
    location = {SECOND_ROUTE}facts {{ return 200 \"{facts}\"; }}
  }}
}}
",
        main = nginx::main_context(folder, 1),
        temporary = nginx::temporary_paths(folder),
    )
}
