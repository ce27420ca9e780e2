//! Messages of one run that the tables lack, found by gaps in the `seq` of its stored rows.
//!
//! Rows are read page by page, and only the ranges of `seq` that were met are kept: one for each gap, [`SPANS_MAX`] at most. A
//! range that is missing may have been lost, may have expired, or may be a message that makes no row in a run's tables (a
//! dataset). What precedes the first and what follows the last stored `seq` is not known here.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    event::EventKey,
    store::{RangeQuery, Store, StoreError},
    units::Micros,
    wire,
};

/// Ranges kept at once. Beyond, only the lowest are kept, and the answer says that it is not exact.
const SPANS_MAX: usize = 65_536;
/// Rows read at once: of metrics only the key and `seq`, of events and topologies everything.
const METRICS_PAGE_ROWS: usize = 2_000;
const EVENT_PAGE_ROWS: usize = 64;
const TOPOLOGY_PAGE_ROWS: usize = 4;

/// The stored `seq` of a run, and the missing ones between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The lowest and the highest stored `seq`; absent: no row has one.
    pub range: Option<(i64, i64)>,
    /// How many different `seq` are stored.
    pub stored: u64,
    /// How many are missing in between.
    pub lost: u64,
    /// Whether the list is complete. With more than [`SPANS_MAX`] ranges it ends with `range`.
    pub exact: bool,
    /// The missing ranges, lowest first.
    pub gaps: Vec<SeqGap>,
}

/// A range of `seq` that no row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqGap {
    /// First missing.
    pub first: i64,
    /// Last missing.
    pub last: i64,
    /// Time of the row in front of it.
    pub after: Micros,
    /// Time of the row behind it.
    pub before: Micros,
}

/// Reads all rows of the run.
///
/// # Errors
/// When the store does not answer.
pub async fn missing(store: &dyn Store, run_id: Uuid) -> Result<Missing, StoreError> {
    let mut spans = Spans::default();
    let mut query = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, METRICS_PAGE_ROWS) };
    loop {
        let rows = store.seqs(&query).await?;
        let more = rows.len() == query.limit;
        spans.insert_page(rows, &mut query);
        if !more {
            break;
        }
    }
    query = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, EVENT_PAGE_ROWS) };
    loop {
        let rows = store.events(&query).await?;
        let more = query.is_filled(&rows);
        let rows = rows.into_iter().map(|row| (row.key, seq_in(&row.payload_json)));
        spans.insert_page(rows, &mut query);
        if !more {
            break;
        }
    }
    query = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, TOPOLOGY_PAGE_ROWS) };
    loop {
        let rows = store.topology(&query).await?;
        let more = query.is_filled(&rows);
        let rows = rows.into_iter().map(|row| (row.key, seq_in(&row.topology_json)));
        spans.insert_page(rows, &mut query);
        if !more {
            break;
        }
    }
    Ok(spans.finish())
}

/// The `seq` of a stored message, by the rules that intake read it by.
fn seq_in(json: &str) -> Option<i64> {
    wire::seq(json.as_bytes())
}

/// Ranges of `seq` without gaps, by their first.
#[derive(Default)]
struct Spans {
    spans: BTreeMap<i64, Span>,
    /// Nothing from this `seq` on is kept.
    truncated_at: Option<i64>,
}

#[derive(Clone, Copy)]
struct Span {
    last: i64,
    first_at: Micros,
    last_at: Micros,
}

impl Spans {
    /// Takes in a page and moves the query behind it.
    fn insert_page(&mut self, rows: impl IntoIterator<Item = (EventKey, Option<i64>)>, query: &mut RangeQuery) {
        for (key, seq) in rows {
            query.after = Some(key.cursor());
            if let Some(seq) = seq {
                self.insert(seq, key.timestamp);
            }
        }
    }

