//! gzip for clients that accept it: text above [`MIN_BYTES`], and exports of any length.
//!
//! The body is compressed slice by slice while it is sent, so an export needs little memory. Its trailer follows, with the checksum
//! of the uncompressed body. Event streams are not compressed, since events would wait in the compressor; nor are more than
//! `http.compressions` answers at once, since each costs about a third of a mebibyte, and time of the thread that serves all
//! clients.

use std::{
    io::Write,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use flate2::{Compression, write::GzEncoder};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cooperative;

/// Minimum size of a compressed answer.
const MIN_BYTES: u64 = 1 << 10;
/// Bytes compressed at once: a millisecond of work.
const SLICE_BYTES: usize = 64 << 10;
/// Slices after which the task yields to other clients.
const YIELD_EVERY: u32 = 8;
/// The types that are compressed. Events are not: they must arrive one by one.
const COMPRESSIBLE_TYPES: [&str; 6] =
    ["application/json", "application/x-ndjson", "text/csv", "text/html", "text/css", "text/javascript"];

/// The layer around all routes; `limiter` has a permit for each compressed answer.
pub async fn layer(State(limiter): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let wanted = accepts_gzip(request.headers());
    let mut response = next.run(request).await;
    if !should_compress(&response) {
        return response;
    }
    // Shared caches must key on Accept-Encoding.
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(permit) = wanted.then(|| limiter.try_acquire_owned().ok()).flatten() else { return response };
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.map(|body| Body::new(Compressed::new(body, permit)))
}

/// Whether `Accept-Encoding` names gzip, or everything, and does not refuse it.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|list| list.to_str().ok());
    let (mut named, mut any) = (None, None);
    for coding in lists.flat_map(|list| list.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let wanted = weight.is_none_or(|weight| weight.trim().parse().is_ok_and(|weight: f32| weight > 0.0));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            named = Some(wanted);
        } else if name == "*" {
            any = Some(wanted);
        }
    }
    named.or(any).unwrap_or(false)
}

fn should_compress(response: &Response) -> bool {
    let headers = response.headers();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    COMPRESSIBLE_TYPES.contains(&kind.split(';').next().unwrap_or_default().trim())
        && !headers.contains_key(header::CONTENT_ENCODING)
        && response.body().size_hint().upper().is_none_or(|most| most >= MIN_BYTES)
}

/// What is sent next.
enum Stage {
    /// More of the body.
    Body,
    /// The trailers, if any.
    Trailers(Option<HeaderMap>),
}

struct Compressed {
    body: Body,
    encoder: GzEncoder<Vec<u8>>,
    /// Read, but not compressed yet.
    rest: Bytes,
    stage: Stage,
    slices: u32,
    _permit: OwnedSemaphorePermit,
}

impl Compressed {
    fn new(body: Body, permit: OwnedSemaphorePermit) -> Self {
        // The fastest level: the text is so repetitive that more effort gains little.
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Self { body, encoder, rest: Bytes::new(), stage: Stage::Body, slices: 0, _permit: permit }
    }

    /// Takes the output of the encoder.
    fn take_output(&mut self) -> Option<Frame<Bytes>> {
        let output = std::mem::take(self.encoder.get_mut());
        (!output.is_empty()).then(|| Frame::data(output.into()))
    }
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if let Stage::Trailers(trailers) = &mut self.stage {
                return Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if !self.rest.is_empty() {
                self.slices += 1;
                if self.slices.is_multiple_of(YIELD_EVERY) {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let next = self.rest.len().min(SLICE_BYTES);
                let slice = self.rest.split_to(next);
                self.encoder.write_all(&slice).map_err(axum::Error::new)?;
                cooperative::yield_core();
                match self.take_output() {
                    Some(frame) => return Poll::Ready(Some(Ok(frame))),
                    None => continue,
                }
            }
            let trailers = match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => {
                        self.rest = data;
                        continue;
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                None => None,
            };
            self.encoder.try_finish().map_err(axum::Error::new)?;
            self.stage = Stage::Trailers(trailers);
            if let Some(frame) = self.take_output() {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, future::poll_fn, io::Read};

    use super::*;

    /// A body of these frames.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    async fn through(frames: Vec<Frame<Bytes>>) -> (Vec<u8>, Option<HeaderMap>, usize) {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut body = Compressed::new(Body::new(Frames(frames.into())), permit);
        let (mut bytes, mut trailers, mut largest) = (Vec::new(), None, 0);
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            match frame.unwrap().into_data() {
                Ok(data) => {
                    assert!(trailers.is_none(), "nothing comes behind the trailers");
                    largest = largest.max(data.len());
                    bytes.extend_from_slice(&data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut text).unwrap();
        (text, trailers, largest)
    }

    #[tokio::test]
    async fn a_body_arrives_complete_in_small_pieces_with_its_trailers() {
        let mut state = 7_u32;
        let noise: Vec<u8> = (0..3 << 20)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-row-count", HeaderValue::from_static("7"));
        let frames = vec![
            Frame::data(Bytes::from(noise.clone())),
            Frame::data(Bytes::new()),
            Frame::data(Bytes::from_static(b"end")),
            Frame::trailers(trailers.clone()),
        ];
        let (text, sent, largest) = through(frames).await;
        assert!(text == [noise.as_slice(), b"end"].concat());
        assert_eq!(sent, Some(trailers));
        assert!(largest < 4 * SLICE_BYTES, "{largest} bytes at once");
        let (text, sent, _) = through(Vec::new()).await;
        assert!(text.is_empty() && sent.is_none(), "an empty body is an empty file");
    }

    #[test]
    fn a_client_says_whether_it_takes_gzip() {
        for (lists, wanted) in [
            (&[][..], false),
            (&["gzip, deflate, br"], true),
            (&["br", "GZIP"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.5"], true),
            (&["*"], true),
            (&["*, gzip;q=0"], false),
            (&["*;q=0, gzip"], true),
            (&["identity"], false),
            (&["gzipped"], false),
        ] {
            let mut headers = HeaderMap::new();
            lists.iter().for_each(|list| {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(list));
            });
            assert_eq!(accepts_gzip(&headers), wanted, "{lists:?}");
        }
    }

    #[test]
    fn only_text_above_a_kibibyte_is_compressed() {
        let long = "x".repeat(2_000);
        for (kind, body, worth) in [
            ("application/json", Body::from(long.clone()), true),
            ("text/html; charset=utf-8", Body::from(long.clone()), true),
            ("application/json", Body::from("{}"), false),
            ("text/csv", Body::new(Frames(VecDeque::new())), true),
            ("text/event-stream; charset=utf-8", Body::new(Frames(VecDeque::new())), false),
            ("image/png", Body::from(long.clone()), false),
        ] {
            let response = Response::builder().header(header::CONTENT_TYPE, kind).body(body).unwrap();
            assert_eq!(should_compress(&response), worth, "{kind}");
        }
    }
}
