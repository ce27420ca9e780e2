//! How trimmed entries are reported, so that a daemon that is killed at any moment neither forgets them nor reports them twice.
//!
//! 1. The report is opened in Redis, with everything that its rows are made of. There is one at a time.
//! 2. Its gaps become durable on the disk of this daemon.
//! 3. It is closed: in one step, the counts in Redis include it.
//!
//! After a kill the daemon goes on where it was. A report of a daemon that is gone is taken over by another; its rows keep the name of the
//! daemon that has opened it, so they are the same rows, however many daemons write them.

use std::{ops::Range, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use super::{
    commands::{Commands, StreamError},
    deleted_entries::DeletedBatch,
    reply::Snapshot,
    trimmed::{Finding, Recount, find, missing},
};
use crate::{
    gaps::{Gap, GapReason},
    source::queue_sender::DurableGaps,
    units::Micros,
};

/// An open report of another daemon is taken over after this long.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(5);

/// What is known of trimmed entries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Trimmed {
    /// The snapshot does not tell.
    #[default]
    Unknown,
    /// The daemons count them together, and all of them are reported.
    Shared,
    /// The same, and some are still to be reported.
    Open,
    /// So many were trimmed by now, at most; the daemons cannot agree which of them reports that.
    Alone(u64),
}

/// An open report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Report {
    /// The daemon that has opened it.
    instance: String,
    started_at: Micros,
    ended_at: Micros,
    /// Entries that were trimmed before they were read, and whether that is their exact number.
    trimmed: u64,
    exact: bool,
    /// Entries that were trimmed before they were acknowledged.
    gone: u64,
}

impl Report {
    fn gaps(&self, stream: &str) -> Vec<Gap> {
        let (exact, bound) = if self.exact { (self.trimmed, self.gone) } else { (0, self.trimmed + self.gone) };
        let found = [(GapReason::Trimmed, exact), (GapReason::TrimmedAtMost, bound)];
        let gap = |(reason, lost)| Gap {
            channel: Some(stream.to_owned()),
            lost: Some(lost),
            instance: Some(self.instance.clone()),
            ..Gap::new(reason, "stream", self.started_at, self.ended_at)
        };
        found.into_iter().filter(|(_, lost)| *lost > 0).map(gap).collect()
    }
}

/// An open report of another daemon, and since when it is seen.
#[derive(Debug, Default)]
pub(super) struct OtherReport(Option<(String, Instant)>);

impl OtherReport {
    /// Takes in what is open.
    pub(super) fn seen(&mut self, open: Option<&str>) {
        if self.0.as_ref().map(|(text, _)| text.as_str()) != open {
            self.0 = open.map(|text| (text.to_owned(), Instant::now()));
        }
    }

    /// The report that its daemon does not close.
    fn abandoned(&self) -> Option<String> {
        self.0.as_ref().filter(|(_, since)| since.elapsed() >= TAKE_OVER_AFTER).map(|(text, _)| text.clone())
    }
}

/// Reports what a snapshot of the stream shows.
#[derive(Debug)]
pub(super) struct Reporter {
    gaps: DurableGaps,
    /// First and last moment of a loss. The first is never the same twice: rows are known by it.
    since: Micros,
    until: Micros,
    removed_before: Option<u64>,
    take_over: Option<String>,
}

impl Reporter {
    pub(super) fn new(gaps: DurableGaps, of: Range<Micros>, removed_before: Option<u64>, other: &OtherReport) -> Self {
        Self { gaps, since: of.start, until: of.end, removed_before, take_over: other.abandoned() }
    }

    /// Brings what the daemons have reported to what the snapshot shows.
    pub(super) async fn report(&self, commands: &Commands, now: &Snapshot) -> Trimmed {
        let Some(state) = &now.report_state else {
            return missing(now).map_or(Trimmed::Unknown, Trimmed::Alone);
        };
        let found = find(now, state, self.removed_before);
        let reported = state.trimmed.unwrap_or(0);
        let settled = found.is_none_or(|found| found.total == reported && found.recount == Recount::Keep);
        let mut trimmed = if found.is_some() { Trimmed::Shared } else { Trimmed::Unknown };
        if state.report.is_none() && settled && state.gone == 0 {
            return trimmed;
        }
        // What fails is tried again after the next snapshot.
        let opened = match &state.report {
            Some(text) => self.take_up(commands, text),
            None => self.open(commands, now, found).await,
        };
        // An older report, or that of another daemon, does not have it.
        if found.is_some() && !settled && (state.report.is_some() || opened.is_none()) {
            trimmed = Trimmed::Open;
        }
        if let Some((text, report)) = opened
            && self.record(&report.gaps(&commands.key)).await
        {
            let _ = commands.close_report(&text, report.gone).await;
        }
        trimmed
    }

