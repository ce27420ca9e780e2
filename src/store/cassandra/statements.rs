//! Statements, generated from one column list per table and prepared once per session.
//!
//! Prepare compares the listed types with the server's: a mismatch is a schema problem, not a reason to reject every row.

use scylla::{
    client::session::Session,
    statement::{Consistency, Statement, prepared::PreparedStatement},
};

use super::{
    column_specs::{ColumnSpecs, CqlType, names, stored, with_metrics},
    errors::{ConnectFailure, classify_prepare},
    read_scheduler,
};
use crate::event::{ControlRow, DatasetRow, EventRow, GapRow, RunEdit, RunRow, Table, TopologyRow};

const KEY: ColumnSpecs<'_> =
    &[("run_id", CqlType::Uuid), ("timestamp", CqlType::Timestamp), ("event_id", CqlType::BigInt)];

const DAY: ColumnSpecs<'_> = &[("day", CqlType::Text)];

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

/// Statements that delete a run.
#[derive(Debug)]
pub(super) struct DeletionStatements {
    /// Reads all deletions, and the times of their tombstones.
    pub(super) recorded: PreparedStatement,
    /// Records one.
    pub(super) record: PreparedStatement,
    /// Delete the partition of a run, table by table.
    pub(super) partitions: [PreparedStatement; 6],
    /// Finds the entries of a run in a month of the index; it reads all of that month.
    pub(super) entries: PreparedStatement,
    /// Deletes an entry of the index.
    pub(super) entry: PreparedStatement,
    /// Deletes a row of gaps.
    pub(super) gap: PreparedStatement,
}

/// Statements of edits.
#[derive(Debug)]
pub(super) struct EditStatements {
    /// Changes an edit, and in the same batch the other half of its tags: a statement sets a column once.
    pub(super) change_columns: PreparedStatement,
    pub(super) change_tags: PreparedStatement,
    /// Reads the edits of runs.
    pub(super) read: PreparedStatement,
    /// Finds runs by their name.
    pub(super) named: PreparedStatement,
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
    pub(super) deletion: DeletionStatements,
    pub(super) server_time: PreparedStatement,
    pub(super) edit: EditStatements,
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
        let (runs, datasets) = (stored::<RunRow>(&[]), stored::<DatasetRow>(&[]));
        let (topology, events) = (stored::<TopologyRow>(KEY), stored::<EventRow>(KEY));
        let (control, gaps) = (stored::<ControlRow>(DAY), stored::<GapRow>(DAY));
        let samples = with_metrics(&KEY[1..], &[]);
        Ok(Self {
            insert_metrics: k.insert(Table::Metrics.name(), &metrics, true).await?,
            insert_topology: k.insert(Table::Topology.name(), &topology, true).await?,
            insert_event: k.insert(Table::Events.name(), &events, true).await?,
            insert_dataset: k.insert(Table::Datasets.name(), &datasets, false).await?,
            insert_control: k.insert(Table::Control.name(), &control, true).await?,
            insert_gap: k.insert(Table::Gaps.name(), &gaps, true).await?,
            insert_run: k.insert("training_runs", &runs, false).await?,
            insert_name: k.insert("run_metric_names", NAMES, false).await?,
            insert_month: k.insert("runs_by_month", RUNS_BY_MONTH, false).await?,
            delete_month: k
                .modify("DELETE FROM", "runs_by_month", "WHERE month = ? AND start_time = ? AND run_id = ?")
                .await?,
            run: k.select(&runs, "training_runs", "WHERE run_id = ?", PAGE_LARGE).await?,
            runs: k.select(&runs, "training_runs", "WHERE run_id IN ?", PAGE_LARGE).await?,
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
            topology: k.range(&topology, Table::Topology.name(), PAGE_LARGE / 8).await?,
            events: k.range(&events, Table::Events.name(), PAGE_LARGE).await?,
            dataset: k.select(&datasets, Table::Datasets.name(), "WHERE dataset_id = ?", PAGE_LARGE).await?,
            gap_days: k.distinct("day", Table::Gaps.name()).await?,
            gaps: k
                .select(
                    &gaps[1..],
                    Table::Gaps.name(),
                    "WHERE day = ? AND started_at >= ? AND started_at <= ? LIMIT ?",
                    PAGE_SMALL,
                )
                .await?,
            control_days: k.distinct("day", Table::Control.name()).await?,
            control: k
                .select(
                    &control[1..],
                    Table::Control.name(),
                    "WHERE day = ? AND (timestamp, event_id) >= (?, ?) AND (timestamp, event_id) <= (?, ?) LIMIT ?",
                    PAGE_LARGE,
                )
                .await?,
            deletion: DeletionStatements::prepare(&k).await?,
            server_time: k
                .read("SELECT toUnixTimestamp(now()) FROM", "", "system.local WHERE key = 'local'", 1)
                .await?,
            edit: EditStatements::prepare(&k).await?,
        })
    }
}

