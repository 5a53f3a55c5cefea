//! Rows of wrong files and what is said of them.

use std::path::Path;
use std::time::Duration;

use super::*;

const GOOD: &str = "
listeners: [{name: web, bind: 127.0.0.1:8080}]
policy:
  routes: [{pool: shop}]
  pools: {shop: {servers: [{address: 10.0.0.1:80}]}}
";

fn parse(text: &str) -> Result<Config, Faults> {
    Config::parse(Path::new("evenkeel.yaml"), text)
}

/// The good file with the first `from` replaced by `to`.
#[track_caller]
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in the good file");
    GOOD.replacen(from, to, 1)
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    match parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(faults) => assert_eq!(faults.to_string(), format!("evenkeel.yaml:{expected}")),
    }
}

#[test]
fn everything_that_is_not_said_has_its_default() {
    let config = parse(GOOD).unwrap();
    assert_eq!(
        (
            config.admin,
            config.filters.len(),
            config.access_log.is_none()
        ),
        (None, 0, true)
    );
    assert!(config.workers >= 1);
    let t = config.timeouts;
    let seconds = [
        t.client_header,
        t.client_body,
        t.connect,
        t.response,
        t.idle,
        t.tunnel,
        t.drain,
    ]
    .map(|timeout| timeout.as_secs());
    assert_eq!(seconds, [10, 60, 5, 60, 75, 3600, 30]);
    let l = config.limits;
    assert_eq!(
        (l.connections, l.header_bytes, l.headers, l.body_bytes),
        (100_000, 65_536, 100, 0)
    );
}

#[test]
fn everything_that_is_said_is_taken() {
    let more = "admin: {bind: '[::1]:8404'}\nworkers: 3\ntimeouts: {connect: 250ms, drain: 0s}\nlimits: {header_bytes: 16KiB, body_bytes: 1048576}\naccess_log: {path: log/a.log, format: combined}\n";
    let config = Config::parse(
        Path::new("/etc/evenkeel/evenkeel.yaml"),
        &format!("{GOOD}{more}"),
    )
    .unwrap();
    assert_eq!(config.admin, Some("[::1]:8404".parse().unwrap()));
    assert_eq!(
        (
            config.workers,
            config.timeouts.connect,
            config.timeouts.drain
        ),
        (3, Duration::from_millis(250), Duration::ZERO)
    );
    assert_eq!(
        (config.limits.header_bytes, config.limits.body_bytes),
        (16_384, 1_048_576)
    );
    let log = config.access_log.unwrap();
    assert_eq!(log.format, LogFormat::Combined);
    assert!(
        matches!(log.target, LogTarget::File(path) if path == Path::new("/etc/evenkeel/log/a.log"))
    );
}

#[test]
fn keys_that_nobody_knows() {
    refused(
        &changed("listeners", "listener"),
        "2:1: listener: unknown key `listener`; did you mean `listeners`?",
    );
    refused(
        &changed("bind", "binds"),
        "2:25: listeners[0].binds: unknown key `binds`; did you mean `bind`?",
    );
    refused(
        &format!("{GOOD}admin: {{zzzzzz: 1}}\n"),
        "6:9: admin.zzzzzz: unknown key `zzzzzz`; known here: bind",
    );
}

#[test]
fn values_of_the_wrong_type() {
    refused(
        &format!("{GOOD}workers: many\n"),
        "6:10: workers: expected a whole number, found text \"many\"",
    );
    refused("- 1\n", "1:1: expected a mapping of keys, found a list");
    refused(
        "just text\n",
        "1:1: expected a mapping of keys, found text \"just text\"",
    );
    refused(
        &changed("name: web", "mode: htpp"),
        "2:20: listeners[0].mode: expected `http` or `tcp`, found `htpp`; did you mean `http`?",
    );
    refused(
        &format!("{GOOD}timeouts: {{connect: 5}}\n"),
        "6:21: timeouts.connect: expected a duration with its unit, such as 250ms, 10s, 5m or 1h, found 5",
    );
}

#[test]
fn values_out_of_range() {
    refused(
        &format!("{GOOD}workers: 65\n"),
        "6:10: workers: expected 0 (one per core) to 64",
    );
    refused(
        &format!("{GOOD}limits: {{headers: 0}}\n"),
        "6:19: limits.headers: expected 1 to 10000, found 0",
    );
    refused(
        &format!("{GOOD}limits: {{header_bytes: 1KiB}}\n"),
        "6:24: limits.header_bytes: expected 8KiB to 16MiB, found 1024 bytes",
    );
    refused(
        &format!("{GOOD}timeouts: {{idle: 0s}}\n"),
        "6:18: timeouts.idle: expected 1ms to 31536000s, found 0ns",
    );
}

#[test]
fn addresses_and_names() {
    let expected = "expected an address with its port, such as 0.0.0.0:8080 or [::]:8080, found";
    refused(
        &changed("127.0.0.1:8080", "localhost"),
        &format!("2:31: listeners[0].bind: {expected} `localhost`"),
    );
    refused(
        &changed("name: web, bind: 127.0.0.1:8080", "name: web"),
        &format!("2:13: listeners[0].bind: {expected} nothing"),
    );
    refused(
        &changed("127.0.0.1:8080", "127.0.0.1:80800"),
        &format!("2:31: listeners[0].bind: {expected} `127.0.0.1:80800`"),
    );
    refused(
        &changed("name: web", "name: -web"),
        "2:20: listeners[0].name: expected a name of letters, digits, `_` and `-`, at most 63 long, beginning with a letter or digit; found `-web`",
    );
    refused(
        &changed("name: web", "name: evenkeel1"),
        "2:20: listeners[0].name: the name `evenkeel1` is reserved",
    );
    refused(
        &changed("8080}", "8080}, {name: web, bind: 127.0.0.1:8081}"),
        "2:55: listeners[1].name: expected a name of its own, found `web` a second time",
    );
    refused(
        &changed("8080}", "8080}, {name: web2, bind: 127.0.0.1:8080}"),
        "2:67: listeners[1].bind: expected an address of its own, found 127.0.0.1:8080 a second time",
    );
}

