//! Whether a person learns of a value from what a terminal shows.

use serde_json::Value;

use crate::widths::dense;

/// What begins the list of fields that a table leaves out; a semicolon ends it.
const LEFT_OUT: &str = "not shown here:";

/// A value in the JSON that is no object and no list.
#[derive(Debug)]
pub struct Leaf {
    pub path: Vec<String>,
    pub value: Value,
    /// Whether it is the length of a list beside it, whose items are shown.
    is_length: bool,
}

impl Leaf {
    /// Whether this is its path; `*` is any one name, and `**` at the end any names.
    pub fn is_at(&self, path: &str) -> bool {
        let (path, any_rest) = path.strip_suffix(".**").map_or((path, false), |path| (path, true));
        let names: Vec<_> = path.split('.').collect();
        let has_length = if any_rest { self.path.len() > names.len() } else { self.path.len() == names.len() };
        has_length && names.iter().zip(&self.path).all(|(name, part)| *name == "*" || name == part)
    }
}

/// The leaves of a value; null, no text and nothing are none. JSON in a text is a value of its own.
pub fn collect(value: &Value, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
    let within = |name: &str, value: &Value, path: &mut Vec<String>, leaves: &mut Vec<Leaf>| {
        path.push(name.to_owned());
        collect(value, path, leaves);
        path.pop();
    };
    match value {
        Value::Null => {}
        Value::Object(object) => {
            for (name, value) in object {
                let is_length =
                    |list: &Value| list.as_array().is_some_and(|list| value.as_u64() == Some(list.len() as u64));
                if object.values().any(is_length) {
                    leaves.push(Leaf {
                        path: [path.as_slice(), std::slice::from_ref(name)].concat(),
                        value: value.clone(),
                        is_length: true,
                    });
                } else {
                    within(name, value, path, leaves);
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| within(&n.to_string(), item, path, leaves))
        }
        Value::String(text) if text.is_empty() => {}
        Value::String(text) if text.starts_with('{') => match serde_json::from_str::<Value>(text) {
            Ok(inner @ Value::Object(_)) => collect(&inner, path, leaves),
            _ => leaves.push(Leaf { path: path.clone(), value: value.clone(), is_length: false }),
        },
        _ => leaves.push(Leaf { path: path.clone(), value: value.clone(), is_length: false }),
    }
}

/// What a terminal shows.
pub struct Screen {
    dense: String,
    numbers: Vec<f64>,
    /// Fields that are named as left out.
    left_out: String,
}

impl Screen {
    /// What this output shows.
    pub fn new(shown: &str) -> Self {
        let is_of_number = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let numbers = shown
            .split(|c| !is_of_number(c))
            .map(|text| text.trim_end_matches('.'))
            .filter_map(|text| text.parse().ok());
        let dense = dense(shown);
        let marker = self::dense(LEFT_OUT);
        let lists = dense.split(&marker).skip(1).filter_map(|rest| rest.split(';').next());
        let left_out = format!(",{},", lists.collect::<Vec<_>>().join(","));
        Self { numbers: numbers.collect(), left_out, dense }
    }

    /// Whether a person learns of this value; `whole` are screens that have what is cut here.
    pub fn shows(&self, leaf: &Leaf, whole: &[String]) -> bool {
        if leaf.is_length || leaf.path.iter().any(|name| self.is_left_out(name)) {
            return true;
        }
        match &leaf.value {
            Value::String(text) => self.shows_text(text, whole),
            Value::Number(number) => number.as_f64().is_some_and(|value| self.shows_number(value)),
            // The name of a flag says what is true or not.
            flag => {
                let named = format!("{}{flag}", leaf.path.last().map_or("", String::as_str));
                letters(&self.dense).contains(&letters(&named))
            }
        }
    }

    fn is_left_out(&self, name: &str) -> bool {
        let name = dense(name);
        !name.is_empty()
            && [format!(",{name},"), format!(",'{name}',")].iter().any(|listed| self.left_out.contains(listed))
    }

    fn shows_text(&self, text: &str, whole: &[String]) -> bool {
        let wanted = dense(text);
        let is_time = text.len() == "2026-11-20T10:15:00.000000Z".len() && text.ends_with('Z');
        let is_id = uuid::Uuid::try_parse(text).is_ok();
        self.dense.contains(&wanted)
            // A header.
            || self.dense.contains(&wanted.to_uppercase())
            || is_time && self.dense.contains(&dense(&text[..19].replace('T', " ")))
            || is_id && self.dense.contains(&text[..8])
            || self.is_cut(&wanted) && whole.iter().any(|screen| screen.contains(&wanted))
    }

    /// Whether a beginning of the text is there with an ellipsis.
    fn is_cut(&self, wanted: &str) -> bool {
        let ends = wanted.char_indices().map(|(at, c)| at + c.len_utf8());
        ends.into_iter().any(|end| self.dense.contains(&format!("{}…", &wanted[..end])))
    }

    fn shows_number(&self, value: f64) -> bool {
        let micros = jiff::Timestamp::from_microsecond(value as i64);
        if value > 1e15 && micros.is_ok_and(|at| self.dense.contains(&at.strftime("%Y-%m-%dT%H:%M:%S").to_string())) {
            return true;
        }
        let rounded: f64 = format!("{value:.5e}").parse().unwrap();
        let whole = if value.abs() >= 1e5 { value.round() } else { rounded };
        self.numbers.iter().any(|shown| *shown == value || *shown == rounded || *shown == whole)
    }
}

fn letters(text: &str) -> String {
    text.chars().filter(|character| character.is_alphanumeric()).collect()
}
