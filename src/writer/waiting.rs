//! The records whose part of one run's row is not confirmed yet, and what each of them said of it.
//!
//! A column that the store refuses is the fault of one record: of the last that changed the column's value. Two words a record
//! are enough to find it.

use super::{flight::Refused, frontier::Ticket, summary::Columns};

/// The records that wait for one run's row, in the order of the log.
#[derive(Debug, Default)]
pub struct Waiting {
    records: Vec<(Ticket, Columns)>,
    /// Which record brought a tag: they share one column, and are refused one by one.
    tags: Vec<(String, Ticket)>,
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
    /// A record, and the columns whose value is now that of the record.
    pub fn push(&mut self, ticket: Ticket, columns: Columns) {
        self.records.push((ticket, columns));
    }

    /// A tag that the record brought.
    pub fn push_tag(&mut self, tag: String, ticket: Ticket) {
        self.tags.push((tag, ticket));
    }

    /// Whether no record waits.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The write of these records failed: they wait again, before those that came later.
    pub fn put_back(&mut self, mut earlier: Self) {
        earlier.records.append(&mut self.records);
        earlier.tags.append(&mut self.tags);
        *self = earlier;
    }

    /// All records.
    pub fn tickets(self) -> Vec<Ticket> {
        self.records.into_iter().map(|(ticket, _)| ticket).collect()
    }

    /// Tells the records of refused columns from the others.
    pub fn settle(self, refused: Vec<Refused>) -> Written {
        let mut written = Written::default();
        for refused in refused {
            match self.origin(&refused) {
                None => written.of_the_past.push(refused),
                Some(ticket) => match written.refused.iter_mut().find(|(known, _)| *known == ticket) {
                    Some((_, more)) => more.push(refused),
                    None => written.refused.push((ticket, vec![refused])),
                },
            }
        }
        let is_stored = |ticket: &Ticket| written.refused.iter().all(|(refused, _)| refused != ticket);
        written.stored = self.tickets().into_iter().filter(is_stored).collect();
        written
    }

    fn origin(&self, refused: &Refused) -> Option<Ticket> {
        if let Some(tag) = &refused.tag {
            return self.tags.iter().find(|(known, _)| known == tag).map(|(_, ticket)| *ticket);
        }
        let said = |(_, columns): &&(Ticket, Columns)| columns & refused.columns != 0;
        self.records.iter().rev().find(said).map(|(ticket, _)| *ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(columns: Columns, tag: Option<&str>) -> Refused {
        Refused { columns, tag: tag.map(str::to_owned), row: String::new(), error: String::new() }
    }

    #[test]
    fn the_last_record_that_changed_a_column_is_its_origin() {
        let mut later = Waiting::default();
        later.push(9, 0b100);
        let mut waiting = Waiting::default();
        waiting.push(5, 0b011);
        waiting.push(6, 0b010);
        waiting.push(7, 0b100);
        waiting.push_tag("a".into(), 5);
        waiting.push_tag("a".into(), 7);
        later.put_back(waiting);
        let all = [refused(0b001, None), refused(0b010, None), refused(0b100, None), refused(0b1000, None)];
        let mut written = later.settle([&all[..], &[refused(0b100, Some("a")), refused(0b100, Some("b"))]].concat());
        written.refused.sort_by_key(|(ticket, _)| *ticket);
        let origins: Vec<_> = written.refused.iter().map(|(ticket, refused)| (*ticket, refused.len())).collect();
        assert_eq!((origins, written.stored), (vec![(5, 2), (6, 1), (9, 1)], vec![7]));
        assert_eq!(written.of_the_past, [refused(0b1000, None), refused(0b100, Some("b"))]);
    }
}
