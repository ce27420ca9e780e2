//! Entries of streams: their runs are shared with the daemons that take the other entries.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    shared_entries::{Closing, Seen},
    shared_runs::read_open_run,
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
        if !self.close_waiting(&frame.channel) {
            return None;
        }
        let grace = self.deps.config.run_end_grace;
        for _ in 0..TRIES {
            let known = match self.seen(&frame.channel) {
                Ok(json) => json.as_deref().and_then(read_open_run),
                // Also of a start or an end that names its run: entries behind it would join the run before.
                Err(ShareError::Unavailable) => return None,
                Err(ShareError::Forbidden) => self.resolver.open_run(&frame.channel).cloned(),
            };
            let assigned = assign_entry(known.as_ref(), &frame.channel, &hints, grace);
            let (run_id, opened_run, changed) = (assigned.run_id, assigned.opened_run, assigned.change.is_some());
            let done = match assigned.change {
                None => self.remember(frame, known),
                Some(change) => self.share(&frame.channel, change)?,
            };
            if done {
                return Some(RunAssignment { run_id, opened_run, changed });
            }
        }
        None
    }

    /// Closes the open runs of all streams; where Redis does not answer, before the next entry.
    pub(super) fn close_stream_runs(&mut self, closing: Closing) {
        for stream in self.deps.streams.clone() {
            self.entries.forget(&stream);
            if !self.close_waiting(&stream) || !self.close_stream_run(&stream, closing) {
                self.entries.wait(&stream, closing);
            }
        }
    }

    /// Does what could not be done before. Returns whether nothing waits any more.
    fn close_waiting(&mut self, stream: &Arc<str>) -> bool {
        let waiting = self.entries.take_waiting(stream);
        let done = waiting.iter().take_while(|closing| self.close_stream_run(stream, **closing)).count();
        waiting[done..].iter().for_each(|closing| self.entries.wait(stream, *closing));
        done == waiting.len()
    }

    /// Returns whether it is shared that the open run is closed.
    fn close_stream_run(&mut self, stream: &Arc<str>, closing: Closing) -> bool {
        for _ in 0..TRIES {
            let known = match self.seen(stream) {
                Ok(json) => json.as_deref().and_then(read_open_run),
                Err(ShareError::Unavailable) => return false,
                Err(ShareError::Forbidden) => self.resolver.open_run(stream).cloned(),
            };
            let change = known.as_ref().and_then(|open| closing.change(open, &self.deps.instance));
            let Some(change) = change else { return true };
            match self.share(stream, change) {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
        false
    }

    /// What is shared of a stream, as seen in this group.
    fn seen(&mut self, stream: &Arc<str>) -> Result<Option<String>, ShareError> {
        let group = self.entries.group;
        match self.entries.streams.get(stream) {
            Some(seen) if seen.group == group => return Ok(seen.json.clone()),
            _ => {}
        }
        if self.entries.is_unavailable() {
            return Err(ShareError::Unavailable);
        }
        let json = self.deps.sharing.fetch_shared(stream).inspect_err(|error| {
            if *error == ShareError::Unavailable {
                self.entries.note_unavailable();
            }
        })?;
        self.note_seen(stream, json.clone());
        Ok(json)
    }

    fn note_seen(&mut self, stream: &Arc<str>, json: Option<String>) {
        let group = self.entries.group;
        let written = self.entries.streams.get(stream).map_or_else(Instant::now, |seen| seen.written);
        self.entries.streams.insert(Arc::clone(stream), Seen { json, group, written });
    }

    /// Keeps the runs for a start without Redis, and their key alive.
    fn remember(&mut self, frame: &Frame, known: Option<OpenRun>) -> bool {
        if let Some(seen) = self.entries.streams.get_mut(&frame.channel)
            && seen.written.elapsed() >= REFRESH_INTERVAL
            && let Some(json) = &seen.json
        {
            seen.written = Instant::now();
            let _ = self.deps.sharing.exchange(&frame.channel, Some(json.as_str()), json);
        }
        if known.as_ref() != self.resolver.open_run(&frame.channel) {
            self.resolver.replace(&frame.channel, known, self.subscribed);
        }
        true
    }

    /// Shares a change. `Some(false)`: another daemon was faster; `None`: it cannot be shared, and has to be.
    fn share(&mut self, stream: &Arc<str>, change: OpenRun) -> Option<bool> {
        if self.entries.is_unavailable() {
            return None;
        }
        let before = self.entries.streams.get(stream).and_then(|seen| seen.json.clone());
        let json = serde_json::to_string(&change).expect("strings and numbers always serialise");
        match self.deps.sharing.exchange(stream, before.as_deref(), &json) {
            Ok(Exchanged::Done) => self.note_seen(stream, Some(json)),
            Ok(Exchanged::Other(other)) => {
                self.note_seen(stream, other);
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
