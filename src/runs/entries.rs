//! Assigns entries of a stream to runs.
//!
//! Several daemons share a stream: each sees some of the entries, in no common order, and may see one twice. So the decision follows
//! from the entry and from what the daemons share, and from nothing that one of them remembers: the runs of the stream, and the times
//! of the entries that opened and ended them. Runs open and end by start and end messages, and where a message without an id finds
//! none; an epoch that begins anew, or a silence, says nothing. A `reset` and the deletion of a run close the open one at a time, so that
//! an entry that is taken late is still of the run before. The change of what is shared is made by compare-and-set; a daemon that loses
//! decides again.

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{EndTime, OpenRun, RunHints};
use crate::{
    event::{Kind, implicit_run_id},
    units::Micros,
};

/// Runs before the open one that are remembered: for entries that are redelivered, or that another daemon takes late.
pub(super) const FORMER_MAX: usize = 16;

/// Each daemon of a stream hears a `reset`, by its own clock within this time of the first. A run that was opened longer after a `reset`
/// is not closed by it: the command was applied late.
const RESET_WINDOW: Micros = 10_000_000;
/// Daemons of a `reset` that are remembered.
const RESET_DAEMONS_MAX: usize = 256;

/// A `reset` of a stream, and the daemons that have heard it: of several that hear the same one, the first closes the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reset {
    at: Micros,
    by: Vec<String>,
}

/// A run that was open before. One that has started again is there with the time before, as another run would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerRun {
    run_id: Uuid,
    opened_at: Micros,
    #[serde(default)]
    ended_at: Option<EndTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed_at: Option<Micros>,
}

impl FormerRun {
    /// Whether an entry without an id no longer belongs to it. Of an ended run only metrics do not.
    fn is_over(&self, hints: &RunHints<'_>, grace: Duration) -> bool {
        let is_late = || self.ended_at.is_some_and(|end| !end.is_within(hints, grace));
        self.closed_at.is_some_and(|closed| hints.received_at > closed) || (hints.kind == Kind::Metrics && is_late())
    }
}

/// The run of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryAssignment {
    /// Run id.
    pub run_id: Uuid,
    /// Whether the entry opened it without being a run start.
    pub opened_run: bool,
    /// What must be shared before the decision holds.
    pub change: Option<OpenRun>,
}

/// Assigns an entry; `shared`: the runs of the stream, `grace`: see [`Timeouts::end_grace`](super::Timeouts). The time of receipt in the
/// hints is that of the entry's id.
pub fn assign_entry(shared: Option<&OpenRun>, stream: &str, hints: &RunHints<'_>, grace: Duration) -> EntryAssignment {
    let named = implicit_run_id(stream, hints.event_time, hints.payload);
    if hints.kind == Kind::RunStart {
        let run_id = hints.run_id.unwrap_or(named);
        return EntryAssignment { run_id, opened_run: false, change: started(shared, run_id, hints.received_at) };
    }
    if let Some(run_id) = hints.run_id {
        let change = shared.filter(|open| open.run_id == run_id).and_then(|open| ended(open, hints));
        return EntryAssignment { run_id, opened_run: false, change };
    }
    let Some(open) = shared else {
        return EntryAssignment {
            run_id: named,
            opened_run: true,
            change: Some(opened(named, hints.received_at, None)),
        };
    };
    let runs = runs_of(open);
    // The newest that was opened before this entry; the oldest takes what came before it.
    let mut at = runs.iter().position(|run| run.opened_at <= hints.received_at).unwrap_or(runs.len() - 1);
    if runs[at].is_over(hints, grace) {
        let Some(next) = at.checked_sub(1) else {
            let change = Some(opened(named, hints.received_at, Some(open)));
            return EntryAssignment { run_id: named, opened_run: true, change };
        };
        // Another daemon has taken a later entry first, which opened the next run.
        at = next;
    }
    let run_id = runs[at].run_id;
    let change = if at == 0 { ended(open, hints) } else { None };
    // A redelivery.
    EntryAssignment { run_id, opened_run: run_id == named, change }
}

