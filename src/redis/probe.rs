//! A plain connection before the client's. It fails with the error of the system or of TLS, where the client only reports a time-out,
//! and it avoids building a client (11 MB of rings) ten times a second while Redis is down.

use std::{io, net, sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};

use super::{
    address::parse,
    config::Config,
    login::{CONNECT_TIMEOUT, ConnectError},
};
use crate::tls::{self, TlsError};

/// Checks that the server takes a connection and, with TLS, has a valid certificate.
///
/// # Errors
/// Why not.
pub async fn probe(config: &Config) -> Result<(), ConnectError> {
    let parsed = parse(&config.url).map_err(ConnectError::Address)?;
    let server = parsed.server.hosts().into_iter().next().ok_or(ConnectError::Address("it names no host"))?;
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((&*server.host, server.port)));
    let stream = stream.await.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Unreachable)?;
    if !config.uses_tls() {
        return Ok(());
    }
    let client = tls::client_config(&config.tls).map_err(ConnectError::Tls)?;
    let (host, stream) = (server.host.to_string(), stream.into_std().map_err(ConnectError::Unreachable)?);
    let handshake = spawn_blocking(move || tls_handshake(&host, stream, client, CONNECT_TIMEOUT)).await;
    handshake.unwrap_or_else(|error| Err(ConnectError::Unreachable(io::Error::other(error))))
}

/// Makes the TLS handshake, and closes.
fn tls_handshake(
    host: &str,
    mut stream: net::TcpStream,
    client: Arc<ClientConfig>,
    limit: Duration,
) -> Result<(), ConnectError> {
    let refused = |error| ConnectError::Tls(TlsError::Handshake { host: host.to_owned(), error });
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        refused(rustls::Error::General("the name of the host is none that a certificate can have".into()))
    })?;
    let mut connection = ClientConnection::new(client, name).map_err(refused)?;
    let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(limit)));
    prepared.and_then(|()| stream.set_write_timeout(Some(limit))).map_err(ConnectError::Unreachable)?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            return Err(match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ConnectError::Timeout,
                _ => match error.downcast::<rustls::Error>() {
                    Ok(error) => refused(error),
                    Err(error) => ConnectError::Unreachable(error),
                },
            });
        }
    }
    connection.send_close_notify();
    // The server may have closed already.
    let _ = connection.write_tls(&mut stream);
    Ok(())
}
