//! Statements, generated from one column list per table and prepared once per session.
//!
//! Prepare compares the listed types with the server's: a mismatch is a schema problem, not a reason to reject every row.

use scylla::{
    client::session::Session,
    cluster::metadata::{CollectionType, ColumnType, NativeType},
    statement::{Consistency, Statement, prepared::PreparedStatement},
};

use super::{
    errors::{ConnectFailure, classify_prepare},
    read_scheduler,
};
use crate::event::{self, METRIC_COLUMNS, Table};

/// CQL types of our columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CqlType {
    Uuid,
    Int,
    BigInt,
    Double,
    Text,
    Timestamp,
    TextDoubles,
    TextInts,
    Texts,
}

impl CqlType {
    fn is(self, actual: &ColumnType<'_>) -> bool {
        use NativeType as N;
        let native = |typ: &ColumnType<'_>, native| matches!(typ, ColumnType::Native(typ) if *typ == native);
        match (self, actual) {
            (Self::Uuid, typ) => native(typ, N::Uuid),
            (Self::Int, typ) => native(typ, N::Int),
            (Self::BigInt, typ) => native(typ, N::BigInt),
            (Self::Double, typ) => native(typ, N::Double),
            (Self::Text, typ) => native(typ, N::Text),
            (Self::Timestamp, typ) => native(typ, N::Timestamp),
            (Self::TextDoubles, ColumnType::Collection { typ: CollectionType::Map(key, value), .. }) => {
                native(key, N::Text) && native(value, N::Double)
            }
            (Self::TextInts, ColumnType::Collection { typ: CollectionType::Map(key, value), .. }) => {
                native(key, N::Text) && native(value, N::Int)
            }
            (Self::Texts, ColumnType::Collection { typ: CollectionType::Set(item), .. }) => native(item, N::Text),
            _ => false,
        }
    }
}

type ColumnSpecs<'a> = &'a [(&'static str, CqlType)];

/// Places the metric columns between the leading and trailing ones.
fn with_metrics(before: ColumnSpecs<'_>, after: ColumnSpecs<'_>) -> Vec<(&'static str, CqlType)> {
    let columns = METRIC_COLUMNS.iter().map(|column| {
        let cql_type = match column.column_type {
            event::ColumnType::Int => CqlType::Int,
            event::ColumnType::BigInt => CqlType::BigInt,
            event::ColumnType::Double => CqlType::Double,
            event::ColumnType::Text => CqlType::Text,
        };
        (column.name, cql_type)
    });
    before.iter().copied().chain(columns).chain(after.iter().copied()).collect()
}

const KEY: ColumnSpecs<'_> =
    &[("run_id", CqlType::Uuid), ("timestamp", CqlType::Timestamp), ("event_id", CqlType::BigInt)];

const TOPOLOGY: ColumnSpecs<'_> = &[
    ("run_id", CqlType::Uuid),
    ("timestamp", CqlType::Timestamp),
    ("event_id", CqlType::BigInt),
    ("epoch", CqlType::Int),
    ("input_size", CqlType::Int),
    ("output_size", CqlType::Int),
    ("hidden_units", CqlType::Int),
    ("total_parameters", CqlType::Int),
    ("topology_json", CqlType::Text),
    ("weights_summary", CqlType::Text),
];

const EVENTS: ColumnSpecs<'_> = &[
    ("run_id", CqlType::Uuid),
    ("timestamp", CqlType::Timestamp),
    ("event_id", CqlType::BigInt),
    ("type", CqlType::Text),
    ("payload_json", CqlType::Text),
    ("epoch", CqlType::Int),
];

const DATASETS: ColumnSpecs<'_> = &[
    ("dataset_id", CqlType::Uuid),
    ("name", CqlType::Text),
    ("description", CqlType::Text),
    ("num_samples", CqlType::Int),
    ("num_features", CqlType::Int),
    ("num_classes", CqlType::Int),
    ("class_distribution", CqlType::TextInts),
    ("created_at", CqlType::Timestamp),
    ("file_path", CqlType::Text),
    ("checksum", CqlType::Text),
];

