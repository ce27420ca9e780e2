//! A decoded training message: its fields, flat, and which of them means which column.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::{
    columns::{Columns, invalid},
    names::{self, Place, Slot},
    time,
    value::{Items, Number, Raw, Source, Value},
};
use crate::{
    event::Kind,
    frame::{Reason, Rejection},
    units::Micros,
};

/// One field of the message or of a map inside it that is looked into.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) place: Place,
    /// Levels of nesting.
    pub(super) depth: u8,
    pub(super) key: Cow<'a, str>,
    pub(super) value: Value<'a>,
    /// A column holds it.
    pub(super) used: bool,
}

/// Room for the fields of most messages, in an allocation small enough for the allocator's fast path.
const FIELDS: usize = 12;

/// A training message. It borrows the bytes it was decoded from; what nobody looks at stays bytes.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub(super) whole: Source<'a>,
    pub(super) kind: Kind,
    pub(super) type_name: Option<Cow<'a, str>>,
    pub(super) fields: Vec<Field<'a>>,
    slots: [Option<u16>; Slot::COUNT],
    scores: [u16; Slot::COUNT],
    pub(super) columns: Columns<'a>,
    pub(super) run: Option<(Uuid, Option<Cow<'a, str>>)>,
}

/// When an event happened, as far as its message can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTime {
    /// The message's own time, else that of receipt.
    pub event_time: Micros,
    /// Whether it is the message's own.
    pub own: bool,
    /// Whether the own time is absent, or too far from the receipt to be used; counted.
    pub unusable: bool,
}

impl<'a> Message<'a> {
    /// Gathers the fields of a checked message and decides what it is.
    pub(super) fn gather(whole: Source<'a>) -> Result<Self, Rejection> {
        let mut message = Self::walked(whole);
        message.decide_kind()?;
        message.fill()?;
        Ok(message)
    }

    /// The `seq` alone, whatever kind of message it is, or was before a part of it was stored.
    pub(super) fn seq_of(whole: Source<'a>) -> Option<i64> {
        Self::walked(whole).seq_column().ok().flatten()
    }

    pub(super) fn walked(whole: Source<'a>) -> Self {
        let mut message = Self {
            whole,
            kind: Kind::Other,
            type_name: None,
            fields: Vec::with_capacity(FIELDS),
            slots: [None; Slot::COUNT],
            scores: [0; Slot::COUNT],
            columns: Columns::default(),
            run: None,
        };
        message.walk(&mut Items::of(&Raw { source: whole, len: 0 }), Place::Top, 0);
        message.assign();
        message
    }

    /// Takes in the entries of one map and of the places inside it; recursion ends with the places, at most four deep.
    fn walk(&mut self, items: &mut Items<'a>, place: Place, depth: u8) {
        let from = self.fields.len();
        let mut entered: [Option<(usize, usize)>; 2 * Place::COUNT] = [None; 2 * Place::COUNT];
        // One bit for each kind of key seen: while a key's bit is not set, it cannot be a duplicate.
        let (mut seen, mut own, mut many) = (0_u64, 0_usize, false);
        while let Some(key) = items.key() {
            if let Some(inner) = place.inner(&key) {
                let range = inner as usize + if key == "final_metrics" { Place::COUNT } else { 0 };
                if let Some((from, to)) = entered[range].take() {
                    // The last entry of a name counts, and it alone.
                    self.fields[from..to].iter_mut().for_each(|field| field.value = Value::Null);
                }
                if let Some(mut nested) = items.enter() {
                    let from = self.fields.len();
                    self.walk(&mut nested, inner, depth + 1);
                    items.leave(&nested);
                    entered[range] = Some((from, self.fields.len()));
                    continue;
                }
            }
            let ends =
                [key.as_bytes().first(), key.as_bytes().last()].map(|byte| byte.map_or(0, |byte| usize::from(*byte)));
            let bit = 1 << ((key.len() * 5 + ends[0] * 3 + ends[1]) & 63);
            own += 1;
            many |= own > 64;
            if seen & bit != 0 && !many {
                for field in &mut self.fields[from..] {
                    if field.depth == depth && field.key == key {
                        field.value = Value::Null;
                    }
                }
            }
            seen |= bit;
            let value = items.value();
            self.fields.push(Field { place, depth, key, value, used: false });
        }
        if many {
            self.blank_duplicates(from, depth);
        }
    }

    /// For maps of many fields: the last entry of a name counts, in n log n.
    fn blank_duplicates(&mut self, from: usize, depth: u8) {
        let mut order: Vec<usize> = (from..self.fields.len()).filter(|at| self.fields[*at].depth == depth).collect();
        order.sort_by(|a, b| self.fields[*a].key.cmp(&self.fields[*b].key).then(a.cmp(b)));
        for pair in order.windows(2) {
            if self.fields[pair[0]].key == self.fields[pair[1]].key {
                self.fields[pair[0]].value = Value::Null;
            }
        }
    }

