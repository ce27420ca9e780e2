//! Pages of sorted lists.

use std::{collections::HashSet, iter::Peekable, ops::ControlFlow, vec};

use rusqlite::{CachedStatement, Connection};
use uuid::Uuid;

use super::{CLOCK_ROWS, RunOrder, rows};
use crate::{
    event::EditedRun,
    store::{
        run_list::{Page, Runs, RunsCursor, RunsQuery, RunsSort, SortPosition, TopRuns},
        sqlite::database::OpenDatabase,
    },
};

/// Reads a page along a remembered order, with the runs that were changed since in their places; `None`: the order is outdated.
///
/// One transaction: the runs are as they were at one moment.
pub(in crate::store::sqlite) fn by_order(
    open: &OpenDatabase,
    query: &RunsQuery,
    sort: &RunsSort,
    order: &RunOrder,
) -> rusqlite::Result<Option<Runs>> {
    let transaction = open.connection.unchecked_transaction()?;
    let Some(changed) = order.changed(open, &transaction, query.stale_before())? else { return Ok(None) };
    let after = query.from.after.as_ref();
    let mut top = TopRuns::new(sort, after, query.limit.saturating_add(1));
    for run_id in &changed {
        let run = rows::one(&transaction, *run_id)?.filter(|run| query.matches(run));
        if let Some(position) = run.and_then(|run| sort.position(&run, query.stale_before())) {
            top.offer(position);
        }
    }
    let rows = order.rows(sort.descending);
    let unchanged = Unchanged { statement: rows::by_row(&transaction)?, changed: &changed };
    let mut walk = Walk::new(&transaction, query, sort, top.into_sorted());
    let end = walk.run(unchanged, rows)?;
    Ok(Some(walk.finish(end, order.len())))
}

/// Reads all runs, then those of the page, in one transaction: for lists of so many runs that their order is not remembered.
pub(in crate::store::sqlite) fn by_reading_all(
    connection: &Connection,
    query: &RunsQuery,
    sort: &RunsSort,
) -> rusqlite::Result<Runs> {
    let transaction = connection.unchecked_transaction()?;
    let mut top = TopRuns::new(sort, query.from.after.as_ref(), query.limit.saturating_add(1));
    let mut scanned = 0;
    {
        let mut statement = transaction.prepare_cached(&rows::all(query))?;
        let mut stored = statement.query(())?;
        while let Some(row) = stored.next()? {
            scanned += 1;
            if let Some(position) =
                rows::matching(row, query)?.and_then(|run| sort.position(&run, query.stale_before()))
            {
                top.offer(position);
            }
        }
    }
    let mut walk = Walk::new(&transaction, query, sort, top.into_sorted());
    let end = if walk.add_changed(None)?.is_break() { End::Full } else { End::All };
    walk.scanned = scanned;
    Ok(walk.finish(end, scanned))
}

/// Reads runs by their row ids.
struct Unchanged<'c> {
    statement: CachedStatement<'c>,
    changed: &'c HashSet<Uuid>,
}

impl Unchanged<'_> {
    /// Passes the run with a row id on; `None` when its row is gone, or is that of a run that was changed.
    fn read<T>(
        &mut self,
        row_id: i64,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Option<T>> {
        let mut stored = self.statement.query([row_id])?;
        let Some(row) = stored.next()? else { return Ok(None) };
        match rows::key(row)? {
            Some((_, run_id)) if !self.changed.contains(&run_id) => read(row),
            _ => Ok(None),
        }
    }
}

/// Why a page ends.
enum End {
    Full,
    /// The time was up at this place.
    Due(SortPosition),
    All,
}

/// The runs of a page, gathered in their order.
struct Walk<'q> {
    connection: &'q Connection,
    query: &'q RunsQuery,
    sort: &'q RunsSort,
    page: Page<'q>,
    /// Places of changed runs that match.
    changed: Peekable<vec::IntoIter<SortPosition>>,
    last: Option<SortPosition>,
    scanned: usize,
}

impl<'q> Walk<'q> {
    fn new(connection: &'q Connection, query: &'q RunsQuery, sort: &'q RunsSort, changed: Vec<SortPosition>) -> Self {
        let page = Page::new(query);
        Self { connection, query, sort, page, changed: changed.into_iter().peekable(), last: None, scanned: 0 }
    }

    fn run(&mut self, mut unchanged: Unchanged<'_>, rows: &[i64]) -> rusqlite::Result<End> {
        let (query, sort) = (self.query, self.sort);
        let begin = match &query.from.after {
            Some(after) => self.first_after(&mut unchanged, rows, after)?,
            None => 0,
        };
        let mut is_due = false;
        for row_id in &rows[begin..] {
            self.scanned += 1;
            is_due |= self.scanned.is_multiple_of(CLOCK_ROWS) && query.is_due();
            let found = unchanged.read(*row_id, |row| {
                let run = rows::matching(row, query)?;
                let is_match = run.is_some();
                Ok(match run {
                    None if is_due => Some((rows::edited(row)?, is_match)),
                    run => run.map(|run| (run, is_match)),
                })
            })?;
            let Some((run, is_match)) = found else { continue };
            let Some(position) = sort.position(&run, query.stale_before()) else { continue };
            if self.add_changed(Some(&position))?.is_break() {
                return Ok(End::Full);
            }
            if is_match && self.add(run, position.clone()).is_break() {
                return Ok(End::Full);
            }
            if is_due {
                return Ok(End::Due(position));
            }
        }
        Ok(if self.add_changed(None)?.is_break() { End::Full } else { End::All })
    }

    /// Finds the first run behind a place. Runs that were changed or are gone are passed over: they have no place any longer.
    fn first_after(
        &self,
        unchanged: &mut Unchanged<'_>,
        rows: &[i64],
        after: &SortPosition,
    ) -> rusqlite::Result<usize> {
        let (mut low, mut high) = (0, rows.len());
        while low < high {
            let middle = low.midpoint(high);
            let (mut probe, mut position) = (middle, None);
            while probe < high && position.is_none() {
                let stale_before = self.query.stale_before();
                position =
                    unchanged.read(rows[probe], |row| Ok(self.sort.position(&rows::edited(row)?, stale_before)))?;
                probe += 1;
            }
            match position {
                Some(position) if self.sort.compare(&position, after).is_le() => low = probe,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Adds the changed runs whose places are before this one; without one, all of them.
    fn add_changed(&mut self, before: Option<&SortPosition>) -> rusqlite::Result<ControlFlow<()>> {
        let sort = self.sort;
        let is_next = |changed: &SortPosition| before.is_none_or(|before| sort.compare(changed, before).is_lt());
        while let Some(position) = self.changed.next_if(is_next) {
            if let Some(run) = rows::one(self.connection, position.run_id)?
                && self.add(run, position).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn add(&mut self, run: EditedRun, position: SortPosition) -> ControlFlow<()> {
        let flow = self.page.add(run);
        if flow.is_continue() {
            self.last = Some(position);
        }
        flow
    }

    fn finish(self, end: End, sorted: usize) -> Runs {
        let after = match end {
            End::Full => self.last,
            End::Due(position) => Some(position),
            End::All => None,
        };
        let next = after.map(|after| RunsCursor { after: Some(after), ..RunsCursor::default() });
        Runs { runs: self.page.into_runs(), next, scanned: self.scanned, sorted, sorts_all: true, is_sorting: false }
    }
}
