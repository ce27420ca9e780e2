//! Newest first, along the index `runs_by_month`.

use std::ops::ControlFlow;

use rusqlite::{Connection, ToSql};
use uuid::Uuid;

use super::{CLOCK_ROWS, rows};
use crate::{
    store::{
        run_list::{Page, Runs, RunsQuery},
        sqlite::encode,
    },
    units::Micros,
};

/// Begins at the cursor's place in its month, then goes on with the months before.
pub(in crate::store::sqlite) fn newest_first(connection: &Connection, query: &RunsQuery) -> rusqlite::Result<Runs> {
    let mut scan = Scan { query, page: Page::new(query), scanned: 0, stopped_at: None };
    let mut flow = ControlFlow::Continue(());
    let Some((start, run_id)) = query.from.before else {
        flow = scan.run(connection, "true", &[])?;
        return Ok(scan.finish(flow));
    };
    let (month, run_id) = (encode::month(start), run_id.to_string());
    let values: [&dyn ToSql; 3] = [&month, &start, &run_id];
    let here = "m.month = ?1 AND m.start_time <= ?2 AND (m.start_time < ?2 OR m.run_id > ?3)";
    for (condition, values) in [(here, &values[..]), ("m.month < ?1", &values[..1])] {
        flow = scan.run(connection, condition, values)?;
        if flow.is_break() || scan.stopped_at.is_some() {
            break;
        }
    }
    Ok(scan.finish(flow))
}

struct Scan<'q> {
    query: &'q RunsQuery,
    page: Page<'q>,
    scanned: usize,
    /// The last run that was compared when the time was up.
    stopped_at: Option<(Micros, Uuid)>,
}

impl Scan<'_> {
    /// Compares runs until the page is full (break), the time is up, or there are no more.
    fn run(
        &mut self,
        connection: &Connection,
        condition: &str,
        values: &[&dyn ToSql],
    ) -> rusqlite::Result<ControlFlow<()>> {
        // CROSS JOIN: the index determines the order; rows are looked up one by one.
        let sql = format!(
            "SELECT {} FROM runs_by_month m CROSS JOIN training_runs r
             ON r.run_id = m.run_id AND r.start_time = m.start_time LEFT JOIN run_edits e ON e.run_id = r.run_id
             WHERE {condition} ORDER BY m.month DESC, m.start_time DESC, m.run_id",
            rows::columns(|_| true)
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut stored = statement.query(values)?;
        while let Some(row) = stored.next()? {
            self.scanned += 1;
            if let Some(run) = rows::matching(row, self.query)?
                && self.page.add(run).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            if self.scanned.is_multiple_of(CLOCK_ROWS) && self.query.is_due() {
                self.stopped_at = rows::key(row)?;
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn finish(self, flow: ControlFlow<()>) -> Runs {
        Runs { scanned: self.scanned, ..self.page.newest_first(flow, self.stopped_at) }
    }
}
