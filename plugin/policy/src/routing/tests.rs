//! Routing by table, and against the same rules written the naive way.

use std::net::IpAddr;

use proptest::prelude::*;
use regex::bytes::{Regex, RegexBuilder};

use super::*;
use crate::client_ip::TrustedNetworks;

type Pairs = std::iter::Copied<std::slice::Iter<'static, (&'static [u8], &'static [u8])>>;

const HEADERS: [(&[u8], &[u8]); 4] = [
    (b":method", b"GET"),
    (b"x-kind", b"one"),
    (b"x-kind", b"Two"),
    (b"x-empty", b""),
];

fn bytes(texts: &[&str]) -> Vec<Box<[u8]>> {
    texts.iter().map(|text| text.as_bytes().into()).collect()
}

fn hosts(texts: &[&str]) -> Vec<HostPattern> {
    let pattern = |text: &&str| match text.strip_prefix("*.") {
        Some(rest) => HostPattern::Below(rest.as_bytes().into()),
        None => HostPattern::Exactly(text.as_bytes().into()),
    };
    texts.iter().map(pattern).collect()
}

fn regex(text: &str) -> Regex {
    RegexBuilder::new(text).unicode(false).build().unwrap()
}

fn networks(texts: &[&str]) -> TrustedNetworks {
    let networks: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
    TrustedNetworks::new(&networks)
}

fn field(field: Field, wanted: Wanted) -> FieldCondition {
    FieldCondition { field, wanted }
}

fn header(name: &str, wanted: Wanted) -> FieldCondition {
    field(Field::Header(name.as_bytes().into()), wanted)
}

fn query(name: &str, wanted: Wanted) -> FieldCondition {
    field(Field::Query(name.as_bytes().into()), wanted)
}

fn exactly(text: &str) -> Wanted {
    Wanted::Any(vec![TextPattern::Exactly(text.as_bytes().into())])
}

fn route(conditions: Conditions) -> Route {
    Route { conditions }
}

/// Every route looked at in turn, every value of it in turn.
fn naive(routes: &[Route], view: &RequestView<'_, Pairs>) -> Option<usize> {
    routes
        .iter()
        .position(|route| naive_holds(&route.conditions, view))
}

fn naive_holds(wanted: &Conditions, view: &RequestView<'_, Pairs>) -> bool {
    let host = String::from_utf8(without_port(view.host).to_ascii_lowercase()).unwrap();
    let folded = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        if wanted.case == Case::Ignored {
            text.to_ascii_lowercase()
        } else {
            text
        }
    };
    let (path, raw_path) = (folded(view.path), String::from_utf8_lossy(view.path));
    let mut segments: Vec<&str> = path.split('/').collect();
    let last = segments.pop().unwrap_or_default();
    let scripted = segments.iter().any(|segment| {
        let name = segment.split(';').next().unwrap();
        name.to_ascii_lowercase().ends_with(".php")
    });
    let cut = path.len() - last.len() + last.find(';').unwrap_or(last.len());
    let host_holds = |pattern: &HostPattern| match pattern {
        HostPattern::Exactly(name) => *host.as_bytes() == **name,
        HostPattern::Below(name) => {
            let name = String::from_utf8_lossy(name);
            let rest = host.strip_suffix(&format!(".{name}"));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('.'))
        }
    };
    let matches = |pattern: &TextPattern, value: &str| match pattern {
        TextPattern::Exactly(text) => folded(value.as_bytes()) == folded(text),
        TextPattern::Beginning(text) => folded(value.as_bytes()).starts_with(&folded(text)),
        TextPattern::Ending(text) => folded(value.as_bytes()).ends_with(&folded(text)),
        TextPattern::Containing(text) => folded(value.as_bytes()).contains(&folded(text)),
        TextPattern::Regex(regex) => regex.is_match(value.as_bytes()),
    };
    let field_holds = |condition: &FieldCondition| {
        let values: Vec<String> = match &condition.field {
            Field::Header(name) => HEADERS
                .iter()
                .filter(|(known, _)| **known == **name)
                .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                .collect(),
            Field::Query(name) => String::from_utf8_lossy(view.query)
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .filter(|(known, _)| known.as_bytes() == &**name)
                .map(|(_, value)| value.to_owned())
                .collect(),
        };
        match &condition.wanted {
            Wanted::Present => !values.is_empty(),
            Wanted::Absent => values.is_empty(),
            Wanted::Any(patterns) => patterns
                .iter()
                .any(|pattern| values.iter().any(|value| matches(pattern, value))),
        }
    };
    let client_holds = |client: &ClientCondition| {
        let address = match client.of {
            AddressOf::Client => view.client,
            AddressOf::Peer => view.peer,
            AddressOf::TcpPeer => view.tcp_peer,
        };
        address.is_some_and(|address| client.networks.contains(address))
    };
    (wanted.any_host()
        || wanted.hosts.iter().any(host_holds)
        || wanted
            .host_regexes
            .iter()
            .any(|regex| regex.is_match(host.as_bytes())))
        && (wanted.methods.is_empty()
            || wanted.methods.iter().any(|wanted| **wanted == *view.method))
        && (wanted.any_path()
            || wanted.paths.iter().any(|wanted| folded(wanted) == path)
            || wanted
                .path_prefixes
                .iter()
                .any(|prefix| path.starts_with(&folded(prefix)))
            || (!scripted
                && cut > 0
                && wanted
                    .path_suffixes
                    .iter()
                    .any(|suffix| path[..cut].ends_with(&folded(suffix))))
            || wanted
                .path_regexes
                .iter()
                .any(|regex| regex.is_match(raw_path.as_bytes())))
        && wanted.fields.iter().all(field_holds)
        && wanted.client.as_ref().is_none_or(client_holds)
        && !wanted.not.iter().any(|not| naive_holds(not, view))
}

