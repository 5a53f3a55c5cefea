//! A certificate for a test, and clients that trust it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::Connection;

/// A self-signed certificate for `localhost`, in files.
pub struct Certificate {
    directory: TempDir,
    roots: Arc<RootCertStore>,
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("site.pem"), made.cert.pem()).unwrap();
        std::fs::write(
            directory.path().join("site.key"),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self {
            directory,
            roots: Arc::new(roots),
        }
    }

    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("site.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.directory.path().join("site.key")
    }

    /// The listener's keys.
    pub fn listener(&self) -> String {
        let quoted = |path: &Path| format!("'{}'", path.display());
        format!(
            "tls: {{cert: {}, key: {}}}",
            quoted(&self.certificate()),
            quoted(&self.key())
        )
    }

    /// A client that offers these protocols by ALPN.
    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        client.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(client)
    }

    /// An HTTP/1.1 connection over TLS.
    pub fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        let session = ClientConnection::new(self.client(&["http/1.1"]), name());
        let socket = TcpStream::connect(address)?;
        let stream = StreamOwned::new(session.map_err(io::Error::other)?, socket.try_clone()?);
        Connection::over(Box::new(stream), socket)
    }
}

/// The name the certificate is for.
pub fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}
