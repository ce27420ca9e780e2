//! A decoded training message: its fields, flat, and which of them means which column.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::{
    Limits,
    field::{Destination, Field},
    items::Items,
    json,
    names::{self, ExpectedType, FieldId, Section},
    nested::NestedNumbers,
    rejection::invalid,
    time,
    value::{Encoded, Raw, Value},
};
use crate::{
    event::{EntryId, Kind, MetricColumns, Resolved},
    frame::{Reason, Rejection},
    units::Micros,
};

/// Room for the fields of most messages, in an allocation small enough for the allocator's fast path.
const FIELDS_CAPACITY: usize = 12;

/// A training message. It borrows the bytes it was decoded from; lists and maps are decoded when they are read.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub(super) root: Encoded<'a>,
    /// Whether every strict reader takes the text as it is; `None`: not checked yet.
    pub(super) is_strict_json: Option<bool>,
    pub(super) kind: Kind,
    pub(super) type_name: Option<Cow<'a, str>>,
    pub(super) fields: Vec<Field<'a>>,
    /// How many of the fields are in the message itself and the sections inside it; those behind are numbers in other maps.
    pub(super) flat_count: usize,
    /// The field of each meaning, and how well it fits.
    pub(super) assigned: [Option<u16>; FieldId::COUNT],
    pub(super) scores: [u16; FieldId::COUNT],
    pub(super) columns: TypedColumns<'a>,
    pub(super) run: Option<(Uuid, Option<Cow<'a, str>>)>,
    pub(super) invalid: InvalidFields,
    /// Whether more than one field tells a time.
    pub(super) has_several_times: bool,
    /// Which numbers of which maps the fields behind `flat_count` are.
    pub(super) nested: Option<Box<NestedNumbers>>,
}

/// The typed columns that a message can fill.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TypedColumns<'a> {
    /// The columns of metrics; rows of other tables have some of them.
    pub(super) metric: MetricColumns<Cow<'a, str>>,
    pub(super) input_size: Option<i32>,
    pub(super) output_size: Option<i32>,
    pub(super) total_parameters: Option<i32>,
}

/// Fields whose value their column cannot take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InvalidFields {
    pub(super) count: u32,
    /// The position of the first.
    pub(super) first: Option<usize>,
}

/// How much is asked of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// What the contract asks of a message that is received.
    Received,
    /// Nothing beyond what an older version may have asked: it was accepted then, and its run is decided.
    Accepted,
}

/// When an event happened, as far as its message can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTime {
    /// The message's own time, else that of receipt.
    pub event_time: Micros,
    /// Whether it is the message's own.
    pub from_message: bool,
    /// What it says of itself without naming a zone, usable or not.
    pub naive: Option<Micros>,
}

impl MessageTime {
    /// The same of an entry of a stream: without a time of its own it is that of the entry's id.
    #[must_use]
    pub fn of_entry(mut self, entry: Option<EntryId>) -> Self {
        if let Some(entry) = entry.filter(|_| !self.from_message) {
            self.event_time = entry.micros();
        }
        self
    }

    /// What is decided about a message with this time.
    pub fn resolve(&self, received_at: Micros, run_id: Uuid, opened_run: bool) -> Resolved {
        let Self { event_time, from_message: has_event_time, .. } = *self;
        Resolved { run_id, event_time, received_at, has_event_time, opened_run }
    }
}

impl<'a> Message<'a> {
    /// Gathers the fields of a checked message and decides what it is.
    pub(super) fn parse(root: Encoded<'a>, strictness: Strictness) -> Result<Self, Rejection> {
        let mut message = Self::parse_fields(root);
        message.decide_kind()?;
        message.read_columns(strictness)?;
        Ok(message)
    }

    /// Whether it is JSON that every strict reader takes as it is; checked now if it was not.
    pub fn is_strict_json(&self) -> bool {
        let check = || match self.root {
            Encoded::Json(text) => json::check(text, &Limits::NONE).is_ok_and(|checked| checked.is_strict_json),
            Encoded::Pack(_) => false,
        };
        self.is_strict_json.unwrap_or_else(check)
    }

    /// The same message, whose text is known to be strict JSON.
    pub fn known_as_strict_json(mut self) -> Self {
        self.is_strict_json = Some(true);
        self
    }