impl DeletionStatements {
    async fn prepare(k: &Preparer<'_>) -> Result<Self, ConnectFailure> {
        let partition = async |table| k.modify("DELETE FROM", table, "WHERE run_id = ?").await;
        let entries = "WHERE month = ? AND run_id = ? ALLOW FILTERING";
        let entry = "WHERE month = ? AND start_time = ? AND run_id = ?";
        Ok(Self {
            recorded: k
                .read("SELECT run_id, deleted_at, WRITETIME(deleted_at) FROM", "run_deletions", "", PAGE_SMALL)
                .await?,
            record: k
                .modify("INSERT INTO", "run_deletions", "(run_id, deleted_at, deleted_by) VALUES (?, ?, ?) USING TTL ?")
                .await?,
            partitions: [
                partition(Table::Metrics.name()).await?,
                partition(Table::Topology.name()).await?,
                partition(Table::Events.name()).await?,
                partition("training_runs").await?,
                partition("run_metric_names").await?,
                partition("run_edits").await?,
            ],
            entries: k.read("SELECT start_time FROM", "runs_by_month", entries, PAGE_SMALL).await?,
            entry: k.modify("DELETE FROM", "runs_by_month", entry).await?,
            gap: k.modify("DELETE FROM", Table::Gaps.name(), "WHERE day = ? AND started_at = ? AND gap_id = ?").await?,
        })
    }
}

impl EditStatements {
    async fn prepare(k: &Preparer<'_>) -> Result<Self, ConnectFailure> {
        let columns = stored::<RunEdit>(&[]);
        let change = "display_name = ?, notes = ?, add_tags = add_tags + ?, remove_tags = remove_tags - ?, archived = ?, \
                      edited_at = ?, edited_by = ? WHERE run_id = ?";
        let change_tags = "remove_tags = remove_tags + ?, add_tags = add_tags - ? WHERE run_id = ?";
        let named = "WHERE display_name = ? LIMIT ? ALLOW FILTERING";
        Ok(Self {
            change_columns: k.update(&columns, "run_edits", change).await?,
            change_tags: k.update(&columns, "run_edits", change_tags).await?,
            read: k.select(&columns, "run_edits", "WHERE run_id IN ?", PAGE_LARGE).await?,
            named: k.read("SELECT run_id FROM", "run_edits", named, PAGE_LARGE).await?,
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
        self.typed(text, table, columns).await
    }

    /// `rest`: what is set, and where.
    async fn update(
        &self,
        columns: ColumnSpecs<'_>,
        table: &str,
        rest: &str,
    ) -> Result<PreparedStatement, ConnectFailure> {
        self.typed(format!("UPDATE \"{}\".{table} SET {rest}", self.keyspace), table, columns).await
    }

    /// Prepares a write, and compares the types of the columns with the server's.
    async fn typed(
        &self,
        text: String,
        table: &str,
        columns: ColumnSpecs<'_>,
    ) -> Result<PreparedStatement, ConnectFailure> {
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

    pub(super) async fn modify(
        &self,
        verb: &str,
        table: &str,
        rest: &str,
    ) -> Result<PreparedStatement, ConnectFailure> {
        self.prepare(format!("{verb} \"{}\".{table} {rest}", self.keyspace), self.write, PAGE_SMALL).await
    }

    pub(super) async fn read(
        &self,
        head: &str,
        table: &str,
        rest: &str,
        page: i32,
    ) -> Result<PreparedStatement, ConnectFailure> {
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
