//! Who the client is, asked of a live nginx and of both hosts: what everybody should know of nginx's walk as a table, then random peers
//! and random header lines, valid, broken and hostile. No difference outside [`differs`] and [`differs_in_envoy`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use evenkeel_policy::random::Sequence;
use evenkeel_tests::{Cluster, Connection, Host, Nginx, Proxy, Request, Server, both_hosts, ports};

both_hosts!(
    the_table_of_nginx,
    x_forwarded_for_past_trusted_proxies,
    x_forwarded_for_one_step,
    x_real_ip_past_trusted_proxies,
    x_real_ip_one_step,
);

/// Requests of each scenario, those left out not counted: the four make 3,000 on each host. Each has a peer of its own.
const REQUESTS: usize = 750;
const TRUSTED: [&str; 5] = [
    "127.1.0.0/16",
    "::1",
    "10.0.0.0/8",
    "192.0.2.7",
    "2001:db8::/32",
];

/// Where evenkeel goes its own way, by one token. nginx reads an octet with leading zeros as a decimal number, which others read as
/// octal, so that two programs take the same text for two clients; evenkeel takes it for no address. And nginx wants a port behind
/// brackets, which many proxies do not write; evenkeel does without.
fn differs(token: &str) -> bool {
    let is_bare = token.starts_with('[') && token.ends_with(']');
    is_bare || has_leading_zero(token)
}

fn has_leading_zero(token: &str) -> bool {
    token
        .split(['.', ':', '[', ']'])
        .any(|part| part.len() > 1 && part.starts_with('0') && token.contains('.'))
}

/// Where the filter cannot do as nginx in Envoy, which makes one line of all lines of X-Forwarded-For, with commas between them, before a
/// filter sees them. In nginx a walk ends where a line begins with a separator or is empty; in the one line such a place is a comma like any
/// other, and the walk goes on with what was the line before. evenkeel's own proxy keeps the lines apart.
fn differs_in_envoy(host: Host, header: &str, lines: &[String]) -> bool {
    host == Host::Envoy
        && header == "X-Forwarded-For"
        && lines.iter().skip(1).any(|line| {
            let line = line.trim_matches(' ');
            line.is_empty() || line.starts_with(',')
        })
}

fn pick<'a>(random: &mut Sequence, of: &[&'a str]) -> &'a str {
    of[usize::try_from(random.below(of.len() as u64)).unwrap()]
}

fn number(random: &mut Sequence, below: u64) -> u64 {
    random.below(below)
}

fn address(random: &mut Sequence) -> String {
    match random.below(8) {
        0..=2 => format!("10.{}.3.{}", number(random, 256), number(random, 256)),
        3 => "192.0.2.7".to_owned(),
        4 | 5 => format!("203.0.113.{}", number(random, 256)),
        6 => format!("2001:db8::{:x}", number(random, 65_536)),
        _ => format!("2001:db9:{:x}::1", number(random, 65_536)),
    }
}

fn token(random: &mut Sequence) -> String {
    let address = address(random);
    let port = number(random, 70_000);
    match random.below(16) {
        0..=8 => address,
        9 if address.contains(':') => format!("[{address}]:{port}"),
        9 | 10 => format!("{address}:{port}"),
        11 if random.below(8) == 0 => format!("[{address}]"),
        11 => address,
        12 => format!("::ffff:{address}"),
        13 => pick(
            random,
            &[
                "unknown",
                "_hidden",
                "-",
                "1.2.3",
                "256.1.1.1",
                "1.1.1.1.1",
                "::g",
                "[::1",
                "1.1.1.1/8",
                "0x7f.1",
                "localhost",
                "\"10.0.0.1\"",
            ],
        )
        .to_owned(),
        14 => format!("{address};{port}"),
        _ => String::new(),
    }
}

/// A line of a header, as somebody might send it.
fn line(random: &mut Sequence) -> String {
    let mut line = String::new();
    for index in 0..=random.below(5) {
        if index > 0 {
            line += pick(random, &[",", ", ", " , ", " ", ",,", ", ,"]);
        }
        line += &token(random);
    }
    if random.below(8) == 0 {
        line += pick(random, &[",", " ,", "\u{e9}", ", "]);
    }
    line
}

