//! Rows with long texts: the cost for neighbouring rows, and lossless round trips.

use super::*;
use crate::{
    event::{EventRow, SharedText, Table, TopologyRow},
    memory::LARGE_VALUE,
    store::Partition,
};

/// Texts that stay in the row, and texts that do not.
const LENGTHS: [usize; 6] = [0, 2, 4_096, 4_098, 100_000, 3 << 20];

fn row(run_id: Uuid, timestamp: Micros, rest: Option<usize>) -> MetricsRow {
    let Row::Metrics(row) = batch(run_id, 1..2).rows[0].clone() else { panic!() };
    let key = EventKey { run_id, timestamp, event_id: 1 };
    MetricsRow { key, rest_json: rest.map(|bytes| "é".repeat(bytes / 2).into()), ..row }
}

fn batch_of(rows: Vec<MetricsRow>) -> Batch {
    let partition = Partition::Id(rows[0].key.run_id);
    let rows: Vec<Row> = rows.into_iter().map(Row::Metrics).collect();
    Batch { table: Table::Metrics, partition, rows: rows.into() }
}

fn write_rows(writer: &mut Writer, rows: Vec<MetricsRow>) {
    let (job, mut answer) = write_request(batch_of(rows));
    writer.commit_group(&mut vec![job]);
    answer.try_recv().unwrap().unwrap();
}

/// Extra metrics of about this many bytes.
fn numbers(bytes: usize) -> std::collections::BTreeMap<String, f64> {
    (0..bytes / 100).map(|n| (format!("{n:090}"), n as f64)).collect()
}

#[tokio::test]
async fn long_texts_round_trip_through_the_store_and_the_view() {
    let fixture = Fixture::new();
    let (store, run_id, at) = (fixture.store(), Uuid::new_v4(), now());
    let rows: Vec<MetricsRow> = LENGTHS
        .iter()
        .flat_map(|rest| LENGTHS.map(|extra| (*rest, extra)))
        .enumerate()
        .map(|(n, (rest, extra))| MetricsRow { extra: numbers(extra), ..row(run_id, at + n as i64, Some(rest)) })
        .chain([row(run_id, at + 100, None)])
        .collect();
    for _ in 0..2 {
        store.write(&batch_of(rows.clone())).await.unwrap();
    }
    let everything = RangeQuery { bytes: usize::MAX, ascending: true, ..RangeQuery::newest(run_id, 100) };
    assert!(store.metrics(&everything).await.unwrap() == rows);
    let name = format!("{:090}", 7);
    let fields = vec![crate::curve::Field::named(&name)];
    let samples = store.samples(&SamplesQuery { range: everything, fields }).await.unwrap();
    assert_eq!(samples.values, rows.iter().map(|row| row.extra.get(&name).copied()).collect::<Vec<_>>());
    // A page ends with the row that exceeds its bytes, wherever its texts are stored.
    let page = RangeQuery {
        bytes: 4 << 20,
        ascending: true,
        start: Some(rows[30].key.timestamp),
        ..RangeQuery::newest(run_id, 9)
    };
    assert!(store.metrics(&page).await.unwrap() == rows[30..32]);

    let connection = Connection::open(fixture.path()).unwrap();
    let sql = "SELECT extra, rest_json FROM training_metrics WHERE run_id = ?1 ORDER BY timestamp";
    let mut statement = connection.prepare(sql).unwrap();
    let of_view = statement.query_map([run_id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)));
    let of_view: Vec<(Option<String>, Option<SharedText>)> = of_view.unwrap().map(Result::unwrap).collect();
    let expected: Vec<_> = rows.iter().map(|row| (encode::numbers(&row.extra), row.rest_json.clone())).collect();
    assert!(of_view == expected);
    let longest = "SELECT max(octet_length(extra)), max(octet_length(rest_json)) FROM training_metrics_rows";
    let longest: (i64, i64) = connection.query_row(longest, (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert!(longest.0 <= 4_096 && longest.1 == 4_096, "{longest:?}");
    assert_eq!(fixture.count("training_metrics"), 37);
    let is_long = |text: Option<&str>| text.is_some_and(|text| text.len() > 4_096 || text.is_empty());
    let long = expected.iter().filter(|(extra, rest)| is_long(extra.as_deref()) || is_long(rest.as_deref())).count();
    assert_eq!((fixture.count("training_metrics_long"), long), (28, 28));
}

#[test]
fn a_rewritten_row_keeps_only_its_last_texts() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer(Retention::default());
    let (run_id, at) = (Uuid::new_v4(), now());
    let other = row(run_id, at + 1, Some(5_000));
    write_rows(&mut writer, vec![other.clone()]);
    let versions =
        [(Some(9_000), 9_000), (Some(6_000), 10), (Some(10), 9_000), (Some(10), 10), (None, 0), (Some(9_000), 0)];
    for (rest, extra) in versions {
        let row = MetricsRow { extra: numbers(extra), ..row(run_id, at, rest) };
        for _ in 0..2 {
            write_rows(&mut writer, vec![row.clone()]);
            let read =
                read::metrics(&writer.open.as_ref().unwrap().connection, &RangeQuery::newest(run_id, 9)).unwrap();
            assert!(read == [other.clone(), row.clone()], "{rest:?}, {extra}");
            let long = 1 + i64::from(rest > Some(4_096) || extra > 4_096);
            assert_eq!((fixture.count("training_metrics"), fixture.count("training_metrics_long")), (2, long));
        }
    }
}