    /// How many fields hold a value that their column cannot take; they are kept in `rest_json`.
    pub fn invalid_fields(&self) -> u32 {
        self.invalid.count
    }

    pub(super) fn parse_fields(root: Encoded<'a>) -> Self {
        let mut message = Self {
            root,
            is_strict_json: None,
            kind: Kind::Other,
            type_name: None,
            fields: Vec::with_capacity(FIELDS_CAPACITY),
            flat_count: 0,
            assigned: [None; FieldId::COUNT],
            scores: [0; FieldId::COUNT],
            columns: TypedColumns::default(),
            run: None,
            invalid: InvalidFields::default(),
            has_several_times: false,
            nested: None,
        };
        message.parse_section(&mut Items::of(&Raw { encoded: root, len: 0 }), Section::Top, 0);
        message.flat_count = message.fields.len();
        message.assign(0);
        message
    }

    /// Takes in the entries of one map and of the sections inside it. A section opens only sections that are looked at before it
    /// ([`Section::inner`]), which bounds the recursion.
    fn parse_section(&mut self, items: &mut Items<'a>, section: Section, depth: u8) {
        let from = self.fields.len();
        let mut entered: [Option<(usize, usize)>; 2 * Section::COUNT] = [None; 2 * Section::COUNT];
        // One bit for each kind of key seen: while a key's bit is not set, it cannot be a duplicate.
        let (mut seen, mut own, mut many) = (0_u64, 0_usize, false);
        while let Some(key) = items.key() {
            if let Some(inner) = section.inner(&key) {
                let range = inner as usize + if key == "final_metrics" { Section::COUNT } else { 0 };
                if let Some((from, to)) = entered[range].take() {
                    // The last entry of a name counts, and it alone.
                    self.fields.drain(from..to);
                    for (start, end) in entered.iter_mut().flatten().filter(|(start, _)| *start >= to) {
                        (*start, *end) = (*start - (to - from), *end - (to - from));
                    }
                }
                if let Some(mut nested) = items.enter() {
                    let from = self.fields.len();
                    self.parse_section(&mut nested, inner, depth + 1);
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
            self.fields.push(Field { section, depth, key, value, destination: Destination::NoColumn });
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

    fn decide_kind(&mut self) -> Result<(), Rejection> {
        let named = self
            .fields
            .iter()
            .rev()
            .find(|field| field.section == Section::Top && field.key == "type" && field.value != Value::Null);
        if let Some(field) = named {
            let Value::Text(name) = &field.value else { return Err(invalid("type", &field.value)) };
            if !name.is_empty() {
                let name = match self.get(FieldId::EventType) {
                    Some(Value::Text(inner)) if name == "event" => inner.clone(),
                    _ => name.clone(),
                };
                self.kind = names::kind(&name);
                self.type_name = Some(name);
                if self.kind == Kind::Metrics {
                    self.add_nested();
                }
                return Ok(());
            }
        }
        self.add_nested();
        self.kind = self.kind_by_fields().ok_or_else(|| {
            let detail = "neither a `type` nor a field that tells what it is".into();
            Rejection { reason: Reason::UnknownShape, detail }
        })?;
        if self.kind != Kind::Metrics {
            self.drop_nested();
        }
        Ok(())
    }

    /// What a message without a type is.
    fn kind_by_fields(&self) -> Option<Kind> {
        const MEASURED: [FieldId; 4] =
            [FieldId::TrainLoss, FieldId::ValLoss, FieldId::TrainAccuracy, FieldId::ValAccuracy];
        let any = |field_ids: &[FieldId]| field_ids.iter().any(|field_id| self.get(*field_id).is_some());
        let measures =
            MEASURED.iter().any(|field_id| self.get(*field_id).is_some_and(|value| value.double().is_some()));
        let network = any(&[FieldId::Nodes, FieldId::Connections]);
        // An epoch makes metrics, unless the message lists a network and measures nothing.
        if measures || (any(&[FieldId::Epoch]) && !network) {
            Some(Kind::Metrics)
        } else if network || any(&[FieldId::InputSize, FieldId::OutputSize]) {
            Some(Kind::Topology)
        } else if any(&MEASURED) {
            Some(Kind::Metrics)
        } else {
            (any(&[FieldId::RunId, FieldId::Step]) && self.measures_something()).then_some(Kind::Metrics)
        }
    }

    /// Whether it holds a number that is neither an epoch, a step, a `seq` nor a time, and was not found unfit for its column.
    pub(super) fn measures_something(&self) -> bool {
        self.fields.iter().enumerate().any(|(at, field)| {
            let field_id = names::lookup(&field.key).map(|(field_id, _)| field_id);
            let counts = match field_id {
                Some(FieldId::Epoch | FieldId::Step | FieldId::Seq | FieldId::RunId) => false,
                Some(FieldId::Timestamp) => !self.is_time(at),
                _ => true,
            };
            let takes_numbers = field_id.is_some_and(|field_id| field_id.expected_type() == ExpectedType::Number);
            counts
                && field.destination != Destination::Invalid
                && (field.value.is_number() || (takes_numbers && field.value.double().is_some()))
        })
    }

    /// Says what holds the field that was taken for `field_id`.
    pub(super) fn consume(&mut self, field_id: FieldId, destination: Destination) {
        if let Some(at) = self.assigned[field_id as usize] {
            self.fields[usize::from(at)].destination = destination;
        }
    }

    pub(super) fn field(&self, field_id: FieldId) -> Option<&Field<'a>> {
        self.fields.get(usize::from(self.assigned[field_id as usize]?))
    }

    pub(super) fn get(&self, field_id: FieldId) -> Option<&Value<'a>> {
        self.field(field_id).map(|field| &field.value)
    }

    /// Whether this is the field that was taken for `field_id`.
    pub(super) fn is_assigned(&self, field_id: FieldId, at: usize) -> bool {
        self.assigned[field_id as usize].is_some_and(|field_id| usize::from(field_id) == at)
    }

    /// The value of a field by its name, from the nearest section.
    pub(super) fn named(&self, name: &str) -> Option<&Value<'a>> {
        self.fields
            .iter()
            .filter(|field| field.key == name && field.value != Value::Null)
            .min_by_key(|field| (field.section, u8::MAX - field.depth))
            .map(|field| &field.value)
    }

    /// The values of a name, without blank text, the nearest section first.
    pub(super) fn non_blank_values(&self, name: &str) -> impl Iterator<Item = (Section, &Value<'a>)> {
        let mut found: Vec<_> = self.fields[..self.flat_count]
            .iter()
            .filter(|field| field.key == name && field.value != Value::Null && !field.value.is_blank())
            .collect();
        found.sort_by_key(|field| (field.section, u8::MAX - field.depth));
        found.into_iter().map(|field| (field.section, &field.value))
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

    /// The field that tells its time. The `created_at` of a dataset is not: the dataset may be years older than the run.
    fn time_field(&self) -> Option<&Value<'a>> {
        let is_time = |field: &&Field<'_>| self.kind != Kind::Dataset || field.key != "created_at";
        self.field(FieldId::Timestamp).filter(is_time).map(|field| &field.value)
    }

    /// When it happened. Times without a zone are read in `zone`.
    pub fn time(&self, received_at: Micros, zone: &TimeZone) -> MessageTime {
        let own = self.time_field().and_then(|value| time::read_moment(value, zone));
        let naive = own.filter(|moment| !moment.absolute).map(|moment| moment.micros);
        match own.filter(|moment| time::is_usable(moment.micros, received_at)) {
            Some(moment) => MessageTime { event_time: moment.micros, from_message: true, naive },
            None => MessageTime { event_time: received_at, from_message: false, naive },
        }
    }

    /// Whether a field tells its time, usable or not.
    pub fn has_time_field(&self) -> bool {
        self.time_field().is_some()
    }

    /// The producer's number of the message within its run.
    pub fn seq(&self) -> Option<i64> {
        self.columns.metric.seq
    }

    /// Its columns of metrics.
    pub fn metric_columns(&self) -> &MetricColumns<Cow<'a, str>> {
        &self.columns.metric
    }

    /// Its type: that of the message, for an `event` its `event_type`, else that of its kind.
    pub fn type_name(&self) -> &str {
        self.type_name.as_deref().unwrap_or(if self.kind == Kind::Topology { "topology" } else { "metrics" })
    }
}
