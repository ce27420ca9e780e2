//! The certificate of the API, replaced while the server runs.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use crate::{
    lifecycle::Signal,
    logging::Chain,
    metrics::Metrics,
    tls::{ServerTls, server_config},
};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The certificate in use. Each handshake uses the newest that could be read.
pub struct Certificate {
    files: Option<(PathBuf, PathBuf)>,
    loaded: RwLock<Loaded>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Loaded {
    config: Option<Arc<ServerConfig>>,
    problem: Option<String>,
    stamp: Stamp,
}

/// What shows that a file was replaced or written: inode, length and time of the last write, of both.
type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

impl Certificate {
    /// Of these settings, read now. When it cannot be read, no connection is served until it can.
    pub fn new(tls: &ServerTls, metrics: Arc<Metrics>) -> Self {
        let files = tls.files().map(|(cert, key)| (cert.to_owned(), key.to_owned()));
        let certificate = Self { files, loaded: RwLock::default(), metrics };
        certificate.load();
        certificate
    }

    /// Whether the server speaks TLS.
    pub fn is_used(&self) -> bool {
        self.files.is_some()
    }

    /// For the next handshake; `None` while there is no usable certificate.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.config.clone().map(TlsAcceptor::from)
    }

    /// Why the files cannot be used, if so.
    pub fn problem(&self) -> Option<String> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).problem.clone()
    }

    /// Reads the files again.
    pub fn reload(&self) {
        if self.load() {
            info!("the certificate of HTTP is read again");
        }
    }

    /// Whether there are files, and they are in use now. On failure the former certificate stays.
    fn load(&self) -> bool {
        let Some((cert, key)) = &self.files else { return false };
        // Taken first: a file that is replaced while it is read is read again.
        let stamp = self.stamp();
        let read = server_config(cert, key);
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.stamp = stamp;
        loaded.problem = read.as_ref().err().map(|error| Chain(error).to_string());
        self.metrics.api_certificate_outdated.set(i64::from(loaded.problem.is_some()));
        match read {
            Ok(config) => loaded.config = Some(config),
            Err(error) if loaded.config.is_some() => {
                error!(error = %Chain(&error), "the files of `http.tls` cannot be used; the former certificate stays in use");
                return false;
            }
            Err(error) => {
                error!(error = %Chain(&error), "the files of `http.tls` cannot be used: HTTP is refused until they can");
                return false;
            }
        }
        true
    }

    fn stamp(&self) -> Stamp {
        let of = |path: &PathBuf| {
            fs::metadata(path).ok().map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
        };
        self.files.iter().flat_map(|(cert, key)| [of(cert), of(key)]).collect()
    }

    /// Reads the files again whenever they have changed, until stopped.
    pub async fn watch(&self, mut stop: Signal) {
        let mut seen = self.stamp();
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                () = sleep(LOOK_INTERVAL), if self.is_used() => {}
            }
            let now = self.stamp();
            let is_new = now != self.loaded.read().unwrap_or_else(PoisonError::into_inner).stamp;
            // Certificate and key are replaced one after the other: both must have stayed as they are for one interval.
            if is_new && now == seen {
                self.reload();
            }
            seen = now;
        }
    }
}
