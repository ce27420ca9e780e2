//! Why a server cannot be reached, in one sentence that says what to do: its name, its port, TLS, or another protocol.

use std::{fmt, io, sync::Arc, time::Duration};

use rustls::{AlertDescription, CertificateError, ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long a server may take for its first words, when it is asked what it is.
const WORDS_TIMEOUT: Duration = Duration::from_millis(500);
/// A command of Redis. HTTP and Cassandra refuse it, each in its own words.
const QUESTION: &[u8] = b"PING\r\n\r\n\r\n";

/// What a port is expected to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Redis, or Sentinel.
    Redis,
    /// Cassandra.
    Cassandra,
    /// A daemon of this program.
    Http,
}

/// A server that is to be reached.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it should speak.
    pub protocol: Protocol,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Set where it should speak TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Longest wait for a connection, and for a handshake.
    pub limit: Duration,
}

/// Why it cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    text: String,
    /// Whether it may pass by itself: otherwise an operator must change something.
    pub is_transient: bool,
}

/// What answers at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Redis,
    Cassandra,
    Http,
    Tls,
    /// It closed the connection, said nothing, or something else.
    Unknown,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Cassandra => "Cassandra",
            Self::Http => "cascor-ingest",
        }
    }

    fn authority(self) -> &'static str {
        match self {
            Self::Redis => "`redis.tls.ca`",
            Self::Cassandra => "`store.cassandra.tls.ca`",
            Self::Http => "--ca or `client.ca`",
        }
    }

    fn own_certificate(self) -> &'static str {
        match self {
            Self::Redis => "set `redis.tls.cert` and `redis.tls.key`, signed by an authority that the server trusts",
            Self::Cassandra => {
                "set `store.cassandra.tls.cert` and `store.cassandra.tls.key`, signed by an authority that the server trusts"
            }
            Self::Http => "the command line has none to give",
        }
    }
}

impl Server {
    fn use_plain(&self) -> String {
        match self.protocol {
            Protocol::Redis => {
                "name its TLS port, or let `redis.url` begin with redis:// and remove `redis.tls`".into()
            }
            Protocol::Cassandra => "name its TLS port, or remove `store.cassandra.tls`".into(),
            Protocol::Http => format!("the address is probably http://{self}"),
        }
    }

