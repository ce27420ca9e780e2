//! The judge: compares the ledger with the table.

use std::{collections::BTreeMap, fs::OpenOptions, io::Write, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::producer::{Entry, values};

/// The judged columns of a row of `training_metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which message.
    pub seq: i64,
    /// Microseconds; milliseconds are compared where the store keeps no more.
    pub timestamp: i64,
    /// `epoch`.
    pub epoch: i64,
    /// `train_loss`.
    pub loss: f64,
    /// `extra` and `rest_json`.
    pub rest: String,
}

/// A row of `ingest_gaps`.
#[derive(Clone, Debug)]
pub struct GapRow {
    /// Wall clock, microseconds.
    pub from: i64,
    /// Wall clock, microseconds.
    pub to: i64,
    /// Its reason.
    pub reason: String,
    /// Number of lost messages, if known.
    pub lost: Option<i64>,
    /// Its run, if known.
    pub run: Option<String>,
}

/// What the store holds of one run.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The run's rows, by `seq`.
    pub rows: Vec<Row>,
    /// All gap rows.
    pub gaps: Vec<GapRow>,
    /// Smallest unit of a timestamp in microseconds.
    pub grain: i64,
}

impl Table {
    /// Reads an SQLite file.
    pub fn sqlite(file: &Path, run: Uuid) -> Self {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        let sql = "SELECT seq, timestamp, epoch, train_loss, coalesce(extra, '') || coalesce(rest_json, '') \
                   FROM training_metrics WHERE run_id = ?1 ORDER BY seq";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([run.to_string()], |row| {
            let (seq, timestamp, epoch) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Row { seq, timestamp, epoch, loss: row.get(3)?, rest: row.get(4)? })
        });
        let rows = rows.unwrap().collect::<Result<_, _>>().unwrap();
        let mut statement =
            connection.prepare("SELECT started_at, ended_at, reason, lost, run_id FROM ingest_gaps").unwrap();
        let gaps = statement.query_map([], |row| {
            let (from, to, reason) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(GapRow { from, to, reason, lost: row.get(3)?, run: row.get(4)? })
        });
        Self { rows, gaps: gaps.unwrap().collect::<Result<_, _>>().unwrap(), grain: 1 }
    }

    /// From rows of Cassandra as its Python driver reads them.
    pub fn cassandra(mut rows: Vec<Map<String, Value>>, gaps: &[Map<String, Value>]) -> Self {
        rows.sort_by_key(|row| row["seq"].as_i64());
        let number = |row: &Map<String, Value>, name: &str| row[name].as_i64().unwrap();
        let rows = rows.iter().map(|row| Row {
            seq: number(row, "seq"),
            timestamp: number(row, "timestamp") * 1_000,
            epoch: number(row, "epoch"),
            loss: row["train_loss"].as_f64().unwrap(),
            rest: format!("{}{}", row["extra"], row["rest_json"].as_str().unwrap_or_default()),
        });
        let gaps = gaps.iter().map(|row| GapRow {
            from: number(row, "started_at") * 1_000,
            to: number(row, "ended_at") * 1_000 + 999,
            reason: row["reason"].as_str().unwrap().to_owned(),
            lost: row["lost"].as_i64(),
            run: row["run_id"].as_str().map(str::to_owned),
        });
        Self { rows: rows.collect(), gaps: gaps.collect(), grain: 1_000 }
    }

    /// Messages of this run that the daemon reports as missing, by `seq`.
    pub fn told(&self, run: Uuid) -> i64 {
        let run = run.to_string();
        let ours = |gap: &&GapRow| gap.reason == "sequence" && gap.run.as_deref() == Some(&run);
        self.gaps.iter().filter(ours).filter_map(|gap| gap.lost).sum()
    }
}

/// A window in which messages may be missing.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The fault.
    pub fault: Instant,
    /// How long before it.
    pub bound: Duration,
    /// When it was over.
    pub over: Instant,
}

/// The findings.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Messages that Redis had.
    pub published: i64,
    /// Rows.
    pub found: i64,
    /// Missing outside of every excused window.
    pub lost: Vec<i64>,
    /// Missing within an excused window.
    pub excused: i64,
    /// In more than one row.
    pub twice: Vec<i64>,
    /// With other values than published.
    pub damaged: Vec<String>,
    /// Missing without a gap row.
    pub untold: Vec<i64>,
    /// Missing between the first and the last row, as `seq` shows.
    pub holes: i64,
    /// Of these, covered by `sequence` gaps.
    pub told: i64,
    /// Missing in each excused window.
    pub each: Vec<i64>,
    /// Of these, published before the fault itself: how many, and how long before it the first of them, in milliseconds.
    pub before: Vec<(i64, f64)>,
}

/// How strict.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether the rows have the producer's own time (not when the daemon's clock is wrong).
    pub own_time: bool,
    /// Slack of a gap row's bounds in microseconds: the producer's clock is read before and after Redis has the message.
    pub slack: i64,
}

