//! The bench still works: one short round over every proxy there is. Says nothing about speed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_quick_run_measures_every_proxy_without_errors() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    let output = Command::new(bench).arg("--quick").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let target = bench
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .unwrap();
    let report = std::fs::read(target.join("bench/quick.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    for load in ["saturated", "open loop"] {
        let rows = report["compare"][load].as_object().unwrap();
        assert!(rows.contains_key("direct"), "{rows:?}");
        for (name, row) in rows {
            assert!(row["invalid"].is_null(), "{name}, {load}: {row}");
            assert!(
                row["requests_per_second"][0].as_f64().unwrap() > 0.0,
                "{name}, {load}: {row}"
            );
            let has_clock =
                name == "direct" || row["cpu_us_per_request"][0].as_f64().unwrap() > 0.0;
            assert!(has_clock, "{name}, {load}: {row}");
        }
    }
}
