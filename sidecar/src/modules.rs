//! The filters of a configuration, loaded and checked: the operator's own in their order, evenkeel's last.

use std::path::{Path, PathBuf};

use evenkeel_host::{Engine, Module};
use evenkeel_policy::config::{ListenerIdentity, Mode, filter_configuration};
use evenkeel_policy::contract::{HTTP_ROOT_ID, VM_ID};

use crate::config::Config;
use crate::embedded;
use crate::filter::{Configuration, FilterSource};
use crate::sealed;

/// Largest `.wasm` file of the operator's own.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Compiles modules; keeps what it has compiled, so that a reload that changes nothing about filters compiles nothing.
pub(crate) struct Modules {
    engine: Engine,
    own: Module,
    others: Vec<(PathBuf, Vec<u8>, Module)>,
}

impl Modules {
    pub(crate) fn new() -> Result<Self, String> {
        let engine = Engine::new()
            .map_err(|error| format!("cannot start the WebAssembly engine: {error}"))?;
        let own = Module::load(&engine, embedded::FILTER, sealed::artefact().as_deref())
            .map_err(|error| format!("evenkeel.wasm: {error}"))?;
        Ok(Self {
            engine,
            own,
            others: Vec::new(),
        })
    }

    /// The chain of a configuration.
    pub(crate) fn load(&mut self, config: &Config) -> Result<Vec<FilterSource>, String> {
        let mut sources = Vec::new();
        for (number, filter) in config.filters.iter().enumerate() {
            let module = self.other(&filter.path)?;
            let name = filter.path.file_stem().map_or_else(
                || "filter".to_owned(),
                |stem| stem.to_string_lossy().into_owned(),
            );
            sources.push(FilterSource {
                vm_id: format!("{name}-{number}"),
                root_id: String::new(),
                name,
                label: format!("filter {}", filter.path.display()),
                module,
                configuration: Configuration::Fixed(filter.configuration.as_bytes().into()),
            });
        }
        let texts = config.listeners.iter().map(|listener| {
            let identity = ListenerIdentity {
                name: listener.name.clone(),
                mode: Mode::Http,
                pool: None,
            };
            (
                listener.bind,
                filter_configuration(&identity, &config.policy_json)
                    .into_bytes()
                    .into(),
            )
        });
        sources.push(FilterSource {
            name: "evenkeel".to_owned(),
            label: "evenkeel.wasm".to_owned(),
            vm_id: VM_ID.to_owned(),
            root_id: HTTP_ROOT_ID.to_owned(),
            module: self.own.clone(),
            configuration: Configuration::Listeners(texts.collect()),
        });
        Ok(sources)
    }

    fn other(&mut self, path: &Path) -> Result<Module, String> {
        let bytes = read(path).map_err(|error| format!("filter {}: {error}", path.display()))?;
        if let Some((_, _, module)) = self
            .others
            .iter()
            .find(|(known, old, _)| known == path && *old == bytes)
        {
            return Ok(module.clone());
        }
        let module = Module::compile(&self.engine, &bytes)
            .map_err(|error| format!("filter {}: {error}", path.display()))?;
        self.others.retain(|(known, _, _)| known != path);
        self.others.push((path.to_owned(), bytes, module.clone()));
        Ok(module)
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    std::fs::read(path)
}
