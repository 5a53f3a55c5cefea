//! Upgraded connections (WebSocket and whatever else both sides agree on): bytes both ways until both have ended.

use std::rc::Rc;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::http::client::{Client, Phase};
use crate::upstream::connection::Tunnel;

/// Copy buffer of each direction.
const BUFFER: usize = 16 * 1024;

/// Copies until both directions have ended, or one has failed. The janitor ends it when neither has moved for
/// `timeouts.tunnel`.
pub(crate) async fn copy<S: AsyncRead + AsyncWrite + Unpin>(
    client: &Rc<Client>,
    stream: S,
    read: Bytes,
    tunnel: Tunnel,
) {
    client.enter(Phase::Tunnel);
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let (mut from_server, mut to_server) = tokio::io::split(tunnel.stream);
    let up = pump(client, read, &mut from_client, &mut to_server);
    let down = pump(client, tunnel.read, &mut from_server, &mut to_client);
    // An error of one direction ends both; an end is passed on, and the other goes on.
    let _ = tokio::try_join!(up, down);
}

async fn pump<R, W>(
    client: &Client,
    mut first: Bytes,
    reader: &mut R,
    writer: &mut W,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if first.has_remaining() {
        writer.write_all_buf(&mut first).await?;
    }
    let mut buffer = vec![0_u8; BUFFER];
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return writer.shutdown().await;
        }
        client.enter(Phase::Tunnel);
        writer
            .write_all(buffer.get(..length).unwrap_or_default())
            .await?;
        writer.flush().await?;
    }
}