    /// The report that is open, if it falls to this daemon.
    fn take_up(&self, commands: &Commands, text: &String) -> Option<(String, Report)> {
        let report: Report = serde_json::from_str(text)
            .inspect_err(|error| warn!(%error, text, "a report of trimmed entries in Redis cannot be read"))
            .ok()?;
        let ours = report.instance == commands.consumer || self.take_over.as_ref() == Some(text);
        ours.then(|| (text.clone(), report))
    }

    /// Opens a new report.
    async fn open(&self, commands: &Commands, now: &Snapshot, found: Option<Finding>) -> Option<(String, Report)> {
        let state = now.report_state.as_ref()?;
        let total = state.trimmed.unwrap_or(0);
        let found = found.unwrap_or(Finding { total, lost: 0, exact: false, recount: Recount::Keep });
        let report = Report {
            instance: commands.consumer.clone(),
            started_at: self.since,
            ended_at: self.until,
            trimmed: found.lost,
            exact: found.exact,
            gone: state.gone,
        };
        let text = serde_json::to_string(&report).expect("strings and numbers always serialise");
        let opened = commands.open_report(now, &found, &text).await;
        matches!(opened, Ok(true)).then_some((text, report))
    }

    /// Returns whether all of them are durable.
    async fn record(&self, gaps: &[Gap]) -> bool {
        for gap in gaps {
            let (reason, lost) = (gap.reason.as_str(), gap.lost);
            warn!(
                stream = gap.channel,
                reason, lost, "entries were trimmed before they were read; they are counted. Let the stream keep more"
            );
            if !self.gaps.record(gap.clone()).await {
                return false;
            }
        }
        true
    }

    /// Acknowledges pending entries that are no longer in the stream. Returns whether those that are lost are reported.
    pub(super) async fn acknowledge_deleted(
        &self,
        commands: &Commands,
        batch: &DeletedBatch,
    ) -> Result<bool, StreamError> {
        if !batch.durable.is_empty() {
            commands.acknowledge(&batch.durable).await?;
        }
        if batch.lost.is_empty() || commands.acknowledge_deleted(&batch.lost).await? {
            return Ok(true);
        }
        // Where the daemons may not count together, the gap comes first.
        let (started_at, ended_at) = batch.time.unwrap_or((self.since, self.until));
        let gap = Gap::new(GapReason::TrimmedAtMost, "stream", started_at, ended_at);
        let gap = Gap { channel: Some(commands.key.clone()), lost: Some(batch.lost.len() as u64), ..gap };
        let reported = self.record(&[gap]).await;
        if reported {
            commands.acknowledge(&batch.lost).await?;
        }
        Ok(reported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_report_are_the_same_whoever_writes_them_and_one_for_each_reason() {
        let report = Report { instance: "a".into(), started_at: 5, ended_at: 9, trimmed: 70, exact: true, gone: 3 };
        let text = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        let rows = |report: &Report| -> Vec<_> {
            let gaps = report.gaps("s").into_iter();
            gaps.map(|gap| (gap.reason, gap.lost.unwrap(), gap.instance.unwrap(), gap.started_at)).collect()
        };
        let expected = [(GapReason::Trimmed, 70, "a".to_owned(), 5), (GapReason::TrimmedAtMost, 3, "a".to_owned(), 5)];
        assert_eq!(rows(&read), expected);
        let bound = Report { exact: false, ..report.clone() };
        assert_eq!(rows(&bound), [(GapReason::TrimmedAtMost, 73, "a".to_owned(), 5)], "the same key: one row");
        assert_eq!(rows(&Report { trimmed: 0, gone: 0, ..report }), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_that_stays_open_is_taken_over() {
        let mut other = OtherReport::default();
        other.seen(Some("one"));
        tokio::time::advance(TAKE_OVER_AFTER / 2).await;
        other.seen(Some("one"));
        assert_eq!(other.abandoned(), None);
        tokio::time::advance(TAKE_OVER_AFTER / 2).await;
        assert_eq!(other.abandoned(), Some("one".to_owned()));
        other.seen(Some("two"));
        assert_eq!(other.abandoned(), None, "another one");
        other.seen(None);
        tokio::time::advance(TAKE_OVER_AFTER).await;
        assert_eq!(other.abandoned(), None);
    }
}
