//! The statements, generated from one list of columns a table, and prepared once a session.
//!
//! The types of the list are compared with those of the server when a statement is prepared: a column of another type is a
//! schema to mend, not a reason to set every row aside.

use scylla::{
    client::session::Session,
    cluster::metadata::{CollectionType, ColumnType, NativeType},
    statement::{Consistency, Statement, prepared::PreparedStatement},
};

use super::{
    errors::{Trouble, of_prepare},
    turns,
};
use crate::event::Table;

/// The types of our columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
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

impl Type {
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

type Columns = &'static [(&'static str, Type)];

const METRICS: Columns = &[
    ("run_id", Type::Uuid),
    ("timestamp", Type::Timestamp),
    ("event_id", Type::BigInt),
    ("epoch", Type::Int),
    ("step", Type::Int),
    ("train_loss", Type::Double),
    ("train_accuracy", Type::Double),
    ("val_loss", Type::Double),
    ("val_accuracy", Type::Double),
    ("learning_rate", Type::Double),
    ("hidden_units", Type::Int),
    ("phase", Type::Text),
    ("seq", Type::BigInt),
    ("extra", Type::TextDoubles),
    ("rest_json", Type::Text),
];

/// The columns of samples.
const SAMPLES: Columns = &[
    ("timestamp", Type::Timestamp),
    ("event_id", Type::BigInt),
    ("epoch", Type::Int),
    ("step", Type::Int),
    ("hidden_units", Type::Int),
    ("seq", Type::BigInt),
    ("phase", Type::Text),
    ("train_loss", Type::Double),
    ("train_accuracy", Type::Double),
    ("val_loss", Type::Double),
    ("val_accuracy", Type::Double),
    ("learning_rate", Type::Double),
];

const TOPOLOGY: Columns = &[
    ("run_id", Type::Uuid),
    ("timestamp", Type::Timestamp),
    ("event_id", Type::BigInt),
    ("epoch", Type::Int),
    ("input_size", Type::Int),
    ("output_size", Type::Int),
    ("hidden_units", Type::Int),
    ("total_parameters", Type::Int),
    ("topology_json", Type::Text),
    ("weights_summary", Type::Text),
];

const EVENTS: Columns = &[
    ("run_id", Type::Uuid),
    ("timestamp", Type::Timestamp),
    ("event_id", Type::BigInt),
    ("type", Type::Text),
    ("payload_json", Type::Text),
    ("epoch", Type::Int),
];

const DATASETS: Columns = &[
    ("dataset_id", Type::Uuid),
    ("name", Type::Text),
    ("description", Type::Text),
    ("num_samples", Type::Int),
    ("num_features", Type::Int),
    ("num_classes", Type::Int),
    ("class_distribution", Type::TextInts),
    ("created_at", Type::Timestamp),
    ("file_path", Type::Text),
    ("checksum", Type::Text),
];

const CONTROL: Columns = &[
    ("day", Type::Text),
    ("timestamp", Type::Timestamp),
    ("event_id", Type::BigInt),
    ("instance", Type::Text),
    ("command", Type::Text),
    ("command_id", Type::Text),
    ("target", Type::Text),
    ("source", Type::Text),
    ("outcome", Type::Text),
    ("payload_json", Type::Text),
];

const GAPS: Columns = &[
    ("day", Type::Text),
    ("started_at", Type::Timestamp),
    ("gap_id", Type::Uuid),
    ("ended_at", Type::Timestamp),
    ("reason", Type::Text),
    ("source", Type::Text),
    ("channel", Type::Text),
    ("instance", Type::Text),
    ("run_id", Type::Uuid),
    ("lost", Type::BigInt),
];

const RUNS: Columns = &[
    ("run_id", Type::Uuid),
    ("run_name", Type::Text),
    ("start_time", Type::Timestamp),
    ("end_time", Type::Timestamp),
    ("duration_seconds", Type::Int),
    ("status", Type::Text),
    ("dataset_name", Type::Text),
    ("dataset_size", Type::Int),
    ("config_json", Type::Text),
    ("final_epoch", Type::Int),
    ("final_train_loss", Type::Double),
    ("final_train_accuracy", Type::Double),
    ("final_val_loss", Type::Double),
    ("final_val_accuracy", Type::Double),
    ("best_val_accuracy", Type::Double),
    ("best_epoch", Type::Int),
    ("total_hidden_units", Type::Int),
    ("total_parameters", Type::Int),
    ("notes", Type::Text),
    ("tags", Type::Texts),
    ("created_by", Type::Text),
    ("last_event_time", Type::Timestamp),
    ("restarted_at", Type::Timestamp),
];

const NAMES: Columns = &[("run_id", Type::Uuid), ("name", Type::Text)];

const SEQS: Columns =
    &[("run_id", Type::Uuid), ("timestamp", Type::Timestamp), ("event_id", Type::BigInt), ("seq", Type::BigInt)];

const RUNS_BY_MONTH: Columns = &[("month", Type::Text), ("start_time", Type::Timestamp), ("run_id", Type::Uuid)];

/// Rows fetched in one answer where many are read in turns, where they are small, and where each may be large.
const PAGE_TURN: i32 = turns::PIECE as i32;
const PAGE_SMALL: i32 = 2_000;
const PAGE_LARGE: i32 = 64;

