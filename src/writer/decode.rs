//! Decodes a spooled record into rows or a dead letter.
//!
//! Without limits: intake has accepted the message under the limits of its time, and a replay must give the same rows whatever the
//! configuration says now.

use bytes::Bytes;

use super::ports::Content;
use crate::{
    event::{self, ControlRow, GapRow, Row},
    frame::{Reason, RejectedMessage, Rejection},
    gaps::Gap,
    spool::{Record, RecordKind},
    wire::{self, Limits},
};

/// Decodes records of one daemon.
#[derive(Debug)]
pub struct Decoder {
    instance: String,
    /// Absent: every message was accepted by intake.
    limits: Option<Limits>,
}

impl Decoder {
    /// A decoder for the rows of this instance.
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), limits: None }
    }

    /// A decoder of messages that intake has rejected: it takes what intake would accept under these limits.
    pub fn limited(instance: &str, limits: Limits) -> Self {
        Self { instance: instance.to_owned(), limits: Some(limits) }
    }

    /// The rows of a record, or the dead letter.
    pub fn content(&self, record: &Record<'_>) -> Content {
        let decoded = match record.kind {
            RecordKind::Event => self.event(record),
            RecordKind::Rejected => match RejectedMessage::decode(record.payload) {
                Some((rejected, preserved)) => {
                    return rejected_content(record, rejected, preserved);
                }
                None => Err(unreadable("a rejected message")),
            },
            RecordKind::Control => self.command(record),
            RecordKind::Gap => self.gap(record),
            RecordKind::Receipt => serde_json::from_slice::<ControlRow>(record.payload)
                .map(|row| single_row(Row::Control(row)))
                .map_err(|_| unreadable("a receipt")),
        };
        decoded.unwrap_or_else(|rejection| {
            let (rejected, preserved) = RejectedMessage::new(rejection, record.payload);
            rejected_content(record, rejected, preserved)
        })
    }

    fn event(&self, record: &Record<'_>) -> Result<Content, Rejection> {
        let message = match &self.limits {
            None if record.strict_json => wire::decode_accepted(record.payload)?.known_as_strict_json(),
            None => wire::decode_accepted(record.payload)?,
            Some(limits) => wire::decode(record.payload, limits)?,
        };
        let rows = wire::rows(&message, &record.decided, record.channel, record.payload);
        Ok(Content::Rows { rows: rows.rows, run_update: Some((record.decided.run_id, rows.run_update)) })
    }

    fn command(&self, record: &Record<'_>) -> Result<Content, Rejection> {
        let command = wire::decode_control(record.payload, &Limits::NONE)?;
        let received_at = record.decided.received_at;
        Ok(single_row(Row::Control(command.row(record.channel, record.payload, received_at, &self.instance))))
    }

    fn gap(&self, record: &Record<'_>) -> Result<Content, Rejection> {
        let gap: Gap = serde_json::from_slice(record.payload).map_err(|_| unreadable("a gap"))?;
        let (reason, channel) = (gap.reason.as_str(), gap.channel.as_deref());
        let instance = gap.instance.unwrap_or_else(|| self.instance.clone());
        Ok(single_row(Row::Gap(GapRow {
            started_at: gap.started_at,
            gap_id: event::gap_id(&instance, &gap.source, channel, reason, gap.started_at),
            ended_at: gap.ended_at,
            reason: reason.to_owned(),
            source: gap.source,
            channel: gap.channel,
            instance,
            run_id: gap.run_id,
            lost: gap.lost.map(|lost| i64::try_from(lost).unwrap_or(i64::MAX)),
        })))
    }
}

fn rejected_content(record: &Record<'_>, rejected: RejectedMessage, preserved: &[u8]) -> Content {
    let (channel, run_id) = (record.channel.to_owned(), record.decided.run_id);
    Content::Rejected { channel, rejected, preserved: Bytes::copy_from_slice(preserved), run_id }
}

fn single_row(row: Row) -> Content {
    Content::Rows { rows: vec![row], run_update: None }
}

fn unreadable(what: &str) -> Rejection {
    Rejection { reason: Reason::InvalidField, detail: format!("the log holds {what} that this version cannot read") }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::Resolved;

    #[test]
    fn a_record_that_is_known_to_be_strict_json_gives_the_same_rows_without_a_check() {
        let decided =
            Resolved { run_id: Uuid::nil(), event_time: 1, received_at: 2, has_event_time: false, opened_run: false };
        for (payload, strict_json) in [
            (&br#" {"type":"note","text":"a \u00e9","n":[1,2.5]} "#[..], true),
            (br#"{"type":"note","n":NaN}"#, false),
            (br#"{"type":"note","text":"\ud800"}"#, false),
            (b"\x81\xa4type\xa4note", false),
            (br#"{"type":"topology","data":{"nodes":[1],"edges":[[1,2]]}}"#, true),
        ] {
            let message = wire::decode(payload, &Limits::default()).unwrap();
            assert_eq!(message.is_strict_json(), strict_json);
            let content = |strict_json| {
                let kind = RecordKind::Event;
                Decoder::new("test").content(&Record {
                    offset: 1,
                    kind,
                    decided,
                    strict_json,
                    from_stream: false,
                    channel: "c",
                    payload,
                })
            };
            assert_eq!(format!("{:?}", content(strict_json)), format!("{:?}", content(false)));
        }
    }
}
