//! A decoded message and what was decided about it, as rows and as what it says about its run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::{
    dataset,
    message::{Destination, Field, Message},
    names::{self, ExpectedType, FieldId, Section},
    time, topology,
    value::{Encoded, Number, Value, write_text},
};
use crate::{
    event::{DatasetRow, EventKey, EventRow, Kind, Lifecycle, MetricsRow, Resolved, Row, RunRow, RunUpdate, event_id},
    memory::LARGE_VALUE,
};

/// The type of an event that adds notes and tags to a run, whatever its status.
pub const RUN_UPDATE: &str = "run_update";
/// The longest configuration, as JSON, that the row of a run holds. A longer one is in the event of the run's start, whole: the row
/// is read and written with every change of the run, many of them at once.
const CONFIG_BYTES_MAX: usize = 1 << 20;
/// The longest name of a number in `extra`, and the bytes of all names of a message there; `rest_json` has the others.
const EXTRA_NAME_BYTES_MAX: usize = 1 << 10;
const EXTRA_NAMES_BYTES_MAX: usize = 1 << 20;
/// The longest name of a dataset in the row of a run, by which stores index the row (Cassandra leaves one of 20 KB out of its index).
/// A longer one is in the event of the run's start.
const DATASET_NAME_BYTES_MAX: usize = 1 << 10;
/// Tags of a run, at most, and of one message; the events have the others.
pub const TAGS_MAX: usize = 1_024;
/// The bytes of all tags of a message that become tags of its run.
const TAGS_BYTES_MAX: usize = 64 << 10;

/// What one message becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Rows whose repetition changes nothing.
    pub rows: Vec<Row>,
    /// What it says about its run.
    pub run_update: RunUpdate,
}

/// The rows of a message. A function of its bytes, its channel and what was decided, so that a replay writes the same.
pub fn rows(message: &Message<'_>, resolved: &Resolved, channel: &str, payload: &[u8]) -> Rows {
    let key = EventKey {
        run_id: resolved.run_id,
        timestamp: resolved.event_time,
        event_id: event_id(resolved.event_time, channel, payload),
    };
    let mut run_update = run_update(message, resolved);
    let rows = match message.kind {
        Kind::Metrics => vec![Row::Metrics(metrics(message, resolved, key))],
        Kind::Topology => {
            let row = topology::row(message, resolved, key);
            run_update.values.total_parameters = row.total_parameters;
            vec![Row::Topology(row)]
        }
        Kind::Dataset => {
            let (row, whole) = dataset::of_message(message, resolved.has_event_time);
            // What the table has no column for is kept as an event, which has the message whole.
            let event = (!whole).then(|| Row::Event(event(message, key)));
            row.map(Row::Dataset).into_iter().chain(event).collect()
        }
        Kind::RunStart => {
            let dataset = start(message, &mut run_update.values);
            std::iter::once(Row::Event(event(message, key))).chain(dataset.map(Row::Dataset)).collect()
        }
        Kind::RunEnd | Kind::State | Kind::Other => vec![Row::Event(event(message, key))],
    };
    Rows { rows, run_update }
}

fn run_update(message: &Message<'_>, resolved: &Resolved) -> RunUpdate {
    let lifecycle = match message.kind {
        Kind::RunStart => Some(Lifecycle::Start),
        Kind::RunEnd => Some(Lifecycle::End(message.outcome().status)),
        // A run that nobody announced begins with the event that opened it.
        _ => resolved.opened_run.then_some(Lifecycle::Start),
    };
    let mut values = Box::new(RunRow {
        run_id: resolved.run_id,
        run_name: message.run_name().map(str::to_owned),
        ..RunRow::default()
    });
    let columns = &message.columns;
    if matches!(message.kind, Kind::Metrics | Kind::RunEnd) {
        values.final_epoch = columns.epoch;
        values.final_train_loss = columns.train_loss;
        values.final_train_accuracy = columns.train_accuracy;
        values.final_val_loss = columns.val_loss;
        values.final_val_accuracy = columns.val_accuracy;
    }
    if message.kind == Kind::Other && message.type_name() == RUN_UPDATE {
        annotate(message, &mut values);
    }
    values.total_hidden_units = columns.hidden_units;
    RunUpdate { event_time: resolved.event_time, lifecycle, values }
}

