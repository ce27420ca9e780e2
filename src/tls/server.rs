//! TLS of our own server: its certificate and key from PEM files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject},
};
use serde::{Deserialize, Serialize};

use super::{TlsError, certificates, require_pair};
use crate::logging::Chain;

/// The certificate of a server; without one it speaks plain HTTP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTls {
    /// PEM file of the certificate, with those of its authorities below the root.
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}

impl ServerTls {
    /// The files, if TLS is to be spoken.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        self.cert.as_deref().zip(self.key.as_deref())
    }

    /// Adds what is wrong with these settings, which sit under `section`.
    pub fn problems(&self, section: &str, problems: &mut Vec<String>) {
        require_pair(section, self.cert.as_deref(), self.key.as_deref(), problems);
    }

    /// Adds what is wrong with the files.
    pub fn file_problems(&self, section: &str, problems: &mut Vec<String>) {
        let Some((cert, key)) = self.files() else { return };
        if let Err(error) = server_config(cert, key) {
            problems.push(format!("`{section}.tls`: {}", Chain(&error)));
        }
    }
}

/// The server's side of TLS, with a certificate that is valid now.
///
/// # Errors
/// When a file cannot be read or used, when they do not belong together, or when the certificate is not valid now.
pub fn server_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path: key.to_owned() },
        error => TlsError::Read { path: key.to_owned(), error },
    })?;
    check_validity(cert, &chain)?;
    // The provider is named: with two of them in the program, rustls' own choice would panic.
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?
        .with_no_client_auth();
    let mut config = builder.with_single_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch { cert: cert.to_owned(), key: key.to_owned() },
        error => TlsError::Unusable { path: cert.to_owned(), error },
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Asks the verifier of clients for the dates alone: who signed the certificate is the client's question.
fn check_validity(path: &Path, chain: &[CertificateDer<'static>]) -> Result<(), TlsError> {
    let Some((first, rest)) = chain.split_first() else { return Ok(()) };
    let unusable = |error| TlsError::Unusable { path: path.to_owned(), error };
    let mut roots = RootCertStore::empty();
    roots.add(first.clone()).map_err(unusable)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable(rustls::Error::General(error.to_string())))?;
    let name = ServerName::try_from("localhost").expect("it is a name");
    match verifier.verify_server_cert(first, rest, &name, &[], UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(
            error @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }),
        )) => Err(TlsError::NotValidNow { path: path.to_owned(), error: rustls::Error::InvalidCertificate(error) }),
        _ => Ok(()),
    }
}
