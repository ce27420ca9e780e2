//! The listener: accepts connections, on a thread and a runtime of its own, with a lower priority than the pipeline.
//!
//! No request runs on the threads that receive and write. A port in use is retried, and ends the process only where `http.required`
//! is set: receiving matters more than HTTP.

use std::{
    future::{Future, pending},
    io,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Handle,
    sync::oneshot,
    task::JoinSet,
    time::sleep,
};
use tracing::{info, warn};

use super::{
    connection::{Connection, serve_connection},
    connection_limit::{ConnectionLimiter, ConnectionLimits},
    dispatcher::RequestDispatcher,
    listening::{Listening, bind_problem, dashboard_url},
};
use crate::{
    api::{
        auth::{ClientAddress, target},
        config::Config,
        state::ApiState,
    },
    backoff::{self, Backoff},
    lifecycle::Signal,
    logging::stage,
};

/// Time for current answers to finish once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted, as far as the system allows (`net.core.somaxconn`). With the usual 128, a burst of
/// connections delays the next client by a second: its first packet is dropped.
const BACKLOG: u32 = 4_096;
/// Niceness of the thread, above that of the pipeline.
const NICENESS: i32 = 5;

/// Serves until stopped.
///
/// # Errors
/// When the thread cannot be started, or when `http.listen` cannot be used and `http.required` is set.
pub async fn run(state: ApiState, listening: Listening, mut stop: Signal) -> Result<(), io::Error> {
    if state.config.listen.is_empty() {
        stop.stopped().await;
        return Ok(());
    }
    let certificate = Arc::clone(&state.certificate);
    let (background, served) = spawn_thread("http-anonymous", pending::<()>())?;
    let (_, mut ended) = spawn_thread("http", listen(state, listening, stop.clone(), background))?;
    let outcome = tokio::select! {
        outcome = &mut ended => outcome,
        () = certificate.watch(stop) => ended.await,
    };
    drop(served);
    outcome.unwrap_or(Ok(()))
}

/// Runs a future on a thread and a runtime of its own. The runtime ends with the future, or when the receiver is dropped.
fn spawn_thread<T: Send + 'static>(
    name: &str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<(Handle, oneshot::Receiver<T>), io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (mut done, ended) = oneshot::channel();
    thread::Builder::new().name(name.into()).spawn(move || {
        let _span = stage("http").entered();
        // For this thread only. Without the permission, it has the priority of the pipeline.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = work => Some(outcome),
                () = done.closed() => None,
            }
        });
        runtime.shutdown_background();
        let _ = outcome.map(|outcome| done.send(outcome));
    })?;
    Ok((handle, ended))
}

async fn listen(state: ApiState, listening: Listening, mut stop: Signal, background: Handle) -> Result<(), io::Error> {
    let config = Arc::clone(&state.config);
    let Some(listener) = bind(&config, &listening, stop.clone()).await? else { return Ok(()) };
    listening.set_listening();
    info!(dashboard = dashboard_url(&config), "HTTP is listening");
    let live = state.live.clone();
    let dispatcher = Arc::new(RequestDispatcher::new(state, background));
    let limiter = ConnectionLimiter::new(ConnectionLimits {
        general: config.connections,
        reserved: config.reserved_connections,
        per_address: config.connections_per_address,
    });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.stopped() => break,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, ClientAddress::from(peer)),
            Err(error) => {
                // Usually out of file descriptors: the pipeline needs the next one more.
                warn!(%error, "HTTP cannot take a connection");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let limited = (!target::is_trusted_address(&config, peer.0)).then_some(peer.0);
        if let Some(address) = limited.filter(|address| limiter.exceeds_share(*address)) {
            let Some(slot) = limiter.try_queue() else { continue };
            let (limiter, dispatcher, stop) = (Arc::clone(&limiter), Arc::clone(&dispatcher), stop.clone());
            connections.spawn(async move {
                let permit = Arc::new(limiter.acquire_queued(address, slot).await);
                serve_connection(Connection { stream, address: peer, permit }, dispatcher, stop).await;
            });
            continue;
        }
        let permit = tokio::select! {
            biased;
            () = stop.stopped() => break,
            permit = limiter.acquire(limited) => Arc::new(permit),
        };
        connections.spawn(serve_connection(
            Connection { stream, address: peer, permit },
            Arc::clone(&dispatcher),
            stop.clone(),
        ));
    }
    // Streams do not end by themselves.
    live.close();
    let all = async { while connections.join_next().await.is_some() {} };
    // An open connection must not delay the stop.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
    Ok(())
}

async fn bind(config: &Config, listening: &Listening, mut stop: Signal) -> Result<Option<TcpListener>, io::Error> {
    let mut backoff = Backoff::new(backoff::LISTEN, u64::from(std::process::id()));
    loop {
        let error = match listener(&config.listen) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) => error,
        };
        let problem = bind_problem(&config.listen, &error);
        if config.required {
            return Err(io::Error::new(error.kind(), format!("{problem}, and `http.required` is set")));
        }
        if backoff.tries() == 0 {
            warn!(problem, "HTTP does not listen; it is tried again, and messages are received and stored without it");
        }
        listening.set_failed(problem);
        tokio::select! {
            () = stop.stopped() => return Ok(None),
            () = sleep(backoff.next_delay()) => {}
        }
    }
}

fn listener(address: &str) -> io::Result<TcpListener> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
