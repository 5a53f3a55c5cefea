//! Where the gateway listens: TCP addresses and unix sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// What a unix socket's file allows unless `?mode=` says otherwise: owner and group.
const MODE: u32 = 0o660;

/// An address as a configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix { path: PathBuf, mode: u32 },
}

/// A listening socket; its clients are served once the gateway starts.
#[derive(Debug)]
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

pub(super) enum Acceptor {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// A client's connection.
pub(super) type Stream = Pin<Box<dyn ReadWrite>>;
pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> ReadWrite for S {}

impl Listen {
    /// `127.0.0.1:6380`, or `unix:/run/evenkeel/resp.sock?mode=0660`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("unix:") else {
            return text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| format!("expected an address with its port, such as 127.0.0.1:6380, or unix:/path, found `{text}`"));
        };
        let (path, mode) = match rest.split_once('?') {
            None => (rest, MODE),
            Some((path, options)) => {
                let mode = options
                    .strip_prefix("mode=")
                    .and_then(|mode| u32::from_str_radix(mode, 8).ok());
                let mode = mode.filter(|mode| *mode <= 0o777);
                (
                    path,
                    mode.ok_or_else(|| {
                        format!(
                            "expected ?mode= and an octal number up to 0777, found `?{options}`"
                        )
                    })?,
                )
            }
        };
        if path.is_empty() {
            return Err("expected unix: and the path of a socket".to_owned());
        }
        Ok(Self::Unix {
            path: PathBuf::from(path),
            mode,
        })
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix { .. } => true,
        }
    }

    /// # Errors
    /// It is taken, or may not be used.
    pub fn bind(&self) -> io::Result<Bound> {
        match self {
            Self::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Bound::Tcp(listener))
            }
            Self::Unix { path, mode } => bind_unix(path, *mode).map(Bound::Unix),
        }
    }
}

/// Takes the place of a socket that nobody serves any more, never of one that somebody does. It gets its name only when its mode is right.
fn bind_unix(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut unnamed = path.as_os_str().to_owned();
    unnamed.push(".new");
    let unnamed = PathBuf::from(unnamed);
    match std::fs::remove_file(&unnamed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&unnamed)?;
    std::fs::set_permissions(&unnamed, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&unnamed, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Bound {
    /// The TCP address that it really has.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// On the runtime of the caller.
    pub(super) fn listen(self) -> io::Result<Acceptor> {
        match self {
            Self::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Acceptor::Tcp),
            Self::Unix(listener) => {
                tokio::net::UnixListener::from_std(listener).map(Acceptor::Unix)
            }
        }
    }
}

impl Acceptor {
    /// The next client, and its address if it has one.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::pin(stream), Some(peer.ip())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::pin(stream), None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_each_kind() {
        assert_eq!(
            Listen::parse("[::1]:6380"),
            Ok(Listen::Tcp("[::1]:6380".parse().unwrap()))
        );
        let unix = |path: &str, mode| {
            Ok(Listen::Unix {
                path: path.into(),
                mode,
            })
        };
        assert_eq!(
            Listen::parse("unix:/run/r.sock"),
            unix("/run/r.sock", 0o660)
        );
        assert_eq!(
            Listen::parse("unix:r.sock?mode=0600"),
            unix("r.sock", 0o600)
        );
        for text in [
            "6380",
            "localhost:6380",
            "unix:",
            "unix:/a?mode=9",
            "unix:/a?mode=1777",
            "unix:/a?m=1",
        ] {
            assert!(Listen::parse(text).is_err(), "{text}");
        }
        assert!(Listen::parse("127.0.0.2:1").unwrap().is_local());
        assert!(!Listen::parse("0.0.0.0:1").unwrap().is_local());
    }

    #[test]
    fn a_socket_that_is_served_is_not_taken_and_one_that_is_left_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resp.sock");
        let listen = Listen::Unix {
            path: path.clone(),
            mode: 0o600,
        };
        let first = listen.bind().unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(listen.bind().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen.bind().unwrap();
    }
}
