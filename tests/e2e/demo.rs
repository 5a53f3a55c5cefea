//! `evenkeel demo`: everything on one machine, found by the addresses it prints.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use evenkeel_tests::child::Child;
use evenkeel_tests::{Connection, eventually, peers};
use rustix::process::Signal;
use tempfile::TempDir;

/// The addresses in `http://…` URLs.
fn addresses(text: &str) -> Vec<SocketAddr> {
    let after = text.split("http://").skip(1);
    let hosts = after.filter_map(|rest| {
        rest.split(|end: char| end == '/' || end.is_whitespace())
            .next()
    });
    hosts
        .filter_map(|host| host.replace("localhost", "127.0.0.1").parse().ok())
        .collect()
}

#[test]
fn the_demo_prints_its_addresses_and_serves_from_several_nodes() {
    let directory = TempDir::new().unwrap();
    let mut command = Command::new(peers::evenkeel());
    command.arg("demo");
    let mut child = Child::start("demo", &command, &directory.path().join("output.log"));
    let page = eventually("the demo serves its page", Duration::from_secs(30), || {
        let found = addresses(&child.output());
        let pages = found.iter().filter_map(|address| {
            let response = Connection::open(*address)
                .and_then(|mut new| new.get("/"))
                .ok()?;
            (response.status == 200 && response.text().contains("<html")).then_some(*address)
        });
        pages.into_iter().next().ok_or_else(|| child.output())
    });
    let text = Connection::open(page).unwrap().get("/").unwrap().text();
    assert!(
        !text.contains("https://") && !text.contains("src=\"http"),
        "the page fetches something from elsewhere"
    );
    let mut connection = Connection::open(page).unwrap();
    let mut answers: Vec<String> = (0..6)
        .map(|_| connection.get("/round_robin/hello").unwrap().text())
        .collect();
    answers.sort();
    answers.dedup();
    assert_eq!(
        answers.len(),
        3,
        "weights 3, 2, 1 use all three nodes in six requests: {answers:?}"
    );
    child.signal(Signal::INT);
    assert_eq!(child.wait(Duration::from_secs(40)).code(), Some(0));
}

/// A second demo finds the usual ports taken, and takes free ones.
#[test]
fn two_demos_run_side_by_side() {
    let directory = TempDir::new().unwrap();
    let mut command = Command::new(peers::evenkeel());
    command.arg("demo");
    let demos =
        ["one", "two"].map(|name| Child::start(name, &command, &directory.path().join(name)));
    let [one, two] = demos.each_ref().map(|demo| {
        eventually(
            "a demo prints its addresses",
            Duration::from_secs(30),
            || {
                let found = addresses(&demo.output());
                let all = found
                    .iter()
                    .all(|address| Connection::open(*address).is_ok());
                if !found.is_empty() && all {
                    Ok(found)
                } else {
                    Err(demo.output())
                }
            },
        )
    });
    assert!(
        one.iter().all(|address| !two.contains(address)),
        "{one:?} {two:?}"
    );
}
