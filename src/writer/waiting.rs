//! The records whose part of one run's row is not confirmed yet, and what each of them said of it.
//!
//! A value that the store refuses is the fault of one record: of the one that gave the column the value that was written. A column
//! may have changed long after a record spoke of it, when the stored row or the history of the run had been read; so a record is
//! kept with the time of its event and all the columns that it speaks of, and found by the time of the refused value.

use super::{
    columns::{Columns, TIMED},
    flight::{Refused, What},
    frontier::Ticket,
    names::NewName,
};
use crate::units::Micros;

/// The records that wait for one run's row, in the order of the log.
#[derive(Debug, Default)]
pub struct Waiting {
    records: Vec<Said>,
    /// Which record brought a tag: they share one column, and are refused one by one.
    tags: Vec<(String, Ticket)>,
}

/// What a record said of the run.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// The record.
    pub ticket: Ticket,
    /// The time of its event.
    pub time: Micros,
    /// The columns that it speaks of.
    pub columns: Columns,
}

/// What is being written of a run, and the records that wait for that.
#[derive(Debug)]
pub struct Sent {
    /// The columns.
    pub columns: Columns,
    /// When the values of the row were said, by the bits of their columns.
    pub said_at: [Micros; TIMED],
    /// The names of other numbers.
    pub names: Vec<NewName>,
    /// The start among the columns, or before.
    pub start: Option<Micros>,
    /// The records.
    pub records: Waiting,
}

/// What a write of a run's row means for the records that waited for it.
#[derive(Debug, Default)]
pub struct Written {
    /// Records whose part is stored.
    pub stored: Vec<Ticket>,
    /// Records of which something was refused.
    pub refused: Vec<(Ticket, Vec<Refused>)>,
    /// Refused values of records that are long confirmed: a row that had vanished was written again.
    pub of_the_past: Vec<Refused>,
}

impl Waiting {
    /// A record, and the tags that it brings.
    pub fn push(&mut self, said: Said, tags: Vec<String>) {
        self.records.push(said);
        self.tags.extend(tags.into_iter().map(|tag| (tag, said.ticket)));
    }

    /// The write of these records failed: they wait again, before those that came later.
    pub fn put_back(&mut self, mut earlier: Self) {
        earlier.records.append(&mut self.records);
        earlier.tags.append(&mut self.tags);
        *self = earlier;
    }

    /// All records.
    pub fn tickets(self) -> Vec<Ticket> {
        self.records.into_iter().map(|said| said.ticket).collect()
    }

    /// The record that brought the tag first.
    fn of_tag(&self, tag: &str) -> Option<Ticket> {
        self.tags.iter().find(|(known, _)| known == tag).map(|(_, ticket)| *ticket)
    }

    /// The last record that gave the column the value of this time; the last that speaks of the column, when the time of the value
    /// is not known exactly.
    fn of_column(&self, column: Columns, said_at: Option<Micros>) -> Option<Ticket> {
        let speaks = || self.records.iter().rev().filter(|said| said.columns & column != 0);
        let origin = said_at.and_then(|time| speaks().find(|said| said.time == time));
        origin.or_else(|| speaks().next()).map(|said| said.ticket)
    }
}

impl Sent {
    /// Tells the records of refused values from the others.
    pub fn settle(self, refused: Vec<Refused>) -> Written {
        let mut written = Written::default();
        for refused in refused {
            match self.origin(&refused.what) {
                None => written.of_the_past.push(refused),
                Some(ticket) => match written.refused.iter_mut().find(|(known, _)| *known == ticket) {
                    Some((_, more)) => more.push(refused),
                    None => written.refused.push((ticket, vec![refused])),
                },
            }
        }
        let is_stored = |ticket: &Ticket| written.refused.iter().all(|(refused, _)| refused != ticket);
        written.stored = self.records.tickets().into_iter().filter(is_stored).collect();
        written
    }

    fn origin(&self, refused: &What) -> Option<Ticket> {
        match refused {
            What::Column(column) => {
                self.records.of_column(*column, self.said_at.get(column.trailing_zeros() as usize).copied())
            }
            What::Tag(tag) => self.records.of_tag(tag),
            What::Name(name) => self.names.iter().find(|new| new.name == *name).and_then(|new| new.ticket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(what: What) -> Refused {
        Refused { what, row: String::new(), error: String::new() }
    }

    #[test]
    fn the_record_that_gave_a_column_its_value_is_its_origin() {
        let said = |ticket, time, columns| Said { ticket, time, columns };
        let mut later = Waiting::default();
        later.push(said(9, 30, 0b100), Vec::new());
        let mut waiting = Waiting::default();
        waiting.push(said(5, 10, 0b011), vec!["a".into()]);
        waiting.push(said(6, 20, 0b010), Vec::new());
        waiting.push(said(7, 5, 0b111), vec!["a".into()]);
        waiting.push(said(8, 20, 1 << TIMED), Vec::new());
        later.put_back(waiting);
        let mut said_at = [Micros::MIN; TIMED];
        // The third is of a time that was estimated; the fourth is of the past.
        said_at[..4].copy_from_slice(&[10, 20, 29, 40]);
        let new = |name: &str, ticket| NewName { name: name.to_owned(), ticket };
        let names = vec![new("n", Some(6)), new("old", None)];
        let sent = Sent { columns: 0, said_at, names, start: None, records: later };
        let columns = [0b1, 0b10, 0b100, 0b1000, 1 << TIMED, 1 << 20].map(|column| refused(What::Column(column)));
        let others = [What::Tag("a".into()), What::Tag("b".into()), What::Name("n".into()), What::Name("old".into())];
        let mut written = sent.settle(columns.into_iter().chain(others.map(refused)).collect());
        written.refused.sort_by_key(|(ticket, _)| *ticket);
        let origins: Vec<_> = written.refused.iter().map(|(ticket, refused)| (*ticket, refused.len())).collect();
        assert_eq!((origins, written.stored), (vec![(5, 2), (6, 2), (8, 1), (9, 1)], vec![7]));
        let past = [What::Column(0b1000), What::Column(1 << 20), What::Tag("b".into()), What::Name("old".into())];
        assert_eq!(written.of_the_past, past.map(refused));
    }
}
