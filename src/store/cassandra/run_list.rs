//! Lists of runs, read along the index of recent runs.
//!
//! Cassandra cannot sort: a sorted list is one of the newest [`SORTED_MAX`] runs, then of the same number of older ones, and so on.

use std::{collections::HashMap, ops::ControlFlow};

use scylla::value::CqlTimestamp;
use uuid::Uuid;

use super::{edits, pages, reads, session::LiveSession, time};
use crate::{
    event::{EditedRun, MemSize},
    store::{
        StoreError,
        run_list::{Page, Runs, RunsCursor, RunsQuery, RunsSort, TopRuns},
    },
    units::Micros,
};

/// Runs that are sorted together.
pub(super) const SORTED_MAX: usize = 10_000;
/// Maximum runs fetched by one request. Fewer are fetched while their size is unknown or large.
const CHUNK_ROWS: usize = 32;
/// Index entries read at once.
const ENTRIES_MAX: usize = 2_000;

/// One page of a list.
pub(super) async fn list(live: &LiveSession, query: &RunsQuery) -> Result<Runs, StoreError> {
    match &query.sort {
        None => newest_first(live, query).await,
        Some(sort) => sorted(live, query, sort).await,
    }
}

async fn newest_first(live: &LiveSession, query: &RunsQuery) -> Result<Runs, StoreError> {
    let mut walk = Walk::start(live, query.from.before.map(Entry::from)).await?;
    let (mut page, mut scanned) = (Page::new(query), 0);
    while let Some(step) = walk.next().await? {
        scanned += step.entries.len();
        for run in step.runs.into_iter().filter(|run| query.matches(run)) {
            if page.add(run).is_break() {
                return Ok(Runs { scanned, ..page.newest_first(ControlFlow::Break(()), None) });
            }
        }
        if query.is_due() {
            let stopped_at = step.entries.last().copied().map(Entry::place);
            return Ok(Runs { scanned, ..page.newest_first(ControlFlow::Continue(()), stopped_at) });
        }
    }
    Ok(Runs { scanned, ..page.newest_first(ControlFlow::Continue(()), None) })
}

/// The runs that are sorted together.
struct Block<'q> {
    top: TopRuns<'q>,
    scanned: usize,
    /// The oldest run; `None`: there are no older ones.
    until: Option<(Micros, Uuid)>,
}

async fn sorted(live: &LiveSession, query: &RunsQuery, sort: &RunsSort) -> Result<Runs, StoreError> {
    let block = read_block(live, query, sort).await?;
    let (mut page, mut last, mut is_full) = (Page::new(query), None, false);
    let positions = block.top.into_sorted();
    let (mut rest, mut chunk) = (positions.as_slice(), 1);
    while !rest.is_empty() && !is_full {
        let (some, later) = rest.split_at(chunk.min(rest.len()));
        let ids: Vec<Uuid> = some.iter().map(|position| position.run_id).collect();
        let mut runs = fetch(live, &ids).await?;
        let largest = runs.values().map(EditedRun::bytes).max().unwrap_or(0);
        for position in some {
            let Some(run) = runs.remove(&position.run_id) else { continue };
            is_full = page.add(run).is_break();
            if is_full {
                break;
            }
            last = Some(position.clone());
        }
        chunk = pages::next_page_rows(chunk, largest, usize::MAX, CHUNK_ROWS);
        rest = later;
    }
    let before = query.from.before;
    let next = match (last.filter(|_| is_full), block.until) {
        (Some(last), until) => Some(RunsCursor { before, until, after: Some(last) }),
        (None, Some(until)) => Some(RunsCursor { before: Some(until), ..RunsCursor::default() }),
        (None, None) => None,
    };
    let sorts_all = before.is_none() && block.until.is_none();
    let scanned = block.scanned;
    Ok(Runs { runs: page.into_runs(), next, scanned, sorted: scanned, sorts_all, is_sorting: false })
}

async fn read_block<'q>(live: &LiveSession, query: &'q RunsQuery, sort: &'q RunsSort) -> Result<Block<'q>, StoreError> {
    let top = TopRuns::new(sort, query.from.after.as_ref(), query.limit.saturating_add(1));
    let mut block = Block { top, scanned: 0, until: None };
    let mut walk = Walk::start(live, query.from.before.map(Entry::from)).await?;
    let is_over = |block: &Block<'_>, entry: Entry| match query.from.until {
        // Later pages end at the same run, however many were added meanwhile.
        Some(until) => entry.is_after(until.into()),
        None => block.scanned >= SORTED_MAX,
    };
    let mut last = None;
    while let Some(step) = walk.next().await? {
        let mut runs: HashMap<Uuid, EditedRun> = step.runs.into_iter().map(|run| (run.row.run_id, run)).collect();
        for entry in step.entries {
            if is_over(&block, entry) {
                block.until = last;
                return Ok(block);
            }
            block.scanned += 1;
            last = Some(entry.place());
            let run = runs.remove(&entry.run_id).filter(|run| query.matches(run));
            if let Some(position) = run.and_then(|run| sort.position(&run, query.stale_before())) {
                block.top.offer(position);
            }
        }
    }
    Ok(block)
}

/// Start and id of a run, as the index has them.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: CqlTimestamp,
    run_id: Uuid,
}