/// A connection from an address of this machine; IPv4 ones reach the listeners, which are IPv6, as mapped addresses.
fn from(peer: IpAddr, port: u16) -> Connection {
    let to = match peer {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    Connection::open_from(peer, SocketAddr::new(to, port)).unwrap()
}

/// Most are trusted: of the others nothing is believed.
fn peer(random: &mut Sequence) -> IpAddr {
    let second = match random.below(8) {
        0 => return IpAddr::V6(Ipv6Addr::LOCALHOST),
        1 => 9,
        _ => 1,
    };
    let octet = |number: u64| u8::try_from(number).unwrap();
    let (third, last) = (random.below(256), 1 + random.below(254));
    IpAddr::V4(Ipv4Addr::new(127, second, octet(third), octet(last)))
}

fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// nginx that answers with whom it takes for the client.
fn reference(header: &str, switch: &str, trusted: &[&str]) -> Nginx {
    let at = ports::free();
    let trusted: String = trusted
        .iter()
        .map(|network| format!("set_real_ip_from {network}; "))
        .collect();
    let blocks = format!(
        "server {{ listen [::]:{} ipv6only=off; {trusted} real_ip_header {header}; real_ip_recursive {switch}; location / {{ return 200 $remote_addr; }} }}",
        at.port()
    );
    Nginx::with("reference", at, &blocks)
}

/// A server that answers with whom it is told to take for the client.
fn web() -> Nginx {
    let at = ports::free();
    let blocks = format!("server {{ listen {at}; location / {{ return 200 $http_x_real_ip; }} }}");
    Nginx::with("web", at, &blocks)
}

fn proxy(web: &Nginx, host: Host, trusted: &[&str], header: &str, recursive: bool) -> Proxy {
    let trusted = trusted.join("', '");
    let mut proxy = Cluster::new()
        .server(web)
        .bind(anywhere(ports::free().port()))
        .policy(&format!(
            "real_ip: {{trusted: ['{trusted}'], header: {header}, recursive: {recursive}}}\n"
        ))
        .pool("", &[("web", "")])
        .on(host);
    proxy.address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    proxy
}

/// The address that was answered; nginx writes mapped ones as it got them.
#[track_caller]
fn answer(mut connection: Connection, request: &Request) -> IpAddr {
    let response = connection.exchange(request).unwrap();
    let text = response.text();
    assert_eq!(response.status, 200, "{request:?}: {text}");
    let parsed: Result<IpAddr, _> = text.parse();
    parsed
        .unwrap_or_else(|_| panic!("{text:?} of {request:?}"))
        .to_canonical()
}

/// Header lines, and the client with `real_ip_recursive off` and `on`; peer 127.0.0.1, trusted are it and 10.0.0.0/8.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("X-Forwarded-For", &["1.1.1.1"],                         "1.1.1.1",   "1.1.1.1"),
    ("X-Forwarded-For", &["6.6.6.6, 1.1.1.1, 10.0.0.5"],      "10.0.0.5",  "1.1.1.1"),
    ("X-Forwarded-For", &["10.0.0.9, 10.0.0.5"],              "10.0.0.5",  "10.0.0.9"),
    ("X-Forwarded-For", &["garbage, 10.0.0.5"],               "10.0.0.5",  "10.0.0.5"),
    ("X-Forwarded-For", &["unknown"],                         "127.0.0.1", "127.0.0.1"),
    ("X-Forwarded-For", &["1.1.1.1:4444, 10.0.0.5:80"],       "10.0.0.5",  "1.1.1.1"),
    ("X-Forwarded-For", &["[2001:db8::1]:99, 10.0.0.5"],      "10.0.0.5",  "2001:db8::1"),
    ("X-Forwarded-For", &["6.6.6.6", "1.1.1.1, 10.0.0.5"],    "10.0.0.5",  "1.1.1.1"),
    ("X-Forwarded-For", &["6.6.6.6, 1.1.1.1", "10.0.0.5"],    "10.0.0.5",  "1.1.1.1"),
    ("X-Forwarded-For", &["1.1.1.1 , ,10.0.0.5 ,"],           "10.0.0.5",  "1.1.1.1"),
    ("X-Real-IP",       &["1.1.1.1", "2.2.2.2"],              "1.1.1.1",   "1.1.1.1"),
    ("X-Real-IP",       &["1.1.1.1, 2.2.2.2"],                "2.2.2.2",   "2.2.2.2"),
];

fn the_table_of_nginx(host: Host) {
    let web = web();
    for (header, switch) in [
        ("X-Forwarded-For", "off"),
        ("X-Forwarded-For", "on"),
        ("X-Real-IP", "off"),
        ("X-Real-IP", "on"),
    ] {
        let trusted = ["127.0.0.1", "10.0.0.0/8"];
        let reference = reference(header, switch, &trusted);
        let proxy = proxy(&web, host, &trusted, header, switch == "on");
        for (_, lines, off, on) in TABLE.iter().filter(|row| row.0 == header) {
            let expected = if switch == "on" { on } else { off };
            let request = lines.iter().fold(Request::get("/"), |request, line| {
                request.header(header, line)
            });
            for (who, port) in [
                ("nginx", reference.address().port()),
                ("evenkeel", proxy.address.port()),
            ] {
                let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let found = answer(from(peer, port), &request).to_string();
                assert_eq!(
                    found, *expected,
                    "{who}: {header}: {lines:?}, recursive {switch}"
                );
            }
        }
    }
}

fn check(host: Host, header: &str, recursive: bool, seed: u64) {
    let switch = if recursive { "on" } else { "off" };
    let (reference, web) = (reference(header, switch, &TRUSTED), web());
    let proxy = proxy(&web, host, &TRUSTED, header, recursive);
    let mut random = Sequence::new(seed);
    let (mut compared, mut apart, mut differences) = (0, 0, Vec::new());
    while compared < REQUESTS {
        let peer = peer(&mut random);
        let lines: Vec<String> = (0..random.below(4)).map(|_| line(&mut random)).collect();
        let tokens = || lines.iter().flat_map(|line| line.split([' ', ',']));
        if tokens().any(differs) || differs_in_envoy(host, header, &lines) {
            apart += 1;
            continue;
        }
        compared += 1;
        let request = lines.iter().fold(Request::get("/"), |request, line| {
            request.header(header, line)
        });
        let theirs = answer(from(peer, reference.address().port()), &request);
        let ours = answer(from(peer, proxy.address.port()), &request);
        if theirs != ours {
            differences.push(format!(
                "from {peer}: {lines:?}: evenkeel {ours}, nginx {theirs}"
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{header}, recursive {switch}, seed {seed}: {} of {compared}: {differences:#?}",
        differences.len()
    );
    assert!(apart * 8 < compared, "{apart} were left out");
}

fn x_forwarded_for_past_trusted_proxies(host: Host) {
    check(host, "X-Forwarded-For", true, 1);
}

fn x_forwarded_for_one_step(host: Host) {
    check(host, "X-Forwarded-For", false, 2);
}

fn x_real_ip_past_trusted_proxies(host: Host) {
    check(host, "X-Real-IP", true, 3);
}

fn x_real_ip_one_step(host: Host) {
    check(host, "X-Real-IP", false, 4);
}
