//! Entries of streams: their ids, and what the hash of an entry without a time of its own is over.

use std::{fmt, str::FromStr};

use crate::units::Micros;

/// The last moment that every store and every client can write; an id may say more.
const LATEST_MICROS: Micros = 253_402_207_200_000_000;

/// The id of an entry of a Redis stream: unique in its stream, ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The server's clock, in milliseconds since the epoch, unless the publisher chose the id.
    pub millis: u64,
    /// Counts the entries of one millisecond.
    pub sequence: u64,
}

impl EntryId {
    /// The time of an entry that has none of its own: that of its id, the sequence counted as microseconds.
    pub fn micros(self) -> Micros {
        let micros = self.millis.saturating_mul(1_000).saturating_add(self.sequence.min(999));
        Micros::try_from(micros).map_or(LATEST_MICROS, |micros| micros.min(LATEST_MICROS))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// The text is no id of an entry.
#[derive(Debug, PartialEq, Eq)]
pub struct NoEntryId;

impl FromStr for EntryId {
    type Err = NoEntryId;

    fn from_str(text: &str) -> Result<Self, NoEntryId> {
        let (millis, sequence) = text.split_once('-').ok_or(NoEntryId)?;
        let number = |digits: &str| digits.parse().map_err(|_| NoEntryId);
        Ok(Self { millis: number(millis)?, sequence: number(sequence)? })
    }
}

/// `stream ‖ 0x00 ‖ entry id`: stands in place of the channel where an entry without a time of its own gets its event id, so that a
/// redelivery is the same row, and equal entries are two.
pub fn entry_source(stream: &str, id: EntryId) -> String {
    format!("{stream}\0{id}")
}

/// The channel or stream of a source, and the entry id where [`entry_source`] has put one.
pub fn split_source(source: &str) -> (&str, Option<EntryId>) {
    match source.rsplit_once('\0').and_then(|(stream, id)| Some((stream, id.parse().ok()?))) {
        Some((stream, id)) => (stream, Some(id)),
        None => (source, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_time_and_becomes_part_of_the_source() {
        let id: EntryId = "1763633700123-7".parse().unwrap();
        assert_eq!((id.micros(), id.to_string().as_str()), (1_763_633_700_123_007, "1763633700123-7"));
        assert_eq!(EntryId { sequence: 5_000, ..id }.micros(), 1_763_633_700_123_999);
        assert_eq!(EntryId { millis: u64::MAX, sequence: u64::MAX }.micros(), LATEST_MICROS);
        assert_eq!(split_source(&entry_source("a:b", id)), ("a:b", Some(id)));
        for other in ["a:b", "a\0b", "", "5-1"] {
            assert_eq!(split_source(other), (other, None));
        }
        for text in ["", "5", "-", "5-", "-1", "a-1", "5-1-2", "99999999999999999999-0"] {
            assert_eq!(text.parse::<EntryId>(), Err(NoEntryId), "{text}");
        }
        assert!(id < EntryId { sequence: 8, ..id } && id < EntryId { millis: id.millis + 1, sequence: 0 });
    }
}