    /// Finds the field of each meaning: a canonical name anywhere before an alias anywhere, then the nearer place, the deeper
    /// map, the earlier alias.
    fn assign(&mut self) {
        for (at, field) in self.fields.iter().enumerate() {
            let Some((slot, rank)) = names::meaning(&field.key) else { continue };
            if field.value == Value::Null || (rank > 0 && !fits_alias(slot, &field.value)) {
                continue;
            }
            let near = 7 - field.place as u16;
            let score = u16::from(rank == 0) << 12 | near << 8 | u16::from(field.depth) << 4 | u16::from(15 - rank);
            let slot = slot as usize;
            // No message within the limits of the configuration has that many fields; further ones stay ordinary.
            if score >= self.scores[slot]
                && let Ok(at) = u16::try_from(at)
            {
                self.slots[slot] = Some(at);
                self.scores[slot] = score;
            }
        }
    }

    fn decide_kind(&mut self) -> Result<(), Rejection> {
        let named = self
            .fields
            .iter()
            .rev()
            .find(|field| field.place == Place::Top && field.key == "type" && field.value != Value::Null);
        if let Some(field) = named {
            let Value::Text(name) = &field.value else { return Err(invalid("type", &field.value)) };
            if !name.is_empty() {
                let name = match self.get(Slot::EventType) {
                    Some(Value::Text(inner)) if name == "event" && !inner.is_empty() => inner.clone(),
                    _ => name.clone(),
                };
                self.kind = names::kind(&name);
                self.type_name = Some(name);
                return Ok(());
            }
        }
        let any = |slots: &[Slot]| slots.iter().any(|slot| self.get(*slot).is_some());
        let measured = any(&[Slot::TrainLoss, Slot::ValLoss, Slot::TrainAccuracy, Slot::ValAccuracy]);
        let network = any(&[Slot::Nodes, Slot::Connections]);
        // An epoch makes metrics, unless the message lists a network and measures nothing.
        self.kind = if measured || (any(&[Slot::Epoch]) && !network) {
            Kind::Metrics
        } else if network || any(&[Slot::InputSize, Slot::OutputSize]) {
            Kind::Topology
        } else {
            let detail = "neither a `type` nor a field that tells what it is".into();
            return Err(Rejection { reason: Reason::UnknownShape, detail });
        };
        Ok(())
    }

    pub(super) fn mark(&mut self, slot: Slot) {
        if let Some(at) = self.slots[slot as usize] {
            self.fields[usize::from(at)].used = true;
        }
    }

    pub(super) fn field(&self, slot: Slot) -> Option<&Field<'a>> {
        self.fields.get(usize::from(self.slots[slot as usize]?))
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Value<'a>> {
        self.field(slot).map(|field| &field.value)
    }

    /// Whether this is the field that was taken for `slot`.
    pub(super) fn is_slot(&self, slot: Slot, at: usize) -> bool {
        self.slots[slot as usize].is_some_and(|slot| usize::from(slot) == at)
    }

    /// The value of a field by its name, from the nearest place.
    pub(super) fn named(&self, name: &str) -> Option<&Value<'a>> {
        self.fields
            .iter()
            .filter(|field| field.key == name && field.value != Value::Null)
            .min_by_key(|field| (field.place, u8::MAX - field.depth))
            .map(|field| &field.value)
    }

    /// What the message is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The run it names, if any.
    pub fn run_id(&self) -> Option<Uuid> {
        self.run.as_ref().map(|(id, _)| *id)
    }

    /// The text by which it names its run, where that is no UUID.
    pub fn run_name(&self) -> Option<&str> {
        self.run.as_ref()?.1.as_deref()
    }

    /// When it happened. Times without a zone are read in `zone`.
    pub fn time(&self, received_at: Micros, zone: &TimeZone) -> MessageTime {
        let own = self.get(Slot::Timestamp).and_then(|value| time::read(value, zone));
        match own.filter(|time| time::usable(*time, received_at)) {
            Some(event_time) => MessageTime { event_time, own: true, unusable: false },
            None => MessageTime { event_time: received_at, own: false, unusable: true },
        }
    }

    /// The producer's number of the message within its run.
    pub fn seq(&self) -> Option<i64> {
        self.columns.seq
    }

    /// The epoch.
    pub fn epoch(&self) -> Option<i32> {
        self.columns.epoch
    }

    /// The phase of training.
    pub fn phase(&self) -> Option<&str> {
        self.columns.phase.as_deref()
    }

    /// How many hidden units the network has.
    pub fn hidden_units(&self) -> Option<i32> {
        self.columns.hidden_units
    }

    /// Its type: that of the message, for an `event` its `event_type`, else that of its kind.
    pub fn type_name(&self) -> &str {
        self.type_name.as_deref().unwrap_or(if self.kind == Kind::Topology { "topology" } else { "metrics" })
    }
}

/// An alias is an ordinary word too: with a value that its column could not hold it is an ordinary field.
fn fits_alias(slot: Slot, value: &Value<'_>) -> bool {
    match slot {
        Slot::Timestamp => time::plausible(value),
        Slot::Seq => matches!(value.number(), Number::Int(0..)),
        Slot::RunId | Slot::Notes | Slot::CreatedBy => value.text().is_some(),
        Slot::HiddenUnits => !matches!(value, Value::Map(_)),
        Slot::DatasetName | Slot::Config => true,
        _ => !value.is_container(),
    }
}
