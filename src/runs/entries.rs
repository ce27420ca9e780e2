//! Assigns entries of a stream to runs.
//!
//! Several daemons share a stream: each sees some of the entries, in no common order, and may see one twice. So the decision follows
//! from the entry and from what the daemons share, and from nothing that one of them remembers: the runs of the stream, and the times
//! of the entries that opened and ended them. Runs open and end by start and end messages, and where a message without an id finds
//! none; an epoch that begins anew, or a silence, says nothing. A `reset` and the deletion of a run close the open one at a time, so that
//! an entry that is taken late is still of the run before. The change of what is shared is made by compare-and-set; a daemon that loses
//! decides again.

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

/// Each daemon of a stream hears a `reset`, by its own clock within this time of the first.
const RESET_WINDOW: Micros = 10_000_000;
/// Daemons of a `reset` that are remembered.
const RESET_DAEMONS_MAX: usize = 256;

/// A `reset` of a stream, and the daemons that have heard it: of several that hear the same one, the first closes the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reset {
    at: Micros,
    by: Vec<String>,
}

/// A run that was open before.
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

/// The same for a `reset` that this daemon has heard; another daemon may have been faster.
pub fn reset_entry_run(open: &OpenRun, at: Micros, instance: &str) -> OpenRun {
    let mut with = open.clone();
    match &mut with.reset {
        Some(reset)
            if at.abs_diff(reset.at) <= RESET_WINDOW.unsigned_abs() && !reset.by.iter().any(|by| by == instance) =>
        {
            reset.by.push(instance.to_owned());
            reset.by.truncate(RESET_DAEMONS_MAX);
        }
        _ => {
            // The clocks of daemons and of Redis differ: the run is open, so the command is later than its beginning.
            with.closed_at = with.closed_at.or(Some(at.max(open.opened_at)));
            with.reset = Some(Reset { at, by: vec![instance.to_owned()] });
        }
    }
    with
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
    former.retain(|run| run.run_id != run_id);
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
    if open.run_id == run_id {
        // It runs again, unless this is the start of before its end once more.
        let after_end = open.ended && open.ended_at.is_none_or(|end| end.received_at < at);
        let runs_again = after_end || open.closed_at.is_some_and(|closed| closed < at);
        return runs_again.then(|| OpenRun { ended: false, ended_at: None, closed_at: None, ..open.clone() });
    }
    if open.opened_at < at {
        return Some(opened(run_id, at, Some(open)));
    }
    // Taken late: it is one of those before.
    if open.former.iter().any(|former| former.run_id == run_id) {
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
    if hints.kind != Kind::RunEnd || open.ended || hints.received_at < open.opened_at {
        return None;
    }
    let event_time = hints.has_event_time.then_some(hints.event_time);
    let ended_at = Some(EndTime { event_time, received_at: hints.received_at });
    Some(OpenRun { ended: true, ended_at, ..open.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);
    const SECOND: Micros = 1_000_000;

    fn hints(kind: Kind, at: Micros, payload: &[u8]) -> RunHints<'_> {
        RunHints {
            kind,
            run_id: None,
            epoch: Some(0),
            phase: None,
            hidden_units: None,
            event_time: at,
            has_event_time: false,
            received_at: at,
            payload,
        }
    }

    /// Assigns and takes over what it changes.
    fn take(shared: &mut Option<OpenRun>, hints: &RunHints<'_>) -> EntryAssignment {
        let assigned = assign_entry(shared.as_ref(), "s", hints, GRACE);
        if assigned.change.is_some() {
            shared.clone_from(&assigned.change);
        }
        assigned
    }

    #[test]
    fn runs_open_and_end_by_start_and_end_and_an_entry_belongs_to_the_run_of_its_time() {
        let mut shared = None;
        let first = take(&mut shared, &hints(Kind::RunStart, SECOND, b"a")).run_id;
        assert_eq!(first, implicit_run_id("s", SECOND, b"a"));
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 2 * SECOND, b"m")).run_id, first);
        assert_eq!(take(&mut shared, &hints(Kind::RunEnd, 3 * SECOND, b"e")).run_id, first);
        assert!(shared.as_ref().unwrap().ended);
        let second = take(&mut shared, &hints(Kind::RunStart, 4 * SECOND, b"b")).run_id;
        assert_ne!(first, second);
        for (name, at, expected) in [
            ("of the second", 5 * SECOND, second),
            ("of the first, taken late", 2 * SECOND + 1, first),
            ("before the first", 1, first),
        ] {
            let assigned = take(&mut shared, &hints(Kind::Metrics, at, b"m"));
            assert_eq!((assigned.run_id, assigned.opened_run, assigned.change), (expected, false, None), "{name}");
        }
        for (name, hints, expected) in [
            ("the first start", hints(Kind::RunStart, SECOND, b"a"), first),
            ("the end of the first", hints(Kind::RunEnd, 3 * SECOND, b"e"), first),
            ("the second start", hints(Kind::RunStart, 4 * SECOND, b"b"), second),
        ] {
            let again = take(&mut shared, &hints);
            assert_eq!((again.run_id, again.change), (expected, None), "{name}, redelivered");
        }
    }

    #[test]
    fn a_race_for_a_run_without_a_start_ends_in_one() {
        let (one, other) = (hints(Kind::Metrics, 10 * SECOND, b"1"), hints(Kind::Metrics, 11 * SECOND, b"2"));
        for order in [[&one, &other], [&other, &one]] {
            let mut shared = None;
            let winner = take(&mut shared, order[0]);
            let loser = take(&mut shared, order[1]);
            assert!(winner.opened_run && !loser.opened_run);
            assert_eq!((loser.run_id, loser.change), (winner.run_id, None));
            let again = take(&mut shared, order[0]);
            assert_eq!((again.run_id, again.opened_run, again.change), (winner.run_id, true, None), "redelivered");
        }
    }

    #[test]
    fn after_an_end_metrics_open_a_run_once_the_grace_is_over() {
        let mut shared = None;
        let first = take(&mut shared, &hints(Kind::Metrics, SECOND, b"m")).run_id;
        take(&mut shared, &hints(Kind::RunEnd, 2 * SECOND, b"e"));
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 3 * SECOND, b"m")).run_id, first);
        assert_eq!(take(&mut shared, &hints(Kind::State, 60 * SECOND, b"s")).run_id, first);
        let later = take(&mut shared, &hints(Kind::Metrics, 61 * SECOND, b"m"));
        assert!(later.opened_run && later.run_id != first);
        let between = take(&mut shared, &hints(Kind::Metrics, 60 * SECOND, b"m"));
        assert_eq!((between.run_id, between.change), (later.run_id, None), "not a third");
    }

    #[test]
    fn a_start_that_is_taken_late_is_one_of_the_runs_before() {
        let mut shared = None;
        let newer = take(&mut shared, &hints(Kind::RunStart, 9 * SECOND, b"b")).run_id;
        let older = take(&mut shared, &hints(Kind::RunStart, 5 * SECOND, b"a")).run_id;
        assert_eq!(shared.as_ref().unwrap().run_id, newer);
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 6 * SECOND, b"m")).run_id, older);
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 9 * SECOND, b"m")).run_id, newer);
        for n in 0..100 {
            take(&mut shared, &hints(Kind::RunStart, (10 + n) * SECOND, b"n"));
        }
        assert_eq!(shared.as_ref().unwrap().former.len(), FORMER_MAX);
    }

    #[test]
    fn a_message_that_names_its_run_opens_and_ends_only_that() {
        let mut shared = None;
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let of = |kind, at, run_id| RunHints { run_id: Some(run_id), ..hints(kind, at, b"x") };
        assert_eq!(take(&mut shared, &of(Kind::Metrics, SECOND, id)).change, None);
        take(&mut shared, &of(Kind::RunStart, 2 * SECOND, id));
        assert_eq!(take(&mut shared, &of(Kind::RunEnd, 3 * SECOND, other)).change, None);
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 3 * SECOND, b"m")).run_id, id);
        take(&mut shared, &of(Kind::RunEnd, 4 * SECOND, id));
        assert!(shared.as_ref().unwrap().ended);
        take(&mut shared, &of(Kind::RunStart, 5 * SECOND, id));
        assert!(!shared.unwrap().ended, "it runs again");
    }

    #[test]
    fn a_closed_run_keeps_what_came_before_and_any_entry_behind_it_begins_the_next() {
        let mut shared = None;
        let first = take(&mut shared, &hints(Kind::Metrics, SECOND, b"1")).run_id;
        let open = shared.clone().unwrap();
        assert_eq!(close_entry_run(&open, SECOND - 1), None, "it was opened later");
        shared = close_entry_run(&open, 2 * SECOND);
        assert_eq!(close_entry_run(shared.as_ref().unwrap(), 3 * SECOND), None, "once");
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 2 * SECOND, b"late")).run_id, first);
        let state = take(&mut shared, &hints(Kind::State, 2 * SECOND + 1, b"s"));
        assert!(state.opened_run && state.run_id != first, "without a grace, whatever it is");
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 3 * SECOND, b"m")).run_id, state.run_id);
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, SECOND + 1, b"later still")).run_id, first);
        // A start that names the closed run again opens it again.
        let id = Uuid::from_u128(1);
        let start = |at| RunHints { run_id: Some(id), ..hints(Kind::RunStart, at, b"x") };
        take(&mut shared, &start(4 * SECOND));
        shared = close_entry_run(shared.as_ref().unwrap(), 5 * SECOND);
        take(&mut shared, &start(6 * SECOND));
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 7 * SECOND, b"m")).run_id, id);
    }

    #[test]
    fn a_reset_that_several_daemons_hear_closes_one_run() {
        let mut shared = None;
        let reset = |shared: &mut Option<OpenRun>, at, by: &str| {
            *shared = Some(reset_entry_run(shared.as_ref().unwrap(), at, by));
        };
        take(&mut shared, &hints(Kind::Metrics, SECOND, b"1"));
        reset(&mut shared, 2 * SECOND, "a");
        let second = take(&mut shared, &hints(Kind::Metrics, 3 * SECOND, b"2")).run_id;
        reset(&mut shared, 2 * SECOND + 7, "b");
        assert_eq!(take(&mut shared, &hints(Kind::Metrics, 4 * SECOND, b"3")).run_id, second, "the same reset");
        reset(&mut shared, 5 * SECOND, "b");
        reset(&mut shared, 5 * SECOND, "a");
        let third = take(&mut shared, &hints(Kind::Metrics, 6 * SECOND, b"4"));
        assert!(third.opened_run && third.run_id != second, "another reset");
        reset(&mut shared, 6 * SECOND + RESET_WINDOW, "c");
        assert!(take(&mut shared, &hints(Kind::Metrics, 30 * SECOND, b"5")).opened_run, "long after that one");
    }
}
