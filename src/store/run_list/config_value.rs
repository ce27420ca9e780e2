//! Values of a run's configuration, by key.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fold::fold;

/// Whether a value of the key, in any case, fits. `key` is folded; the keys of nested objects and the positions in lists are joined
/// with dots.
pub(super) fn any(config: &str, key: &str, mut fits: impl FnMut(&Value) -> bool) -> bool {
    let Ok(config) = serde_json::from_str::<Value>(config) else { return false };
    walk(&config, key, &|name, key| fold_prefix(name, key), &mut fits)
}

/// The value of exactly this key.
pub(super) fn exact(config: &str, key: &str) -> Option<Value> {
    let config: Value = serde_json::from_str(config).ok()?;
    let mut found = None;
    let strip = |name: &str, key: &str| key.strip_prefix(name).map(str::len);
    walk(&config, key, &strip, &mut |value| {
        found = Some(value.clone());
        true
    });
    found
}

/// Adds the keys of the values that are no objects, until there are `max`.
pub(super) fn keys(config: &str, max: usize, found: &mut BTreeSet<String>) {
    fn add(value: &Value, path: &str, max: usize, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) if !map.is_empty() => map.iter().for_each(|(name, value)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                add(value, &path, max, found);
            }),
            _ if found.len() < max && !path.is_empty() => drop(found.insert(path.to_owned())),
            _ => {}
        }
    }
    if let Ok(config) = serde_json::from_str(config) {
        add(&config, "", max, found);
    }
}

/// Length of what remains of the key behind a name that begins it, both folded.
fn fold_prefix(name: &str, key: &str) -> Option<usize> {
    if name.is_ascii() {
        let begins = key.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        return begins.then(|| key.len() - name.len());
    }
    key.strip_prefix(fold(name).as_str()).map(str::len)
}

/// Passes the values of a key to `fits` until it accepts one. A name may itself contain dots. `rest` gives the length of what a
/// name leaves of the key.
fn walk(
    value: &Value,
    key: &str,
    rest: &dyn Fn(&str, &str) -> Option<usize>,
    fits: &mut dyn FnMut(&Value) -> bool,
) -> bool {
    let mut below = |name: &str, value: &Value| {
        let Some(length) = rest(name, key) else { return false };
        match &key[key.len() - length..] {
            "" => fits(value),
            more => more.strip_prefix('.').is_some_and(|more| walk(value, more, rest, fits)),
        }
    };
    match value {
        Value::Object(map) => map.iter().any(|(name, value)| below(name, value)),
        Value::Array(items) => items.iter().enumerate().any(|(at, item)| below(&at.to_string(), item)),
        _ => false,
    }
}

/// Whether a value is the one that a folded text names. Numbers are compared by value.
pub(super) fn is_value(value: &Value, text: &str) -> bool {
    let is_number = |value: f64| text.parse::<f64>().is_ok_and(|wanted| is_close(value, wanted));
    match value {
        Value::String(value) => fold(value) == text || value.trim().parse().is_ok_and(is_number),
        Value::Number(value) => value.as_f64().is_some_and(is_number),
        Value::Bool(value) => value.to_string() == text,
        Value::Null => text == "null",
        Value::Array(_) | Value::Object(_) => fold(&value.to_string()) == text,
    }
}

/// Equal but for the last digits: serde_json parses numbers with an error of one or two.
fn is_close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= 4.0 * f64::EPSILON * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_lists_can_be_sorted_by() {
        let config = r#"{"lr": 0.1, "opt": {"name": "adam", "betas": [1, 2], "more": {}}, "a.b": null}"#;
        let mut found = BTreeSet::new();
        keys(config, 9, &mut found);
        assert_eq!(found, ["lr", "opt.name", "opt.betas", "opt.more", "a.b"].map(str::to_owned).into());
        assert!(found.iter().all(|key| exact(config, key).is_some()));
        let mut few = BTreeSet::new();
        keys(config, 2, &mut few);
        for other in ["", "[1]", "5"] {
            keys(other, 9, &mut few);
        }
        assert_eq!(few.len(), 2);
    }
}
