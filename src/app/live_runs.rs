//! The runs of a stream, as its entries and what the daemons share tell them to a process that only watches. Pure.
//!
//! The run of an entry follows from the entry and from what the daemons share ([`assign_entry`]). A start or an end is seen here before a
//! daemon has shared it, so it is applied to what was fetched for as long as that lacks it. A run that is opened by an entry without an
//! id is not guessed: another daemon may take a later entry first.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    event::Kind,
    memory::LARGE_VALUE,
    runs::{OpenRun, RunHints, assign_entry},
    units::Micros,
};

/// Starts and ends that are remembered until the daemons share them, and the bytes that name their runs.
const AHEAD_MAX: usize = 64;
const AHEAD_BYTES_MAX: usize = LARGE_VALUE;

/// The runs of one stream.
#[derive(Debug)]
pub struct StreamRuns {
    stream: String,
    grace: Duration,
    open: Option<OpenRun>,
    /// Starts and ends that the daemons have not shared yet, in order.
    ahead: VecDeque<SeenEntry>,
    /// The last entry without an id, and the run under which it was shown.
    last: Option<(SeenEntry, Uuid)>,
}

/// What decides on the run of an entry.
#[derive(Clone, Debug)]
struct SeenEntry {
    kind: Kind,
    run_id: Option<Uuid>,
    event_time: Micros,
    has_event_time: bool,
    received_at: Micros,
    /// Names the run that it opens; empty where it cannot open one.
    payload: Bytes,
}

impl SeenEntry {
    fn of(hints: &RunHints<'_>, payload: Bytes) -> Self {
        let RunHints { kind, run_id, event_time, has_event_time, received_at, .. } = *hints;
        Self { kind, run_id, event_time, has_event_time, received_at, payload }
    }

    fn hints(&self) -> RunHints<'_> {
        let Self { kind, run_id, event_time, has_event_time, received_at, .. } = *self;
        RunHints {
            kind,
            run_id,
            epoch: None,
            phase: None,
            hidden_units: None,
            event_time,
            has_event_time,
            received_at,
            payload: &self.payload,
        }
    }
}

/// The run of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRun {
    /// Run id.
    pub run_id: Uuid,
    /// Whether the entry opened it without being a run start.
    pub opened_run: bool,
}

impl StreamRuns {
    /// Of a stream of which nothing is known; `grace`: see [`Timeouts::end_grace`](crate::runs::Timeouts).
    pub fn new(stream: &str, grace: Duration) -> Self {
        Self { stream: stream.to_owned(), grace, open: None, ahead: VecDeque::new(), last: None }
    }

    /// Whether the run of an entry is told by the entry alone.
    pub fn is_named(hints: &RunHints<'_>) -> bool {
        hints.run_id.is_some() || hints.kind == Kind::RunStart
    }

    /// Takes in what the daemons share now. Returns whether the last entry was shown under another run than theirs: a run was closed in
    /// between.
    pub fn refresh(&mut self, shared: Option<OpenRun>) -> bool {
        let mut open = shared;
        let (stream, grace) = (&self.stream, self.grace);
        self.ahead.retain(|entry| {
            let assigned = assign_entry(open.as_ref(), stream, &entry.hints(), grace);
            // An end whose run is closed by now: the run that it would open has a name that only the daemons know.
            let is_late_end = assigned.opened_run && entry.kind == Kind::RunEnd;
            let Some(change) = assigned.change.filter(|_| !is_late_end) else { return false };
            open = Some(change);
            true
        });
        self.open = open;
        let Some((last, shown)) = &self.last else { return false };
        let again = assign_entry(self.open.as_ref(), stream, &last.hints(), grace);
        let is_wrong = again.run_id != *shown && !(again.opened_run && again.change.is_some());
        if is_wrong {
            self.last = None;
        }
        is_wrong
    }

    /// The run of an entry; `None`: it opens one that the daemons have not shared yet.
    pub fn decide(&mut self, hints: &RunHints<'_>, payload: &Bytes) -> Option<EntryRun> {
        let assigned = assign_entry(self.open.as_ref(), &self.stream, hints, self.grace);
        let found = EntryRun { run_id: assigned.run_id, opened_run: assigned.opened_run };
        let is_named = Self::is_named(hints);
        if assigned.opened_run && assigned.change.is_some() && !is_named {
            return None;
        }
        if let Some(change) = assigned.change {
            self.open = Some(change);
        }
        if matches!(hints.kind, Kind::RunStart | Kind::RunEnd) {
            self.remember(hints, payload);
        }
        if !is_named {
            self.last = Some((SeenEntry::of(hints, Bytes::new()), assigned.run_id));
        }
        Some(found)
    }