    fn insert(&mut self, seq: i64, at: Micros) {
        if self.truncated_at.is_some_and(|cut| seq >= cut) {
            return;
        }
        let before = self.spans.range(..=seq).next_back().map(|(first, span)| (*first, *span));
        let mut new = Span { last: seq, first_at: at, last_at: at };
        let mut first = seq;
        if let Some((start, span)) = before {
            if seq <= span.last {
                return; // the same message, delivered twice
            }
            if span.last + 1 == seq {
                (first, new.first_at) = (start, span.first_at);
            }
        }
        if let Some(next) = seq.checked_add(1).and_then(|next| self.spans.remove(&next)) {
            (new.last, new.last_at) = (next.last, next.last_at);
        }
        self.spans.insert(first, new);
        if self.spans.len() > SPANS_MAX {
            self.truncated_at = self.spans.pop_last().map(|(first, _)| first);
        }
    }

    fn finish(self) -> Missing {
        let range = self.spans.first_key_value().zip(self.spans.last_key_value());
        let range = range.map(|((first, _), (_, span))| (*first, span.last));
        let stored = self.spans.iter().map(|(first, span)| span.last.abs_diff(*first) + 1).sum();
        let gaps: Vec<_> = (self.spans.values())
            .zip(self.spans.iter().skip(1))
            .map(|(one, (next, other))| SeqGap {
                first: one.last + 1,
                last: next - 1,
                after: one.last_at,
                before: other.first_at,
            })
            .collect();
        let lost = gaps.iter().map(|gap| gap.last.abs_diff(gap.first) + 1).sum();
        Missing { range, stored, lost, exact: self.truncated_at.is_none(), gaps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seqs: impl IntoIterator<Item = i64>) -> Missing {
        let mut spans = Spans::default();
        seqs.into_iter().for_each(|seq| spans.insert(seq, seq.saturating_mul(10)));
        spans.finish()
    }

    #[test]
    fn gaps_have_their_bounds_in_any_order_of_rows() {
        let expected = Missing {
            range: Some((3, 12)),
            stored: 6,
            lost: 4,
            exact: true,
            gaps: vec![
                SeqGap { first: 5, last: 7, after: 40, before: 80 },
                SeqGap { first: 10, last: 10, after: 90, before: 110 },
            ],
        };
        assert_eq!(of([3, 4, 8, 9, 11, 12]), expected);
        assert_eq!(of([12, 3, 9, 9, 8, 4, 11, 3]), expected);
        assert_eq!(of([]).range, None);
        assert_eq!(of([0, 1, 2]).gaps, []);
        assert_eq!(of([i64::MAX, 0]).lost, i64::MAX.unsigned_abs() - 1);
    }

    #[test]
    fn any_number_of_gaps_takes_bounded_memory_and_the_answer_says_so() {
        let found = of((0..200_000).map(|n| n * 2));
        assert!(!found.exact && found.gaps.len() < SPANS_MAX);
        assert_eq!(found.lost, found.gaps.len() as u64);
        assert_eq!(found.gaps[0], SeqGap { first: 1, last: 1, after: 0, before: 20 });
    }

    #[test]
    fn seq_is_found_where_messages_have_it() {
        for (json, seq) in [
            (r#"{"type":"state","seq":7}"#, Some(7)),
            (r#"{"type":"state","data":{"sequence":"8"}}"#, Some(8)),
            (r#"{"type":"state","seq_no":1,"data":{"seq":9.0}}"#, Some(9)),
            (r#"{"type":"event","data":{"event_type":"x","details":{"seq":4}}}"#, Some(4)),
            (r#"{"type":"state","seq":5,"data":"Started"}"#, Some(5)),
            (r#"{"type":"state","seq":6,"data":[1,2]}"#, Some(6)),
            (r#"{"type":"state","data":[1,2]}"#, None),
            (r#"{"type":"state","seq":7,"data":{"details":["x"]}}"#, Some(7)),
            (r#"{"edges":[1,2],"seq":10}"#, Some(10)),
            (r#"{"seq":-1}"#, None),
            (r#"{"nodes":[1,2]}"#, None),
            ("broken", None),
        ] {
            assert_eq!(seq_in(json), seq, "{json}");
        }
    }
}