fn metrics(message: &Message<'_>, resolved: &Resolved, key: EventKey) -> MetricsRow {
    let (extra, rest_json) = without_column(message, resolved);
    let columns = &message.columns;
    MetricsRow {
        key,
        epoch: columns.epoch,
        step: columns.step,
        train_loss: columns.train_loss,
        train_accuracy: columns.train_accuracy,
        val_loss: columns.val_loss,
        val_accuracy: columns.val_accuracy,
        learning_rate: columns.learning_rate,
        hidden_units: columns.hidden_units,
        phase: columns.phase.as_deref().map(str::to_owned),
        seq: columns.seq,
        extra,
        rest_json: rest_json.map(Into::into),
    }
}

/// What no column of a metrics row holds: the numbers by name, and everything else as JSON.
fn without_column(message: &Message<'_>, resolved: &Resolved) -> (BTreeMap<String, f64>, Option<String>) {
    let mut extra = BTreeMap::new();
    let mut rest = RestJson::of(message);
    let mut bytes = 0;
    // First, so that no other number takes their names.
    for field_id in [FieldId::Epoch, FieldId::Step] {
        if let Some(field) = message.field(field_id).filter(|field| field.destination == Destination::WholePart) {
            extra.extend(field.value.double().map(|x| (field_id.name().to_owned(), x)));
        }
    }
    for (at, field) in unmapped_fields(message, resolved) {
        let number = extra_number(message, at).filter(|_| {
            let fits = field.key.len() <= EXTRA_NAME_BYTES_MAX && bytes + field.key.len() <= EXTRA_NAMES_BYTES_MAX;
            bytes += if fits { field.key.len() } else { 0 };
            fits
        });
        let Some(x) = number else {
            rest.add_field(message, at);
            continue;
        };
        // Two numbers of one name come from two sections, or from two maps; both are kept. An integer that a double cannot hold is
        // also kept exactly, one in a map there.
        let mut name = field.key.to_string();
        while extra.contains_key(&name) {
            name = format!("{}.{name}", field.section.name());
        }
        extra.insert(name, x);
        if at < message.flat_count && !is_exact(&field.value, x) {
            rest.add(field);
        }
    }
    (extra, rest.finish())
}

/// The number that `extra` holds for a field; `None`: `rest_json` keeps the field.
fn extra_number(message: &Message<'_>, at: usize) -> Option<f64> {
    let field = &message.fields[at];
    // A time is no measurement; it is kept as it was sent.
    if field.destination == Destination::Invalid || message.is_time(at) {
        return None;
    }
    // Text and lists of one are numbers where a column would take them as such. The list of the hidden units counts them.
    let is_number = field.value.is_number()
        || at >= message.flat_count
        || names::lookup(&field.key).is_some_and(|(field_id, _)| {
            field_id.expected_type() == ExpectedType::Number
                && !(field_id == FieldId::HiddenUnits && matches!(field.value, Value::List(_)))
        });
    field.value.double().filter(|_| is_number)
}

/// Whether a double says all that the number said.
pub(super) fn is_exact(value: &Value<'_>, x: f64) -> bool {
    match (value, value.number()) {
        (Value::Float(_), _) | (_, Number::Float(_)) => true,
        (_, Number::Int(n)) => n.unsigned_abs() <= 1 << 53 || (x as i64 == n && x < 9.2e18),
        _ => false,
    }
}

/// The fields that no column holds, with their positions.
fn unmapped_fields<'m, 'a>(
    message: &'m Message<'a>,
    resolved: &Resolved,
) -> impl Iterator<Item = (usize, &'m Field<'a>)> + use<'m, 'a> {
    let row_time = row_time(message, resolved);
    message.fields.iter().enumerate().filter(move |(at, field)| {
        !(matches!(field.destination, Destination::Column | Destination::WholePart)
            || field.value == Value::Null
            || (field.section == Section::Top && field.key == "type")
            || row_time == Some(*at))
    })
}

/// The position of the field that holds the time of the row. An older version may have taken the time from another field; a time
/// without a zone may have been read in a zone that is not known here.
fn row_time(message: &Message<'_>, resolved: &Resolved) -> Option<usize> {
    let at = usize::from(message.assigned[FieldId::Timestamp as usize]?);
    let says_so = || {
        time::read_moment(&message.fields[at].value, &TimeZone::UTC)
            .is_some_and(|moment| !moment.absolute || moment.micros == resolved.event_time)
    };
    (resolved.has_event_time && (!message.has_several_times || says_so())).then_some(at)
}

/// A JSON object in the making.
#[derive(Default)]
pub(super) struct RestJson {
    json: String,
    names: BTreeSet<String>,
}

impl RestJson {
    /// Nothing yet of this message.
    pub(super) fn of(message: &Message<'_>) -> Self {
        Self { json: json_buffer(message.root), ..Self::default() }
    }

