//! The gaps that daemons have written, read back: newest first, page by page, as far as a filter needs.

use uuid::Uuid;

use crate::{
    event::{GapRow, RunRow},
    frame::GapReason,
    store::{DaysQuery, Store, StoreError},
    units::{self, Micros},
};

/// Rows read at once.
const PAGE: usize = 1_000;
/// A gap is found by its beginning: one that began longer before the time asked for is not looked for.
const LOOK_BACK: Micros = 7 * DAY;
const DAY: Micros = 86_400 * 1_000_000;
/// How far ahead a clock that was wrong may have dated a gap.
const AHEAD: Micros = 3_660 * DAY;

/// The run's times are its producer's, those of gaps are ours, and what was sent takes a moment to arrive.
const SLACK: Micros = 60 * 1_000_000;

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
    pub run: Option<Uuid>,
}

impl Filter {
    /// The gaps that may concern this run.
    pub fn of_run(run: &RunRow) -> Self {
        let until = run.end_time.max(run.last_event_time).map(|until| until.saturating_add(SLACK));
        let since = run.start_time.map(|since| since.saturating_sub(SLACK));
        Self { run: Some(run.run_id), since, until, ..Self::default() }
    }

    fn takes(&self, gap: &GapRow) -> bool {
        self.reason.is_none_or(|reason| reason.as_str() == gap.reason)
            && self.instance.as_ref().is_none_or(|instance| *instance == gap.instance)
            && self.since.is_none_or(|since| gap.ended_at >= since)
            && self.until.is_none_or(|until| gap.started_at <= until)
            && self.run.is_none_or(|run| gap.run_id.is_none_or(|of| of == run))
    }
}

/// The newest `limit` gaps that the filter takes.
///
/// # Errors
/// When the store does not answer.
pub async fn read(store: &dyn Store, filter: &Filter, limit: usize) -> Result<Vec<GapRow>, StoreError> {
    let start = filter.since.map_or(0, |since| since.saturating_sub(LOOK_BACK).max(0));
    let end = filter.until.unwrap_or_else(|| units::now() + AHEAD);
    let mut query = DaysQuery { start, end, limit: PAGE };
    let (mut found, mut seen): (Vec<GapRow>, Vec<Uuid>) = (Vec::new(), Vec::new());
    while found.len() < limit {
        let page = store.gaps(&query).await?;
        let full = page.len() == query.limit;
        let last = page.last().map(|gap| gap.started_at);
        // Pages overlap in the moment where one ends and the next begins.
        let new: Vec<_> = page.into_iter().filter(|gap| !seen.contains(&gap.gap_id)).collect();
        let Some(last) = last.filter(|_| full) else {
            found.extend(new.into_iter().filter(|gap| filter.takes(gap)));
            break;
        };
        if last == query.end && new.is_empty() {
            query.limit *= 2;
            continue;
        }
        seen = new.iter().filter(|gap| gap.started_at == last).map(|gap| gap.gap_id).chain(seen).collect();
        seen.truncate(2 * query.limit);
        query.end = last;
        found.extend(new.into_iter().filter(|gap| filter.takes(gap)));
    }
    found.truncate(limit);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Row,
        store::{Batch, memory::MemoryStore},
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

    async fn store(gaps: impl IntoIterator<Item = GapRow>) -> MemoryStore {
        let store = MemoryStore::new();
        for gap in gaps {
            let row = Row::Gap(gap);
            let (table, partition) = row.destination();
            store.write(&Batch { table, partition, rows: vec![row] }).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn pages_are_read_as_far_as_the_filter_needs() {
        // Five at each moment, so that pages end within one.
        let store = store((0..5_003).map(|n| gap(n, 1_000 + (n / 5) as Micros, None))).await;
        let all = read(&store, &Filter::default(), usize::MAX).await.unwrap();
        assert_eq!(all.len(), 5_003, "each once");
        assert!(all.is_sorted_by(|a, b| a.started_at >= b.started_at));
        let odd = Filter { reason: Some(GapReason::Sequence), ..Filter::default() };
        assert_eq!(read(&store, &odd, 2_000).await.unwrap().len(), 2_000);
        let none = Filter { instance: Some("b".into()), ..Filter::default() };
        assert!(read(&store, &none, 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn of_a_run_are_its_own_and_those_of_its_time() {
        let at = |seconds: Micros| 10 * SLACK + seconds * 1_000_000;
        let store = store([
            gap(1, at(100), Some(7)),
            gap(2, at(110), Some(8)),
            gap(3, at(120), None),
            gap(4, at(200) + SLACK + 1, None),
            gap(5, at(100) - SLACK - 4, None),
        ])
        .await;
        let run = RunRow {
            run_id: Uuid::from_u128(7),
            start_time: Some(at(100)),
            last_event_time: Some(at(200)),
            ..RunRow::default()
        };
        let found = read(&store, &Filter::of_run(&run), 10).await.unwrap();
        assert_eq!(found.iter().map(|gap| gap.gap_id.as_u128()).collect::<Vec<_>>(), [3, 1, 5]);
    }
}
