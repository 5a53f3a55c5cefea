//! Which modules load, and from where.

use std::rc::Rc;

use evenkeel_host::{Engine, Module, ModuleError};

use crate::puppet::{self, compiled, strung};
use crate::world::{module, options, run};

fn error(wat: &str) -> ModuleError {
    Module::compile(&compiled().0, &wat::parse_str(wat).unwrap())
        .err()
        .unwrap()
}

#[test]
fn what_is_no_filter_is_refused_with_the_reason() {
    let marker = r#"(func (export "proxy_abi_version_0_2_1"))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    assert!(matches!(
        Module::compile(&compiled().0, b"\0asm junk"),
        Err(ModuleError::Malformed(_))
    ));
    assert!(matches!(
        error(&format!("(module {memory})")),
        ModuleError::NoAbi
    ));
    assert!(matches!(
        error(&format!(
            r#"(module {memory} (func (export "proxy_abi_version_0_1_0")))"#
        )),
        ModuleError::NoAbi
    ));
    assert!(matches!(
        error(&format!("(module {marker})")),
        ModuleError::Malformed(_)
    ));
    let missing = error(
        r#"(module (import "env" "proxy_redis_init" (func)) (import "wasi_snapshot_preview1" "what" (func)))"#,
    );
    assert_eq!(
        missing.to_string(),
        "missing import: env.proxy_redis_init, wasi_snapshot_preview1.what"
    );
    let shape = error(&format!(
        r#"(module {memory} {marker} (func (export "proxy_on_tick") (param i64)))"#
    ))
    .to_string();
    assert!(shape.contains("proxy_on_tick"), "{shape}");
    let import = error(&format!(
        r#"(module (import "env" "proxy_done" (func (param i32))) {memory} {marker})"#
    ))
    .to_string();
    assert!(import.contains("proxy_done"), "{import}");
}

#[test]
fn both_0_2_versions_load_and_missing_callbacks_mean_go_on() {
    for version in ["proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"] {
        let running = run(
            &compiled().0,
            &format!(r#"(module (memory (export "memory") 1) (func (export "{version}")))"#),
        );
        let (_, mut filters) = running.stream();
        assert!(matches!(
            filters.request_headers(true),
            evenkeel_host::http_filters::Verdict::Continue
        ));
    }
}

#[test]
fn precompiled_code_is_used_only_if_it_is_exactly_right() {
    let engine = &compiled().0;
    let wasm = wat::parse_str(puppet::wat("")).unwrap();
    let artefact = engine.precompile(&wasm).unwrap();
    let other = wat::parse_str(puppet::wat("(func (export \"other\"))")).unwrap();
    let mut rows: Vec<(&[u8], Vec<u8>)> = vec![
        (&wasm, artefact.clone()),
        (&other, artefact.clone()),
        (&wasm, b"junk".to_vec()),
        (&wasm, Vec::new()),
    ];
    for at in [0, 10, 30, 50, 60, artefact.len() / 2, artefact.len() - 1] {
        let mut damaged = artefact.clone();
        damaged[at] ^= 1;
        rows.push((&wasm, damaged));
    }
    rows.push((&wasm, artefact[..artefact.len() - 1].to_vec()));
    for (wasm, artefact) in rows {
        let module = Module::load(engine, wasm, Some(&artefact)).unwrap();
        let (world, strings) = strung();
        let vm = evenkeel_host::Vm::new(&module, &Default::default(), options(), world).unwrap();
        vm.start_plugin("p", "r", b"").unwrap();
        assert_eq!(
            strings.take_trace(),
            ["context_create", "vm_start", "configure"]
        );
    }
}

#[test]
fn right_precompiled_code_loads_in_a_fraction_of_a_compilation() {
    let engine = &compiled().0;
    let wasm = wat::parse_str(puppet::wat("")).unwrap();
    let artefact = engine.precompile(&wasm).unwrap();
    let time = |artefact: Option<&[u8]>| {
        let begin = std::time::Instant::now();
        Module::load(engine, &wasm, artefact).unwrap();
        begin.elapsed()
    };
    let (loaded, compiled) = (
        time(Some(&artefact)).min(time(Some(&artefact))),
        time(None).min(time(None)),
    );
    assert!(loaded * 2 < compiled, "{loaded:?} {compiled:?}");
}

#[test]
fn callbacks_the_module_does_not_name_are_skipped() {
    let module = module(
        &compiled().0,
        &puppet::wat(r#"(@custom "evenkeel.callbacks" "request_headers, log")"#),
    );
    assert!(!module.wants_bodies() && compiled().1.wants_bodies());
    let puppet = puppet::puppet_with(&module, Default::default(), options());
    let (_, mut filters) = puppet.running.stream();
    assert!(!puppet.running.chain.wants_bodies() && !puppet.running.chain.wants_tcp_data());
    filters.request_headers(false);
    let mut data = b"by".to_vec();
    filters.request_body(&mut data, true);
    filters.response_headers(true);
    puppet.running.plugin.tick();
    filters.finish();
    assert_eq!(data, b"by");
    assert_eq!(
        puppet.strings.take_trace(),
        ["context_create", "request_headers", "log", "delete"]
    );
}

#[test]
fn engines_modules_and_processes_go_from_thread_to_thread() {
    fn travels<T: Send + Sync + Clone>() {}
    travels::<Engine>();
    travels::<Module>();
    travels::<evenkeel_host::Process>();
    let (_, module) = compiled().clone();
    let traces = std::thread::spawn(move || {
        let (world, strings) = strung();
        let vm = evenkeel_host::Vm::new(&module, &Default::default(), options(), world).unwrap();
        vm.start_plugin("p", "r", b"").unwrap();
        let trace = strings.take_trace();
        drop(Rc::new(vm));
        trace.len()
    });
    assert_eq!(traces.join().unwrap(), 3);
}
