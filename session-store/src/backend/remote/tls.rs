//! TLS towards a Redis: whose certificates are believed, and which one is shown.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates that are read from one file.
const CHAIN_MAX: usize = 64;

/// Which file is at fault, and why.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    Ca(String),
    Cert(String),
    Key(String),
}

/// Believes what is signed by one of the certificates in `ca`; shows a certificate if there is one. Blocking.
///
/// # Errors
/// [`Fault`].
pub fn client(ca: &Path, shown: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca).map_err(Fault::Ca)? {
        roots
            .add(certificate)
            .map_err(|error| Fault::Ca(format!("{} cannot be used: {error}", ca.display())))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Ca(error.to_string()))?
        .with_root_certificates(roots);
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert).map_err(Fault::Cert)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                Fault::Key(format!(
                    "expected a PEM file with a private key: {}: {}",
                    key.display(),
                    reason(error)
                ))
            })?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| Fault::Key(format!("{} cannot be used: {error}", key.display())))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.take(CHAIN_MAX).collect::<Result<Vec<_>, _>>());
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!(
            "expected a PEM file with a certificate: {} has none",
            path.display()
        )),
        Err(error) => Err(format!(
            "expected a PEM file with a certificate: {}: {}",
            path.display(),
            reason(error)
        )),
    }
}

fn reason(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        _ => "it has none".to_owned(),
    }
}
