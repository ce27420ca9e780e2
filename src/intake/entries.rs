//! Entries of streams: their runs are shared with the daemons that take the other entries.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    shared_entries::CloseReason,
    stage::Intake,
    state::{Exchanged, ShareError},
};
use crate::{
    event::Kind,
    frame::Frame,
    runs::{OpenRun, RunAssignment, RunHints, assign_entry},
    wire::{Message, MessageTime},
};

/// How often a change of the shared runs is tried: each time another daemon was faster.
const TRIES: usize = 16;
/// What is shared would expire after a week: it is written again after this long.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3_600);

impl Intake {
    /// The run of an entry; `None`: what the other daemons share cannot be reached, and the entry has to be delivered again.
    pub(super) fn assign_entry(
        &mut self,
        frame: &Frame,
        message: &Message<'_>,
        time: MessageTime,
    ) -> Option<RunAssignment> {
        let hints = RunHints::of(message, time, frame.received_at, &frame.payload);
        if let Some(run_id) = hints.run_id.filter(|_| !matches!(hints.kind, Kind::RunStart | Kind::RunEnd)) {
            return Some(RunAssignment { run_id, opened_run: false, changed: false });
        }
        if !self.apply_deferred(&frame.channel) {
            return None;
        }
        let grace = self.deps.config.run_end_grace;
        for _ in 0..TRIES {
            // Also of a start or an end that names its run: entries behind it would join the run before.
            if !self.read_shared(&frame.channel) {
                return None;
            }
            let assigned = assign_entry(self.known(&frame.channel), &frame.channel, &hints, grace);
            let (run_id, opened_run, changed) = (assigned.run_id, assigned.opened_run, assigned.change.is_some());
            let is_shared = match assigned.change {
                Some(change) => self.share(&frame.channel, change)?,
                None => {
                    self.remember(&frame.channel);
                    true
                }
            };
            if is_shared {
                return Some(RunAssignment { run_id, opened_run, changed });
            }
        }
        None
    }

    /// Closes the open runs of all streams; where Redis does not answer, before the next entry.
    pub(super) fn close_stream_runs(&mut self, reason: CloseReason) {
        for stream in self.deps.streams.clone() {
            match reason {
                // A command for whatever is open now.
                CloseReason::Reset(_) => self.entries.forget(&stream),
                // A start tells all deletions of a long time: Redis is not waited for with each.
                CloseReason::Deleted(..) if self.entries.has_deferred(&stream) => {
                    self.entries.defer(&stream, reason);
                    continue;
                }
                CloseReason::Deleted(..) => {}
            }
            if !self.apply_deferred(&stream) || !self.close_stream_run(&stream, reason) {
                self.entries.defer(&stream, reason);
            }
        }
    }

    /// Applies deferred closings. Returns whether none is left.
    fn apply_deferred(&mut self, stream: &Arc<str>) -> bool {
        if !self.entries.has_deferred(stream) {
            return true;
        }
        if !self.read_shared(stream) {
            return false;
        }
        let deferred = self.entries.take_deferred(stream);
        let done = deferred.iter().take_while(|reason| self.close_stream_run(stream, **reason)).count();
        deferred[done..].iter().for_each(|reason| self.entries.defer(stream, *reason));
        done == deferred.len()
    }

    /// Returns whether the open run is not to be closed, or it is shared that it is.
    fn close_stream_run(&mut self, stream: &Arc<str>, reason: CloseReason) -> bool {
        for _ in 0..TRIES {
            if !self.read_shared(stream) {
                return false;
            }
            let change = self.known(stream).and_then(|open| reason.change(open, &self.deps.instance));
            let Some(change) = change else { return true };
            match self.share(stream, change) {
                Some(true) => return true,
                // What another daemon has shared instead is known now.
                Some(false) => {}
                None => return false,
            }
        }
        false
    }

    /// Reads what is shared of a stream, once in a group. Returns whether Redis has answered.
    fn read_shared(&mut self, stream: &Arc<str>) -> bool {
        if self.entries.is_seen(stream) {
            return true;
        }
        if self.entries.is_unavailable() {
            return false;
        }
        match self.deps.sharing.fetch_shared(stream) {
            Ok(json) => self.entries.note_seen(stream, json),
            Err(ShareError::Forbidden) => self.entries.note_unreadable(stream),
            Err(ShareError::Unavailable) => {
                self.entries.note_unavailable();
                return false;
            }
        }
        true
    }

    /// The open run of a stream, as it was read; where Redis forbids to share it, the one that this daemon has decided alone.
    fn known(&self, stream: &str) -> Option<&OpenRun> {
        self.entries.open_run(stream).unwrap_or_else(|_| self.resolver.open_run(stream))
    }

    /// Keeps the runs for a start without Redis, and their key alive.
    fn remember(&mut self, stream: &Arc<str>) {
        if let Some(seen) = self.entries.streams.get_mut(stream)
            && seen.written.elapsed() >= REFRESH_INTERVAL
            && let Some(json) = &seen.json
        {
            seen.written = Instant::now();
            let _ = self.deps.sharing.exchange(stream, Some(json.as_str()), json);
        }
        let known = self.known(stream);
        if known != self.resolver.open_run(stream) {
            let known = known.cloned();
            self.resolver.replace(stream, known, self.subscribed);
        }
    }

    /// Shares a change. `Some(false)`: another daemon was faster; `None`: it cannot be shared, and has to be.
    fn share(&mut self, stream: &Arc<str>, change: OpenRun) -> Option<bool> {
        if self.entries.is_unavailable() {
            return None;
        }
        let before = self.entries.streams.get(stream).and_then(|seen| seen.json.clone());
        let json = serde_json::to_string(&change).expect("strings and numbers always serialise");
        let exchanged = self.deps.sharing.exchange(stream, before.as_deref(), &json);
        if exchanged != Err(ShareError::Unavailable) {
            self.entries.note_unwritable(stream, exchanged == Err(ShareError::Forbidden));
        }
        match exchanged {
            Ok(Exchanged::Done) => self.entries.note_seen(stream, Some(json)),
            Ok(Exchanged::Other(other)) => {
                self.entries.note_seen(stream, other);
                return Some(false);
            }
            Err(ShareError::Unavailable) => {
                self.entries.note_unavailable();
                return None;
            }
            Err(ShareError::Forbidden) => {}
        }
        self.resolver.replace(stream, Some(change), self.subscribed);
        Some(true)
    }
}
