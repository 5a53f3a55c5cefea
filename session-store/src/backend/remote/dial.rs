//! A connection to a master that was verified: found, connected, logged in, asked for its role, its database chosen.
//!
//! What is not verified is never asked: a replica, or a master that a Sentinel still names but that was demoted, would say
//! "no such key" for sessions that are there. The whole of it takes at most [`DIAL_MAX`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::{Host, Place};
use super::sentinel::master_of;
use crate::resp::Reply;
use crate::resp::decode::{Decoded, decode};
use crate::resp::reply::encode_request;

/// How long it may take to be logged in at a master that answers.
const DIAL_MAX: Duration = Duration::from_secs(3);
const BUFFER: usize = 16 * 1024;

/// What it takes to be let in.
#[derive(Clone)]
pub struct Login {
    pub place: Place,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub user: Option<String>,
    pub password: Option<String>,
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, and what was read of it already.
pub(super) struct Connection {
    pub(super) stream: Box<dyn Stream>,
    pub(super) inbound: BytesMut,
    /// Which of several it is; `None`: there is only one place.
    pub(super) host: Option<Host>,
}

/// Connects to the master, logged in and in its database.
///
/// # Errors
/// Why not, in words for an operator.
pub(super) async fn dial(login: &Login, database: u8) -> Result<Connection, String> {
    match timeout(DIAL_MAX, verified(login, database)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(format!("no answer within {DIAL_MAX:?}")),
    }
}

async fn verified(login: &Login, database: u8) -> Result<Connection, String> {
    let (stream, host): (Box<dyn Stream>, _) = match &login.place {
        Place::Unix(path) => (
            Box::new(UnixStream::connect(path).await.map_err(told)?),
            None,
        ),
        Place::Tcp(host) => (connect(host, login.tls.as_ref()).await?, None),
        Place::Sentinel { sentinels, master } => {
            let host = master_of(sentinels, master).await?;
            (connect(&host, login.tls.as_ref()).await?, Some(host))
        }
    };
    let mut connection = Connection {
        stream,
        inbound: BytesMut::with_capacity(BUFFER),
        host,
    };
    if let Some(password) = &login.password {
        let auth = match &login.user {
            Some(user) => vec!["AUTH", user, password],
            None => vec!["AUTH", password],
        };
        connection.ask(&auth).await?;
    }
    let role = match connection.ask(&["ROLE"]).await? {
        Reply::Array(parts) => parts.into_iter().next(),
        _ => None,
    };
    match role {
        Some(Reply::Bulk(role)) if &role[..] == b"master" => {}
        Some(Reply::Bulk(role)) => {
            return Err(format!("its role is {}", String::from_utf8_lossy(&role)));
        }
        _ => return Err("it does not say its role".to_owned()),
    }
    connection.ask(&["SELECT", &database.to_string()]).await?;
    Ok(connection)
}

pub(super) async fn connect(
    host: &Host,
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> Result<Box<dyn Stream>, String> {
    let stream = TcpStream::connect((host.name.as_str(), host.port))
        .await
        .map_err(told)?;
    stream.set_nodelay(true).map_err(told)?;
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(host.name.clone())
        .map_err(|_| "its name cannot be in a certificate")?;
    let connector = TlsConnector::from(Arc::clone(tls));
    Ok(Box::new(
        connector.connect(name, stream).await.map_err(told)?,
    ))
}

impl Connection {
    /// One command, one answer; an error is an error.
    pub(super) async fn ask(&mut self, words: &[&str]) -> Result<Reply, String> {
        let words: Vec<Bytes> = words
            .iter()
            .map(|word| Bytes::copy_from_slice(word.as_bytes()))
            .collect();
        let mut out = BytesMut::new();
        encode_request(&words, &mut out);
        self.stream.write_all(&out).await.map_err(told)?;
        match self.answer().await.map_err(told)? {
            Reply::Error(error) => Err(error.into_owned()),
            reply => Ok(reply),
        }
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> io::Result<Reply> {
        // Ends: each turn reads something, or returns; the caller bounds the time, the decoder the size.
        loop {
            match decode(&mut self.inbound).map_err(io::Error::other)? {
                Decoded::Reply(reply) => return Ok(reply),
                Decoded::Needs(_) => {
                    if self.stream.read_buf(&mut self.inbound).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}

fn told(error: io::Error) -> String {
    error.to_string()
}
