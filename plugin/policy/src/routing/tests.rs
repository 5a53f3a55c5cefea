//! Routing by table, and against the same rules written the naive way.

use proptest::prelude::*;

use super::*;

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

/// Every route looked at in turn, every value of it in turn.
fn naive(routes: &[Route], host: &[u8], path: &[u8], method: &[u8]) -> Option<usize> {
    let host = without_port(host).to_ascii_lowercase();
    let path = path
        .split(|byte| *byte == b'?' || *byte == b'#')
        .next()
        .unwrap_or_default();
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let scripted = segments
        .iter()
        .rev()
        .skip(1)
        .any(|segment| segment.ends_with(b".php"));
    let host_holds = |pattern: &HostPattern| match pattern {
        HostPattern::Exactly(name) => host == **name,
        HostPattern::Below(name) => {
            host.len() > name.len() + 1
                && host.ends_with(name)
                && host[host.len() - name.len() - 1] == b'.'
                && host[0] != b'.'
        }
    };
    let holds = |route: &&Route| {
        let wanted = &route.conditions;
        (wanted.hosts.is_empty() || wanted.hosts.iter().any(host_holds))
            && (wanted.methods.is_empty()
                || wanted.methods.iter().any(|wanted| **wanted == *method))
            && (wanted.any_path()
                || wanted.paths.iter().any(|wanted| **wanted == *path)
                || wanted
                    .path_prefixes
                    .iter()
                    .any(|prefix| path.starts_with(prefix))
                || (!scripted
                    && wanted
                        .path_suffixes
                        .iter()
                        .any(|suffix| path.ends_with(suffix)))
                || wanted
                    .path_regexes
                    .iter()
                    .any(|regex| std::str::from_utf8(path).is_ok_and(|path| regex.is_match(path))))
    };
    routes.iter().find(holds).map(|route| route.pool)
}

#[track_caller]
fn check(routes: &[Route], host: &str, path: &str, method: &str, expected: Option<usize>) {
    let (host, path, method) = (host.as_bytes(), path.as_bytes(), method.as_bytes());
    assert_eq!(
        Router::new(routes).pool(host, path, method),
        expected,
        "{host:?} {path:?} {method:?}"
    );
    assert_eq!(naive(routes, host, path, method), expected, "naive");
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
        path_regexes: vec![Regex::new("^/v[0-9]+/").unwrap()],
        ..Conditions::default()
    };
    let status = Conditions {
        paths: bytes(&["/status"]),
        ..Conditions::default()
    };
    let routes = [
        Route {
            conditions: static_files,
            pool: 0,
        },
        Route {
            conditions: api,
            pool: 1,
        },
        Route {
            conditions: status,
            pool: 2,
        },
        Route {
            conditions: Conditions {
                methods: bytes(&["GET", "POST"]),
                ..Conditions::default()
            },
            pool: 3,
        },
    ];
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
    assert_eq!(
        Router::new(&routes).pool(b"other", b"/v1/\xff", b"PUT"),
        None,
        "an expression never matches what is not text"
    );
    assert_eq!(Router::default().pool(b"x", b"/", b"GET"), None);
}

#[test]
fn nested_prefixes_are_all_found() {
    let prefix = |text: &str, pool| Route {
        conditions: Conditions {
            path_prefixes: bytes(&[text]),
            ..Conditions::default()
        },
        pool,
    };
    let routes = [
        prefix("/a/b/c", 0),
        prefix("/a/bb", 1),
        prefix("/a", 2),
        prefix("/a/b", 3),
        prefix("/", 4),
    ];
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

fn small_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        proptest::sample::select(vec!["a", "b", "/", ".", ".php/", "/a", "?", ".css"]),
        0..6,
    )
    .prop_map(|parts| parts.concat())
}

fn small_texts() -> impl Strategy<Value = Vec<Box<[u8]>>> {
    proptest::collection::vec(small_text().prop_map(|text| text.into_bytes().into()), 0..3)
}

prop_compose! {
    fn any_conditions()(
        exact in small_texts(), below in small_texts(), methods in small_texts(),
        paths in small_texts(), path_prefixes in small_texts(), path_suffixes in small_texts(),
        regex in proptest::option::of(proptest::sample::select(vec!["^/a", "b$", "a.b"])),
    ) -> Conditions {
        let hosts = exact.into_iter().map(HostPattern::Exactly);
        let below = below.into_iter().filter(|name| !name.is_empty()).map(HostPattern::Below);
        let path_regexes = regex.iter().map(|text| Regex::new(text).unwrap()).collect();
        Conditions { hosts: hosts.chain(below).collect(), methods, paths, path_prefixes, path_suffixes, path_regexes }
    }
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
        let routes: Vec<Route> = conditions.into_iter().enumerate().map(|(pool, conditions)| Route { conditions, pool }).collect();
        let found = Router::new(&routes).pool(host.as_bytes(), path.as_bytes(), method.as_bytes());
        prop_assert_eq!(found, naive(&routes, host.as_bytes(), path.as_bytes(), method.as_bytes()));
    });
}
