//! What is appended to the streams while doctor listens. It reads without a group: no daemon gets less.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use jiff::tz::TimeZone;
use tokio::time::{Instant, timeout_at};

use super::heard::Heard;
use crate::{config::Settings, source::streams::Tail, units};

/// What was heard.
#[derive(Default)]
pub(super) struct Listened {
    /// By the name of the stream.
    pub(super) streams: BTreeMap<String, Heard>,
    /// Whether some stream could not be read.
    pub(super) is_incomplete: bool,
}

/// Reads all streams that are configured.
pub(super) async fn listen(settings: &Settings, until: Instant, zone: &TimeZone) -> Listened {
    let listening = Tail::all(&settings.redis).into_iter().map(|tail| listen_to(tail, settings, until, zone));
    let mut all = Listened::default();
    for listened in join_all(listening).await {
        all.streams.extend(listened.streams);
        all.is_incomplete |= listened.is_incomplete;
    }
    all
}

async fn listen_to(mut tail: Tail, settings: &Settings, until: Instant, zone: &TimeZone) -> Listened {
    let mut listened = Listened::default();
    while let Ok(tailed) = timeout_at(until, tail.next()).await {
        for frame in tailed.frames {
            let heard = listened.streams.entry(frame.channel.to_string()).or_insert_with(Heard::of_stream);
            heard.add(&frame.payload, &settings.limits, units::now(), zone);
        }
    }
    listened.is_incomplete = tail.has_error();
    listened
}