const CLIENT: &str = "192.0.2.7";
const PEER: &str = "10.0.0.5";
const TCP_PEER: &str = "10.0.0.9";

fn found(routes: &[Route], host: &str, target: &str, method: &str) -> Option<usize> {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    let (path, query) = split_query(target.as_bytes());
    let view = RequestView {
        host: host.as_bytes(),
        method: method.as_bytes(),
        path,
        query,
        client: address(CLIENT),
        peer: address(PEER),
        tcp_peer: address(TCP_PEER),
        pairs: &HEADERS.iter().copied(),
    };
    let found = Router::new(routes).unwrap().route(&view);
    assert_eq!(
        found,
        naive(routes, &view),
        "naively, {host:?} {target:?} {method:?}"
    );
    found
}

#[track_caller]
fn check(routes: &[Route], host: &str, path: &str, method: &str, expected: Option<usize>) {
    let found = found(routes, host, path, method);
    assert_eq!(found, expected, "{host:?} {path:?} {method:?}");
}

#[test]
fn first_match_wins_and_kinds_are_combined() {
    let static_files = Conditions {
        hosts: hosts(&["www.server01.com", "*.cdn.com"]),
        path_prefixes: bytes(&["/static", "/images"]),
        path_suffixes: bytes(&[".jpg", ".css"]),
        methods: bytes(&["GET"]),
        ..Conditions::default()
    };
    let api = Conditions {
        path_regexes: vec![regex("^/v[0-9]+/")],
        ..Conditions::default()
    };
    let status = Conditions {
        paths: bytes(&["/status"]),
        ..Conditions::default()
    };
    let read_and_write = Conditions {
        methods: bytes(&["GET", "POST"]),
        ..Conditions::default()
    };
    let routes = [static_files, api, status, read_and_write].map(route);
    let rows = [
        ("www.server01.com", "/static/x", "GET", Some(0)),
        ("WWW.Server01.COM.:8080", "/a/b.css?v=1.php", "GET", Some(0)),
        ("a.b.cdn.com", "/x.jpg", "GET", Some(0)),
        ("cdn.com", "/x.jpg", "GET", Some(3)),
        ("xcdn.com", "/x.jpg", "GET", Some(3)),
        (".cdn.com", "/x.jpg", "GET", Some(3)),
        ("www.server01.com", "/x.jpg", "POST", Some(3)),
        ("www.server01.com", "/index.php/x.css", "GET", Some(3)),
        ("www.server01.com", "/x.php.css", "GET", Some(0)),
        ("www.server01.com", "/x.css;jsessionid=1", "GET", Some(0)),
        ("www.server01.com", "/x.php;.css", "GET", Some(3)),
        ("www.server01.com", "/x.CSS", "GET", Some(3)),
        ("other", "/v12/list", "PUT", Some(1)),
        ("www.server01.com", "/v12/list.css", "GET", Some(0)),
        ("other", "/status", "PUT", Some(2)),
        ("other", "/status/", "PUT", None),
        ("other", "/", "PUT", None),
        ("", "", "", None),
    ];
    for (host, path, method, expected) in rows {
        check(&routes, host, path, method, expected);
    }
    check(&[], "x", "/", "GET", None);
}

#[test]
fn nested_prefixes_are_all_found() {
    let routes = ["/a/b/c", "/a/bb", "/a", "/a/b", "/"].map(|prefix| {
        route(Conditions {
            path_prefixes: bytes(&[prefix]),
            ..Conditions::default()
        })
    });
    for (path, expected) in [
        ("/a/b/c/d", 0),
        ("/a/bb", 1),
        ("/a/bc", 2),
        ("/a/b", 2),
        ("/b", 4),
        ("/a/b/d", 2),
    ] {
        check(&routes, "h", path, "GET", Some(expected));
    }
}

