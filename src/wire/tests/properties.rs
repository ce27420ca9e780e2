//! The rules of the contract about what a message means, over any nesting, alias, order of keys and encoding.

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};

use super::{rules::metrics_of, *};
use crate::wire::Outcome;

/// A message in the making: keys stay in the order in which they were added.
#[derive(Clone, Debug)]
enum Node {
    Leaf(Json),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leaf(value) => value.serialize(serializer),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

/// Where a field stands.
const SECTION_PATHS: [&[&str]; 5] = [&[], &["data"], &["details"], &["data", "details"], &["data", "metrics"]];

/// One field with its place.
#[derive(Clone, Debug)]
struct FieldSpec {
    path: &'static [&'static str],
    name: String,
    value: Node,
}

fn field_at(path: &'static [&'static str], name: &str, value: impl Into<Json>) -> FieldSpec {
    FieldSpec { path, name: name.into(), value: Node::Leaf(value.into()) }
}

/// The message of these fields, in this order.
fn tree(fields: &[FieldSpec]) -> Node {
    let mut root = Vec::new();
    for field in fields {
        let mut at: &mut Vec<(String, Node)> = &mut root;
        for step in field.path {
            if !at.iter().any(|(key, _)| key == step) {
                at.push(((*step).to_owned(), Node::Map(Vec::new())));
            }
            let found = at.iter_mut().find(|(key, _)| key == step);
            let Some((_, Node::Map(inner))) = found else { panic!("{step} is a path") };
            at = inner;
        }
        at.push((field.name.clone(), field.value.clone()));
    }
    Node::Map(root)
}

fn encodings(fields: &[FieldSpec]) -> [Vec<u8>; 2] {
    let tree = tree(fields);
    [serde_json::to_vec(&tree).unwrap(), rmp_serde::to_vec(&tree).unwrap()]
}

fn shuffled(fields: Vec<FieldSpec>) -> impl Strategy<Value = Vec<FieldSpec>> {
    Just(fields).prop_shuffle()
}

fn outcome_of(fields: &[FieldSpec]) -> Outcome {
    let [json, pack] = encodings(fields).map(|payload| decode(&payload, &Limits::default()).unwrap().outcome());
    assert_eq!(json, pack, "{fields:?}");
    json
}

/// A word of the table in another spelling.
fn spelled(word: &str, style: u8) -> String {
    match style % 4 {
        0 => word.to_uppercase(),
        1 => word.chars().map(|c| c.to_string()).collect::<Vec<_>>().join("_"),
        2 => format!(" {word} "),
        _ => word.replacen('e', "e-", 1),
    }
}

/// Names that meet each other: columns, aliases, paths, places.
const NAMES: [&str; 24] = [
    "epoch",
    "loss",
    "train_loss",
    "train",
    "val",
    "acc",
    "a",
    "b",
    "a.b",
    "config",
    "x",
    "data",
    "details",
    "metrics",
    "final_metrics",
    "network_topology",
    "hidden_units",
    "step",
    "timestamp",
    "seq",
    "train.loss",
    "metrics.x",
    "lr",
    "phase",
];

/// A map of such names, four levels deep, whose leaves are told apart by [`numbered`].
fn maps() -> impl Strategy<Value = Node> {
    let leaf = (0..6_u8).prop_map(|form| Node::Leaf(json!(form)));
    let map = |inner| prop::collection::btree_map(select(&NAMES[..]), inner, 1..5);
    let nodes = leaf.prop_recursive(4, 40, 5, move |inner| map(inner).prop_map(entries));
    map(nodes.boxed()).prop_map(entries)
}