const CONTROL: ColumnSpecs<'_> = &[
    ("day", CqlType::Text),
    ("timestamp", CqlType::Timestamp),
    ("event_id", CqlType::BigInt),
    ("instance", CqlType::Text),
    ("command", CqlType::Text),
    ("command_id", CqlType::Text),
    ("target", CqlType::Text),
    ("source", CqlType::Text),
    ("outcome", CqlType::Text),
    ("payload_json", CqlType::Text),
];

const GAPS: ColumnSpecs<'_> = &[
    ("day", CqlType::Text),
    ("started_at", CqlType::Timestamp),
    ("gap_id", CqlType::Uuid),
    ("ended_at", CqlType::Timestamp),
    ("reason", CqlType::Text),
    ("source", CqlType::Text),
    ("channel", CqlType::Text),
    ("instance", CqlType::Text),
    ("run_id", CqlType::Uuid),
    ("lost", CqlType::BigInt),
];

const RUNS: ColumnSpecs<'_> = &[
    ("run_id", CqlType::Uuid),
    ("run_name", CqlType::Text),
    ("start_time", CqlType::Timestamp),
    ("end_time", CqlType::Timestamp),
    ("duration_seconds", CqlType::Int),
    ("status", CqlType::Text),
    ("dataset_name", CqlType::Text),
    ("dataset_size", CqlType::Int),
    ("config_json", CqlType::Text),
    ("final_epoch", CqlType::Int),
    ("final_train_loss", CqlType::Double),
    ("final_train_accuracy", CqlType::Double),
    ("final_val_loss", CqlType::Double),
    ("final_val_accuracy", CqlType::Double),
    ("best_val_accuracy", CqlType::Double),
    ("best_epoch", CqlType::Int),
    ("total_hidden_units", CqlType::Int),
    ("total_parameters", CqlType::Int),
    ("notes", CqlType::Text),
    ("tags", CqlType::Texts),
    ("created_by", CqlType::Text),
    ("last_event_time", CqlType::Timestamp),
    ("restarted_at", CqlType::Timestamp),
];

const NAMES: ColumnSpecs<'_> = &[("run_id", CqlType::Uuid), ("name", CqlType::Text)];

const SEQS: ColumnSpecs<'_> = &[
    ("run_id", CqlType::Uuid),
    ("timestamp", CqlType::Timestamp),
    ("event_id", CqlType::BigInt),
    ("seq", CqlType::BigInt),
];

const RUNS_BY_MONTH: ColumnSpecs<'_> =
    &[("month", CqlType::Text), ("start_time", CqlType::Timestamp), ("run_id", CqlType::Uuid)];

/// Rows per page: for bulk reads, for small rows, and for rows that may be large.
const PAGE_MEDIUM: i32 = read_scheduler::YIELD_ROWS as i32;
const PAGE_SMALL: i32 = 2_000;
const PAGE_LARGE: i32 = 64;

/// Both orders of a range.
#[derive(Debug)]
pub(super) struct RangeStatements {
    pub(super) newest_first: PreparedStatement,
    pub(super) oldest_first: PreparedStatement,
}

/// All prepared statements.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) insert_metrics: PreparedStatement,
    pub(super) insert_topology: PreparedStatement,
    pub(super) insert_event: PreparedStatement,
    pub(super) insert_dataset: PreparedStatement,
    pub(super) insert_control: PreparedStatement,
    pub(super) insert_gap: PreparedStatement,
    pub(super) insert_run: PreparedStatement,
    pub(super) insert_name: PreparedStatement,
    pub(super) insert_month: PreparedStatement,
    pub(super) delete_month: PreparedStatement,
    pub(super) run: PreparedStatement,
    pub(super) runs: PreparedStatement,
    pub(super) names: PreparedStatement,
    pub(super) months: PreparedStatement,
    pub(super) month: PreparedStatement,
    pub(super) month_entry: PreparedStatement,
    pub(super) metrics: RangeStatements,
    pub(super) seqs: RangeStatements,
    pub(super) samples: RangeStatements,
    pub(super) count_metrics: PreparedStatement,
    pub(super) topology: RangeStatements,
    pub(super) events: RangeStatements,
    pub(super) dataset: PreparedStatement,
    pub(super) gap_days: PreparedStatement,
    pub(super) gaps: PreparedStatement,
    pub(super) control_days: PreparedStatement,
    pub(super) control: PreparedStatement,
    pub(super) ping: PreparedStatement,
}

