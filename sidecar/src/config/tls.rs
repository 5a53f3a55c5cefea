//! A certificate and its key as the TLS configuration of a listener: HTTP/2 and HTTP/1.1 by ALPN, TLS 1.2 and 1.3.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Longest chain that is read.
const CHAIN_MAX: usize = 16;

/// Which of the two files is at fault, and why.
#[derive(Debug, PartialEq, Eq)]
pub enum TlsFault {
    Cert(String),
    Key(String),
}

/// Reads both files. Blocking; only at start and reload.
pub fn load(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsFault> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(|certificates| certificates.take(CHAIN_MAX).collect())
        .map_err(|error| {
            TlsFault::Cert(format!(
                "expected a PEM file with a certificate: {}: {}",
                cert.display(),
                reason(error)
            ))
        })?;
    if chain.is_empty() {
        return Err(TlsFault::Cert(format!(
            "expected a PEM file with a certificate: {} has none",
            cert.display()
        )));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        TlsFault::Key(format!(
            "expected a PEM file with a private key: {}: {}",
            key.display(),
            reason(error)
        ))
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsFault::Cert(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsFault::Key(format!(
                "{} is not the key of {}",
                key.display(),
                cert.display()
            )),
            rustls::Error::InvalidCertificate(why) => {
                TlsFault::Cert(format!("{} cannot be used: {why}", cert.display()))
            }
            other => TlsFault::Key(format!("{} cannot be used: {other}", key.display())),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn reason(error: rustls_pki_types::pem::Error) -> String {
    match error {
        rustls_pki_types::pem::Error::Io(error) => error.to_string(),
        rustls_pki_types::pem::Error::NoItemsFound => "it has none".to_owned(),
        _ => "it is not valid PEM".to_owned(),
    }
}