    fn use_tls(&self) -> String {
        match self.protocol {
            Protocol::Redis => "let `redis.url` begin with rediss://".into(),
            Protocol::Cassandra => {
                "set `store.cassandra.tls.enabled = true`, or the files of `store.cassandra.tls`".into()
            }
            Protocol::Http => format!("the address is probably https://{self}"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Server {
    /// Opens a connection, without TLS.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(&self) -> Result<TcpStream, Fault> {
        let found = timeout(self.limit, lookup_host((self.host.as_str(), self.port))).await;
        let addresses: Vec<_> = match found {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => {
                let text = format!(
                    "the name `{}` has no address ({error}); check its spelling, and DNS on this machine",
                    self.host
                );
                return Err(self.transient(text));
            }
            Err(_) => return Err(self.transient(format!("DNS does not answer for the name `{}`", self.host))),
        };
        let stream = timeout(self.limit, TcpStream::connect(&addresses[..])).await;
        stream.map_err(|_| self.silent())?.map_err(|error| self.unreachable(&error))
    }

    /// The same by its first address, for clients that compare addresses with certificates.
    pub async fn by_address(mut self) -> Self {
        let first = match timeout(self.limit, lookup_host((self.host.as_str(), self.port))).await {
            Ok(Ok(mut found)) => found.next(),
            _ => None,
        };
        if let Some(address) = first {
            self.host = address.ip().to_string();
        }
        self
    }

    /// Makes the TLS handshake, if there is to be one; then closes the connection.
    ///
    /// # Errors
    /// Why it fails.
    pub async fn probe(&self) -> Result<(), Fault> {
        let stream = self.connect().await?;
        if self.tls.is_some() {
            self.encrypt(stream).await?;
        }
        Ok(())
    }

    /// Asks the server what it is, after a greeting that failed. `None`: it seems to be what it should be.
    pub async fn diagnose(&self) -> Option<Fault> {
        let stream = match self.connect().await {
            Ok(stream) => stream,
            Err(fault) => return Some(fault),
        };
        let peer = match self.handshake_if_set(stream).await {
            Ok(Channel::Plain(stream)) => match ask(stream).await {
                Ok(Peer::Unknown) | Err(_) if self.speaks_tls().await => Peer::Tls,
                Ok(peer) => peer,
                Err(_) => Peer::Unknown,
            },
            Ok(Channel::Tls(stream)) => match ask(*stream).await {
                Ok(peer) => peer,
                // With TLS 1.3 the server judges our certificate after the handshake.
                Err(error) => return Some(self.handshake_fault(&error)).filter(|_| is_tls_error(&error)),
            },
            Err(fault) => return Some(fault),
        };
        self.wrong_peer(peer)
    }

    /// The fault in the error of a handshake that another client made.
    pub fn handshake_fault(&self, error: &io::Error) -> Fault {
        match tls_error(error) {
            Some(error) => self.tls_fault(error),
            None => self.operator(format!("`{self}` ended the TLS handshake: {error}")),
        }
    }

    /// Makes the TLS handshake, if there is to be one.
    ///
    /// # Errors
    /// Why it fails.
    pub async fn encrypt(&self, stream: TcpStream) -> Result<Channel, Fault> {
        self.handshake_if_set(stream).await
    }

    async fn handshake_if_set(&self, stream: TcpStream) -> Result<Channel, Fault> {
        let Some(config) = &self.tls else { return Ok(Channel::Plain(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(|_| {
            self.operator(format!(
                "`{}` is no name that a certificate can have; write it as the certificate does",
                self.host
            ))
        })?;
        let shaken = timeout(self.limit, TlsConnector::from(Arc::clone(config)).connect(name, stream)).await;
        let error = match shaken {
            Ok(Ok(stream)) => return Ok(Channel::Tls(Box::new(stream))),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        if let Some(error) = error.as_ref().filter(|error| is_tls_error(error) && !is_not_tls(error)) {
            return Err(self.handshake_fault(error));
        }
        // No TLS came back: what else does?
        let plain = Self { tls: None, ..self.clone() };
        let peer = match plain.connect().await {
            Ok(stream) => ask(stream).await.unwrap_or(Peer::Unknown),
            Err(_) => Peer::Unknown,
        };
        Err(match (peer, error) {
            (Peer::Unknown | Peer::Tls, None) => self.silent(),
            (Peer::Unknown | Peer::Tls, Some(error)) if !is_tls_error(&error) => self.transient(format!(
                "`{self}` ended the TLS handshake: {error}; it may speak no TLS: {}",
                self.use_plain()
            )),
            (peer, _) if peer == self.protocol.peer() || matches!(peer, Peer::Unknown | Peer::Tls) => {
                self.operator(format!("`{self}` speaks no TLS; {}", self.use_plain()))
            }
            (peer, _) => self.wrong_peer(peer).unwrap_or_else(|| self.silent()),
        })
    }

    /// Whether the port answers a handshake of TLS, whatever its certificate.
    async fn speaks_tls(&self) -> bool {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
        let (Ok(config), Ok(stream)) = (config, self.connect().await) else { return false };
        let name = ServerName::try_from(self.host.clone()).or_else(|_| ServerName::try_from("localhost"));
        let Ok(name) = name else { return false };
        match timeout(WORDS_TIMEOUT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => is_tls_error(&error) && !is_not_tls(&error),
            Err(_) => false,
        }
    }

    fn wrong_peer(&self, peer: Peer) -> Option<Fault> {
        if peer == self.protocol.peer() {
            return None;
        }
        let is = match peer {
            Peer::Redis => "Redis",
            Peer::Cassandra => "Cassandra",
            Peer::Http => "a web server (HTTP)",
            Peer::Tls => return Some(self.operator(format!("`{self}` speaks TLS; {}", self.use_tls()))),
            Peer::Unknown => return None,
        };
        Some(self.operator(format!("`{self}` is {is}, not {}; correct host and port", self.protocol.name())))
    }

    fn tls_fault(&self, error: &rustls::Error) -> Fault {
        let named = |what: &str, remedy: String| self.operator(format!("the certificate of `{self}` {what}; {remedy}"));
        match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    named("has expired", "renew it on the server, or set the clock of this machine".into())
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    named("is not valid yet", "set the clock of this machine, or of the one that issued it".into())
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => named(
                    &format!("is for other names than `{}`", self.host),
                    format!("connect by a name that it has, or have it issued for this one ({certificate})"),
                ),
                // A bad signature: another authority of the same name is trusted.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => named(
                    "is signed by an authority that is not trusted here",
                    format!("name the file of that authority in {}", self.protocol.authority()),
                ),
                other => named("is not accepted", format!("have another issued ({other:?})")),
            },
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                self.operator(format!("`{self}` asks for a client certificate; {}", self.protocol.own_certificate()))
            }
            rustls::Error::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::AccessDenied),
            ) => self.operator(format!(
                "`{self}` does not accept our certificate ({alert:?}); {}",
                self.protocol.own_certificate()
            )),
            rustls::Error::InvalidMessage(_) => self.operator(format!("`{self}` speaks no TLS; {}", self.use_plain())),
            other => self.operator(format!("the TLS handshake with `{self}` failed: {other}")),
        }
    }

    /// The fault in the error of a connection that another client tried to open.
    pub fn unreachable(&self, error: &io::Error) -> Fault {
        let name = self.protocol.name();
        self.transient(match error.kind() {
            io::ErrorKind::ConnectionRefused => format!(
                "nothing listens at `{self}` (connection refused); start {name} there, or correct host and port"
            ),
            io::ErrorKind::TimedOut => return self.silent(),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                format!("there is no way to `{self}` ({error}); check the address and the network of this machine")
            }
            _ => format!("failed to connect to `{self}`: {error}"),
        })
    }

