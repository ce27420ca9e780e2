//! A decoded message and what was decided about it, as rows and as what it says about its run.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::{
    dataset,
    field::{Destination, Field},
    message::Message,
    names::{self, ExpectedType, FieldId, Section},
    rest_json::{RestJson, root_json},
    run_update::{run_update, start},
    time, topology,
    value::Value,
};
use crate::event::{EventKey, EventRow, Kind, MetricsRow, Resolved, Row, RunUpdate, event_id};

/// The longest name of a number in `extra`, and the bytes of all names of a message there; longer names go to `rest_json`.
const EXTRA_NAME_BYTES_MAX: usize = 1 << 10;
const EXTRA_NAMES_BYTES_MAX: usize = 1 << 20;
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

fn metrics(message: &Message<'_>, resolved: &Resolved, key: EventKey) -> MetricsRow {
    let (extra, rest_json) = without_column(message, resolved);
    MetricsRow { key, columns: message.columns.metric.to_owned_text(), extra, rest_json: rest_json.map(Into::into) }
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
        if at < message.flat_count && !field.value.is_exact(x) {
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

fn event(message: &Message<'_>, key: EventKey) -> EventRow {
    EventRow {
        key,
        r#type: message.type_name().to_owned(),
        payload_json: root_json(message.root, message.is_strict_json()).into(),
        epoch: message.columns.metric.epoch,
    }
}