impl Statements {
    /// The INSERT of `table`.
    pub(super) fn insert(&self, table: Table) -> &PreparedStatement {
        match table {
            Table::Metrics => &self.insert_metrics,
            Table::Topology => &self.insert_topology,
            Table::Events => &self.insert_event,
            Table::Datasets => &self.insert_dataset,
            Table::Control => &self.insert_control,
            Table::Gaps => &self.insert_gap,
        }
    }

    /// Prepares all statements.
    ///
    /// # Errors
    /// A statement that the server refuses, or a column of another type.
    pub(super) async fn prepare(
        session: &Session,
        keyspace: &str,
        write: Consistency,
        read: Consistency,
    ) -> Result<Self, ConnectFailure> {
        let k = Preparer { session, keyspace, write, read };
        let metrics = with_metrics(KEY, &[("extra", CqlType::TextDoubles), ("rest_json", CqlType::Text)]);
        let samples = with_metrics(&KEY[1..], &[]);
        Ok(Self {
            insert_metrics: k.insert(Table::Metrics.name(), &metrics, true).await?,
            insert_topology: k.insert(Table::Topology.name(), TOPOLOGY, true).await?,
            insert_event: k.insert(Table::Events.name(), EVENTS, true).await?,
            insert_dataset: k.insert(Table::Datasets.name(), DATASETS, false).await?,
            insert_control: k.insert(Table::Control.name(), CONTROL, true).await?,
            insert_gap: k.insert(Table::Gaps.name(), GAPS, true).await?,
            insert_run: k.insert("training_runs", RUNS, false).await?,
            insert_name: k.insert("run_metric_names", NAMES, false).await?,
            insert_month: k.insert("runs_by_month", RUNS_BY_MONTH, false).await?,
            delete_month: k
                .modify("DELETE FROM", "runs_by_month", "WHERE month = ? AND start_time = ? AND run_id = ?")
                .await?,
            run: k.select(RUNS, "training_runs", "WHERE run_id = ?", PAGE_LARGE).await?,
            runs: k.select(RUNS, "training_runs", "WHERE run_id IN ?", PAGE_LARGE).await?,
            names: k.select(NAMES, "run_metric_names", "WHERE run_id = ? LIMIT ?", PAGE_SMALL).await?,
            months: k.distinct("month", "runs_by_month").await?,
            month_entry: k
                .select(RUNS_BY_MONTH, "runs_by_month", "WHERE month = ? AND start_time = ? AND run_id = ?", PAGE_SMALL)
                .await?,
            month: k.select(RUNS_BY_MONTH, "runs_by_month", "WHERE month = ? AND start_time <= ?", PAGE_SMALL).await?,
            metrics: k.range(&metrics, Table::Metrics.name(), PAGE_SMALL).await?,
            seqs: k.range(SEQS, Table::Metrics.name(), PAGE_SMALL).await?,
            samples: k.range(&samples, Table::Metrics.name(), PAGE_MEDIUM).await?,
            count_metrics: k
                .read("SELECT count(*) FROM", Table::Metrics.name(), "WHERE run_id = ?", PAGE_SMALL)
                .await?,
            topology: k.range(TOPOLOGY, Table::Topology.name(), PAGE_LARGE / 8).await?,
            events: k.range(EVENTS, Table::Events.name(), PAGE_LARGE).await?,
            dataset: k.select(DATASETS, Table::Datasets.name(), "WHERE dataset_id = ?", PAGE_LARGE).await?,
            gap_days: k.distinct("day", Table::Gaps.name()).await?,
            gaps: k
                .select(
                    GAPS,
                    Table::Gaps.name(),
                    "WHERE day = ? AND started_at >= ? AND started_at <= ? LIMIT ?",
                    PAGE_SMALL,
                )
                .await?,
            control_days: k.distinct("day", Table::Control.name()).await?,
            control: k
                .select(
                    CONTROL,
                    Table::Control.name(),
                    "WHERE day = ? AND (timestamp, event_id) >= (?, ?) AND (timestamp, event_id) <= (?, ?) LIMIT ?",
                    PAGE_LARGE,
                )
                .await?,
            ping: k.read("SELECT key FROM", "", "system.local WHERE key = 'local'", 1).await?,
        })
    }
}

