//! One record: its bytes, and the only place that writes or reads them. The layout is in the module doc of [`super`].

use uuid::Uuid;

use crate::{
    event::Resolved,
    units::{ByteSize, Micros},
};

/// `len` and `crc32c`.
pub(crate) const PREFIX: usize = 8;
/// Everything in front of the channel.
pub(crate) const HEAD: usize = 54;
/// The longest record that is written or believed: Redis itself cuts a subscriber off at half of it.
pub(crate) const MAX: usize = 64 << 20;

const HAS_EVENT_TIME: u8 = 1;
const OPENED_RUN: u8 = 2;
const STRICT_JSON: u8 = 4;
const FROM_STREAM: u8 = 8;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// An accepted training message, as received.
    Event = 1,
    /// A rejected message: [`RejectedMessage`](crate::frame::RejectedMessage) and what is kept of its bytes.
    Rejected = 2,
    /// A command, as received.
    Control = 3,
    /// A gap in what was received.
    Gap = 4,
    /// The outcome of a command.
    Receipt = 5,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Event, Self::Rejected, Self::Control, Self::Gap, Self::Receipt]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// Whether it may use the part of the memory segment that is kept for accounts of what was lost or commanded.
    pub(crate) fn uses_reserved_memory(self) -> bool {
        matches!(self, Self::Control | Self::Gap | Self::Receipt)
    }
}

/// A record about to be appended.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// What the payload is.
    pub kind: RecordKind,
    /// What intake decided about it; `run_id` is nil where there is none.
    pub decided: Resolved,
    /// Whether the payload was found to be JSON that every strict reader takes as it is; not decided again in a replay.
    pub strict_json: bool,
    /// Whether it is an entry of a stream.
    pub from_stream: bool,
    /// Where it came from; may be empty. The hash in the id of an event is over it: see [`entry_source`](crate::event::entry_source).
    pub channel: &'a str,
    /// Bytes in front of the message; may be empty.
    pub preamble: &'a [u8],
    /// The bytes of the message.
    pub payload: &'a [u8],
}

impl<'a> NewRecord<'a> {
    /// What follows the head.
    pub(crate) fn parts(&self) -> [&'a [u8]; 3] {
        [self.channel.as_bytes(), self.preamble, self.payload]
    }
}

/// A record as read back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    /// Its position in the log: one per record.
    pub offset: u64,
    /// What the payload is.
    pub kind: RecordKind,
    /// What intake decided about it.
    pub decided: Resolved,
    /// Whether the payload is known to be strict JSON. Records of older versions do not say so.
    pub strict_json: bool,
    /// Whether it is known to be an entry of a stream: other daemons may have taken the entries before and behind it.
    pub from_stream: bool,
    /// Where it came from, as it was given to the [`NewRecord`].
    pub channel: &'a str,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// What the bytes at some place are.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    /// A valid record, and its length.
    Record(Record<'a>, usize),
    /// The beginning of something that would be this long.
    Short(usize),
    /// No record.
    Bad,
}

/// What every checksum starts from. A payload that holds the bytes of a record, or blocks of another spool, must not pass as
/// records of this one when a damaged place is searched for the next record.
pub(crate) fn seed(id: Uuid) -> u32 {
    crc32c::crc32c(id.as_bytes())
}

/// Length of the encoded record.
pub(crate) fn size(record: &NewRecord<'_>) -> usize {
    HEAD + record.parts().iter().map(|part| part.len()).sum::<usize>()
}

/// Appends the record's bytes to `buffer`. The caller has checked that `size` is at most [`MAX`].
pub(crate) fn encode(buffer: &mut Vec<u8>, seed: u32, offset: u64, record: &NewRecord<'_>) {
    buffer.reserve(size(record));
    buffer.extend_from_slice(&head(seed, offset, record));
    record.parts().iter().for_each(|part| buffer.extend_from_slice(part));
}

