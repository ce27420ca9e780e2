//! What is read of a stored network: the weights of its connections, and what else the table has no column for.

use super::{
    encoding,
    message::Message,
    names::FieldId,
    topology::weight_of,
    value::{Encoded, Value},
};

/// A network as it was listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// Listed nodes; absent: there is no list.
    pub nodes: Option<usize>,
    /// Listed connections; absent: there is no list.
    pub connections: Option<usize>,
    /// Those of them that are finite numbers.
    pub weights: Vec<f64>,
    /// The activation function, as its trainer calls it.
    pub threshold_function: Option<String>,
    /// The optimizer.
    pub optimizer: Option<String>,
}

/// What trainers call the activation function, and the optimizer.
const THRESHOLD_NAMES: [&str; 5] =
    ["threshold_function", "activation_function", "activation_fn", "activation", "activation_function_name"];
const OPTIMIZER_NAMES: [&str; 3] = ["optimizer", "optimizer_name", "optimizer_type"];

/// Reads a stored network (`topology_json`); of text that is none, nothing.
pub fn network(json: &str) -> Network {
    let Some(message) = stored(json) else { return Network::default() };
    let count = |field_id| match message.get(field_id) {
        Some(Value::List(raw)) => Some(raw.len),
        _ => None,
    };
    let connections = message.get(FieldId::Connections).filter(|value| matches!(value, Value::List(_)));
    let weights = connections.into_iter().flat_map(Value::elements).filter_map(|connection| weight_of(&connection));
    Network {
        nodes: count(FieldId::Nodes),
        connections: count(FieldId::Connections),
        weights: weights.filter(|weight| weight.is_finite()).collect(),
        threshold_function: named(&message, &THRESHOLD_NAMES),
        optimizer: named(&message, &OPTIMIZER_NAMES),
    }
}

/// The activation function and the optimizer that a run's configuration (`config_json`) names.
pub fn configured(json: &str) -> (Option<String>, Option<String>) {
    let Some(message) = stored(json) else { return (None, None) };
    (named(&message, &THRESHOLD_NAMES), named(&message, &OPTIMIZER_NAMES))
}

fn stored(json: &str) -> Option<Message<'_>> {
    match encoding(json.as_bytes()).ok()? {
        source @ Encoded::Json(_) => Some(Message::parse_fields(source)),
        Encoded::Pack(_) => None,
    }
}

fn named(message: &Message<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let value = message.named(name)?;
        // Some describe it with its own settings.
        let text = value.text().or_else(|| value.get("name").or_else(|| value.get("type"))?.text());
        text.map(|text| text.into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_found_however_connections_are_listed() {
        for (connections, expected) in [
            (r#"[{"from":"a","to":"b","weight":0.5},{"w":-1},{"from":"a"},{"weight":"NaN"}]"#, &[0.5, -1.0][..]),
            ("[[0,1,0.25],[1,2,2],[1,2]]", &[0.25, 2.0]),
            ("[1,2.5]", &[1.0, 2.5]),
            ("[]", &[]),
        ] {
            let found = network(&format!(r#"{{"nodes":[1,2,3],"activation_fn":"tanh","connections":{connections}}}"#));
            assert_eq!(found.weights, expected, "{connections}");
            assert_eq!((found.nodes, found.threshold_function.as_deref()), (Some(3), Some("tanh")));
        }
        assert_eq!(network("no JSON"), Network::default());
        assert_eq!(configured(r#"{"optimizer":"adam","lr":1}"#), (None, Some("adam".into())));
    }
}
