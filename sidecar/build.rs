//! Builds the filter and hands it to the crate that embeds it.
//!
//! Cargo runs this whenever anything the filter is made of has changed, so what is embedded is never stale. `EVENKEEL_WASM` names
//! a module that is embedded as it is instead.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=EVENKEEL_WASM");
    println!("cargo::rerun-if-env-changed=EVENKEEL_WASM_TOOLCHAIN");
    let root = variable("CARGO_MANIFEST_DIR")?.join("..");
    let module = match env::var_os("EVENKEEL_WASM") {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            PathBuf::from(path)
        }
        None => build(&root)?,
    };
    let embedded = variable("OUT_DIR")?.join("evenkeel.wasm");
    fs::copy(&module, &embedded)
        .map_err(|error| format!("cannot read the filter {}: {error}", module.display()))?;
    Ok(())
}

fn variable(name: &str) -> Result<PathBuf, String> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo did not set {name}"))
}

fn build(root: &Path) -> Result<PathBuf, String> {
    for source in [
        "plugin",
        "deploy/build-filter.sh",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let script = root.join("deploy/build-filter.sh");
    let built = Command::new(&script)
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", script.display()))?;
    let told = String::from_utf8_lossy(&built.stderr);
    if !built.status.success() {
        return Err(format!("the filter cannot be built:\n{told}"));
    }
    let output = String::from_utf8_lossy(&built.stdout);
    let path = output.lines().last().unwrap_or_default().trim();
    if path.is_empty() {
        return Err(format!(
            "{} did not say where the filter is:\n{told}",
            script.display()
        ));
    }
    Ok(PathBuf::from(path))
}
