//! One message: decoded, decided, appended, and shown to those who keep the newest values.

use std::sync::Arc;

use tracing::{debug, warn};
use uuid::Uuid;

use super::Intake;
use crate::{
    event::{Kind, Resolved},
    frame::{Frame, Rejection, SetAside, Taken},
    latest::{Subject, Update},
    live::Item,
    logging::Untrusted,
    metrics::Label,
    runs::{Choice, EventTime, Facts},
    spool::{NewRecord, RecordKind},
    wire::{self, Message, ReceivedCommand},
};

/// What a command takes beside its bytes, and how many copies of these there are until it is executed.
const COMMAND_BYTES: usize = 1 << 10;
const COMMAND_COPIES: usize = 4;

impl Intake {
    /// Every message ends as one record: an event, a command, or a rejected message with its reason. What is appended is
    /// durable with the next sync, and called so here.
    pub(super) fn accept(&mut self, frame: &Frame) -> Taken {
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

    fn accept_event(&mut self, frame: &Frame, message: &Message<'_>) -> Taken {
        let time = message.time(frame.received_at, &self.zone);
        if !time.from_message {
            self.parts.metrics.intake_unusable_times.inc();
        }
        if let Some(naive) = time.naive {
            self.zone_check.observe(&frame.channel, naive, frame.received_at, &self.parts.config.time_zone);
        }
        let choice = self.choose_run(frame, message, EventTime { micros: time.event_time, own: time.from_message });
        let decided = Resolved {
            run_id: choice.run_id,
            event_time: time.event_time,
            received_at: frame.received_at,
            has_event_time: time.from_message,
            opened_run: choice.opened,
        };
        let record = NewRecord {
            kind: RecordKind::Event,
            decided,
            channel: &frame.channel,
            preamble: b"",
            payload: &frame.payload,
        };
        if self.append_message(&record).is_none() {
            return Taken::AtRisk;
        }
        self.parts.metrics.intake_events.inc();
        self.count_doubtful(message);
        if let Some(seq) = message.seq() {
            self.seqs.observe(choice.run_id, seq, &frame.channel, frame.received_at);
        }
        let shown = || Item::new(message.kind(), decided, frame.channel.clone(), frame.payload.clone());
        self.parts.live.offer(shown);
        let subject = match message.kind() {
            Kind::Metrics => Subject::Metrics,
            Kind::Topology => Subject::Topology,
            Kind::State | Kind::RunStart | Kind::RunEnd => Subject::State,
            Kind::Dataset | Kind::Other => return Taken::Durable,
        };
        self.parts.board.offer(Update {
            subject,
            payload: frame.payload.clone(),
            decided,
            seq: message.seq(),
            received: frame.received,
        });
        Taken::Durable
    }

    /// Counts what is stored otherwise than its trainer may have meant it.
    fn count_doubtful(&self, message: &Message<'_>) {
        let invalid = message.invalid_fields();
        if invalid > 0 {
            self.parts.metrics.intake_invalid_fields.inc_by(invalid.into());
        }
        if message.kind() == Kind::RunEnd && !message.outcome().known {
            self.parts.metrics.intake_unknown_outcomes.inc();
        }
    }

    fn choose_run(&mut self, frame: &Frame, message: &Message<'_>, time: EventTime) -> Choice {
        if message.run_id().is_none()
            && self.state.must_adopt(&frame.channel)
            && let Some(open) = self.parts.sharing.fetch(&frame.channel)
        {
            self.resolver.adopt(&frame.channel, open, self.subscribed);
        }
        let facts = Facts::of(message, time, frame.received_at, &frame.payload);
        let choice = self.resolver.decide(&frame.channel, &facts, self.subscribed);
        if choice.changed
            && let Some(open) = self.resolver.open_run(&frame.channel)
        {
            self.parts.sharing.publish(&frame.channel, open);
        }
        if let Some(channel) = self.resolver.take_forgotten() {
            self.parts.sharing.forget(&channel);
        }
        choice
    }

    fn accept_command(&mut self, frame: &Frame, command: wire::Command) -> Taken {
        // Even a command that cannot be recorded is executed: refusing `resume` for want of space would be absurd.
        let at = frame.received_at;
        let appended = self.append_plain(RecordKind::Control, at, &frame.channel, &frame.payload);
        if appended.is_none() {
            self.losses.count(&frame.channel, at);
        }
        self.unsynced = true;
        let Some(reserved) = self.commands.try_reserve(COMMAND_BYTES + COMMAND_COPIES * frame.payload.len()) else {
            warn!("command is recorded but not executed: too many at once");
            return if appended.is_some() { Taken::Durable } else { Taken::AtRisk };
        };
        self.pending_commands.push(ReceivedCommand {
            command,
            channel: frame.channel.clone(),
            payload: frame.payload.clone(),
            received_at: frame.received_at,
            reserved: Some(Arc::new(reserved)),
        });
        if appended.is_some() { Taken::Durable } else { Taken::AtRisk }
    }

    fn reject(&mut self, frame: &Frame, rejection: Rejection) -> Taken {
        debug!(
            channel = %Untrusted(frame.channel.as_bytes()),
            reason = rejection.reason.as_str(),
            payload = %Untrusted(&frame.payload),
            "message is rejected"
        );
        self.rejected += 1;
        self.parts.metrics.intake_rejected.get_or_create(&Label::of(rejection.reason.as_str())).inc();
        let (aside, kept) = SetAside::received(rejection.clone(), &frame.payload, self.limits.message.as_usize());
        let open = self.resolver.open_run(&frame.channel).filter(|_| !frame.control);
        let decided = Resolved {
            // Where it would have gone, for a later replay of the dead letter.
            run_id: open.map_or_else(Uuid::nil, |open| open.run_id),
            event_time: frame.received_at,
            received_at: frame.received_at,
            has_event_time: false,
            opened_run: false,
        };
        self.append_message(&NewRecord {
            kind: RecordKind::Rejected,
            decided,
            channel: &frame.channel,
            preamble: &aside.encode(),
            payload: kept,
        });
        Taken::Rejected(rejection)
    }
}
