//! One connection: its requests one after the other, and the reasons to end it early.

use std::{
    convert::Infallible,
    future::pending,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::Body;
use hyper::{
    Request,
    body::{Bytes, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::Instant};
use tracing::debug;

use super::{
    client_stream::{ClientStream, begins_with_tls, refuse_plain},
    connection_limit::{ConnectionPermit, RequestGuard},
    dispatcher::RequestDispatcher,
    write_timeout::WriteTimeoutStream,
};
use crate::{
    api::{
        auth::{ClientAddress, CurrentAnswer, OngoingAnswer},
        memory_budget::HoldsMemory,
        shared_pages::Arrived,
    },
    lifecycle::Signal,
    memory::MemoryLimit,
};

/// An accepted connection.
pub struct Connection {
    /// Its socket.
    pub stream: TcpStream,
    /// The address of its client.
    pub address: ClientAddress,
    /// Its slot.
    pub permit: Arc<ConnectionPermit>,
}

/// Serves a connection, request after request, until either side closes it or it is evicted.
pub async fn serve_connection(client: Connection, dispatcher: Arc<RequestDispatcher>, mut stop: Signal) {
    let Connection { stream, address, permit } = client;
    let config = Arc::clone(&dispatcher.config);
    let _ = stream.set_nodelay(true);
    let opened = tokio::select! {
        biased;
        // A client that is slow to begin holds an idle connection, which is evicted like any other.
        () = permit.evicted() => return,
        () = stop.stopped() => return,
        opened = open(stream, &dispatcher, &permit) => opened,
    };
    let stream = match opened {
        Ok(Some(stream)) => TokioIo::new(stream),
        Ok(None) => return,
        Err(error) => {
            debug!(%error, "a client went away before its first request");
            return;
        }
    };
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
            Ok::<_, Infallible>(response.map(answered))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.max_header.as_usize())
        .half_close(false)
        .serve_connection(stream, answer);
    let served = tokio::select! {
        biased;
        // Checked first, so that no request is begun on an evicted connection.
        () = permit.evicted() => return,
        () = memory_pressure(&memory, &holds_memory) => {
            debug!("a client that does not read a large answer is disconnected: the writer needs the memory");
            return;
        }
        () = current.revoked() => {
            // Also discards what the kernel still buffers for the client.
            connection.into_parts().io.into_inner().reset_on_close();
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

/// The client's bytes, decrypted where the server speaks TLS. `None`: the client was told what to use instead.
async fn open(
    stream: TcpStream,
    dispatcher: &RequestDispatcher,
    permit: &Arc<ConnectionPermit>,
) -> io::Result<Option<ClientStream>> {
    let (config, certificate) = (&dispatcher.config, &dispatcher.certificate);
    let limit = config.header_timeout;
    if certificate.is_used() {
        permit.wait_for_client();
    }
    let is_plain = certificate.is_used() && !begins_with_tls(&stream, limit).await?;
    let stream = WriteTimeoutStream::new(stream, config.write_timeout, Arc::clone(permit));
    if !certificate.is_used() {
        return Ok(Some(ClientStream::Plain(stream)));
    }
    if is_plain {
        refuse_plain(stream, limit).await?;
        return Ok(None);
    }
    let tls = certificate.acceptor().ok_or_else(|| io::Error::other("there is no usable certificate"))?;
    ClientStream::accept(stream, tls, limit).await.map(Some)
}

/// Returns when memory that an answer of this connection holds is needed elsewhere.
async fn memory_pressure(memory: &MemoryLimit, holds_memory: &AtomicBool) {
    let mut pressure = memory.pressure();
    while pressure.changed().await.is_ok() {
        if holds_memory.load(Ordering::Relaxed) {
            return;
        }
    }
    pending().await
}

/// A body that keeps its connection busy until all of it is handed over; then [`WriteTimeoutStream`] does, until it is written.
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
