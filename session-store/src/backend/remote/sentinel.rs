//! Sentinels: who is the master, and whether it still is.
//!
//! They are asked whenever a connection is made, and every [`LOOK`] while one is used: a master that was cut off together with us goes on
//! taking writes that nobody will ever see again, and only a Sentinel on the other side can say so. When none of them can be asked any more, we
//! may be the ones who are cut off, and stop after [`UNKNOWN_MAX`] attempts. So a master that was replaced is asked for about
//! [`LOOK`], and one of which nobody knows for about `UNKNOWN_MAX × (LOOK + SENTINEL_MAX)` with one Sentinel that does not answer.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{sleep, timeout};

use super::address::{Host, Place};
use super::dial::{Connection, Login, connect};
use crate::resp::Reply;

/// How often they are asked.
const LOOK: Duration = Duration::from_secs(1);
/// How long one Sentinel may take.
const SENTINEL_MAX: Duration = Duration::from_millis(500);
/// So many times in a row none of them may answer.
const UNKNOWN_MAX: u32 = 3;

/// Resolves when `host` is the master no more, as far as anybody can tell; never without Sentinels.
pub(super) async fn moved(login: &Login, host: Option<&Host>) -> String {
    let (Place::Sentinel { sentinels, master }, Some(host)) = (&login.place, host) else {
        return std::future::pending().await;
    };
    let mut unknown = 0;
    // Ends with the connection, or when the master is another.
    loop {
        sleep(LOOK).await;
        match master_of(sentinels, master).await {
            Ok(now) if now == *host => unknown = 0,
            Ok(now) => return format!("the master is {}:{} now", now.name, now.port),
            Err(why) => {
                unknown += 1;
                if unknown >= UNKNOWN_MAX {
                    return why;
                }
            }
        }
    }
}

/// The master's address, of the first Sentinel that knows it.
pub(super) async fn master_of(sentinels: &[Host], master: &str) -> Result<Host, String> {
    let mut last = String::new();
    for sentinel in sentinels {
        match timeout(SENTINEL_MAX, ask_sentinel(sentinel, master)).await {
            Ok(Ok(host)) => return Ok(host),
            Ok(Err(why)) => last = why,
            Err(_) => last = format!("no answer within {SENTINEL_MAX:?}"),
        }
    }
    Err(format!("no Sentinel knows the master {master}: {last}"))
}

async fn ask_sentinel(sentinel: &Host, master: &str) -> Result<Host, String> {
    let mut connection = Connection {
        stream: connect(sentinel, None).await?,
        inbound: BytesMut::new(),
        host: None,
    };
    let answer = connection
        .ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master])
        .await?;
    let Reply::Array(parts) = answer else {
        return Err("it does not know this name".to_owned());
    };
    let [Reply::Bulk(name), Reply::Bulk(port)] = parts.as_slice() else {
        return Err("its answer is no address".to_owned());
    };
    let port = std::str::from_utf8(port)
        .ok()
        .and_then(|port| port.parse().ok());
    Ok(Host {
        name: String::from_utf8_lossy(name).into_owned(),
        port: port.ok_or("its answer is no port")?,
    })
}
