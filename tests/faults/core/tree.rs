//! Well-formed mutants of messages: the seeds as trees, with other values, names and branches.

use serde_json::{Map, Number, Value, json};

use crate::random::Random;

/// Trees to make others from, and every name that occurs in them.
pub struct Trees {
    trees: Vec<Value>,
    names: Vec<String>,
}

/// Rendered as a value that JSON cannot express.
const NOT_A_NUMBER: &str = "@NaN@";

impl Trees {
    /// From the JSON texts among these.
    pub fn new(seeds: &[Vec<u8>]) -> Self {
        let trees: Vec<Value> = seeds
            .iter()
            .filter_map(|bytes| serde_json::from_slice(bytes).ok().or_else(|| rmp_serde::from_slice(bytes).ok()))
            .filter(Value::is_object)
            .collect();
        let more = "run_id training_run_id timestamp time ts created_at seq epoch current_epoch step loss acc accuracy val_loss lr \
                    hidden_units n_hidden total_hidden_units phase input_units output_size total_parameters weights_summary type \
                    data metrics final_metrics network_topology details dataset config params tags notes status connections nodes";
        let mut names: Vec<String> = more.split_whitespace().map(str::to_owned).collect();
        trees.iter().for_each(|tree| gather(tree, &mut names));
        names.sort();
        names.dedup();
        Self { trees, names }
    }

    pub fn json(&self, random: &mut Random) -> Vec<u8> {
        let text = serde_json::to_string(&self.tree(random)).unwrap();
        text.replace(
            &format!("\"{NOT_A_NUMBER}\""),
            *random.pick(&["NaN", "Infinity", "-Infinity", "1e999", "-0.0", "5.0"]),
        )
        .into_bytes()
    }

    pub fn msgpack(&self, random: &mut Random) -> Vec<u8> {
        rmp_serde::to_vec_named(&self.tree(random)).unwrap()
    }

    fn tree(&self, random: &mut Random) -> Value {
        let mut tree = random.pick(&self.trees).clone();
        for _ in 0..random.below(5) {
            let depth = random.below(5);
            self.change(&mut tree, depth, random);
        }
        tree
    }

    fn change(&self, value: &mut Value, depth: usize, random: &mut Random) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let index = random.below(map.len());
                let key = map.keys().nth(index).unwrap().clone();
                match random.below(8) {
                    0 => drop(map.remove(&key)),
                    1 => {
                        let content = map.remove(&key).unwrap();
                        map.insert(random.pick(&self.names).clone(), content);
                    }
                    2 => drop(map.insert(random.pick(&self.names).clone(), self.value(random))),
                    _ if depth > 0 => self.change(map.get_mut(&key).unwrap(), depth - 1, random),
                    _ => drop(map.insert(key, self.value(random))),
                }
            }
            Value::Array(list) if !list.is_empty() && depth > 0 => {
                let index = random.below(list.len());
                match random.below(4) {
                    0 => drop(list.remove(index)),
                    1 => list.insert(index, self.value(random)),
                    _ => self.change(&mut list[index], depth - 1, random),
                }
            }
            other => *other = self.value(random),
        }
    }

    fn value(&self, random: &mut Random) -> Value {
        match random.below(14) {
            0 => Value::Null,
            1 => json!(random.coin()),
            2 => json!(random.next() as i64),
            3 => json!(random.below(1_000)),
            4 => json!(*random.pick(&[u64::MAX, 1 << 53, 1 << 31, 0, 1_763_633_700, 1_763_633_700_123])),
            5 => json!(*random.pick(&[i64::MIN, -1, i32::MIN as i64])),
            6 => Number::from_f64(f64::from_bits(random.next())).map_or(Value::Null, Value::Number),
            7 => json!(*random.pick(&[
                "NaN",
                "-inf",
                "0.5",
                "5.0",
                "",
                "\u{0}",
                "\u{1f600}\\\"",
                "2026-11-20T10:15:00.5+02:00"
            ])),
            8 => json!("y".repeat(random.below(200))),
            9 => json!(NOT_A_NUMBER),
            10 => Value::Array((0..random.below(4)).map(|_| self.value(random)).collect()),
            11 => {
                let keys = 0..random.below(4);
                Value::Object(
                    keys.map(|_| (random.pick(&self.names).clone(), self.value(random))).collect::<Map<_, _>>(),
                )
            }
            _ => {
                // A branch of some other message.
                let mut branch = random.pick(&self.trees);
                for _ in 0..random.below(4) {
                    branch = match branch {
                        Value::Object(map) if !map.is_empty() => map.values().nth(random.below(map.len())).unwrap(),
                        Value::Array(list) if !list.is_empty() => random.pick(list),
                        _ => break,
                    };
                }
                branch.clone()
            }
        }
    }
}

fn gather(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            names.push(name.clone());
            gather(value, names);
        }),
        Value::Array(list) => list.iter().for_each(|value| gather(value, names)),
        _ => {}
    }
}