#[test]
fn a_row_twice_in_a_batch_keeps_only_its_last_texts() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer(Retention::default());
    let (run_id, at) = (Uuid::new_v4(), now());
    let [long, short] = [Some(9_000), Some(10)].map(|rest| row(run_id, at, rest));
    write_rows(&mut writer, vec![long, short.clone()]);
    let read = read::metrics(&writer.open.as_ref().unwrap().connection, &RangeQuery::newest(run_id, 9)).unwrap();
    assert!(read == [short]);
    assert_eq!(fixture.count("training_metrics_long"), 0);
}

#[tokio::test]
async fn large_topologies_and_events_round_trip() {
    let fixture = Fixture::new();
    let (store, run_id, at) = (fixture.store(), Uuid::new_v4(), now());
    let texts = [10, LARGE_VALUE - 2, LARGE_VALUE, LARGE_VALUE + 2, 3 * LARGE_VALUE]
        .map(|bytes| SharedText::from("é".repeat(bytes / 2)));
    let key = |n: usize| EventKey { run_id, timestamp: at + n as i64, event_id: 1 };
    let networks = texts.iter().enumerate().map(|(n, text)| TopologyRow {
        key: key(n),
        epoch: Some(1),
        input_size: None,
        output_size: Some(2),
        hidden_units: Some(3),
        total_parameters: Some(4),
        topology_json: text.clone(),
        weights_summary: Some("w".into()),
    });
    let events = texts.iter().enumerate().map(|(n, text)| EventRow {
        key: key(n),
        r#type: "note".into(),
        payload_json: text.clone(),
        epoch: None,
    });
    let (networks, events): (Vec<_>, Vec<_>) = (networks.collect(), events.collect());
    let of = |table, rows: Vec<Row>| Batch { table, partition: Partition::Id(run_id), rows: rows.into() };
    store.write(&of(Table::Topology, networks.iter().cloned().map(Row::Topology).collect())).await.unwrap();
    store.write(&of(Table::Events, events.iter().cloned().map(Row::Event).collect())).await.unwrap();
    let everything = RangeQuery { bytes: usize::MAX, ascending: true, ..RangeQuery::newest(run_id, 100) };
    assert!(store.topology(&everything).await.unwrap() == networks);
    assert!(store.events(&everything).await.unwrap() == events);
}