struct Preparer<'a> {
    session: &'a Session,
    keyspace: &'a str,
    write: Consistency,
    read: Consistency,
}

impl Preparer<'_> {
    async fn prepare(
        &self,
        text: String,
        consistency: Consistency,
        page: i32,
    ) -> Result<PreparedStatement, ConnectFailure> {
        let mut prepared =
            self.session.prepare(Statement::new(text)).await.map_err(|error| match classify_prepare(&error) {
                super::errors::ErrorClass::Unavailable => ConnectFailure::unavailable(error.to_string()),
                _ => ConnectFailure::schema_mismatch(format_args!("the schema does not fit: {error}")),
            })?;
        prepared.set_is_idempotent(true);
        prepared.set_consistency(consistency);
        prepared.set_page_size(page);
        Ok(prepared)
    }

    async fn insert(
        &self,
        table: &str,
        columns: ColumnSpecs<'_>,
        ttl: bool,
    ) -> Result<PreparedStatement, ConnectFailure> {
        let names = names(columns);
        let marks = vec!["?"; columns.len()].join(", ");
        let ttl = if ttl { " USING TTL ?" } else { "" };
        let text = format!("INSERT INTO \"{}\".{table} ({names}) VALUES ({marks}){ttl}", self.keyspace);
        let prepared = self.prepare(text, self.write, PAGE_SMALL).await?;
        for spec in prepared.get_variable_col_specs().iter() {
            let expected = columns.iter().find(|(name, _)| *name == spec.name());
            if let Some((name, expected)) = expected
                && !expected.is(spec.typ())
            {
                return Err(ConnectFailure::schema_mismatch(format_args!(
                    "column `{name}` of table `{}.{table}` is not of the type this program writes ({expected:?})",
                    self.keyspace
                )));
            }
        }
        Ok(prepared)
    }

    async fn modify(&self, verb: &str, table: &str, rest: &str) -> Result<PreparedStatement, ConnectFailure> {
        self.prepare(format!("{verb} \"{}\".{table} {rest}", self.keyspace), self.write, PAGE_SMALL).await
    }

    async fn read(&self, head: &str, table: &str, rest: &str, page: i32) -> Result<PreparedStatement, ConnectFailure> {
        let text = if table.is_empty() {
            format!("{head} {rest}")
        } else {
            format!("{head} \"{}\".{table} {rest}", self.keyspace)
        };
        self.prepare(text, self.read, page).await
    }

    async fn select(
        &self,
        columns: ColumnSpecs<'_>,
        table: &str,
        rest: &str,
        page: i32,
    ) -> Result<PreparedStatement, ConnectFailure> {
        self.read(&format!("SELECT {} FROM", names(columns)), table, rest, page).await
    }

    async fn distinct(&self, column: &str, table: &str) -> Result<PreparedStatement, ConnectFailure> {
        self.read(&format!("SELECT DISTINCT {column} FROM"), table, "", PAGE_SMALL).await
    }

    /// Bounds are pairs, so that a time is exact to the microsecond and a cursor to the row: `event_id` orders rows within a
    /// millisecond.
    async fn range(&self, columns: ColumnSpecs<'_>, table: &str, page: i32) -> Result<RangeStatements, ConnectFailure> {
        let clause = |order| {
            format!(
                "WHERE run_id = ? AND (timestamp, event_id) >= (?, ?) AND (timestamp, event_id) <= (?, ?) \
                 ORDER BY timestamp {order}, event_id {order} LIMIT ?"
            )
        };
        Ok(RangeStatements {
            newest_first: self.select(columns, table, &clause("DESC"), page).await?,
            oldest_first: self.select(columns, table, &clause("ASC"), page).await?,
        })
    }
}

fn names(columns: ColumnSpecs<'_>) -> String {
    columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
