//! The records that wait for a write of one run row, and the columns that each of them mentions.
//!
//! A value that the store refuses is the fault of one record: of the one that gave the column the value that was written. A column
//! may have changed long after a record spoke of it, when the stored row or the history of the run had been read; so a record is
//! kept with the time of its event and all the columns that it speaks of, and found by the time of the refused value.

use super::{
    frontier::RecordToken,
    names::NewName,
    run_columns::{ColumnSet, TIMED_COLUMNS},
    store_call::{RefusedPart, RefusedValue},
};
use crate::units::Micros;

/// The records that wait for one run's row, in the order of the log.
#[derive(Debug, Default)]
pub struct PendingRecords {
    records: Vec<RunMention>,
    /// Which record brought a tag: they share one column, and are refused one by one.
    tags: Vec<(String, RecordToken)>,
}

/// A record that mentions columns of the run row.
#[derive(Clone, Copy, Debug)]
pub struct RunMention {
    /// The record.
    pub token: RecordToken,
    /// The time of its event.
    pub time: Micros,
    /// The columns that it speaks of.
    pub columns: ColumnSet,
}

/// What is being written of a run, and the records that wait for that.
#[derive(Debug)]
pub struct InFlightWrite {
    /// The columns.
    pub columns: ColumnSet,
    /// When the values of the row were said, by the bits of their columns.
    pub value_times: [Micros; TIMED_COLUMNS],
    /// The names of other numbers.
    pub names: Vec<NewName>,
    /// The start among the columns, or before.
    pub start: Option<Micros>,
    /// The records.
    pub records: PendingRecords,
}

/// What a write of a run's row means for the records that waited for it.
#[derive(Debug, Default)]
pub struct WriteOutcome {
    /// Records whose part is stored.
    pub stored: Vec<RecordToken>,
    /// Records of which something was refused.
    pub refused: Vec<(RecordToken, Vec<RefusedValue>)>,
    /// Refused values of records that are long confirmed: a row that had vanished was written again.
    pub already_confirmed: Vec<RefusedValue>,
}

impl PendingRecords {
    /// A record, and the tags that it brings.
    pub fn push(&mut self, mention: RunMention, tags: Vec<String>) {
        self.records.push(mention);
        self.tags.extend(tags.into_iter().map(|tag| (tag, mention.token)));
    }

    /// The write of these records failed: they wait again, before those that came later.
    pub fn put_back(&mut self, mut earlier: Self) {
        earlier.records.append(&mut self.records);
        earlier.tags.append(&mut self.tags);
        *self = earlier;
    }

    /// All records.
    pub fn tokens(self) -> Vec<RecordToken> {
        self.records.into_iter().map(|mention| mention.token).collect()
    }

    /// The record that brought the tag first.
    fn for_tag(&self, tag: &str) -> Option<RecordToken> {
        self.tags.iter().find(|(known, _)| known == tag).map(|(_, token)| *token)
    }

    /// The last record that gave the column the value of this time; the last that speaks of the column, when the time of the value
    /// is not known exactly.
    fn for_column(&self, column: ColumnSet, value_time: Option<Micros>) -> Option<RecordToken> {
        let speaks = || self.records.iter().rev().filter(|mention| mention.columns & column != 0);
        let origin = value_time.and_then(|time| speaks().find(|mention| mention.time == time));
        origin.or_else(|| speaks().next()).map(|mention| mention.token)
    }
}

impl InFlightWrite {
    /// Assigns each refused value to its record.
    pub fn assign_refusals(self, refused: Vec<RefusedValue>) -> WriteOutcome {
        let mut outcome = WriteOutcome::default();
        for refused in refused {
            match self.origin_of(&refused.part) {
                None => outcome.already_confirmed.push(refused),
                Some(token) => match outcome.refused.iter_mut().find(|(known, _)| *known == token) {
                    Some((_, more)) => more.push(refused),
                    None => outcome.refused.push((token, vec![refused])),
                },
            }
        }
        let is_stored = |token: &RecordToken| outcome.refused.iter().all(|(refused, _)| refused != token);
        outcome.stored = self.records.tokens().into_iter().filter(is_stored).collect();
        outcome
    }

    fn origin_of(&self, refused: &RefusedPart) -> Option<RecordToken> {
        match refused {
            RefusedPart::Column(column) => {
                self.records.for_column(*column, self.value_times.get(column.trailing_zeros() as usize).copied())
            }
            RefusedPart::Tag(tag) => self.records.for_tag(tag),
            RefusedPart::Name(name) => self.names.iter().find(|new| new.name == *name).and_then(|new| new.token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(what: RefusedPart) -> RefusedValue {
        RefusedValue { part: what, row: String::new(), error: String::new() }
    }

    #[test]
    fn the_record_that_gave_a_column_its_value_is_its_origin() {
        let mention = |token, time, columns| RunMention { token, time, columns };
        let mut later = PendingRecords::default();
        later.push(mention(9, 30, 0b100), Vec::new());
        let mut pending = PendingRecords::default();
        pending.push(mention(5, 10, 0b011), vec!["a".into()]);
        pending.push(mention(6, 20, 0b010), Vec::new());
        pending.push(mention(7, 5, 0b111), vec!["a".into()]);
        pending.push(mention(8, 20, 1 << TIMED_COLUMNS), Vec::new());
        later.put_back(pending);
        let mut value_times = [Micros::MIN; TIMED_COLUMNS];
        // The third is of a time that was estimated; the fourth is of the past.
        value_times[..4].copy_from_slice(&[10, 20, 29, 40]);
        let new = |name: &str, token| NewName { name: name.to_owned(), token };
        let names = vec![new("n", Some(6)), new("old", None)];
        let write = InFlightWrite { columns: 0, value_times, names, start: None, records: later };
        let columns =
            [0b1, 0b10, 0b100, 0b1000, 1 << TIMED_COLUMNS, 1 << 20].map(|column| refused(RefusedPart::Column(column)));
        let others = [
            RefusedPart::Tag("a".into()),
            RefusedPart::Tag("b".into()),
            RefusedPart::Name("n".into()),
            RefusedPart::Name("old".into()),
        ];
        let mut outcome = write.assign_refusals(columns.into_iter().chain(others.map(refused)).collect());
        outcome.refused.sort_by_key(|(token, _)| *token);
        let origins: Vec<_> = outcome.refused.iter().map(|(token, refused)| (*token, refused.len())).collect();
        assert_eq!((origins, outcome.stored), (vec![(5, 2), (6, 2), (8, 1), (9, 1)], vec![7]));
        let past = [
            RefusedPart::Column(0b1000),
            RefusedPart::Column(1 << 20),
            RefusedPart::Tag("b".into()),
            RefusedPart::Name("old".into()),
        ];
        assert_eq!(outcome.already_confirmed, past.map(refused));
    }
}