/// The two orders of a range.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) newest_first: PreparedStatement,
    pub(super) oldest_first: PreparedStatement,
}

/// Everything that is sent, prepared.
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
    pub(super) metrics: Range,
    pub(super) seqs: Range,
    pub(super) samples: Range,
    pub(super) count_metrics: PreparedStatement,
    pub(super) topology: Range,
    pub(super) events: Range,
    pub(super) dataset: PreparedStatement,
    pub(super) gap_days: PreparedStatement,
    pub(super) gaps: PreparedStatement,
    pub(super) control_days: PreparedStatement,
    pub(super) control: PreparedStatement,
    pub(super) ping: PreparedStatement,
}

impl Statements {
    /// The statement that inserts a row of `table`.
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

    /// Prepares everything.
    ///
    /// # Errors
    /// The first statement that the server refuses, or a column of another type.
    pub(super) async fn prepare(
        session: &Session,
        keyspace: &str,
        write: Consistency,
        read: Consistency,
    ) -> Result<Self, Trouble> {
        let k = Preparer { session, keyspace, write, read };
        Ok(Self {
            insert_metrics: k.insert("training_metrics", METRICS, true).await?,
            insert_topology: k.insert("network_topology", TOPOLOGY, true).await?,
            insert_event: k.insert("training_events", EVENTS, true).await?,
            insert_dataset: k.insert("dataset_info", DATASETS, false).await?,
            insert_control: k.insert("control_log", CONTROL, true).await?,
            insert_gap: k.insert("ingest_gaps", GAPS, true).await?,
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
            metrics: k.range(METRICS, "training_metrics", PAGE_SMALL).await?,
            seqs: k.range(SEQS, "training_metrics", PAGE_SMALL).await?,
            samples: k.range(SAMPLES, "training_metrics", PAGE_TURN).await?,
            count_metrics: k.read("SELECT count(*) FROM", "training_metrics", "WHERE run_id = ?", PAGE_SMALL).await?,
            topology: k.range(TOPOLOGY, "network_topology", PAGE_LARGE / 8).await?,
            events: k.range(EVENTS, "training_events", PAGE_LARGE).await?,
            dataset: k.select(DATASETS, "dataset_info", "WHERE dataset_id = ?", PAGE_LARGE).await?,
            gap_days: k.distinct("day", "ingest_gaps").await?,
            gaps: k
                .select(
                    GAPS,
                    "ingest_gaps",
                    "WHERE day = ? AND started_at >= ? AND started_at <= ? LIMIT ?",
                    PAGE_SMALL,
                )
                .await?,
            control_days: k.distinct("day", "control_log").await?,
            control: k
                .select(
                    CONTROL,
                    "control_log",
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
    async fn prepare(&self, text: String, consistency: Consistency, page: i32) -> Result<PreparedStatement, Trouble> {
        let mut prepared =
            self.session.prepare(Statement::new(text)).await.map_err(|error| match of_prepare(&error) {
                super::errors::Verdict::Unavailable => Trouble::unavailable(error.to_string()),
                _ => Trouble::of_schema(format_args!("the schema does not fit: {error}")),
            })?;
        prepared.set_is_idempotent(true);
        prepared.set_consistency(consistency);
        prepared.set_page_size(page);
        Ok(prepared)
    }

    async fn insert(&self, table: &str, columns: Columns, ttl: bool) -> Result<PreparedStatement, Trouble> {
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
                return Err(Trouble::of_schema(format_args!(
                    "column `{name}` of table `{}.{table}` is not of the type this program writes ({expected:?})",
                    self.keyspace
                )));
            }
        }
        Ok(prepared)
    }

    async fn modify(&self, verb: &str, table: &str, rest: &str) -> Result<PreparedStatement, Trouble> {
        self.prepare(format!("{verb} \"{}\".{table} {rest}", self.keyspace), self.write, PAGE_SMALL).await
    }

    async fn read(&self, head: &str, table: &str, rest: &str, page: i32) -> Result<PreparedStatement, Trouble> {
        let text = if table.is_empty() {
            format!("{head} {rest}")
        } else {
            format!("{head} \"{}\".{table} {rest}", self.keyspace)
        };
        self.prepare(text, self.read, page).await
    }

    async fn select(&self, columns: Columns, table: &str, rest: &str, page: i32) -> Result<PreparedStatement, Trouble> {
        self.read(&format!("SELECT {} FROM", names(columns)), table, rest, page).await
    }

    async fn distinct(&self, column: &str, table: &str) -> Result<PreparedStatement, Trouble> {
        self.read(&format!("SELECT DISTINCT {column} FROM"), table, "", PAGE_SMALL).await
    }

    /// Bounds are pairs, so that a moment is exact to the microsecond and a cursor to the row: `event_id` orders the
    /// microseconds within a millisecond.
    async fn range(&self, columns: Columns, table: &str, page: i32) -> Result<Range, Trouble> {
        let clause = |order| {
            format!(
                "WHERE run_id = ? AND (timestamp, event_id) >= (?, ?) AND (timestamp, event_id) <= (?, ?) \
                 ORDER BY timestamp {order}, event_id {order} LIMIT ?"
            )
        };
        Ok(Range {
            newest_first: self.select(columns, table, &clause("DESC"), page).await?,
            oldest_first: self.select(columns, table, &clause("ASC"), page).await?,
        })
    }
}

fn names(columns: Columns) -> String {
    columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
