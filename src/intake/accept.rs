//! One message: decoded, assigned to its run, appended to the spool, passed to the latest keys and, of a channel, to the live feed.

use std::sync::Arc;

use tracing::{debug, warn};
use uuid::Uuid;

use super::stage::{Accepted, Intake};
use crate::{
    event::{Kind, Resolved},
    frame::{Ack, Frame, RejectedMessage, Rejection},
    latest::{LatestKind, Update},
    live::LiveEvent,
    logging::Untrusted,
    runs::{RunAssignment, RunHints},
    spool::{NewRecord, RecordKind},
    wire::{self, Message, MessageTime, ReceivedCommand},
};

/// Memory of a waiting command beside its bytes, and the copies of its bytes until it is executed.
const COMMAND_BYTES: usize = 1 << 10;
const COMMAND_COPIES: usize = 4;

impl Intake {
    /// Every message ends as one record: an event, a command, or a rejected message with its reason.
    pub(super) fn accept(&mut self, frame: &Frame) -> Accepted {
        self.pending_since.push(frame.received);
        if frame.control {
            return match wire::decode_control(&frame.payload, &self.limits) {
                Ok(command) => self.accept_command(frame, command),
                Err(rejection) => self.reject(frame, rejection),
            };
        }
        match wire::decode(&frame.payload, &self.limits) {
            Ok(message) => self.accept_event(frame, &message),
            Err(rejection) => self.reject(frame, rejection),
        }
    }

    fn accept_event(&mut self, frame: &Frame, message: &Message<'_>) -> Accepted {
        let time = message.time(frame.received_at, &self.zone).of_entry(frame.entry);
        let source = frame.event_source(time.from_message);
        if !time.from_message {
            self.deps.metrics.intake_invalid_timestamps.inc();
        }
        if let Some(naive) = time.naive {
            self.zone_check.observe(&frame.channel, naive, frame.received_at, &self.deps.config.time_zone);
        }
        let assignment = match frame.entry {
            None => self.assign_run(frame, message, time),
            Some(_) => match self.assign_entry(frame, message, time) {
                Some(assignment) => assignment,
                None => return Accepted::durable_if(false),
            },
        };
        let decided = time.resolve(frame.received_at, assignment.run_id, assignment.opened_run);
        let record = NewRecord {
            kind: RecordKind::Event,
            decided,
            strict_json: message.is_strict_json(),
            from_stream: frame.entry.is_some(),
            channel: &source,
            preamble: b"",
            payload: &frame.payload,
        };
        if self.append(&record).is_none() {
            return Accepted::durable_if(false);
        }
        self.deps.metrics.intake_events.inc();
        self.count_doubtful(message);
        // Other daemons have taken other entries of a stream; none sees them all.
        let counts_seq = frame.entry.is_none();
        if counts_seq && message.kind() == Kind::RunStart {
            self.seqs.start(assignment.run_id, time.event_time, frame.received_at);
        }
        if let Some(seq) = message.seq().filter(|_| counts_seq) {
            self.seqs.observe(assignment.run_id, seq, &frame.channel, frame.received_at);
        }
        // Entries of streams, also those that other daemons take, are read once more for the live feed.
        if frame.entry.is_none() {
            let shown = || LiveEvent::new(message.kind(), decided, source.clone(), frame.payload.clone());
            self.deps.live.publish(shown);
        }
        let subject = match message.kind() {
            Kind::Metrics => LatestKind::Metrics,
            Kind::Topology => LatestKind::Topology,
            Kind::State | Kind::RunStart | Kind::RunEnd => LatestKind::State,
            Kind::Dataset | Kind::Other => return Accepted::durable_if(true),
        };
        self.deps.latest.update(Update {
            kind: subject,
            payload: frame.payload.clone(),
            decided,
            seq: message.seq(),
            received: frame.received,
        });
        Accepted::durable_if(true)
    }

    /// Counts fields and outcomes that are stored with another meaning than the trainer may have intended.
    fn count_doubtful(&self, message: &Message<'_>) {
        let invalid = message.invalid_fields();
        if invalid > 0 {
            self.deps.metrics.intake_invalid_fields.inc_by(invalid.into());
        }
        if message.kind() == Kind::RunEnd && !message.outcome().known {
            self.deps.metrics.intake_unknown_outcomes.inc();
        }
    }

    fn assign_run(&mut self, frame: &Frame, message: &Message<'_>, time: MessageTime) -> RunAssignment {
        if message.run_id().is_none()
            && self.state.must_adopt(&frame.channel)
            && let Some(open) = self.deps.sharing.fetch(&frame.channel)
        {
            self.resolver.adopt(&frame.channel, open, self.subscribed);
        }
        let hints = RunHints::of(message, time, frame.received_at, &frame.payload);
        let assignment = self.resolver.decide(&frame.channel, &hints, self.subscribed);
        if assignment.changed
            && let Some(open) = self.resolver.open_run(&frame.channel)
        {
            self.deps.sharing.publish(&frame.channel, open);
        }
        if let Some(channel) = self.resolver.take_evicted() {
            self.deps.sharing.forget(&channel);
        }
        assignment
    }

    fn accept_command(&mut self, frame: &Frame, command: wire::Command) -> Accepted {
        // Even a command that cannot be recorded is executed: refusing `resume` for want of space would be absurd.
        let at = frame.received_at;
        let recorded = self.append_plain(RecordKind::Control, at, &frame.channel, &frame.payload).is_some();
        self.unsynced = true;
        let Some(reserved) = self.commands.try_reserve(COMMAND_BYTES + COMMAND_COPIES * frame.payload.len()) else {
            warn!("command is recorded but not executed: too many at once");
            return Accepted::durable_if(recorded);
        };
        self.pending_commands.push(ReceivedCommand {
            command,
            channel: frame.channel.clone(),
            payload: frame.payload.clone(),
            received_at: frame.received_at,
            reserved: Some(Arc::new(reserved)),
        });
        Accepted::durable_if(recorded)
    }

    fn reject(&mut self, frame: &Frame, rejection: Rejection) -> Accepted {
        debug!(
            channel = %Untrusted(frame.channel.as_bytes()),
            reason = rejection.reason.as_str(),
            payload = %Untrusted(&frame.payload),
            "message is rejected"
        );
        self.rejected += 1;
        self.deps.metrics.intake_rejected.of(rejection.reason.as_str()).inc();
        let (rejected, preserved) =
            RejectedMessage::with_limit(rejection.clone(), &frame.payload, self.limits.message.as_usize());
        let open = self.resolver.open_run(&frame.channel).filter(|_| !frame.control);
        let decided = Resolved {
            // The run that it would have joined, for a replay of the dead letter.
            run_id: open.map_or_else(Uuid::nil, |open| open.run_id),
            event_time: frame.received_at,
            received_at: frame.received_at,
            has_event_time: false,
            opened_run: false,
        };
        let recorded = self.append(&NewRecord {
            kind: RecordKind::Rejected,
            decided,
            strict_json: false,
            from_stream: frame.entry.is_some(),
            channel: &frame.event_source(false),
            preamble: &rejected.encode(),
            payload: preserved,
        });
        Accepted { ack: Ack::Rejected(rejection), recorded: recorded.is_some() }
    }
}