#[test]
fn long_texts_expire_with_their_rows() {
    let fixture = Fixture::new();
    let mut writer = fixture.writer(Retention { metrics: Duration::from_micros(1), ..Retention::default() });
    let (run_id, at) = (Uuid::new_v4(), now());
    write_rows(&mut writer, (0..10).map(|n| row(run_id, at + n, Some(5_000))).collect());
    writer.retention.metrics = Duration::ZERO;
    write_rows(&mut writer, vec![row(run_id, at + 10, Some(5_000))]);
    let connection = &writer.open.as_ref().unwrap().connection;
    let mut sweep = expire::Sweep::default();
    for left in [8, 5, 2, 1, 1] {
        sweep.step(connection, now(), 3).unwrap();
        assert_eq!((fixture.count("training_metrics"), fixture.count("training_metrics_long")), (left, left));
    }
    let read = read::metrics(connection, &RangeQuery::newest(run_id, 9)).unwrap();
    assert!(read == [row(run_id, at + 10, Some(5_000))]);
}

/// Bytes that this thread has read from files.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn rows_beside_long_ones_cost_no_extra_reads() {
    const LONG: usize = 19 << 20;
    let cost = |neighbours: Option<usize>| {
        let fixture = Fixture::new();
        let mut writer = fixture.writer(Retention::default());
        let (run_id, at) = (Uuid::new_v4(), now());
        write_rows(&mut writer, vec![row(run_id, at, neighbours)]);
        write_rows(&mut writer, vec![row(run_id, at + 100_000, neighbours)]);
        let (before, began) = (bytes_read(), Instant::now());
        for batch in 0..20 {
            write_rows(&mut writer, (0..100).map(|n| row(run_id, at + 1 + 100 * batch + n, Some(10))).collect());
        }
        println!("{neighbours:?}: {:?}, {} bytes read", began.elapsed(), bytes_read() - before);
        bytes_read() - before
    };
    let (without, beside) = (cost(None), cost(Some(LONG)));
    assert!(beside <= 2 * without + (1 << 20), "{beside} bytes are read beside long rows, {without} without");
}

#[test]
fn pages_are_ranges_of_the_key_without_sorting() {
    let fixture = Fixture::new();
    let connection = fixture.writer(Retention::default()).database.writer().unwrap().connection;
    let plan = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = statement.parameter_count();
        let values = rusqlite::params_from_iter(std::iter::repeat_n(1, parameters));
        statement.query_map(values, |row| row.get(3)).unwrap().map(Result::unwrap).collect()
    };
    let key = |table: &str| format!("SEARCH {table} USING PRIMARY KEY (run_id=?");
    for ascending in [false, true] {
        let query = RangeQuery { ascending, ..RangeQuery::newest(Uuid::nil(), 9) };
        let steps = plan(&read::range_sql("training_metrics_rows", "*", &query));
        assert_eq!(steps, [format!("{} AND timestamp>? AND timestamp<?)", key("training_metrics_rows"))]);
    }
    // Queries of users and dashboards.
    for sql in [
        "SELECT * FROM training_metrics WHERE run_id = ? ORDER BY timestamp DESC LIMIT ?",
        "SELECT * FROM training_metrics WHERE run_id = ? ORDER BY timestamp DESC, event_id DESC LIMIT ?",
        "SELECT * FROM training_metrics WHERE run_id = ? AND timestamp >= ? AND timestamp <= ? ORDER BY timestamp DESC",
        "SELECT epoch, train_loss FROM training_metrics WHERE run_id = ? AND timestamp >= ?",
    ] {
        let steps = plan(sql);
        assert!(steps[0].starts_with(&key("r")), "{sql}: {steps:?}");
        assert!(!steps.iter().any(|step| step.contains("TEMP") || step.contains("SCAN")), "{sql}: {steps:?}");
        assert!(sql.contains('*') || steps.len() == 1, "short columns cost nothing more: {steps:?}");
    }
}