/// A route of these conditions and no other: whether a request of the path takes it.
#[track_caller]
fn holds(conditions: Conditions, target: &str, expected: bool) {
    let routes = [route(conditions)];
    check(
        &routes,
        "WWW.Shop.example:80",
        target,
        "GET",
        expected.then_some(0),
    );
}

#[test]
fn headers_and_parameters_are_looked_at_value_by_value() {
    let one = |field: FieldCondition| Conditions {
        fields: vec![field],
        ..Conditions::default()
    };
    let ignoring = |field: FieldCondition| Conditions {
        case: Case::Ignored,
        ..one(field)
    };
    let pattern = |pattern: fn(Box<[u8]>) -> TextPattern, text: &str| {
        Wanted::Any(vec![pattern(text.as_bytes().into())])
    };
    holds(one(header("x-kind", exactly("one"))), "/", true);
    holds(one(header("x-kind", exactly("Two"))), "/", true);
    holds(one(header("x-kind", exactly("two"))), "/", false);
    holds(ignoring(header("x-kind", exactly("two"))), "/", true);
    holds(one(header("x-kind", exactly("one, Two"))), "/", false);
    holds(one(header("x-empty", exactly(""))), "/", true);
    holds(one(header("x-none", exactly(""))), "/", false);
    holds(one(header("x-empty", Wanted::Present)), "/", true);
    holds(one(header("x-empty", Wanted::Absent)), "/", false);
    holds(one(header("x-none", Wanted::Absent)), "/", true);
    let beginning = pattern(TextPattern::Beginning, "on");
    holds(one(header("x-kind", beginning)), "/", true);
    let ending = pattern(TextPattern::Ending, "WO");
    holds(one(header("x-kind", ending.clone())), "/", false);
    holds(ignoring(header("x-kind", ending)), "/", true);
    let containing = pattern(TextPattern::Containing, "w");
    holds(one(header("x-kind", containing)), "/", true);
    let expression = Wanted::Any(vec![TextPattern::Regex(regex("^T.o$"))]);
    holds(one(header("x-kind", expression)), "/", true);
    holds(one(query("a", exactly("2"))), "/?a=1&a=2", true);
    holds(one(query("a", exactly("3"))), "/?a=1&a=2", false);
    holds(one(query("a", Wanted::Present)), "/?b&a", true);
    holds(one(query("a", Wanted::Absent)), "/?b=a", true);
    let both = Conditions {
        fields: vec![header("x-kind", exactly("one")), query("a", exactly("1"))],
        ..Conditions::default()
    };
    holds(both.clone(), "/?a=1", true);
    holds(both, "/?a=2", false);
    let encoded = Router::new(&[route(one(query("a b", exactly("c/"))))]).unwrap();
    let view = RequestView {
        host: b"",
        method: b"GET",
        path: b"/",
        query: b"%61+b=c%2F",
        client: None,
        peer: None,
        tcp_peer: None,
        pairs: &HEADERS.iter().copied(),
    };
    assert_eq!(
        encoded.route(&view),
        Some(0),
        "decoded before it is compared"
    );
}

#[test]
fn addresses_are_looked_at_by_whose_they_are() {
    let from = |of, network: &str| Conditions {
        client: Some(ClientCondition {
            of,
            networks: networks(&[network]),
        }),
        ..Conditions::default()
    };
    use AddressOf::{Client, Peer, TcpPeer};
    for (of, of_whom) in [(Client, CLIENT), (Peer, PEER), (TcpPeer, TCP_PEER)] {
        for address in [CLIENT, PEER, TCP_PEER] {
            holds(from(of, &format!("{address}/32")), "/", address == of_whom);
        }
        let router = Router::new(&[route(Conditions {
            not: vec![from(of, "10.0.0.0/8")],
            ..Conditions::default()
        })]);
        assert_eq!(router.unwrap().needs_tcp_peer(), of == TcpPeer);
    }
}

#[test]
fn nothing_under_not_may_hold_as_a_whole() {
    let prefix = |prefix: &str| Conditions {
        path_prefixes: bytes(&[prefix]),
        ..Conditions::default()
    };
    let not = Conditions {
        not: vec![
            Conditions {
                methods: bytes(&["GET"]),
                ..prefix("/a")
            },
            Conditions {
                methods: bytes(&["PUT"]),
                ..prefix("/b")
            },
            Conditions {
                hosts: hosts(&["*.shop.example"]),
                path_suffixes: bytes(&[".css"]),
                ..Conditions::default()
            },
        ],
        ..prefix("/")
    };
    holds(not.clone(), "/a", false);
    holds(not.clone(), "/b", true);
    holds(not.clone(), "/x.css", false);
    holds(not, "/index.php/x.css", true);
}

