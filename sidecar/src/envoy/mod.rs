//! `evenkeel envoy`: the configuration as Envoy's own, with the filter beside it: `envoy -c DIR/envoy.yaml` then serves the same.
//!
//! One listener per listener, one route by `cluster_header` (the filter names the pool), one cluster per pool with the
//! `override_host` policy (the filter lists the endpoints), and for each a strict twin for checks. People read this file, so it is
//! written in block style, with a comment where Envoy's default would be a trap. It is made for Envoy 1.40; older ones back to 1.35
//! may do.

mod access_log;
mod bootstrap;
mod cluster;
mod listener;
mod routes;
mod yaml;

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config::Config;

/// What was written.
#[derive(Debug)]
pub struct Written {
    pub envoy_yaml: PathBuf,
    pub wasm: PathBuf,
}

/// Writes `envoy.yaml`, readable by its owner only (it may hold secrets), and `evenkeel.wasm` into `folder`, which is made if it is not
/// there. Each file appears whole or not at all.
///
/// # Errors
/// When a file cannot be written.
pub fn write(config: &Config, filter: &[u8], folder: &Path) -> anyhow::Result<Written> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    // Envoy would resolve relative names where it is started.
    let folder = folder
        .canonicalize()
        .with_context(|| format!("cannot find {}", folder.display()))?;
    let written = Written {
        envoy_yaml: folder.join("envoy.yaml"),
        wasm: folder.join("evenkeel.wasm"),
    };
    replace(&written.wasm, filter, 0o644)?;
    replace(
        &written.envoy_yaml,
        render(config, &written.wasm)?.as_bytes(),
        0o600,
    )?;
    Ok(written)
}

/// The text of `envoy.yaml`, where `wasm` is the absolute path of the filter.
///
/// # Errors
/// When something is configured that Envoy cannot do.
pub fn render(config: &Config, wasm: &Path) -> anyhow::Result<String> {
    let has_proxied = config
        .listeners
        .iter()
        .any(|listener| listener.proxy_senders.is_some());
    if has_proxied && config.policy.router.needs_tcp_peer() {
        anyhow::bail!(
            "policy.routes: behind the PROXY protocol Envoy tells nobody the socket's address: `of: tcp_peer` cannot be served there"
        );
    }
    if config.policy.telling.rules.removes(b"x-forwarded-proto") {
        anyhow::bail!(
            "policy.request_headers: Envoy finds no route for a request without X-Forwarded-Proto: it cannot be removed there"
        );
    }
    bootstrap::render(config, wasm)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let result = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&new, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    result.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