    /// Adds a field; one whose name is taken is told apart by its section.
    pub(super) fn add(&mut self, field: &Field<'_>) {
        self.open(field);
        field.value.write_json(&mut self.json);
    }

    /// Adds a field of metrics. A map is added without the numbers that `extra` or a column holds, where anything is left of it then.
    fn add_field(&mut self, message: &Message<'_>, at: usize) {
        let field = &message.fields[at];
        let Some(nested) = &message.nested else { return self.add(field) };
        let (before, name) = (self.json.len(), self.open(field));
        match nested.write_rest(field, at, &mut self.json) {
            None => field.value.write_json(&mut self.json),
            Some(true) => {}
            Some(false) => {
                self.json.truncate(before);
                self.names.remove(&name);
            }
        }
    }

    /// Appends the name of a field, which is returned; its value comes next.
    fn open(&mut self, field: &Field<'_>) -> String {
        self.json.push(if self.json.is_empty() { '{' } else { ',' });
        let mut name = field.key.to_string();
        while !self.names.insert(name.clone()) {
            name = format!("{}.{name}", field.section.name());
        }
        write_text(&mut self.json, &name);
        self.json.push(':');
        name
    }

    /// The object, if anything was added.
    pub(super) fn finish(mut self) -> Option<String> {
        if self.json.is_empty() {
            return None;
        }
        self.json.push('}');
        Some(self.json)
    }
}

fn event(message: &Message<'_>, key: EventKey) -> EventRow {
    EventRow {
        key,
        r#type: message.type_name().to_owned(),
        payload_json: root_json(message.root, message.is_strict_json()).into(),
        epoch: message.columns.epoch,
    }
}

/// An empty text with room for the JSON of this message, where that is long: one that grows asks for twice what it needs.
pub(super) fn json_buffer(root: Encoded<'_>) -> String {
    let bytes = match root {
        Encoded::Json(text) => text.len(),
        Encoded::Pack(bytes) => bytes.len(),
    };
    if bytes < LARGE_VALUE { String::new() } else { String::with_capacity(super::json_bytes(root) + LARGE_VALUE) }
}

/// A message as JSON that every reader takes.
pub(super) fn root_json(root: Encoded<'_>, is_strict_json: bool) -> String {
    match root {
        Encoded::Json(text) if is_strict_json => text.to_owned(),
        source => {
            let mut json = json_buffer(source);
            super::value::Raw { encoded: source, len: 0 }.write_json(&mut json);
            json
        }
    }
}

/// What a run start says about its run, and the dataset it carries.
fn start(message: &Message<'_>, values: &mut RunRow) -> Option<DatasetRow> {
    annotate(message, values);
    let text = |field_id| message.get(field_id).and_then(Value::text).map(|text| text.into_owned());
    values.created_by = text(FieldId::CreatedBy);
    values.config_json = message
        .get(FieldId::Config)
        .filter(|config| config.json_bytes() <= CONFIG_BYTES_MAX)
        .map(|config| config.to_json().into());
    let described = message.named("dataset").filter(|value| matches!(value, Value::Map(_)));
    let mut dataset = match (described, text(FieldId::DatasetName)) {
        (Some(map), _) => dataset::read(|name| map.get(name)).0,
        (None, name) => {
            name.and_then(|name| dataset::read(|key| (key == "name").then(|| Value::Text(name.clone().into()))).0)
        }
    };
    values.dataset_name = text(FieldId::DatasetName)
        .or_else(|| dataset.as_ref()?.name.clone())
        .filter(|name| name.len() <= DATASET_NAME_BYTES_MAX);
    values.dataset_size =
        message.get(FieldId::DatasetSize).and_then(dataset::column).or_else(|| dataset.as_ref()?.num_samples);
    if let Some(dataset) = &mut dataset {
        dataset.num_samples = dataset.num_samples.or(values.dataset_size);
    }
    dataset
}

/// The notes and tags of a run.
fn annotate(message: &Message<'_>, values: &mut RunRow) {
    values.notes = message.get(FieldId::Notes).and_then(Value::text).map(|text| text.into_owned());
    values.tags = match message.get(FieldId::Tags) {
        Some(tags @ Value::List(_)) => {
            let mut bytes = 0;
            let tags = tags.elements().take(TAGS_MAX).take_while(|tag| {
                bytes += tag.json_bytes();
                bytes <= TAGS_BYTES_MAX
            });
            tags.map(|tag| tag.text().map_or_else(|| tag.to_json(), |text| text.into_owned())).collect()
        }
        Some(tag) => tag.text().map(|text| text.into_owned()).into_iter().collect(),
        None => BTreeSet::new(),
    };
}