/// Compares. `excused`: when a message may be missing, if a gap covers it.
pub fn judge(ledger: &[Entry], table: &Table, run: Uuid, excused: &[Window], rules: Rules) -> Verdict {
    let mut found: BTreeMap<i64, &Row> = BTreeMap::new();
    let mut verdict = Verdict {
        told: table.told(run),
        each: vec![0; excused.len()],
        before: vec![(0, 0.0); excused.len()],
        ..Verdict::default()
    };
    for row in &table.rows {
        if found.insert(row.seq, row).is_some() {
            verdict.twice.push(row.seq);
        }
    }
    verdict.found = found.len() as i64;
    if let (Some((first, _)), Some((last, _))) = (found.first_key_value(), found.last_key_value()) {
        verdict.holes = last - first + 1 - verdict.found;
    }
    for entry in ledger {
        for seq in entry.first..entry.end {
            verdict.published += i64::from(entry.answered.is_some());
            match found.remove(&seq) {
                Some(row) => check(row, entry, table.grain, rules, &mut verdict),
                None => miss(seq, entry, table, excused, rules, &mut verdict),
            }
        }
    }
    verdict.damaged.extend(found.keys().map(|seq| format!("{seq} was never published")));
    let unbounded = table.gaps.iter().filter(|gap| gap.from <= 0 || gap.to < gap.from);
    verdict.damaged.extend(unbounded.map(|gap| format!("the bounds of a gap are none: {gap:?}")));
    // Where the counts agree, every missing message is covered, whatever the bounds.
    if verdict.told == verdict.holes {
        verdict.untold.clear();
    }
    verdict
}

fn check(row: &Row, entry: &Entry, grain: i64, rules: Rules, verdict: &mut Verdict) {
    let (loss, gradient, note) = values(row.seq);
    let time = entry.wall + (row.seq - entry.first);
    let intact = row.epoch == row.seq
        && row.loss == loss
        && row.rest.contains(&format!("{gradient:?}"))
        && row.rest.contains(&format!("\"{note}\""))
        && (!rules.own_time || row.timestamp / grain == time / grain);
    if !intact {
        let mut shown = format!("sent at {time}: {row:?}");
        shown.truncate(300);
        verdict.damaged.push(shown);
    }
}

fn miss(seq: i64, entry: &Entry, table: &Table, excused: &[Window], rules: Rules, verdict: &mut Verdict) {
    // It is unknown whether Redis had it.
    let Some((answered, answered_wall)) = entry.answered else { return };
    // Somewhere between `sent` and `answered` it was published: one of them within the window excuses it.
    let excuses = |window: &Window| entry.sent <= window.over && answered + window.bound >= window.fault;
    match excused.iter().position(excuses) {
        Some(window) => {
            verdict.excused += 1;
            verdict.each[window] += 1;
            let (fault, before) = (excused[window].fault, &mut verdict.before[window]);
            if answered <= fault {
                before.0 += 1;
                before.1 = before.1.max((fault - answered).as_secs_f64() * 1e3);
            }
        }
        None => verdict.lost.push(seq),
    }
    let covers = |gap: &&GapRow| {
        gap.reason != "sequence" && gap.from - rules.slack <= answered_wall && entry.wall <= gap.to + rules.slack
    };
    if table.gaps.iter().find(covers).is_none() {
        verdict.untold.push(seq);
    }
}

impl Verdict {
    /// A line of the table in `tests/faults/README.md`.
    pub fn line(&self, name: &str, injected: &str, survived: &str) -> String {
        format!(
            "| {name} | {injected} | {survived} | {} | {} | {} | {} |\n",
            self.published,
            self.excused,
            self.lost.len(),
            self.twice.len()
        )
    }

    /// Loss of the faults: messages that Redis had before them, and how long before, at p50, p99 and maximum.
    pub fn cost(&self) -> String {
        let mut counts: Vec<_> = self.before.iter().map(|(count, _)| *count).collect();
        let mut ages: Vec<_> = self.before.iter().map(|(_, age)| *age).collect();
        if counts.is_empty() {
            return "nothing was lost".into();
        }
        counts.sort_unstable();
        ages.sort_unstable_by(f64::total_cmp);
        let last = counts.len() - 1;
        let (p50, p99) = (last / 2, last * 99 / 100);
        format!(
            "lost of what was published before each fault: p50 {} ({:.1} ms), p99 {} ({:.1} ms), max {} ({:.1} ms)",
            counts[p50], ages[p50], counts[p99], ages[p99], counts[last], ages[last]
        )
    }

    /// All violations.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut note = |what: &str, list: Vec<String>| {
            if !list.is_empty() {
                let shown = list.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
                complaints.push(format!("{} {what}: {shown}, ..., {}", list.len(), list[list.len() - 1]));
            }
        };
        let texts = |list: &[i64]| list.iter().map(i64::to_string).collect::<Vec<_>>();
        note("durable messages are lost", texts(&self.lost));
        note("messages are stored twice", texts(&self.twice));
        note("rows are not what was published", self.damaged.clone());
        note("missing messages are told by no gap", texts(&self.untold));
        if self.told != self.holes {
            complaints.push(format!("`seq` shows {} missing, the gap rows say {}", self.holes, self.told));
        }
        complaints
    }
}

/// Adds a line to the file that `CASCOR_FAULTS_TABLE` names.
pub fn publish(line: &str) {
    print!("{line}");
    if let Some(path) = std::env::var_os("CASCOR_FAULTS_TABLE") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
