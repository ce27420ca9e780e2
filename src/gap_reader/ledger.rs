//! Reads the recorded gaps: newest first, page by page, as far as a filter needs.

use uuid::Uuid;

use crate::{
    event::{GapRow, RunRow},
    gaps::GapReason,
    store::{DaysQuery, Store, StoreError},
    units::{self, Micros},
};

/// Rows read at once.
const PAGE_ROWS: usize = 1_000;
/// Gaps are read by their beginning: one that began longer before the requested time is not found.
const LOOK_BACK: Micros = 7 * DAY;
const DAY: Micros = 86_400 * 1_000_000;
/// How far in the future a wrong clock may have dated a gap.
const CLOCK_AHEAD_MAX: Micros = 3_660 * DAY;

/// Which gaps.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only with this reason.
    pub reason: Option<GapReason>,
    /// Only of this instance.
    pub instance: Option<String>,
    /// Only those that were not over before.
    pub since: Option<Micros>,
    /// Only those that had begun by then.
    pub until: Option<Micros>,
    /// Only those of this run, and those of no run in particular that touch its time.
    pub run: Option<Span>,
}

/// A run's time; the end of one that has not ended is open.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    run_id: Uuid,
    from: Option<Micros>,
    to: Option<Micros>,
}

impl Span {
    fn matches(&self, gap: &GapRow) -> bool {
        let touches =
            self.from.is_none_or(|from| gap.ended_at >= from) && self.to.is_none_or(|to| gap.started_at <= to);
        gap.run_id.map_or(touches, |run| run == self.run_id)
    }
}

impl Filter {
    /// The gaps that may concern a run between two moments.
    pub fn of_span(run_id: Uuid, from: Micros, to: Micros) -> Self {
        Self { run: Some(Span { run_id, from: Some(from), to: Some(to) }), ..Self::default() }
    }

    /// The gaps that may concern this run.
    pub fn of_run(run: &RunRow) -> Self {
        Self { run: Some(Span { run_id: run.run_id, from: run.start_time, to: run.end_time }), ..Self::default() }
    }

    fn matches(&self, gap: &GapRow) -> bool {
        self.reason.is_none_or(|reason| reason.as_str() == gap.reason)
            && self.instance.as_ref().is_none_or(|instance| *instance == gap.instance)
            && self.since.is_none_or(|since| gap.ended_at >= since)
            && self.until.is_none_or(|until| gap.started_at <= until)
            && self.run.is_none_or(|run| run.matches(gap))
    }
}

/// The newest `limit` gaps that the filter takes.
///
/// # Errors
/// When the store does not answer.
pub async fn read(store: &dyn Store, filter: &Filter, limit: usize) -> Result<Vec<GapRow>, StoreError> {
    let since = filter.since.max(filter.run.and_then(|run| run.from));
    let start = since.map_or(0, |since| since.saturating_sub(LOOK_BACK).max(0));
    let end = filter.until.unwrap_or_else(|| units::now() + CLOCK_AHEAD_MAX);
    let mut query = DaysQuery { start, end, limit: PAGE_ROWS };
    let (mut found, mut seen): (Vec<GapRow>, Vec<Uuid>) = (Vec::new(), Vec::new());
    while found.len() < limit {
        let page = store.gaps(&query).await?;
        let full = page.len() == query.limit;
        let last = page.last().map(|gap| gap.started_at);
        // Pages overlap in the moment where one ends and the next begins.
        let new: Vec<_> = page.into_iter().filter(|gap| !seen.contains(&gap.gap_id)).collect();
        let Some(last) = last.filter(|_| full) else {
            found.extend(new.into_iter().filter(|gap| filter.matches(gap)));
            break;
        };
        if last == query.end && new.is_empty() {
            query.limit *= 2;
            continue;
        }
        seen = new.iter().filter(|gap| gap.started_at == last).map(|gap| gap.gap_id).chain(seen).collect();
        seen.truncate(2 * query.limit);
        query.end = last;
        found.extend(new.into_iter().filter(|gap| filter.matches(gap)));
    }
    found.truncate(limit);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Row,
        metrics::Metrics,
        store::{Batch, Retention, sqlite},
    };

    fn gap(n: u128, at: Micros, run: Option<u128>) -> GapRow {
        GapRow {
            started_at: at,
            gap_id: Uuid::from_u128(n),
            ended_at: at + 5,
            reason: if n.is_multiple_of(2) { "disconnected" } else { "sequence" }.into(),
            source: "redis".into(),
            channel: None,
            instance: "a".into(),
            run_id: run.map(Uuid::from_u128),
            lost: Some(1),
        }
    }

    async fn store(folder: &tempfile::TempDir, gaps: impl IntoIterator<Item = GapRow>) -> sqlite::SqliteStore {
        let config = sqlite::Config { path: folder.path().join("cascor.db") };
        let store = sqlite::open(&config, &Retention::default(), Metrics::new());
        for gap in gaps {
            let row = Row::Gap(gap);
            let (table, partition) = row.destination();
            store.write(&Batch { table, partition, rows: vec![row].into() }).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn pages_are_read_as_far_as_the_filter_needs() {
        // Five at each moment, so that pages end within one.
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder, (0..5_003).map(|n| gap(n, 1_000 + (n / 5) as Micros, None))).await;
        let all = read(&store, &Filter::default(), usize::MAX).await.unwrap();
        assert_eq!(all.len(), 5_003, "each once");
        assert!(all.is_sorted_by(|a, b| a.started_at >= b.started_at));
        let odd = Filter { reason: Some(GapReason::Sequence), ..Filter::default() };
        assert_eq!(read(&store, &odd, 2_000).await.unwrap().len(), 2_000);
        let none = Filter { instance: Some("b".into()), ..Filter::default() };
        assert!(read(&store, &none, 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn gaps_of_a_run_are_its_own_and_those_without_a_run_in_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(
            &folder,
            [gap(1, 100, Some(7)), gap(2, 110, Some(8)), gap(3, 120, None), gap(4, 500, None), gap(5, 96, None)],
        )
        .await;
        let run =
            RunRow { run_id: Uuid::from_u128(7), start_time: Some(100), end_time: Some(200), ..RunRow::default() };
        let found = read(&store, &Filter::of_run(&run), 10).await.unwrap();
        assert_eq!(found.iter().map(|gap| gap.gap_id.as_u128()).collect::<Vec<_>>(), [3, 1, 5]);
    }
}