/// Closes the open run at a time: what is later begins another. `None`: it is closed already, or was opened later.
pub fn close_entry_run(open: &OpenRun, at: Micros) -> Option<OpenRun> {
    let is_open = open.closed_at.is_none() && open.opened_at <= at;
    is_open.then(|| OpenRun { closed_at: Some(at), ..open.clone() })
}

/// The same for a `reset` that this daemon has heard; another daemon may have been faster. `None`: the run was opened, or another
/// `reset` heard, long after it.
pub fn reset_entry_run(open: &OpenRun, at: Micros, instance: &str) -> Option<OpenRun> {
    let newest = open.reset.as_ref().map_or(open.opened_at, |reset| reset.at.max(open.opened_at));
    if newest.saturating_sub(at) > RESET_WINDOW {
        return None;
    }
    let mut with = open.clone();
    match &mut with.reset {
        Some(reset)
            if at.abs_diff(reset.at) <= RESET_WINDOW.unsigned_abs() && !reset.by.iter().any(|by| by == instance) =>
        {
            reset.by.push(instance.to_owned());
            reset.by.truncate(RESET_DAEMONS_MAX);
        }
        _ => {
            // The clocks of daemons and of Redis differ: a run may seem to be opened a little after the command that closes it.
            with.closed_at = with.closed_at.or(Some(at.max(open.opened_at)));
            with.reset = Some(Reset { at, by: vec![instance.to_owned()] });
        }
    }
    Some(with)
}

/// The open run and those before it, the newest first.
fn runs_of(open: &OpenRun) -> Vec<FormerRun> {
    let mut runs = vec![former(open)];
    runs.extend(open.former.iter().cloned());
    runs
}

fn former(run: &OpenRun) -> FormerRun {
    let ended_at = run.ended_at.filter(|_| run.ended);
    FormerRun { run_id: run.run_id, opened_at: run.opened_at, ended_at, closed_at: run.closed_at }
}

fn opened(run_id: Uuid, at: Micros, before: Option<&OpenRun>) -> OpenRun {
    let mut former = before.map(runs_of).unwrap_or_default();
    // A run that started again and again takes the room of one: between two of its times no entry is of another run.
    former.dedup_by(|older, newer| {
        let is_same = older.run_id == newer.run_id;
        if is_same {
            newer.opened_at = older.opened_at;
        }
        is_same
    });
    former.truncate(FORMER_MAX);
    OpenRun {
        run_id,
        opened_at: at,
        ended: false,
        ended_at: None,
        last_epoch: None,
        phases: Vec::new(),
        former,
        closed_at: None,
        reset: before.and_then(|before| before.reset.clone()),
    }
}

/// What a start changes.
fn started(shared: Option<&OpenRun>, run_id: Uuid, at: Micros) -> Option<OpenRun> {
    let Some(open) = shared else { return Some(opened(run_id, at, None)) };
    if open.opened_at < at {
        let mut with = opened(run_id, at, Some(open));
        if open.run_id == run_id {
            // It runs again, so what closes the run of before does not close it; what is later than this start does.
            with.ended_at = open.ended_at.filter(|end| open.ended && end.received_at >= at);
            with.ended = with.ended_at.is_some();
            with.closed_at = open.closed_at.filter(|closed| *closed >= at);
        }
        return Some(with);
    }
    // A redelivery, or taken late: it is one of those before.
    if open.run_id == run_id || open.former.iter().any(|former| former.run_id == run_id) {
        return None;
    }
    let mut with = open.clone();
    let place = with.former.partition_point(|former| former.opened_at >= at);
    with.former.insert(place, FormerRun { run_id, opened_at: at, ended_at: None, closed_at: None });
    with.former.truncate(FORMER_MAX);
    (place < FORMER_MAX).then_some(with)
}

/// What an end of the open run changes.
fn ended(open: &OpenRun, hints: &RunHints<'_>) -> Option<OpenRun> {
    // The end that opened it, because nothing was open, does not end it when it is delivered again either.
    if hints.kind != Kind::RunEnd || open.ended || hints.received_at <= open.opened_at {
        return None;
    }
    let event_time = hints.has_event_time.then_some(hints.event_time);
    let ended_at = Some(EndTime { event_time, received_at: hints.received_at });
    Some(OpenRun { ended: true, ended_at, ..open.clone() })
}
