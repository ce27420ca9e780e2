//! The trailer of an export, by which a receiver checks it.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use crate::{event::GapRow, render::JsonRows};

/// By which a receiver checks an export.
#[derive(Clone, Debug, Default)]
pub struct Trailer {
    /// Number of rows.
    pub rows: u64,
    /// XXH3-64 of everything before.
    pub checksum: u64,
    /// Where a later export continues; absent: no rows.
    pub cursor: Option<String>,
    /// Gaps while the runs were recorded.
    pub gaps: Vec<GapRow>,
}

impl Trailer {
    /// The names of the fields, as the head of the answer announces them.
    pub const NAMES: &str = "x-row-count, x-checksum-xxh3, x-cursor, x-gap-count, x-gaps";
    /// Gap rows that fit a header.
    const MAX_HEADER_GAPS: usize = 20;

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "rows": self.rows,
            "checksum_xxh3": format!("{:016x}", self.checksum),
            "cursor": self.cursor,
            "gaps": JsonRows(&self.gaps),
        })
    }

    /// As header fields.
    pub fn headers(&self) -> HeaderMap {
        let some = &self.gaps[..self.gaps.len().min(Self::MAX_HEADER_GAPS)];
        let gaps = serde_json::to_string(&JsonRows(some)).unwrap_or_default();
        let values = [
            ("x-row-count", self.rows.to_string()),
            ("x-checksum-xxh3", format!("{:016x}", self.checksum)),
            ("x-cursor", self.cursor.clone().unwrap_or_default()),
            ("x-gap-count", self.gaps.len().to_string()),
            ("x-gaps", gaps),
        ];
        let header = |(name, value): (&'static str, String)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        };
        values.into_iter().filter_map(header).collect()
    }
}

/// What the writer sends.
pub enum BodyChunk {
    /// More of the body.
    Bytes(Bytes),
    /// Its end.
    End(Box<Trailer>),
}

impl From<Bytes> for BodyChunk {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
