//! Promises of every store about the deletion of a run.

use cascor_ingest::{
    event::{EventRow, GapRow, Row, RunRow, TopologyRow, gap_id, status},
    store::{DELETION_RETENTION, DaysQuery, RangeQuery, RunsQuery},
    units,
};
use uuid::Uuid;

use super::{Shared, key, metrics_row, now, put, runs::run_row};

pub async fn a_deleted_run_goes_whole_and_alone(store: &Shared) {
    let (deleted, other, now) = (Uuid::new_v4(), Uuid::new_v4(), now());
    let gap = |run_id: Uuid| GapRow {
        started_at: now,
        ended_at: now + 1_000,
        gap_id: gap_id("test", "redis", None, &run_id.to_string(), now),
        reason: "seq_gap".into(),
        source: "redis".into(),
        channel: None,
        instance: "test".into(),
        run_id: Some(run_id),
        lost: Some(1),
    };
    let write = async |run_id: Uuid| {
        let rows = [
            Row::Metrics(metrics_row(run_id, now, "m")),
            Row::Topology(TopologyRow {
                key: key(run_id, now, "t"),
                topology_json: "{}".into(),
                ..TopologyRow::default()
            }),
            Row::Event(EventRow {
                key: key(run_id, now, "e"),
                r#type: "note".into(),
                payload_json: "{}".into(),
                epoch: None,
            }),
            Row::Gap(gap(run_id)),
        ];
        for row in rows {
            put(store, [row]).await;
        }
        let run = RunRow { start_time: Some(now), status: Some(status::COMPLETED.into()), ..run_row(run_id) };
        store.write_run(&run, None).await.unwrap();
        store.write_metric_names(run_id, &["f1".to_owned()]).await.unwrap();
    };
    // How many rows there are in each table.
    let found = async |run_id: Uuid| {
        let query = RangeQuery::newest(run_id, 10);
        let days = DaysQuery { start: now, end: now, limit: 10_000 };
        let runs = store.runs(&RunsQuery { limit: 10_000, ..RunsQuery::default() }).await.unwrap().rows();
        [
            store.metrics(&query).await.unwrap().len(),
            store.topology(&query).await.unwrap().len(),
            store.events(&query).await.unwrap().len(),
            usize::from(store.read_run(run_id).await.unwrap().is_some()),
            store.metric_names(run_id).await.unwrap().len(),
            store.gaps(&days).await.unwrap().iter().filter(|gap| gap.run_id == Some(run_id)).count(),
            runs.iter().filter(|run| run.run_id == run_id).count(),
            usize::from(store.is_listed(run_id, now).await.unwrap()),
        ]
    };
    write(deleted).await;
    write(other).await;
    assert_eq!((found(deleted).await, found(other).await), ([1; 8], [1; 8]));
    let before = units::now();
    store.delete_run(deleted, Some("test")).await.unwrap();
    let after = units::now();
    assert_eq!((found(deleted).await, found(other).await), ([0; 8], [1; 8]));
    let deletions = store.deletions().await.unwrap();
    let deleted_at = deletions[&deleted];
    assert!(before <= deleted_at && deleted_at <= after, "{before} {deleted_at} {after}");
    assert!(!deletions.contains_key(&other) && DELETION_RETENTION.as_secs() == 90 * 86_400);

    // What was received later begins the run anew, even under the keys of before.
    store.deletions_applied(&deletions);
    write(deleted).await;
    assert_eq!(found(deleted).await, [1; 8]);
    store.delete_run(deleted, None).await.unwrap();
    assert_eq!(found(deleted).await, [0; 8]);
    assert!(store.deletions().await.unwrap()[&deleted] > deleted_at);
    store.delete_run(Uuid::new_v4(), None).await.unwrap();
}
