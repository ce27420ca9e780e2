//! Which field of a message means what, where several have a name of the same meaning.

use super::{
    field::Destination,
    message::Message,
    names::{self, ExpectedType, FieldId},
    nested::NestedNumbers,
    time,
    value::{Number, Value},
};

impl Message<'_> {
    /// Finds, among the fields from `from` on, the field of each meaning: a canonical name anywhere before an alias anywhere, then
    /// the nearer section, the deeper map, the earlier alias. Numbers in other maps come last within their section.
    pub(super) fn assign(&mut self, from: usize) {
        let mut times = 0;
        for at in from..self.fields.len() {
            let Some((field_id, score)) = self.score(at) else { continue };
            times += u8::from(field_id == FieldId::Timestamp);
            self.assign_if_better(field_id, score, at);
        }
        if times > 1 {
            self.has_several_times = true;
            self.prefer_absolute_time();
        }
    }

    /// Takes the field for the meaning if none that scored higher was. Of equal scores the last counts among the fields of the
    /// message itself, the first among numbers in other maps.
    #[inline]
    fn assign_if_better(&mut self, field_id: FieldId, score: u16, at: usize) {
        let best = self.scores[field_id as usize];
        // Fields beyond the 65,536th stay ordinary.
        if (score > best || (score == best && at < self.flat_count))
            && let Ok(at) = u16::try_from(at)
        {
            self.assigned[field_id as usize] = Some(at);
            self.scores[field_id as usize] = score;
        }
    }

    /// What a field means, and how well it fits: above zero, greater is better.
    #[inline]
    fn score(&self, at: usize) -> Option<(FieldId, u16)> {
        let field = &self.fields[at];
        let (field_id, rank) = names::lookup(&field.key)?;
        if field.destination == Destination::Invalid || !fits(field_id, rank, &field.value) {
            return None;
        }
        let near = 7 - field.section as u16;
        let depth = if at < self.flat_count { u16::from(field.depth) + 1 } else { 0 };
        Some((field_id, u16::from(rank == 0) << 12 | near << 8 | depth << 4 | u16::from(15 - rank)))
    }

    /// A time that names a moment anywhere before one without a zone anywhere. Asked only where a message has several.
    fn prefer_absolute_time(&mut self) {
        for at in 0..self.flat_count {
            if let Some((FieldId::Timestamp, score)) = self.score(at)
                && time::is_absolute(&self.fields[at].value)
            {
                self.assign_if_better(FieldId::Timestamp, score | 1 << 13, at);
            }
        }
    }

    /// The fields that may be taken for `field_id`, the best first.
    pub(super) fn candidates(&self, field_id: FieldId) -> Vec<u16> {
        let mut found: Vec<(u16, u16)> = (0..self.fields.len())
            .filter_map(|at| {
                let (_, score) = self.score(at).filter(|(found, _)| *found == field_id)?;
                Some((score, u16::try_from(at).ok()?))
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, at)| at).collect()
    }

    /// Whether this field tells a time, whether or not it is the one that counts.
    pub(super) fn is_time(&self, at: usize) -> bool {
        matches!(self.score(at), Some((FieldId::Timestamp, _)))
    }

    /// Adds the numbers in maps of a metrics message, or of one that may be one.
    pub(super) fn add_nested(&mut self) {
        self.nested = NestedNumbers::append(&mut self.fields).map(Box::new);
        if self.fields.len() > self.flat_count {
            self.assign(self.flat_count);
        }
    }

    /// Forgets them again.
    pub(super) fn drop_nested(&mut self) {
        if self.fields.len() > self.flat_count {
            self.fields.truncate(self.flat_count);
            self.nested = None;
            (self.assigned, self.scores) = ([None; FieldId::COUNT], [0; FieldId::COUNT]);
            self.assign(0);
        }
    }
}

/// Whether a value may be the field of this meaning.
#[inline]
fn fits(field_id: FieldId, rank: u8, value: &Value<'_>) -> bool {
    match value {
        Value::Null => return false,
        // Blank text is not given: another name of the same meaning may be.
        Value::Text(_) if matches!(field_id, FieldId::RunId | FieldId::Status | FieldId::EventType) => {
            return !value.is_blank();
        }
        // The numbers in a map have names of their own.
        Value::Map(_) if field_id.expected_type() == ExpectedType::Number => return false,
        Value::Text(_) => {}
        _ if field_id == FieldId::EventType => return false,
        _ => {}
    }
    rank == 0 || fits_alias(field_id, value)
}

/// An alias is an ordinary word, too: with a value that its column could not hold it is an ordinary field.
fn fits_alias(field_id: FieldId, value: &Value<'_>) -> bool {
    match field_id {
        FieldId::Timestamp => time::is_plausible(value),
        FieldId::Seq => matches!(value.number(), Number::Int(0..)),
        FieldId::RunId | FieldId::Notes | FieldId::CreatedBy => value.text().is_some(),
        FieldId::HiddenUnits | FieldId::DatasetName | FieldId::Config | FieldId::Status => true,
        field_id if field_id.expected_type() == ExpectedType::Number => {
            !value.is_container() || value.double().is_some()
        }
        _ => !value.is_container(),
    }
}
