//! Layers of settings: each value is set over the defaults alone, so that each problem has its key.

use std::{collections::BTreeSet, path::Path};

use figment::{
    Figment,
    error::{Actual, Kind},
    providers::{Format, Serialized, Toml},
    value::{Dict, Value},
};
use serde::Deserialize;

use super::{
    Settings, lists,
    precedence::Precedence,
    renamed::{self, RENAMED},
    secrets::{self, PasswordSlot},
};

/// The settings so far.
pub struct Layers {
    figment: Figment,
    /// The defaults: the keys that exist, with their types.
    shape: Dict,
    slots: [PasswordSlot; 2],
    /// Renamed keys that a source has set, by the names that it used.
    renamed: Vec<(Precedence, String)>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Layers {
    /// The defaults.
    pub fn new() -> Self {
        let Ok(Value::Dict(_, shape)) = Value::serialize(Settings::default()) else {
            unreachable!("the settings are a struct")
        };
        Self {
            figment: Figment::from(Serialized::defaults(Settings::default())),
            shape,
            slots: secrets::slots(),
            renamed: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Records a problem, once.
    pub fn problem(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Records a warning.
    pub fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Sets the values of a TOML file.
    pub fn set_toml(&mut self, text: &str, path: &Path) {
        match Toml::from_str::<Value>(text) {
            Ok(Value::Dict(_, dict)) => self.set_dict("", dict, &path.display().to_string()),
            Ok(_) => self.problem(format!("`{}` holds no table", path.display())),
            // The error's own display quotes the line, which may hold a password; its message does not.
            Err(error) => {
                let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                let reason = error.message().trim().replace('\n', ", ");
                self.problem(format!("`{}` line {line} column {column} is no TOML: {reason}", path.display()));
            }
        }
    }

    fn set_dict(&mut self, prefix: &str, dict: Dict, origin: &str) {
        for (name, value) in dict {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            // A quoted `"a.b"` is one name, not a path.
            let key = if name.contains('.') { key } else { self.present_name(&key, Precedence::File, origin) };
            let known = if name.contains('.') { None } else { self.find(&key) };
            match (known, value) {
                (Some(Value::Dict(..)), Value::Dict(_, inner)) => self.set_dict(&key, inner, origin),
                (None, _) if self.is_removed(&key, origin) => {}
                (None, _) => self.unknown(&key, origin),
                (Some(Value::Array(..)), Value::String(_, text)) => {
                    self.parse_and_set(&key, &text, Precedence::File, origin)
                }
                (Some(_), value) => self.set(&key, value, Precedence::File, origin),
            }
        }
    }

    /// Sets a key to a text, which is parsed by the type of the key's default.
    pub fn set_text(&mut self, key: &str, text: &str, precedence: Precedence, origin: &str) {
        let key = self.present_name(key, precedence, origin);
        self.parse_and_set(&key, text, precedence, origin);
    }

    /// The present name of a key. One source that uses both names is a problem: which of the values counts is unknown.
    fn present_name(&mut self, key: &str, precedence: Precedence, origin: &str) -> String {
        let present = renamed::present_name(key);
        let former = RENAMED.iter().find(|(_, name)| *name == present).map(|(former, _)| *former);
        if let Some(former) = former {
            let other = if key == former { present } else { former };
            if self.renamed.iter().any(|(source, used)| *source == precedence && used == other) {
                self.problem(format!(
                    "`{present}` and its former name `{former}` are both set ({origin}); keep `{present}`"
                ));
            }
            self.renamed.push((precedence, key.to_owned()));
        }
        present.to_owned()
    }

    fn parse_and_set(&mut self, key: &str, text: &str, precedence: Precedence, origin: &str) {
        let value = match self.find(key) {
            None if self.is_removed(key, origin) => return,
            None => return self.unknown(key, origin),
            Some(Value::Bool(..)) => boolean(text).map(Value::from),
            Some(Value::Num(..)) => number(text),
            Some(Value::Array(..)) => lists::read(key, text).map(Value::from),
            Some(_) => Ok(Value::from(text)),
        };
        match value {
            Ok(value) => self.set(key, value, precedence, origin),
            Err(problem) => self.problem(format!("`{key}` ({origin}) {problem}")),
        }
    }

    /// Sets a list, each item parsed as [`set_text`](Self::set_text) parses a whole list; for a key that is no list, the items are
    /// joined to one text.
    pub fn set_items(&mut self, key: &str, items: &[String], precedence: Precedence, origin: &str) {
        if !matches!(self.find(key), Some(Value::Array(..))) {
            return self.set_text(key, &items.join(","), precedence, origin);
        }
        let read: Result<Vec<_>, _> = items.iter().map(|item| lists::read(key, item)).collect();
        match read {
            Ok(lists) => self.set(key, Value::from(lists.concat()), precedence, origin),
            Err(problem) => self.problem(format!("`{key}` ({origin}) {problem}")),
        }
    }

    fn set(&mut self, key: &str, mut value: Value, precedence: Precedence, origin: &str) {
        if matches!(self.find(key), Some(Value::Dict(..))) {
            return self.problem(format!("`{key}` ({origin}) is a section, not a value"));
        }
        if let Some((slot, file)) = slot_of(&mut self.slots, key) {
            match value.as_str() {
                Some(path) if file => slot.set_file(path, precedence, &mut self.problems),
                Some(text) if precedence != Precedence::Flags => {
                    slot.set_text(text, precedence, false, &mut self.problems)
                }
                Some(_) => {
                    self.problem(format!("`{key}` must not be a flag, which every user can read; use `{key}_file`"))
                }
                None => self.problem(format!("`{key}` ({origin}) must be text")),
            }
            return;
        }
        // A user name may come from a file, with a line end.
        if matches!(key, "redis.username" | "store.cassandra.username") {
            value = value.as_str().map(|name| Value::from(name.trim())).unwrap_or(value);
        }
        // Contact points are printed, whatever the store: a login in one would be shown.
        if key == "store.cassandra.contact_points"
            && value
                .as_array()
                .is_some_and(|items| items.iter().filter_map(Value::as_str).any(|item| item.contains('@')))
        {
            return self.problem(format!(
                "`{key}` ({origin}) holds a login; set `store.cassandra.username` and `store.cassandra.password_file`"
            ));
        }
        if key == "redis.url" {
            let Some(url) = value.as_str() else {
                return self.problem(format!("`{key}` ({origin}) must be text"));
            };
            let split = secrets::split_url(url.trim());
            value = Value::from(split.url);
            if let Some(username) = split.username {
                self.merge_checked("redis.username", Value::from(username), origin);
            }
            if let Some((slot, _)) = slot_of(&mut self.slots, "redis.password") {
                slot.set_text(&split.password.unwrap_or_default(), precedence, true, &mut self.problems);
            }
        }
        self.merge_checked(key, value, origin);
    }

    /// Sets the value only if the settings are valid with it: so each problem has its key.
    fn merge_checked(&mut self, key: &str, value: Value, origin: &str) {
        let candidate = self.figment.clone().merge(Serialized::default(key, value));
        match extract(&candidate) {
            Ok(_) => self.figment = candidate,
            Err(error) => self.problem(format!("`{key}` ({origin}){}", wrong(&error.kind))),
        }
    }

    /// Whether it is a key of former releases, which a warning then names.
    fn is_removed(&mut self, key: &str, origin: &str) -> bool {
        let Some(reason) = renamed::removed(key) else { return false };
        self.warn(format!("`{key}` ({origin}) has no effect any more: {reason}; remove it"));
        true
    }

    /// Every key that holds a value.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        leaf_keys("", &self.shape, &mut keys);
        keys
    }

    fn unknown(&mut self, key: &str, origin: &str) {
        let mut keys = self.keys();
        // A section may be misspelt, too.
        let sections: BTreeSet<_> =
            keys.iter().flat_map(|key| key.match_indices('.').map(|(at, _)| key[..at].to_owned())).collect();
        keys.extend(sections);
        keys.extend(RENAMED.map(|(former, _)| former.to_owned()));
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let nearest = keys
            .iter()
            .map(|known| {
                // The right name in the wrong section is the most common mistake after a typo.
                let misplaced = last(known) == last(key) && key.contains('.');
                (if misplaced { 1 } else { strsim::damerau_levenshtein(known, key) }, known)
            })
            .min()
            .filter(|(distance, known)| *distance <= 2.max(known.len() / 5));
        let hint =
            nearest.map(|(_, known)| format!("; did you mean `{}`?", renamed::present_name(known))).unwrap_or_default();
        self.problem(format!("`{key}` ({origin}) is not a key{hint}"));
    }

    fn find(&self, key: &str) -> Option<Value> {
        Value::from(self.shape.clone()).find(key)
    }

    /// The settings, the problems and the warnings.
    pub fn finish(self) -> (Settings, Vec<String>, Vec<String>) {
        let mut problems = self.problems;
        let mut settings = extract(&self.figment).unwrap_or_else(|error| {
            problems.push(error.to_string());
            Settings::default()
        });
        let [redis, cassandra] = self.slots;
        (settings.redis.password, settings.redis.password_file) = redis.finish();
        let cluster = &mut settings.store.cassandra;
        (cluster.password, cluster.password_file) = cassandra.finish();
        (settings, problems, self.warnings)
    }
}

/// The settings. `Figment::extract` would compile the code that reads them four times over, for values that know their file.
fn extract(figment: &Figment) -> Result<Settings, Box<figment::Error>> {
    let merged = figment.find_value("").map_err(Box::new)?;
    Settings::deserialize(&merged).map_err(Box::new)
}

/// What is wrong with a value, behind its key: the words of the types are those of people.
fn wrong(kind: &Kind) -> String {
    let (found, expected) = match kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => (found, expected),
        // The message quotes the list of known names, and each name in it.
        other => return format!(": {other}").replace("``", "`"),
    };
    let expected = match expected.as_str() {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" | "i32" | "i64" => "a whole number, 0 or more",
        "f64" => "a number",
        "a string" | "a borrowed string" | "path string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other => other,
    };
    let found = match found {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Str(text) => format!("`{text}`"),
        Actual::Seq => "a list".into(),
        Actual::Map => "a section".into(),
        other => other.to_string(),
    };
    format!(" must be {expected}, not {found}")
}

/// The slot that `key` fills, and whether `key` names a file.
fn slot_of<'a>(slots: &'a mut [PasswordSlot; 2], key: &str) -> Option<(&'a mut PasswordSlot, bool)> {
    let file = key.ends_with("_file");
    let name = key.strip_suffix("_file").unwrap_or(key);
    slots.iter_mut().find(|slot| slot.key == name).map(|slot| (slot, file))
}

/// Every key that holds a value.
pub fn leaf_keys(prefix: &str, dict: &Dict, keys: &mut Vec<String>) {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Dict(_, inner) => leaf_keys(&key, inner, keys),
            _ => keys.push(key),
        }
    }
}

/// Parses the usual spellings of true and false.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        other => Err(format!("must be true or false, not `{other}`")),
    }
}

fn number(text: &str) -> Result<Value, String> {
    let text = text.trim();
    text.parse::<i64>().map(Value::from).map_err(|_| format!("must be a whole number, not `{text}`"))
}