#[test]
fn case_is_ignored_where_that_is_asked_for() {
    let conditions = Conditions {
        paths: bytes(&["/One"]),
        path_prefixes: bytes(&["/PRE"]),
        path_suffixes: bytes(&[".Css"]),
        ..Conditions::default()
    };
    let ignoring = Conditions {
        case: Case::Ignored,
        ..conditions.clone()
    };
    for path in ["/one", "/prefix", "/x.css", "/x.CSS;a"] {
        holds(conditions.clone(), path, false);
        holds(ignoring.clone(), path, true);
        holds(
            Conditions {
                not: vec![ignoring.clone()],
                ..Conditions::default()
            },
            path,
            false,
        );
    }
    let expressions = Conditions {
        host_regexes: vec![regex("^www\\.sh[o]p\\.example$")],
        path_regexes: vec![regex("(?i)^/X")],
        ..Conditions::default()
    };
    holds(expressions, "/x", true);
}

fn small_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        proptest::sample::select(vec![
            "a", "b", "A", "/", ".", ".php/", ".PHP", "/a", "?", "a=b", "&", ".css", ";",
        ]),
        0..6,
    )
    .prop_map(|parts| parts.concat())
}

fn small_texts() -> impl Strategy<Value = Vec<Box<[u8]>>> {
    proptest::collection::vec(small_text().prop_map(|text| text.into_bytes().into()), 0..3)
}

fn small_regexes() -> impl Strategy<Value = Vec<Regex>> {
    let texts = proptest::sample::select(vec!["^/a", "b$", "a.b", "(?i)^a"]);
    proptest::collection::vec(texts.prop_map(regex), 0..2)
}

fn any_field() -> impl Strategy<Value = FieldCondition> {
    let wanted = prop_oneof![
        Just(Wanted::Present),
        Just(Wanted::Absent),
        Just(exactly("one")),
        Just(exactly("b"))
    ];
    let field = proptest::sample::select(vec![
        Field::Header(b"x-kind"[..].into()),
        Field::Header(b"x-none"[..].into()),
        Field::Query(b"a"[..].into()),
    ]);
    (field, wanted).prop_map(|(field, wanted)| FieldCondition { field, wanted })
}

fn any_client() -> impl Strategy<Value = ClientCondition> {
    use AddressOf::{Client, Peer, TcpPeer};
    let of = proptest::sample::select(vec![Client, Peer, TcpPeer]);
    let network = proptest::sample::select(vec!["10.0.0.0/8", "10.0.0.5/32", "0.0.0.0/0"]);
    (of, network).prop_map(|(of, network)| ClientCondition {
        of,
        networks: networks(&[network]),
    })
}

prop_compose! {
    fn simple_conditions()(
        exact in small_texts(), below in small_texts(), methods in small_texts(),
        paths in small_texts(), path_prefixes in small_texts(), path_suffixes in small_texts(),
        host_regexes in small_regexes(), path_regexes in small_regexes(), ignore_case in any::<bool>(),
        fields in proptest::collection::vec(any_field(), 0..2), client in proptest::option::of(any_client()),
    ) -> Conditions {
        let hosts = exact.into_iter().map(|name| HostPattern::Exactly(name.to_ascii_lowercase().into()));
        let below = below.into_iter().filter(|name| !name.is_empty() && !name.starts_with(b"."));
        let below = below.map(|name| HostPattern::Below(name.to_ascii_lowercase().into()));
        let case = if ignore_case { Case::Ignored } else { Case::Matters };
        let hosts = hosts.chain(below).collect();
        Conditions {
            hosts, host_regexes, methods, paths, path_prefixes, path_suffixes, path_regexes, case, fields, client, not: Vec::new(),
        }
    }
}

/// Conditions of which kinds are left out at random: with all of them few requests would match anything.
fn any_conditions() -> impl Strategy<Value = Conditions> {
    let not = proptest::collection::vec(simple_conditions(), 0..2);
    (simple_conditions(), not, any::<u8>()).prop_map(|(mut conditions, not, kept)| {
        let none = Conditions::default();
        if kept & 1 == 0 {
            (conditions.hosts, conditions.host_regexes) = (none.hosts, none.host_regexes);
        }
        if kept & 2 == 0 {
            conditions.methods = none.methods;
        }
        if kept & 12 == 0 {
            conditions.fields = none.fields;
        }
        if kept & 48 == 0 {
            conditions.client = none.client;
        }
        if kept & 64 == 0 {
            conditions.not = not;
        }
        conditions
    })
}

#[test]
fn the_index_agrees_with_looking_at_every_route() {
    let strategy = (
        proptest::collection::vec(any_conditions(), 0..90),
        small_text(),
        small_text(),
        small_text(),
    );
    proptest!(|((conditions, host, path, method) in strategy)| {
        let routes: Vec<Route> = conditions.into_iter().map(route).collect();
        // Compares with the naive way itself.
        found(&routes, &host, &path, &method);
    });
}
