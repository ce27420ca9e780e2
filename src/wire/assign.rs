//! Which field of a message means what, where several have a name of the same meaning.

use super::{
    message::{Held, Message},
    names::{self, Slot, Takes},
    nested::NestedNumbers,
    time,
    value::{Number, Value},
};

impl Message<'_> {
    /// Finds, among the fields from `from` on, the field of each meaning: a canonical name anywhere before an alias anywhere, then
    /// the nearer place, the deeper map, the earlier alias. Numbers in other maps come last within their place.
    pub(super) fn assign(&mut self, from: usize) {
        let mut times = 0;
        for at in from..self.fields.len() {
            let Some((slot, score)) = self.score(at) else { continue };
            times += u8::from(slot == Slot::Timestamp);
            self.offer(slot, score, at);
        }
        if times > 1 {
            self.has_several_times = true;
            self.prefer_absolute_time();
        }
    }

    /// Takes the field for the meaning if none that scored higher was. Of equal scores the last counts among the fields of the
    /// message itself, the first among numbers in other maps.
    #[inline]
    fn offer(&mut self, slot: Slot, score: u16, at: usize) {
        let best = self.scores[slot as usize];
        // Fields beyond the 65,536th stay ordinary.
        if (score > best || (score == best && at < self.flat))
            && let Ok(at) = u16::try_from(at)
        {
            self.slots[slot as usize] = Some(at);
            self.scores[slot as usize] = score;
        }
    }

    /// What a field means, and how well it fits: above zero, greater is better.
    #[inline]
    fn score(&self, at: usize) -> Option<(Slot, u16)> {
        let field = &self.fields[at];
        let (slot, rank) = names::meaning(&field.key)?;
        if field.held == Held::Invalid || !fits(slot, rank, &field.value) {
            return None;
        }
        let near = 7 - field.place as u16;
        let depth = if at < self.flat { u16::from(field.depth) + 1 } else { 0 };
        Some((slot, u16::from(rank == 0) << 12 | near << 8 | depth << 4 | u16::from(15 - rank)))
    }

    /// A time that names a moment anywhere before one without a zone anywhere. Asked only where a message has several.
    fn prefer_absolute_time(&mut self) {
        for at in 0..self.flat {
            if let Some((Slot::Timestamp, score)) = self.score(at)
                && time::is_absolute(&self.fields[at].value)
            {
                self.offer(Slot::Timestamp, score | 1 << 13, at);
            }
        }
    }

    /// The fields that may be taken for `slot`, the best first.
    pub(super) fn candidates(&self, slot: Slot) -> Vec<u16> {
        let mut found: Vec<(u16, u16)> = (0..self.fields.len())
            .filter_map(|at| {
                let (_, score) = self.score(at).filter(|(found, _)| *found == slot)?;
                Some((score, u16::try_from(at).ok()?))
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, at)| at).collect()
    }

    /// Whether this field tells a time, whether or not it is the one that counts.
    pub(super) fn is_time(&self, at: usize) -> bool {
        matches!(self.score(at), Some((Slot::Timestamp, _)))
    }

    /// Adds the numbers in maps of a metrics message, or of one that may be one.
    pub(super) fn add_nested(&mut self) {
        self.nested = NestedNumbers::append(&mut self.fields).map(Box::new);
        if self.fields.len() > self.flat {
            self.assign(self.flat);
        }
    }

    /// Forgets them again.
    pub(super) fn drop_nested(&mut self) {
        if self.fields.len() > self.flat {
            self.fields.truncate(self.flat);
            self.nested = None;
            (self.slots, self.scores) = ([None; Slot::COUNT], [0; Slot::COUNT]);
            self.assign(0);
        }
    }
}

/// Whether a value may be the field of this meaning.
#[inline]
fn fits(slot: Slot, rank: u8, value: &Value<'_>) -> bool {
    match value {
        Value::Null => return false,
        // Blank text is not given: another name of the same meaning may be.
        Value::Text(_) if matches!(slot, Slot::RunId | Slot::Status | Slot::EventType) => return !value.is_blank(),
        // The numbers in a map have names of their own.
        Value::Map(_) if slot.takes() == Takes::Number => return false,
        Value::Text(_) => {}
        _ if slot == Slot::EventType => return false,
        _ => {}
    }
    rank == 0 || fits_alias(slot, value)
}

/// An alias is an ordinary word, too: with a value that its column could not hold it is an ordinary field.
fn fits_alias(slot: Slot, value: &Value<'_>) -> bool {
    match slot {
        Slot::Timestamp => time::plausible(value),
        Slot::Seq => matches!(value.number(), Number::Int(0..)),
        Slot::RunId | Slot::Notes | Slot::CreatedBy => value.text().is_some(),
        Slot::HiddenUnits | Slot::DatasetName | Slot::Config | Slot::Status => true,
        slot if slot.takes() == Takes::Number => !value.is_container() || value.double().is_some(),
        _ => !value.is_container(),
    }
}
