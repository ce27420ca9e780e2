//! Listening: a thread and a runtime of its own, below the pipeline in priority, with a limit on whatever a client may hold.
//!
//! Nothing that a client asks for runs on the threads that receive and write. A port in use is tried again, never fatal:
//! receiving matters more than being asked about it.

use std::{
    future::{Future, pending},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};

use axum::body::Body;
use hyper::{
    Request,
    body::{Bytes, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};
use tracing::{debug, info, warn};

use super::{
    ApiState,
    client::ClientAddress,
    connection_limit::{ConnectionLimiter, ConnectionLimits, ConnectionPermit, RequestGuard},
    health::Arrived,
    memory_budget::HoldsMemory,
    reception::RequestDispatcher,
    recheck::{CurrentAnswer, OngoingAnswer},
    target,
};
use crate::{
    backoff::{self, Backoff},
    lifecycle::Signal,
    logging::stage,
    memory::MemoryLimit,
};

/// How long answers under way may take once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that may wait to be taken, as far as the system allows (`net.core.somaxconn`). With the 128 that are usual, a
/// burst of connections costs whoever comes next a second: his first packet is dropped.
const BACKLOG: u32 = 4_096;
/// How much nicer than the pipeline the thread is.
const NICENESS: i32 = 5;

/// Serves until stopped.
///
/// # Errors
/// When the thread cannot be started; without a port it goes on trying.
pub async fn run(state: ApiState, mut stop: Signal) -> Result<(), io::Error> {
    if state.config.listen.is_empty() {
        stop.stopped().await;
        return Ok(());
    }
    let (background, served) = spawn_thread("http-anonymous", pending())?;
    let (_, ended) = spawn_thread("http", listen(state, stop, background))?;
    let _ = ended.await;
    drop(served);
    Ok(())
}

/// Runs a future on a thread and a runtime of its own; what else is spawned there ends with it, or when the receiver is dropped.
fn spawn_thread(
    name: &str,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<(Handle, oneshot::Receiver<()>), io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (mut done, ended) = oneshot::channel();
    thread::Builder::new().name(name.into()).spawn(move || {
        let _span = stage("http").entered();
        // Counts for this thread only. Where it is not allowed, the server is as important as the rest.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        runtime.block_on(async {
            tokio::select! {
                () = work => {}
                () = done.closed() => {}
            }
        });
        runtime.shutdown_background();
        let _ = done.send(());
    })?;
    Ok((handle, ended))
}

async fn listen(state: ApiState, mut stop: Signal, background: Handle) {
    let config = Arc::clone(&state.config);
    let Some(listener) = bind(&config.listen, stop.clone()).await else { return };
    info!(address = config.listen, "HTTP is listening");
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
                // Out of descriptors, as a rule: the pipeline needs the next one more.
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
    // Streams have no end of their own.
    live.close();
    let all = async { while connections.join_next().await.is_some() {} };
    // A client that keeps its connection open must not keep the daemon.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, all).await;
}

async fn bind(address: &str, mut stop: Signal) -> Option<TcpListener> {
    let mut backoff = Backoff::new(backoff::LISTEN, u64::from(std::process::id()));
    loop {
        match listener(address) {
            Ok(listener) => return Some(listener),
            Err(error) if backoff.tries() == 0 => {
                warn!(%error, address, "`http.listen` cannot be bound; trying again, the pipeline runs without it");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.stopped() => return None,
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

/// A connection, and its permit.
struct Connection {
    stream: TcpStream,
    address: ClientAddress,
    permit: Arc<ConnectionPermit>,
}

/// One connection, request after request, until either side closes it, or it is evicted.
async fn serve_connection(client: Connection, dispatcher: Arc<RequestDispatcher>, mut stop: Signal) {
    let Connection { stream, address, permit } = client;
    let config = Arc::clone(&dispatcher.config);
    let _ = stream.set_nodelay(true);
    let stream = TokioIo::new(WriteTimeoutStream {
        stream,
        write_timeout: config.write_timeout,
        permit: Arc::clone(&permit),
        timer: None,
    });
    let (request_permit, memory) = (Arc::clone(&permit), dispatcher.memory().clone());
    let holds_memory = Arc::new(AtomicBool::new(false));
    let holds = Arc::clone(&holds_memory);
    let current = CurrentAnswer::new();
    let begun = current.clone();
    let answer = service_fn(move |request: Request<Incoming>| {
        let (dispatcher, request_permit, holds) =
            (Arc::clone(&dispatcher), Arc::clone(&request_permit), Arc::clone(&holds));
        let begun = begun.clone();
        async move {
            let guard = request_permit.begin_request();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(address);
            request.extensions_mut().insert(Arrived(Instant::now()));
            let mut response = dispatcher.answer(request, &request_permit).await;
            holds.store(response.extensions().get::<HoldsMemory>().is_some(), Ordering::Relaxed);
            let under_way = begun.begin(&mut response);
            let answered = |body| TrackedBody { body, _request: guard, under_way };
            Ok::<_, std::convert::Infallible>(response.map(answered))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.header.as_usize())
        .half_close(false)
        .serve_connection(stream, answer);
    let served = tokio::select! {
        biased;
        // First: a request that comes too late is not begun.
        () = permit.evicted() => return,
        () = memory_pressure(&memory, &holds_memory) => {
            debug!("a client that has not taken a large answer is cut off: the writer needs the memory");
            return;
        }
        () = current.revoked() => {
            // What the kernel still has for a slow client goes, too.
            let _ = connection.into_parts().io.into_inner().stream.set_zero_linger();
            return;
        }
        served = &mut connection => served,
        () = stop.stopped() => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if let Err(error) = served {
        debug!(%error, "a client went away");
    }
}

/// Returns when the memory that an answer of this connection takes is needed.
async fn memory_pressure(memory: &MemoryLimit, holds_memory: &AtomicBool) {
    let mut pressure = memory.pressure();
    while pressure.changed().await.is_ok() {
        if holds_memory.load(Ordering::Relaxed) {
            return;
        }
    }
    pending().await
}

/// A body; until it is handed over, the connection is being answered. While its end waits to be written, see [`WriteTimeoutStream`].
struct TrackedBody {
    body: Body,
    _request: RequestGuard,
    under_way: Option<OngoingAnswer>,
}

impl hyper::body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.under_way.as_ref().is_some_and(|under_way| !under_way.is_in_force()) {
            // The connection is about to be closed.
            return Poll::Pending;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose peer must take what is written to it, in time. Meanwhile its connection is being answered.
struct WriteTimeoutStream {
    stream: TcpStream,
    write_timeout: Duration,
    permit: Arc<ConnectionPermit>,
    timer: Option<(Pin<Box<Sleep>>, RequestGuard)>,
}

impl WriteTimeoutStream {
    /// `Pending` becomes an error when it has lasted too long.
    fn with_write_timeout<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.timer = None;
            return polled;
        }
        let (write_timeout, permit) = (self.write_timeout, &self.permit);
        let (timer, _) = self.timer.get_or_insert_with(|| (Box::pin(sleep(write_timeout)), permit.begin_request()));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for WriteTimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WriteTimeoutStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.with_write_timeout(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.with_write_timeout(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.with_write_timeout(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
