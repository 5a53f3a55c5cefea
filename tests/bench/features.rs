//! Checks that a proxy does the whole task before it is measured: a proxy that does less is faster for nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use crate::load::{Connection, get};
use crate::peers::{Backends, Peer, Proxy, SECOND_ROUTE};

/// Where the load comes from.
const CLIENT: &str = "127.0.0.1";

/// What a server answers under `…/facts`.
#[derive(Debug)]
struct Facts(String);

impl Facts {
    fn get(&self, key: &str) -> Result<&str> {
        let mut pairs = self.0.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .with_context(|| format!("no {key} in {:?}", self.0))
    }
}

/// # Errors
/// What the proxy does not do.
pub fn check(proxy: &Proxy, backends: &Backends) -> Result<()> {
    whole_task(proxy, backends).context("does not do the whole task")
}

fn whole_task(proxy: &Proxy, backends: &Backends) -> Result<()> {
    if proxy.peer == Peer::Direct {
        return Ok(());
    }
    // Envoy's own XFF code names its machine's address where the client is on the loopback interface.
    let forwarded_for = (proxy.peer != Peer::Envoy).then_some(CLIENT);
    let mut connection = Connection::open(proxy.address)?;
    check_route(&mut connection, "/facts", forwarded_for, &backends.shop)?;
    let second = format!("{SECOND_ROUTE}facts");
    check_route(&mut connection, &second, forwarded_for, &backends.images)
}

/// Three requests in a row reach three servers, the right ones, with the right headers.
fn check_route(
    connection: &mut Connection,
    target: &str,
    forwarded_for: Option<&str>,
    servers: &[SocketAddr; 3],
) -> Result<()> {
    let mut reached = BTreeSet::new();
    for _ in servers {
        let response = connection
            .exchange(&get(target))
            .with_context(|| format!("GET {target}"))?;
        let response = String::from_utf8_lossy(&response);
        let facts = Facts(
            response
                .rsplit("\r\n\r\n")
                .next()
                .unwrap_or_default()
                .to_owned(),
        );
        for (key, expected) in [
            ("real_ip", Some(CLIENT)),
            ("forwarded_for", forwarded_for),
            ("host", Some("www.example.com")),
        ] {
            let found = facts.get(key)?;
            anyhow::ensure!(
                !found.is_empty() && expected.is_none_or(|expected| found == expected),
                "GET {target}: the server saw {key}={found:?}, not {expected:?}"
            );
        }
        reached.insert(facts.get("port")?.parse::<u16>().context("a port")?);
    }
    let expected: BTreeSet<u16> = servers.iter().map(SocketAddr::port).collect();
    anyhow::ensure!(
        reached == expected,
        "GET {target}: three requests reached the servers on {reached:?}, not {expected:?}"
    );
    Ok(())
}
