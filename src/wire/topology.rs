//! Topology rows: the network as JSON, its size, and a summary of its weights, read over the listed connections as a stream.

use std::fmt::Write as _;

use super::{
    field::{Destination, Field},
    items::Items,
    message::Message,
    names::{FieldId, Section},
    rest_json::{RestJson, root_json},
    value::{Encoded, Raw, Value},
    write::write_double,
};
use crate::event::{EventKey, Resolved, TopologyRow};

/// The longest summary of the weights that is taken from a message.
const SUMMARY_BYTES_MAX: usize = 64 << 10;

/// The row of a topology message.
pub(super) fn row(message: &Message<'_>, resolved: &Resolved, key: EventKey) -> TopologyRow {
    let columns = &message.columns;
    let Computed { total_parameters, weights_summary } = computed(message);
    TopologyRow {
        key,
        epoch: columns.metric.epoch,
        input_size: columns.input_size,
        output_size: columns.output_size,
        hidden_units: columns.metric.hidden_units,
        total_parameters,
        topology_json: topology_json(message, resolved).into(),
        weights_summary,
    }
}

/// The columns that are computed where the message does not give them.
pub(super) struct Computed {
    pub(super) total_parameters: Option<i32>,
    pub(super) weights_summary: Option<String>,
}

/// These columns of a topology message.
pub(super) fn computed(message: &Message<'_>) -> Computed {
    let columns = &message.columns;
    let listed = message.get(FieldId::Connections).map(summarise).unwrap_or_default();
    let total_parameters = columns.total_parameters.or_else(|| match listed.connections {
        0 => cascade_parameters(columns.input_size?, columns.metric.hidden_units.unwrap_or(0), columns.output_size?),
        connections => i32::try_from(connections).ok(),
    });
    // A longer one is in the picture of the network, as all that the message says is.
    let given = message.get(FieldId::WeightsSummary).filter(|given| given.json_bytes() <= SUMMARY_BYTES_MAX);
    let weights_summary = match given {
        Some(Value::Text(text)) => Some(text.to_string()),
        Some(value) => Some(value.to_json()),
        None => listed.write(),
    };
    Computed { total_parameters, weights_summary }
}

/// Parameters of a cascade network: each hidden unit sees the inputs, a bias and the units before it; each output all of them.
pub(super) fn cascade_parameters(input: i32, hidden: i32, output: i32) -> Option<i32> {
    let [input, hidden, output] = [input, hidden, output].map(i128::from);
    if input < 0 || hidden < 0 || output < 0 {
        return None;
    }
    let units = hidden * (input + 1) + hidden * (hidden - 1) / 2;
    i32::try_from(units + output * (input + hidden + 1)).ok()
}

/// The message's data as JSON, with whatever else the message says and no column holds.
fn topology_json(message: &Message<'_>, resolved: &Resolved) -> String {
    let outer =
        message.fields.iter().any(|field| field.section == Section::Top && is_topology_field(message, resolved, field));
    if !outer && let Some(data) = data(message) {
        return root_json(data, message.is_strict_json());
    }
    // Fields of `data` and of the message side by side; the maps inside them as they are.
    let mut rest = RestJson::of(message);
    for field in &message.fields {
        if matches!(field.section, Section::Data | Section::Top) && is_topology_field(message, resolved, field) {
            rest.add(field);
        }
    }
    for (section, key, value) in nested(message) {
        rest.add(&Field { section, depth: 0, key: key.into(), value, destination: Destination::NoColumn });
    }
    rest.finish().unwrap_or_else(|| "{}".into())
}

/// Whether a field is part of the picture of the network: all are, but for what heads the message and is kept elsewhere.
fn is_topology_field(message: &Message<'_>, resolved: &Resolved, field: &Field<'_>) -> bool {
    let is = |field_id| message.field(field_id).is_some_and(|own| std::ptr::eq(own, field));
    let header = field.section == Section::Top
        && (field.key == "type" || is(FieldId::RunId) || (resolved.has_event_time && is(FieldId::Timestamp)));
    field.value != Value::Null && !header
}

/// The span of the message's `data`.
fn data<'a>(message: &Message<'a>) -> Option<Encoded<'a>> {
    let top = Value::Map(Raw { encoded: message.root, len: 0 });
    match top.get("data")? {
        Value::Map(raw) => Some(raw.encoded),
        _ => None,
    }
}

/// The maps inside the message and inside its `data` that were looked into, as they are.
fn nested<'a>(message: &Message<'a>) -> Vec<(Section, String, Value<'a>)> {
    let mut found = Vec::new();
    let mut search = vec![(Section::Top, message.root)];
    while let Some((section, source)) = search.pop() {
        let mut items = Items::of(&Raw { encoded: source, len: 0 });
        while let Some(key) = items.key() {
            let value = items.value();
            if let (Some(inner), Value::Map(raw)) = (section.inner(&key), &value) {
                if inner == Section::Data {
                    search.push((Section::Data, raw.encoded));
                } else {
                    found.push((section, key.into_owned(), value));
                }
            }
        }
    }
    found
}

#[derive(Default)]
pub(super) struct WeightSummary {
    connections: u64,
    weights: u64,
    min: f64,
    max: f64,
    mean: f64,
    /// Sum of the squared distances from the mean, kept as it goes.
    squared_deviations: f64,
    non_finite: u64,
}

/// Goes over listed connections once; a weight is a `weight` (or `w`) of a map, the third of a triple, or a bare number.
fn summarise(connections: &Value<'_>) -> WeightSummary {
    let mut summary = WeightSummary::default();
    for connection in connections.elements() {
        summary.connections += 1;
        if let Some(weight) = weight_of(&connection) {
            summary.add(weight);
        }
    }
    summary
}

/// The weight of a listed connection.
pub(super) fn weight_of(connection: &Value<'_>) -> Option<f64> {
    match connection {
        Value::Map(_) => connection.get("weight").or_else(|| connection.get("w"))?.double(),
        Value::List(_) => connection.elements().nth(2)?.double(),
        number => number.double(),
    }
}

impl WeightSummary {
    fn add(&mut self, weight: f64) {
        if !weight.is_finite() {
            self.non_finite += 1;
            return;
        }
        self.weights += 1;
        (self.min, self.max) = match self.weights {
            1 => (weight, weight),
            _ => (self.min.min(weight), self.max.max(weight)),
        };
        let off = weight - self.mean;
        self.mean += off / self.weights as f64;
        self.squared_deviations += off * (weight - self.mean);
    }

    /// `{"count", "min", "max", "mean", "std"}` over the finite weights, and how many were not finite.
    fn write(&self) -> Option<String> {
        if self.weights + self.non_finite == 0 {
            return None;
        }
        let mut json = format!("{{\"count\":{}", self.weights);
        if self.weights > 0 {
            let std = (self.squared_deviations / self.weights as f64).sqrt();
            for (name, x) in [("min", self.min), ("max", self.max), ("mean", self.mean), ("std", std)] {
                let _ = write!(json, ",\"{name}\":");
                write_double(&mut json, x);
            }
        }
        if self.non_finite > 0 {
            let _ = write!(json, ",\"non_finite\":{}", self.non_finite);
        }
        json.push('}');
        Some(json)
    }
}
