//! Promises of every store about ranges and pages.

use cascor_ingest::{
    curve::Field,
    event::{EventRow, MemSize, MetricsRow, Row},
    store::{Prefetch, RangeQuery, SamplesQuery},
    units::Micros,
};
use uuid::Uuid;

use super::{Shared, metrics_row, now, put};

pub async fn ranges_are_inclusive_to_the_microsecond(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    // Around the borders of milliseconds.
    let times: Vec<Micros> = [0, 1, 998, 999, 1_000, 1_001, 1_999, 2_000, 5_500].map(|n| now + n).into();
    put(store, times.iter().map(|at| Row::Metrics(metrics_row(run_id, *at, "x")))).await;
    for start in [None, Some(0), Some(1), Some(999), Some(1_000), Some(1_500), Some(2_000), Some(9_999)] {
        for end in [None, Some(-1), Some(0), Some(998), Some(999), Some(1_000), Some(1_001), Some(5_500)] {
            for (ascending, limit) in [(true, 100), (false, 100), (true, 2), (false, 2)] {
                let (start, end) = (start.map(|n| now + n), end.map(|n| now + n));
                let query = RangeQuery { start, end, ascending, ..RangeQuery::newest(run_id, limit) };
                let mut expected: Vec<_> = times
                    .iter()
                    .copied()
                    .filter(|at| start.is_none_or(|start| *at >= start) && end.is_none_or(|end| *at <= end))
                    .collect();
                if !ascending {
                    expected.reverse();
                }
                expected.truncate(limit);
                let found = store.metrics(&query).await.unwrap();
                assert_eq!(found.iter().map(|row| row.key.timestamp).collect::<Vec<_>>(), expected, "{query:?}");
            }
        }
    }
}

pub async fn a_page_ends_with_the_row_that_passes_its_bytes(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let large = Some("x".repeat(300_000));
    // Small rows first, so that a store which asks for more and more of them meets the large ones at speed.
    let rows: Vec<_> = (0..150)
        .map(|n| metrics_row(run_id, now + n * 1_000, &format!("{n}")))
        .map(|row| MetricsRow {
            rest_json: large.as_deref().filter(|_| row.key.timestamp >= now + 100_000).map(Into::into),
            ..row
        })
        .collect();
    for chunk in rows.chunks(25) {
        put(store, chunk.iter().cloned().map(Row::Metrics)).await;
    }
    for (ascending, limit, ahead) in [(true, 1_000, None), (false, 1_000, None), (true, 20, Some(Prefetch::default()))]
    {
        let mut query =
            RangeQuery { ascending, bytes: 1_000_000, prefetch: ahead, ..RangeQuery::newest(run_id, limit) };
        let mut found = Vec::new();
        loop {
            let page = store.metrics(&query).await.unwrap();
            let bytes: usize = page.iter().map(MemSize::bytes).sum();
            assert!(bytes < 1_000_000 + 301_000, "{bytes} bytes in {} rows", page.len());
            let more = query.is_filled(&page);
            let last = page.last().map(|row| (row.key.timestamp, row.key.event_id));
            query.after = last.or(query.after);
            found.extend(page);
            if !more {
                break;
            }
        }
        if !ascending {
            found.reverse();
        }
        assert!(found == rows, "each row once, in order");
    }
    let fields = vec![Field::Extra("none".into()), Field::train_loss()];
    let query = SamplesQuery { range: RangeQuery { bytes: 1, ..RangeQuery::newest(run_id, 120) }, fields };
    assert_eq!(
        store.samples(&query).await.unwrap().rows.len(),
        120,
        "numbers are small, whatever else their rows have"
    );
}

pub async fn pages_join_without_gap_or_overlap(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let rows: Vec<_> = (0..40).map(|n| metrics_row(run_id, now + n / 4 * 333, &format!("{n}"))).collect();
    put(store, rows.iter().cloned().map(Row::Metrics)).await;
    let ahead = || Some(Prefetch::default());
    for (ascending, ahead) in [(true, None), (false, None), (true, ahead()), (false, ahead())] {
        let mut query = RangeQuery { ascending, prefetch: ahead, ..RangeQuery::newest(run_id, 3) };
        let mut found = Vec::new();
        loop {
            let page = store.metrics(&query).await.unwrap();
            // A page that exceeds the caller's memory is requested again.
            if found.len() % 2 == 1 {
                assert_eq!(store.metrics(&query).await.unwrap(), page);
            }
            let seqs: Vec<_> = page.iter().map(|row| (row.key, row.columns.seq)).collect();
            assert_eq!(store.seqs(&query).await.unwrap(), seqs, "the same rows, only narrower");
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 3);
            query.after = Some((last.key.timestamp, last.key.event_id));
            found.extend(page.into_iter().map(|row| row.key));
        }
        let mut expected: Vec<_> = rows.iter().map(|row| row.key).collect();
        expected.sort();
        if !ascending {
            expected.reverse();
        }
        assert_eq!(found, expected, "ascending: {ascending}");
    }
}

/// A paged read must not restart where one page could hold the rest.
pub async fn any_limit_is_exact(store: &Shared) {
    let (run_id, now) = (Uuid::new_v4(), now());
    let metrics: Vec<MetricsRow> = (0..150).map(|n| metrics_row(run_id, now - n * 1_000_000, "x")).collect();
    put(store, metrics.iter().cloned().map(Row::Metrics)).await;
    let event =
        |row: &MetricsRow| EventRow { key: row.key, r#type: "state".into(), payload_json: "{}".into(), epoch: None };
    let events: Vec<EventRow> = metrics.iter().map(event).collect();
    put(store, events.iter().cloned().map(Row::Event)).await;
    for limit in (1..=70).chain([127, 128, 129, 149, 150, 151, 1_000]) {
        let mut query = RangeQuery::newest(run_id, limit);
        assert_eq!(store.metrics(&query).await.unwrap(), metrics[..limit.min(150)], "{limit}");
        assert_eq!(store.events(&query).await.unwrap(), events[..limit.min(150)], "{limit}");
        query.ascending = true;
        let oldest: Vec<_> = metrics.iter().rev().take(limit).cloned().collect();
        assert_eq!(store.metrics(&query).await.unwrap(), oldest, "{limit}, the oldest first");
    }
}