    /// Keeps a start or an end until the daemons share it.
    fn remember(&mut self, hints: &RunHints<'_>, payload: &Bytes) {
        let names_run = hints.run_id.is_none() && hints.kind == Kind::RunStart;
        if names_run && payload.len() >= LARGE_VALUE {
            // The daemons share it in a moment; the memory is needed.
            return;
        }
        let payload = if names_run { payload.clone() } else { Bytes::new() };
        self.ahead.push_back(SeenEntry::of(hints, payload));
        let bytes = |ahead: &VecDeque<SeenEntry>| ahead.iter().map(|entry| entry.payload.len()).sum::<usize>();
        while self.ahead.len() > AHEAD_MAX || bytes(&self.ahead) > AHEAD_BYTES_MAX {
            self.ahead.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::implicit_run_id, runs::reset_entry_run};

    const SECOND: Micros = 1_000_000;
    const GRACE: Duration = Duration::from_secs(5);

    fn hints(kind: Kind, run_id: Option<u128>, seconds: Micros, payload: &'static [u8]) -> RunHints<'static> {
        RunHints {
            kind,
            run_id: run_id.map(Uuid::from_u128),
            epoch: None,
            phase: None,
            hidden_units: None,
            event_time: seconds * SECOND,
            has_event_time: false,
            received_at: seconds * SECOND,
            payload,
        }
    }

    fn decide(runs: &mut StreamRuns, hints: &RunHints<'_>) -> Option<Uuid> {
        runs.decide(hints, &Bytes::copy_from_slice(hints.payload)).map(|found| found.run_id)
    }

    /// What a daemon shares once it has taken the entry.
    fn taken(shared: Option<&OpenRun>, hints: &RunHints<'_>) -> Option<OpenRun> {
        assign_entry(shared, "s", hints, GRACE).change.or_else(|| shared.cloned())
    }

    #[test]
    fn a_run_without_an_id_is_shown_once_a_daemon_has_opened_it() {
        let mut runs = StreamRuns::new("s", GRACE);
        let (first, second) = (hints(Kind::Metrics, None, 10, b"one"), hints(Kind::Metrics, None, 11, b"two"));
        assert_eq!(decide(&mut runs, &first), None);
        // Another daemon has taken the second entry first: both are of its run.
        let shared = taken(None, &second);
        assert!(!runs.refresh(shared.clone()));
        let named = implicit_run_id("s", 11 * SECOND, b"two");
        assert_eq!((decide(&mut runs, &first), decide(&mut runs, &second)), (Some(named), Some(named)));
        assert!(!runs.refresh(shared));
    }

    #[test]
    fn what_follows_a_start_or_an_end_that_no_daemon_has_taken_yet_is_of_the_next_run() {
        let mut runs = StreamRuns::new("s", GRACE);
        let before = taken(None, &hints(Kind::RunStart, Some(1), 10, b""));
        assert!(!runs.refresh(before.clone()));
        let metrics = |seconds| hints(Kind::Metrics, None, seconds, b"m");
        assert_eq!(decide(&mut runs, &metrics(11)), Some(Uuid::from_u128(1)));
        let start = hints(Kind::RunStart, Some(2), 12, b"");
        assert_eq!(decide(&mut runs, &start), Some(Uuid::from_u128(2)));
        for shared in [before.clone(), taken(before.as_ref(), &start)] {
            assert!(!runs.refresh(shared), "the entry before the start was right");
            assert_eq!(decide(&mut runs, &metrics(13)), Some(Uuid::from_u128(2)));
        }
        assert!(runs.ahead.is_empty(), "it is shared");
        let nameless = hints(Kind::RunStart, None, 14, b"start");
        let named = implicit_run_id("s", 14 * SECOND, b"start");
        assert_eq!(decide(&mut runs, &nameless), Some(named));
        assert!(!runs.refresh(taken(before.as_ref(), &start)));
        assert_eq!(decide(&mut runs, &metrics(15)), Some(named));
        assert_eq!(decide(&mut runs, &hints(Kind::RunEnd, None, 16, b"end")), Some(named));
        assert_eq!(decide(&mut runs, &metrics(17)), Some(named), "within the grace");
        assert_eq!(decide(&mut runs, &metrics(30)), None, "a daemon opens the next");
    }

    #[test]
    fn a_run_that_a_command_has_closed_meanwhile_makes_what_was_shown_wrong() {
        let mut runs = StreamRuns::new("s", GRACE);
        let shared = taken(None, &hints(Kind::RunStart, Some(1), 10, b"")).unwrap();
        runs.refresh(Some(shared.clone()));
        let after = hints(Kind::Metrics, None, 21, b"m");
        assert_eq!(decide(&mut runs, &after), Some(Uuid::from_u128(1)));
        let closed = reset_entry_run(&shared, 20 * SECOND, "a").unwrap();
        let opened = taken(Some(&closed), &after);
        assert!(runs.refresh(opened.clone()), "a reset before it was not shared yet");
        assert!(!runs.refresh(opened.clone()), "that is told once");
        assert_eq!(decide(&mut runs, &after), Some(opened.unwrap().run_id));
    }

    #[test]
    fn starts_that_are_never_shared_are_bounded() {
        let mut runs = StreamRuns::new("s", GRACE);
        for n in 0..1_000_u32 {
            decide(&mut runs, &hints(Kind::RunStart, Some(n.into()), 10 + Micros::from(n), b""));
        }
        assert_eq!(runs.ahead.len(), AHEAD_MAX);
        let payload = Bytes::from(vec![b'x'; AHEAD_BYTES_MAX / 4]);
        for n in 0..20 {
            let start = RunHints { payload: &payload, ..hints(Kind::RunStart, None, 2_000 + n, b"") };
            runs.decide(&start, &payload);
        }
        assert_eq!(runs.ahead.len(), 4, "their bytes are bounded, too");
    }
}