#[test]
fn what_later_versions_serve_is_refused_by_name() {
    let later = "understood, but not served by this version";
    refused(
        &format!("{GOOD}timeouts: {{tcp_idle: 8h, tcp_drain: 0s}}\n"),
        &format!("6:12: timeouts.tcp_idle: {later}"),
    );
    refused(
        &changed("name: web", "mode: tcp, pool: db"),
        &format!("2:20: listeners[0].mode: `tcp` is {later}"),
    );
}

#[test]
fn who_may_speak_the_proxy_protocol_is_checked() {
    refused(
        &changed("name: web", "proxy_protocol: {from: []}"),
        "2:37: listeners[0].proxy_protocol.from: expected at least one address or network",
    );
    refused(
        &changed("name: web", "proxy_protocol: {}"),
        "2:30: listeners[0].proxy_protocol.from: expected at least one address or network",
    );
    refused(
        &changed(
            "name: web",
            "proxy_protocol: {from: [10.0.0.0/8, lb.internal]}",
        ),
        "2:50: listeners[0].proxy_protocol.from[1]: expected an address or a network such as 10.0.0.0/8, found `lb.internal`",
    );
}

#[test]
fn the_policy_is_checked_here_and_told_with_its_place() {
    let within = |text: &str| Config::parse(Path::new("f"), text).unwrap_err().to_string();
    let said = within(&changed(
        "address: 10.0.0.1:80",
        "address: 10.0.0.1:80, weight: 0",
    ));
    assert!(
        said.starts_with("f:5:59: policy.pools.shop.servers[0].weight: "),
        "{said}"
    );
    let said = within(&changed("{pool: shop}", "{pool: shp}"));
    assert!(
        said.starts_with("f:4:19: policy.routes[0].pool: ") && said.contains("`shop`"),
        "{said}"
    );
    let said = within(&changed("servers", "serers"));
    assert!(
        said.starts_with(
            "f:5:18: policy.pools.shop.serers: unknown key `serers`; did you mean `servers`?"
        ),
        "{said}"
    );
}

#[test]
fn everything_wrong_is_told_at_once_in_the_order_of_the_file() {
    refused(
        &format!(
            "{}workers: 100\nlimits: {{headers: 0}}\n",
            changed("127.0.0.1:8080", "here")
        ),
        "2:31: listeners[0].bind: expected an address with its port, such as 0.0.0.0:8080 or [::]:8080, found `here`\n\
         evenkeel.yaml:6:10: workers: expected 0 (one per core) to 64\n\
         evenkeel.yaml:7:19: limits.headers: expected 1 to 10000, found 0",
    );
}

#[test]
fn files_that_are_named_must_be_what_they_are_named_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evenkeel.yaml");
    std::fs::write(folder.path().join("f.wasm"), "not a module").unwrap();
    std::fs::write(folder.path().join("empty.wasm"), b"\0asm\x01\0\0\0").unwrap();
    std::fs::write(folder.path().join("site.pem"), "no certificate").unwrap();
    let wrong = |text: String| Config::parse(&path, &text).unwrap_err().to_string();
    let said = wrong(format!(
        "{GOOD}filters: [{{path: f.wasm}}, {{path: none.wasm}}, {{}}, {{path: empty.wasm}}]\n"
    ));
    for part in [
        ":6:18: filters[0].path: expected a proxy-wasm module",
        "it does not begin like one",
        ":6:34: filters[1].path",
        "No such file",
        ":6:46: filters[2].path",
        ":6:57: filters[3].path: expected a proxy-wasm module",
        "proxy_abi_version",
    ] {
        assert!(said.contains(part), "{said} lacks {part}");
    }
    let said = wrong(changed("name: web", "tls: {cert: site.pem, key: site.key}"));
    assert!(
        said.contains(":2:26: listeners[0].tls.cert: expected a PEM file with a certificate: "),
        "{said}"
    );
    let said = wrong(changed("name: web", "tls: {cert: site.pem}"));
    assert!(
        said.contains(":2:19: listeners[0].tls: expected both cert and key"),
        "{said}"
    );
}

#[test]
fn a_block_below_its_key_is_told_by_its_key() {
    let said = parse("listeners:\n  - bind: 127.0.0.1:1\npolicy:\n  pools:\n    evenkeel:\n      servers: [{address: 127.0.0.1:1}]\n").unwrap_err().to_string();
    assert!(
        said.starts_with("evenkeel.yaml:5:5: policy.pools.evenkeel: "),
        "{said}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let said = Config::load(Path::new("/nonexistent/evenkeel.yaml"))
        .unwrap_err()
        .to_string();
    assert!(
        said.starts_with("/nonexistent/evenkeel.yaml: cannot be read: "),
        "{said}"
    );
}
