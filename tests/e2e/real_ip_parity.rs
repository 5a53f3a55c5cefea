//! Who the client is, asked of a live nginx and of both hosts: random peers, random header lines, valid, broken and hostile. No difference
//! outside [`differs`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use evenkeel_policy::random::Sequence;
use evenkeel_tests::{Cluster, Connection, Host, Nginx, Request, Server, both_hosts, nginx, ports};
use socket2::{Domain, Socket, Type};

both_hosts!(x_real_ip_past_trusted_proxies, x_real_ip_one_step,);

/// Requests of each scenario.
const REQUESTS: usize = 800;
/// Requests of one peer, on one connection.
const PER_PEER: usize = 8;
const TRUSTED: [&str; 4] = ["127.1.0.0/16", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32"];

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

/// A connection from an address of the loopback's network.
fn from(peer: Ipv4Addr, to: SocketAddr) -> Connection {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let own = SocketAddr::new(IpAddr::V4(peer), 0);
    socket.bind(&own.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_nodelay(true).unwrap();
    Connection::over(Box::new(stream.try_clone().unwrap()), stream).unwrap()
}

fn check(host: Host, header: &str, recursive: bool, seed: u64) {
    let at = ports::free();
    let trusted: String = TRUSTED
        .iter()
        .map(|network| format!("set_real_ip_from {network}; "))
        .collect();
    let switch = if recursive { "on" } else { "off" };
    let reference = Nginx::with(
        "reference",
        at,
        &format!(
            "server {{ listen {at}; {trusted} real_ip_header {header}; real_ip_recursive {switch}; location / {{ return 200 $remote_addr; }} }}"
        ),
    );
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .policy(&format!(
            "real_ip: {{trusted: ['{}'], header: {header}, recursive: {recursive}}}\n",
            TRUSTED.join("', '")
        ))
        .pool("", &[("web", "")])
        .on(host);
    let mut random = Sequence::new(seed);
    let (mut compared, mut apart) = (0, 0);
    while compared < REQUESTS {
        // Most peers are trusted: of the others nothing is believed.
        let second = if random.below(6) == 0 { 9 } else { 1 };
        let (third, last) = (random.below(256), 1 + random.below(254));
        let octet = |number: u64| u8::try_from(number).unwrap();
        let peer = Ipv4Addr::new(127, second, octet(third), octet(last));
        let mut theirs = from(peer, reference.address());
        let mut ours = from(peer, proxy.address);
        for _ in 0..PER_PEER {
            let mut request = Request::get("/headers");
            let lines: Vec<String> = (0..random.below(4)).map(|_| line(&mut random)).collect();
            for line in &lines {
                request = request.header(header, line);
            }
            let expected = theirs.exchange(&request).unwrap().text();
            let found = ours.exchange(&request).unwrap().json()["x-real-ip"]
                .as_str()
                .unwrap()
                .to_owned();
            let parsed = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
            compared += 1;
            if lines.iter().any(|line| line.split([' ', ',']).any(differs)) {
                apart += 1;
                continue;
            }
            assert_eq!(
                parsed(&found),
                parsed(&expected),
                "{header}, recursive {switch}, from {peer}: {lines:?}: evenkeel {found}, nginx {expected}, seed {seed}"
            );
        }
    }
    assert!(apart * 10 < compared, "{apart} of {compared} were left out");
}

fn x_real_ip_past_trusted_proxies(host: Host) {
    check(host, "X-Real-IP", true, 3);
}

fn x_real_ip_one_step(host: Host) {
    check(host, "X-Real-IP", false, 4);
}