fn entries(map: std::collections::BTreeMap<&'static str, Node>) -> Node {
    Node::Map(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The same with a different value in each leaf: a number, a number as text or in a list, or a word.
fn numbered(node: &Node, leaves: &mut Vec<String>) -> Node {
    match node {
        Node::Map(entries) => {
            Node::Map(entries.iter().map(|(name, value)| (name.clone(), numbered(value, leaves))).collect())
        }
        Node::Leaf(form) => {
            let n = 10_001 + leaves.len();
            leaves.push(n.to_string());
            match form.as_u64() {
                Some(0) => Node::Leaf(json!(n.to_string())),
                Some(1) => Node::List(vec![Node::Leaf(json!(n))]),
                Some(2) => Node::Leaf(json!(format!("w{n}"))),
                Some(3) => Node::Leaf(json!(n as f64 + 0.5)),
                _ => Node::Leaf(json!(n)),
            }
        }
        Node::List(_) => node.clone(),
    }
}

/// What an end may say: the name of a field, a value, and the outcome if it decides.
fn claims() -> [Vec<(&'static str, Json, &'static str)>; 4] {
    [
        ["status", "final_status", "outcome"]
            .iter()
            .flat_map(|name| {
                [
                    ("Finished", "completed"),
                    ("node-failure", "failed"),
                    ("Timed Out", "stopped"),
                    ("nonsense", "stopped"),
                ]
                .map(|(word, status)| (*name, json!(word), status))
            })
            .collect(),
        vec![("success", json!(true), "completed"), ("success", json!(false), "failed")],
        vec![("error", json!("boom"), "failed"), ("exception", json!({"a": 1}), "failed")],
        vec![("exit_code", json!("0:0"), "completed"), ("exit_code", json!(3), "failed")],
    ]
}

proptest! {
    #[test]
    fn no_value_of_a_message_is_lost(map in maps()) {
        let mut leaves = Vec::new();
        let Node::Map(mut entries) = numbered(&map, &mut leaves) else { unreachable!() };
        entries.push(("type".into(), Node::Leaf(json!("metrics"))));
        let message = Node::Map(entries);
        for payload in [serde_json::to_vec(&message).unwrap(), rmp_serde::to_vec(&message).unwrap()] {
            // What intake refuses is a dead letter, whole.
            let message = decode_accepted(&payload).unwrap();
            let made = format!("{:?}", rows(&message, &resolved(&message, RECEIVED), "c", &payload).rows);
            for leaf in &leaves {
                prop_assert!(made.contains(leaf), "{} of {:?} is not in {}", leaf, map, made);
            }
        }
    }

    #[test]
    fn any_mix_of_claims_is_decided_in_the_order_of_the_contract(
        picks in prop::collection::vec((any::<bool>(), any::<Index>(), select(&SECTION_PATHS[..])), 4),
        reason in prop::option::of(select(vec![("early_stopping", "completed"), ("it crashed", "failed"), ("whatever", "")])),
        kind in select(vec![("training_end", "completed"), ("training_failed", "failed"), ("run_killed", "stopped")]),
        order: u64,
    ) {
        let mut fields = vec![field_at(&[], "type", kind.0)];
        let mut expected = None;
        for (claims, (given, index, path)) in claims().iter().zip(&picks) {
            if *given {
                let (name, value, status) = index.get(claims);
                fields.push(field_at(path, name, value.clone()));
                expected = expected.or(Some(*status));
            }
        }
        if let Some((text, status)) = reason {
            fields.push(field_at(&["data"], "reason", text));
            expected = expected.or(Some(status).filter(|status| !status.is_empty()));
        }
        let turn = order as usize % fields.len();
        fields.rotate_left(turn);
        prop_assert_eq!(outcome_of(&fields).status, expected.unwrap_or(kind.1), "{:?}", fields);
    }

    #[test]
    fn a_word_of_the_table_is_known_in_any_spelling(
        (word, status) in select(vec![("succeeded", "completed"), ("earlystopped", "completed"), ("outofmemory", "failed"),
            ("exception", "failed"), ("terminated", "stopped"), ("preempted", "stopped")]),
        style: u8,
    ) {
        let found = outcome_of(&[field_at(&[], "type", "run_end"), field_at(&["data"], "status", spelled(word, style))]);
        prop_assert_eq!(found, Outcome { status, known: true });
    }

    #[test]
    fn an_absolute_time_wins_wherever_it_stands(
        absolute in select(vec![json!(1_763_633_700), json!(1_763_633_700_000_i64), json!("2025-11-20T10:15:00Z"),
            json!("2025-11-20T04:15:00-06:00"), json!("Thu, 20 Nov 2025 10:15:00 GMT"), json!("1763633700")]),
        names in (select(vec!["timestamp", "time", "ts", "created_at"]), select(vec!["timestamp", "time", "ts", "created_at"])),
        places in (select(&SECTION_PATHS[..]), select(&SECTION_PATHS[..])),
        fields in shuffled(vec![field_at(&[], "loss", 0.5), field_at(&[], "type", "metrics")]),
        first: bool,
    ) {
        prop_assume!(names.0 != names.1 || places.0 != places.1);
        let mut both = vec![field_at(places.0, names.0, absolute), field_at(places.1, names.1, "2025-11-20T04:15:00")];
        if first { both.reverse(); }
        both.extend(fields);
        for payload in encodings(&both) {
            let message = decode(&payload, &Limits::default()).unwrap();
            let time = message.time(RECEIVED, &TimeZone::UTC);
            prop_assert_eq!((time.event_time, time.from_message, time.naive), (1_763_633_700_000_000, true, None), "{:?}", both);
            let row = metrics_of(&payload);
            prop_assert!(row.rest_json.is_some_and(|rest| rest.contains("2025-11-20T04:15:00")), "the other is kept");
        }
    }

    #[test]
    fn a_number_is_the_same_in_any_form_under_any_name_at_any_place(
        (column, name) in select(vec![("train_loss", "train_loss"), ("train_loss", "loss"), ("train_loss", "train/loss"),
            ("train_loss", "train.loss"), ("val_loss", "eval_loss"), ("val_loss", "val.loss"), ("train_accuracy", "train_acc"),
            ("val_accuracy", "val_acc"), ("val_accuracy", "eval/accuracy"), ("learning_rate", "lr")]),
        eighths in -80_i32..80,
        form in 0..4_u8,
        path in select(&SECTION_PATHS[..]),
        turn in 0..4_usize,
    ) {
        let x = f64::from(eighths) / 8.0;
        let value = match form {
            0 => Node::Leaf(json!(x)),
            1 => Node::Leaf(json!(format!(" {x} "))),
            2 => Node::List(vec![Node::Leaf(json!(x))]),
            _ => Node::List(vec![Node::Leaf(json!(x.to_string()))]),
        };
        // A name with a dot may also be a path.
        let mut fields = vec![
            match name.split_once('.').filter(|_| form < 2 && turn % 2 == 0) {
                Some((outer, inner)) => FieldSpec { path, name: outer.into(), value: Node::Map(vec![(inner.into(), value)]) },
                None => FieldSpec { path, name: name.into(), value },
            },
            field_at(&[], "type", "metrics"),
            field_at(&["data"], "epoch", 3),
            field_at(&[], "host", "gpu-1"),
        ];
        fields.rotate_left(turn);
        for payload in encodings(&fields) {
            let row = metrics_of(&payload);
            let found = super::columns(&Row::Metrics(row.clone())).1;
            prop_assert_eq!(&found[column], &json!(x), "{:?}", fields);
            prop_assert_eq!((row.columns.epoch, row.extra.len(), row.rest_json.as_deref()), (Some(3), 0, Some(r#"{"host":"gpu-1"}"#)));
        }
    }

    #[test]
    fn a_fraction_of_an_epoch_or_step_is_whole_in_its_column_and_exact_in_extra(
        name in select(vec!["epoch", "current_epoch", "step", "global_step", "trainer/global_step"]),
        thousandths in 1..4_000_000_i64,
        as_text: bool,
    ) {
        prop_assume!(thousandths % 1_000 != 0);
        let x = thousandths as f64 / 1_000.0;
        let value = if as_text { json!(x.to_string()) } else { json!(x) };
        for payload in encodings(&[field_at(&["data"], name, value), field_at(&[], "loss", 1.0)]) {
            let row = metrics_of(&payload);
            let (canonical, column) = if name.contains("epoch") { ("epoch", row.columns.epoch) } else { ("step", row.columns.step) };
            prop_assert_eq!(column, Some(x.trunc() as i32));
            prop_assert_eq!(row.extra.get(canonical), Some(&x));
            prop_assert_eq!((row.extra.len(), row.rest_json), (1, None));
        }
    }
}
