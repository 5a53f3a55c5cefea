//! Host parity: one probe filter does the same in stock Envoy and in evenkeel, and its traces are equal line by line.
//!
//! The probe (tests/probe/probe.wat) is a machine that a request programs: which host functions to call in which phase, with which
//! arguments. It logs each callback and each call with its results. Here is what to program ([`cases`]), how both proxies are run
//! from one configuration ([`hosts`]), and how traces are made comparable ([`trace`]). What may differ is a list with reasons
//! ([`differences`]); an entry of it that no longer differs fails the test too.

mod case;
mod cases;
mod client;
mod hostcalls;
mod hosts;
mod origin;
mod program;
mod trace;

// DEV BEGIN
pub fn dev() {
    let origin = origin::Origin::start();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let probe = wat::parse_file("/tmp/wt/parity/tests/probe/probe.wat").unwrap();
    std::fs::write("/tmp/parity-dev/probe.wasm", probe).unwrap();
    let address = hosts::free_address();
    let yaml = std::fs::read_to_string("/tmp/parity-dev/envoy.tpl.yaml").unwrap()
        .replace("@PORT@", &address.port().to_string())
        .replace("@ORIGIN@", &origin.address.port().to_string())
        .replace("@DEAD@", &dead.port().to_string());
    std::fs::write("/tmp/parity-dev/envoy.yaml", yaml).unwrap();
    let mut host = hosts::Host::start("envoy", address, || {
        let mut command = std::process::Command::new("/work/main/target/peers/envoy");
        command.args(["-c", "/tmp/parity-dev/envoy.yaml", "--concurrency", "1", "--component-log-level", "wasm:info", "--log-level", "warn", "--disable-hot-restart"]);
        command
    });
    let filter = std::env::args().nth(1).unwrap_or_default();
    for case in cases::all() {
        if !case.name.contains(&filter) { continue; }
        println!("== {}", case.name);
        for line in case.run(&mut host) { println!("{line}"); }
    }
    println!("{}", host.last_log());
}
// DEV END