    fn silent(&self) -> Fault {
        self.transient(format!(
            "`{self}` does not answer in time; a firewall may drop the packets, or the machine or {} may hang",
            self.protocol.name()
        ))
    }

    fn transient(&self, text: String) -> Fault {
        Fault { text, is_transient: true }
    }

    fn operator(&self, text: String) -> Fault {
        Fault { text, is_transient: false }
    }
}

impl Protocol {
    fn peer(self) -> Peer {
        match self {
            Self::Redis => Peer::Redis,
            Self::Cassandra => Peer::Cassandra,
            Self::Http => Peer::Http,
        }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub enum Channel {
    /// Without encryption.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Says something that every protocol answers, and looks at the answer.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Peer> {
    stream.write_all(QUESTION).await?;
    stream.flush().await?;
    let mut words = [0; 8];
    let mut length = 0;
    while length < 5 {
        match timeout(WORDS_TIMEOUT, stream.read(&mut words[length..])).await {
            Ok(Ok(0)) | Err(_) => break,
            Ok(Ok(read)) => length += read,
            Ok(Err(error)) if length == 0 => return Err(error),
            Ok(Err(_)) => break,
        }
    }
    Ok(match &words[..length] {
        [b'+' | b'-', ..] => Peer::Redis,
        [b'H', b'T', b'T', b'P', ..] => Peer::Http,
        // A version of the native protocol, with the bit of an answer.
        [0x81..=0x86, ..] => Peer::Cassandra,
        // An alert of TLS.
        [0x15, 0x03, ..] => Peer::Tls,
        _ => Peer::Unknown,
    })
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn is_tls_error(error: &io::Error) -> bool {
    tls_error(error).is_some()
}

/// Whether what came back was not TLS.
fn is_not_tls(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidMessage(_)))
}