impl From<(Micros, Uuid)> for Entry {
    fn from((start, run_id): (Micros, Uuid)) -> Self {
        Self { start: time::cql(start), run_id }
    }
}

impl Entry {
    fn place(self) -> (Micros, Uuid) {
        (time::micros(self.start), self.run_id)
    }

    /// Newest first, then by Cassandra's order of ids.
    fn is_after(self, other: Self) -> bool {
        other.start.0.cmp(&self.start.0).then_with(|| time::uuid_order(self.run_id, other.run_id)).is_gt()
    }
}

/// Reads runs along the index, newest first.
struct Walk<'l> {
    live: &'l LiveSession,
    /// Months not read to their end, the newest last.
    months: Vec<String>,
    /// The last entry that was read from the index.
    read_to: Option<Entry>,
    /// Entries whose runs were not read yet.
    entries: Vec<Entry>,
    /// Runs that one request reads.
    chunk: usize,
}

/// Some entries of the index, and their runs in the same order. An entry whose start differs from that of its run has none.
struct Step {
    entries: Vec<Entry>,
    runs: Vec<EditedRun>,
}

impl<'l> Walk<'l> {
    async fn start(live: &'l LiveSession, before: Option<Entry>) -> Result<Self, StoreError> {
        let newest = before.map(|before| time::month(time::micros(before.start)));
        let mut months = reads::partitions(live, &live.statements.months).await?;
        months.retain(|month| newest.as_ref().is_none_or(|newest| month <= newest));
        months.reverse();
        Ok(Self { live, months, read_to: before, entries: Vec::new(), chunk: 1 })
    }

    /// The next runs; `None` at the end.
    async fn next(&mut self) -> Result<Option<Step>, StoreError> {
        while self.entries.is_empty() {
            let Some(month) = self.months.last().cloned() else { return Ok(None) };
            self.entries = entries(self.live, month, self.read_to).await?;
            self.read_to = self.entries.last().copied().or(self.read_to);
            if self.entries.len() < ENTRIES_MAX {
                self.months.pop();
            }
        }
        // Four requests at once: each waits for the server most of its time.
        let later = self.entries.split_off((4 * self.chunk).min(self.entries.len()));
        let some = std::mem::replace(&mut self.entries, later);
        let ids: Vec<Uuid> = some.iter().map(|entry| entry.run_id).collect();
        let mut parts = ids.chunks(self.chunk);
        let mut part = || Box::pin(fetch(self.live, parts.next().unwrap_or_default()));
        let (a, b, c, d) = tokio::try_join!(part(), part(), part(), part())?;
        let mut runs: HashMap<Uuid, EditedRun> = [a, b, c, d].into_iter().flatten().collect();
        let largest = runs.values().map(EditedRun::bytes).max().unwrap_or(0);
        self.chunk = pages::next_page_rows(self.chunk, largest, usize::MAX, CHUNK_ROWS);
        let is_current = |run: &EditedRun, start: CqlTimestamp| run.row.start_time.map(time::millis) == Some(start.0);
        let runs = some
            .iter()
            .filter_map(|entry| runs.remove(&entry.run_id).filter(|run| is_current(run, entry.start)))
            .collect();
        Ok(Some(Step { entries: some, runs }))
    }
}

/// These runs as they are shown.
async fn fetch(live: &LiveSession, ids: &[Uuid]) -> Result<HashMap<Uuid, EditedRun>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let (rows, edits) = tokio::try_join!(reads::runs_by_id(live, ids), edits::read(live, ids))?;
    let mut edits: HashMap<_, _> = edits.into_iter().map(|edit| (edit.run_id, edit)).collect();
    let runs = rows.into_iter().map(|row| {
        let edit = edits.remove(&row.run_id);
        (row.run_id, EditedRun::new(row, edit))
    });
    Ok(runs.collect())
}

/// At most [`ENTRIES_MAX`] entries of a month after a place.
async fn entries(live: &LiveSession, month: String, after: Option<Entry>) -> Result<Vec<Entry>, StoreError> {
    let upto = after.map_or(CqlTimestamp(i64::MAX), |after| after.start);
    let mut entries = Vec::new();
    pages::pages(live, &live.statements.month, &(month, upto), &mut |page| {
        for row in page.rows::<(String, CqlTimestamp, Uuid)>().map_err(pages::unreadable)? {
            let (_, start, run_id) = row.map_err(pages::unreadable)?;
            if entries.len() >= ENTRIES_MAX {
                return Ok(ControlFlow::Break(()));
            }
            let entry = Entry { start, run_id };
            if after.is_none_or(|after| entry.is_after(after)) {
                entries.push(entry);
            }
        }
        Ok(if entries.len() >= ENTRIES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .await?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_runs_goes_on_after_its_cursor() {
        let (a, b) = (Uuid::from_u128(0x4000 << 64), Uuid::from_u128((0x4000 << 64) + 1));
        for (start, run_id, cursor, is_after) in [
            (10, a, (10_000, a), false),
            (10, b, (10_000, a), true),
            (10, a, (10_000, b), false),
            (9, a, (10_000, b), true),
            (11, b, (10_999, a), false),
        ] {
            let entry = Entry { start: CqlTimestamp(start), run_id };
            assert_eq!(entry.is_after(cursor.into()), is_after, "{entry:?} {cursor:?}");
        }
    }
}
