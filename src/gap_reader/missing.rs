//! Messages of one run that the tables lack, found by gaps in the `seq` of its stored rows.
//!
//! A producer counts anew from each start of the run: a row belongs to the last start that is not later than it. Rows are read page
//! by page, and only the ranges of `seq` that were met are kept: one for each gap, [`SPANS_MAX`] at most. A range that is missing may
//! have been lost, may have expired, or may be a message that makes no row in a run's tables (a dataset). What precedes the first
//! and what follows the last stored `seq` of a start is not known here.

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
/// Starts of a run that are told apart; later ones count as one.
const STARTS_MAX: usize = 4_096;
/// Rows read at once: of metrics only the key and `seq`, of events and topologies everything.
const METRICS_PAGE_ROWS: usize = 2_000;
const EVENT_PAGE_ROWS: usize = 64;
const TOPOLOGY_PAGE_ROWS: usize = 4;

/// The stored `seq` of a run, and the missing ones between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The lowest and the highest stored `seq` of all starts; absent: no row has one.
    pub range: Option<(i64, i64)>,
    /// How many different `seq` are stored, over all starts.
    pub stored: u64,
    /// How many are missing in between, over all starts.
    pub lost: u64,
    /// Whether the list is complete. With more than [`SPANS_MAX`] ranges it ends with `range`.
    pub exact: bool,
    /// The missing ranges, start by start, lowest first.
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
    // Events come first, because they have the starts.
    let mut query = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, EVENT_PAGE_ROWS) };
    loop {
        let rows = store.events(&query).await?;
        let more = query.is_filled(&rows);
        for row in rows {
            if wire::is_run_start(&row.r#type) {
                spans.start(row.key.timestamp);
            }
            spans.insert_page([(row.key, seq_in(&row.payload_json))], &mut query);
        }
        if !more {
            break;
        }
    }
    query = RangeQuery { ascending: true, ..RangeQuery::newest(run_id, METRICS_PAGE_ROWS) };
    loop {
        let rows = store.seqs(&query).await?;
        let more = rows.len() == query.limit;
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

/// A `seq` of a start of the run: the number of starts up to it, and the `seq`.
type Place = (usize, i64);

/// Ranges of `seq` without gaps, by their first.
#[derive(Default)]
struct Spans {
    spans: BTreeMap<Place, Span>,
    /// Times of the run's starts, in order.
    starts: Vec<Micros>,
    /// Nothing from this place on is kept.
    truncated_at: Option<Place>,
}

#[derive(Clone, Copy)]
struct Span {
    last: i64,
    first_at: Micros,
    last_at: Micros,
}

impl Spans {
    /// The run was started at this time, later than what was inserted until now.
    fn start(&mut self, at: Micros) {
        if self.starts.len() < STARTS_MAX {
            self.starts.push(at);
        }
    }

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
        let start = self.starts.partition_point(|start| *start <= at);
        let place = (start, seq);
        if self.truncated_at.is_some_and(|cut| place >= cut) {
            return;
        }
        let before = self.spans.range((start, i64::MIN)..=place).next_back().map(|(first, span)| (*first, *span));
        let mut new = Span { last: seq, first_at: at, last_at: at };
        let mut first = place;
        if let Some((before, span)) = before {
            if seq <= span.last {
                return; // the same message, delivered twice
            }
            if span.last + 1 == seq {
                (first, new.first_at) = (before, span.first_at);
            }
        }
        if let Some(next) = seq.checked_add(1).and_then(|next| self.spans.remove(&(start, next))) {
            (new.last, new.last_at) = (next.last, next.last_at);
        }
        self.spans.insert(first, new);
        if self.spans.len() > SPANS_MAX {
            self.truncated_at = self.spans.pop_last().map(|(first, _)| first);
        }
    }

    fn finish(self) -> Missing {
        let first = self.spans.keys().map(|(_, first)| *first).min();
        let range = first.zip(self.spans.values().map(|span| span.last).max());
        let stored = self.spans.iter().map(|((_, first), span)| span.last.abs_diff(*first) + 1).sum();
        let gaps: Vec<_> = (self.spans.iter())
            .zip(self.spans.iter().skip(1))
            .filter(|(((start, _), _), ((next, _), _))| start == next)
            .map(|((_, one), ((_, next), other))| SeqGap {
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
    fn each_start_of_the_run_counts_anew() {
        let mut spans = Spans::default();
        [100, 200].into_iter().for_each(|at| spans.start(at));
        for (seq, at) in [(9, 50), (1, 100), (2, 110), (5, 120), (1, 200), (2, 201), (3, 202), (6, 203), (4, 130)] {
            spans.insert(seq, at);
        }
        let found = spans.finish();
        assert_eq!((found.range, found.stored, found.lost), (Some((1, 9)), 9, 3));
        let expected = [
            SeqGap { first: 3, last: 3, after: 110, before: 130 },
            SeqGap { first: 4, last: 5, after: 202, before: 203 },
        ];
        assert_eq!(found.gaps, expected);
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
