//! The access log: one valid line a request, hostile requests included, and rotation by SIGUSR1.

use std::time::Duration;

use evenkeel_tests::{Cluster, Host, Request, eventually, nginx};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

fn lines(proxy: &evenkeel_tests::Proxy, count: usize) -> Vec<Value> {
    let lines = eventually("the log has its lines", PATIENCE, || {
        let lines = proxy.access_log();
        if lines.len() >= count {
            Ok(lines)
        } else {
            Err(lines)
        }
    });
    assert_eq!(lines.len(), count, "{lines:#?}");
    let parsed = lines.iter().map(|line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
    });
    parsed.collect()
}

#[test]
fn every_request_is_one_line_of_json() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .policy("real_ip: {trusted: [127.0.0.1]}\n")
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    proxy.exchange(&Request::get("/name?q=1").header("X-Forwarded-For", "203.0.113.7"));
    proxy.exchange(
        &Request::get("/a\"b\\c")
            .header("Host", "h\"h\\")
            .header("User-Agent", b"\xff\xfe\"\n".trim_ascii()),
    );
    proxy.exchange(&Request::new("HEAD", "/page.html"));
    proxy.get("/500");
    let lines = lines(&proxy, 4);
    assert_eq!(lines[0]["listener"], "web");
    assert_eq!(lines[0]["client_ip"], "203.0.113.7", "{}", lines[0]);
    assert_eq!(lines[0]["method"], "GET");
    assert_eq!(lines[0]["status"], 200);
    assert_eq!(lines[0]["pool"], "web");
    assert_eq!(lines[0]["bytes"], 3);
    assert!(lines[0]["path"].as_str().unwrap().starts_with("/name"));
    assert!(
        lines[0]
            .to_string()
            .contains(&evenkeel_tests::Server::address(&web).to_string())
    );
    assert_eq!(
        (&lines[2]["method"], &lines[2]["bytes"]),
        (&"HEAD".into(), &0.into())
    );
    assert_eq!(lines[3]["status"], 500);
}

#[test]
fn rotation_loses_no_line() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    proxy.sequence(10);
    let path = proxy.access_log_path();
    let rotated = path.with_extension("1");
    std::fs::rename(&path, &rotated).unwrap();
    proxy.signal(Signal::USR1);
    eventually("a new file", PATIENCE, || {
        path.exists().then_some(()).ok_or("not there")
    });
    proxy.sequence(15);
    eventually("25 lines in the two", PATIENCE, || {
        let old = std::fs::read_to_string(&rotated).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        let count = old.lines().count() + new.lines().count();
        (count == 25).then_some(()).ok_or((old, new))
    });
}

#[test]
fn the_combined_format_is_the_one_that_tools_read() {
    let web = nginx("web");
    let path = tempfile::TempDir::new().unwrap();
    let file = path.path().join("combined.log");
    let top = format!(
        "access_log: {{path: '{}', format: combined}}",
        file.display()
    );
    let proxy = Cluster::new()
        .server(&web)
        .top(&top)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    proxy.exchange(
        &Request::get("/name")
            .header("User-Agent", "test/1")
            .header("Referer", "http://r/"),
    );
    let line = eventually("the line", PATIENCE, || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with('\n') {
            Ok(text)
        } else {
            Err(text)
        }
    });
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(
        line.contains("\"GET /name HTTP/1.1\" 200 3 \"http://r/\" \"test/1\""),
        "{line}"
    );
}
