//! TLS to Redis and to Cassandra, with the authorities of the operating system or from PEM files; and of our own server.

mod server;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{aws_lc_rs, tls13::OkmBlock},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use serde::{Deserialize, Serialize};

pub use self::server::{ServerTls, server_config};
use crate::section::require;

/// TLS to a server: its CA, and our certificate where it asks for one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Use it, with the authorities of the operating system where `ca` names none. Naming a file enables it as well.
    pub enabled: bool,
    /// PEM file of the authorities to trust; absent: those of the operating system.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TlsError {
    #[error("failed to read `{}`", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: pem::Error,
    },
    #[error("`{}` holds no certificate", .path.display())]
    Empty { path: PathBuf },
    #[error("the operating system trusts no certificate authority; name one in `tls.ca`")]
    NoRoots,
    #[error("`tls.cert` and `tls.key` belong together; one is missing")]
    Half,
    #[error("failed to use the certificates")]
    Refused(#[source] rustls::Error),
    #[error("`{}` cannot be used as a certificate", .path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        error: rustls::Error,
    },
    #[error("the certificate `{}` is not valid now; renew it, or set the clock", .path.display())]
    NotValidNow {
        path: PathBuf,
        #[source]
        error: rustls::Error,
    },
    #[error("`{}` holds no private key, or one with a passphrase, which must be removed", .path.display())]
    NoKey { path: PathBuf },
    #[error("the key `{}` does not belong to the certificate `{}`", .key.display(), .cert.display())]
    KeyMismatch { cert: PathBuf, key: PathBuf },
}

impl Tls {
    /// Whether it is to be used: it is enabled, or a file is named.
    pub fn is_enabled(&self) -> bool {
        *self != Self::default()
    }

    /// Adds what is wrong with these settings, which sit under `section`.
    pub fn problems(&self, section: &str, problems: &mut Vec<String>) {
        require_pair(section, self.cert.as_deref(), self.key.as_deref(), problems);
    }

    /// Adds what is wrong with the files that these settings name.
    pub fn file_problems(&self, section: &str, problems: &mut Vec<String>) {
        for (key, path) in [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)] {
            let Some(path) = path else { continue };
            if let Err(error) = File::open(path) {
                problems.push(format!("`{section}.tls.{key}`: `{}` cannot be read: {error}", path.display()));
            }
        }
    }
}

/// Adds what is wrong with a certificate without its key, or the reverse.
fn require_pair(section: &str, cert: Option<&Path>, key: Option<&Path>, problems: &mut Vec<String>) {
    require(
        problems,
        cert.is_some() == key.is_some(),
        format!("`{section}.tls.cert` and `{section}.tls.key` must be set together; one is missing"),
    );
}

/// The client's side of TLS. Files are read now: a certificate that was replaced counts from the next connection on.
///
/// # Errors
/// When a file cannot be read or used.
pub fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(TlsError::Refused)?;
            }
        }
        // One unreadable authority among the system's is no reason to trust none of them.
        None => {
            let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if usable == 0 {
                return Err(TlsError::NoRoots);
            }
        }
    }
    // The provider is named: with two of them in the program, rustls' own choice would panic.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Refused)?
        .with_root_certificates(roots);
    let config = match (&tls.cert, &tls.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let error = |error| TlsError::Read { path: key.clone(), error };
            let key = PrivateKeyDer::from_pem_file(key).map_err(error)?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(TlsError::Refused)?
        }
        _ => return Err(TlsError::Half),
    };
    Ok(Arc::new(config))
}

/// The warning about a password that crosses the network unencrypted.
pub fn plain_password(server: &str, host: &str, remedy: &str) -> String {
    format!("the password of {server} goes to `{host}` unencrypted, where others may read it on the way: {remedy}")
}

/// The SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3");
    let digest = suite.common.hash_provider.hash(bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The HMAC-SHA256 of some bytes.
pub fn hmac_sha256(key: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3");
    let tag = suite.hkdf_provider.hmac_sign(&OkmBlock::new(key), bytes);
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Bytes of the system's random number generator.
///
/// # Panics
/// When the system has none; nothing that needs them may go on without.
pub fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::default_provider().secure_random.fill(&mut bytes).expect("the system has random numbers");
    bytes
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |error| TlsError::Read { path: path.to_owned(), error };
    let found: Vec<_> = CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)?;
    if found.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_known_one() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), known);
    }

    #[test]
    fn the_hmac_is_the_known_one_and_random_bytes_are_no_constant() {
        // RFC 4231, test case 1, its key filled up with zeros, which changes nothing.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let known = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex(&hmac_sha256(&key, b"Hi There")), known);
        assert_ne!(random(), random());
    }

    #[test]
    fn a_missing_or_empty_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let tls = Tls { ca: Some(path.clone()), ..Tls::default() };
        assert!(client_config(&tls).unwrap_err().to_string().contains("ca.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(matches!(client_config(&tls), Err(TlsError::Empty { .. })));
    }
}