/// What stands in front of the [`parts`](NewRecord::parts).
pub(crate) fn head(seed: u32, offset: u64, record: &NewRecord<'_>) -> [u8; HEAD] {
    let NewRecord { kind, decided, strict_json, from_stream, channel, .. } = record;
    let mut head = [0; HEAD];
    let length = u32::try_from(size(record) - PREFIX).expect("records are at most 64 MiB long").to_le_bytes();
    head[..4].copy_from_slice(&length);
    head[8..16].copy_from_slice(&offset.to_le_bytes());
    head[16] = *kind as u8;
    head[17] = (u8::from(decided.has_event_time) * HAS_EVENT_TIME)
        | (u8::from(decided.opened_run) * OPENED_RUN)
        | (u8::from(*strict_json) * STRICT_JSON)
        | (u8::from(*from_stream) * FROM_STREAM);
    head[18..26].copy_from_slice(&decided.received_at.to_le_bytes());
    head[26..34].copy_from_slice(&decided.event_time.to_le_bytes());
    head[34..50].copy_from_slice(decided.run_id.as_bytes());
    head[50..54].copy_from_slice(&(channel.len() as u32).to_le_bytes());
    let mut crc = crc32c::crc32c_append(seed, &length);
    crc = crc32c::crc32c_append(crc, &head[PREFIX..]);
    for part in record.parts() {
        crc = crc32c::crc32c_append(crc, part);
    }
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Reads the record at the start of `bytes`, of which `rest` more or fewer are left in the file. A length is believed only when
/// it fits into `rest` and [`MAX`], and a record only when its checksum matches.
pub(crate) fn parse(bytes: &[u8], rest: u64, seed: u32) -> Parsed<'_> {
    let Some(total) = length(bytes) else {
        return if rest < HEAD as u64 { Parsed::Bad } else { Parsed::Short(HEAD) };
    };
    if !(HEAD..=MAX).contains(&total) || total as u64 > rest {
        return Parsed::Bad;
    }
    let Some(record) = bytes.get(..total) else { return Parsed::Short(total) };
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &record[..4]), &record[PREFIX..]);
    if crc.to_le_bytes() != record[4..8] {
        return Parsed::Bad;
    }
    decode(record).map_or(Parsed::Bad, |record| Parsed::Record(record, total))
}

/// The whole length that the record at the start of `bytes` claims.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    Some(PREFIX + u32::from_le_bytes(*bytes.first_chunk()?) as usize)
}

/// What may be the beginning of a record: what is worth the computation of a checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Length of the whole.
    pub(crate) total: usize,
    /// Its offset in the log.
    pub(crate) offset: u64,
    /// The checksum over what is in front of it, of which that over everything behind [`PREFIX`] goes on, ...
    pub(crate) crc_state: u32,
    /// ... and what it must come to.
    pub(crate) expected_crc: u32,
}

/// Whether a record could start here, in a file of which `rest` bytes are left.
pub(crate) fn candidate(bytes: &[u8], rest: u64, seed: u32) -> Option<Candidate> {
    let head = bytes.first_chunk::<HEAD>()?;
    let u32_at = |at: usize| head.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let total = length(head)?;
    let plausible = (HEAD..=MAX).contains(&total)
        && total as u64 <= rest
        && RecordKind::from_byte(head[16]).is_some()
        && u32_at(50)? as usize <= total - HEAD;
    let crc_state = crc32c::crc32c_append(seed, &head[..4]);
    plausible.then_some(Candidate { total, offset: u64_at(head, 8)?, crc_state, expected_crc: u32_at(4)? })
}

/// Reads a record whose checksum is known to match; `bytes` is exactly one record.
pub(crate) fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let channel_bytes = u32::from_le_bytes(*head.last_chunk()?) as usize;
    let (channel, payload) = rest.split_at_checked(channel_bytes)?;
    Some(Record {
        offset: u64_at(head, 8)?,
        kind: RecordKind::from_byte(head[16])?,
        decided: Resolved {
            received_at: u64_at(head, 18)?.cast_signed() as Micros,
            event_time: u64_at(head, 26)?.cast_signed() as Micros,
            run_id: Uuid::from_bytes(*head[34..].first_chunk()?),
            has_event_time: head[17] & HAS_EVENT_TIME != 0,
            opened_run: head[17] & OPENED_RUN != 0,
        },
        strict_json: head[17] & STRICT_JSON != 0,
        from_stream: head[17] & FROM_STREAM != 0,
        channel: std::str::from_utf8(channel).ok()?,
        payload,
    })
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The longest message that a spool can take on a channel with a short name.
pub const PAYLOAD_MAX: ByteSize = ByteSize::mib(63);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_back_and_a_record_of_an_older_version_has_none_for_later_ones() {
        for bits in 0..16_u8 {
            let decided = Resolved {
                run_id: Uuid::from_u128(7),
                event_time: -1,
                received_at: 2,
                has_event_time: bits & HAS_EVENT_TIME != 0,
                opened_run: bits & OPENED_RUN != 0,
            };
            let (strict_json, from_stream) = (bits & STRICT_JSON != 0, bits & FROM_STREAM != 0);
            let kind = RecordKind::Event;
            let new =
                NewRecord { kind, decided, strict_json, from_stream, channel: "c", preamble: b"", payload: b"{}" };
            let mut bytes = Vec::new();
            encode(&mut bytes, 1, 9, &new);
            assert_eq!(bytes[17], bits);
            let Parsed::Record(record, _) = parse(&bytes, bytes.len() as u64, 1) else { panic!("no record") };
            assert_eq!((record.strict_json, record.from_stream), (strict_json, from_stream));
            assert_eq!((record.decided, record.payload), (decided, &b"{}"[..]));
        }
    }
}
