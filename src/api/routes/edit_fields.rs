//! The fields of a request that changes a run.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    api::error::ApiError,
    event::{EditedRun, RunEdit},
};

/// Characters of a name that people give to a run, at most.
pub const NAME_CHARS_MAX: usize = 256;
/// Characters of the notes of a run, at most.
pub const NOTES_CHARS_MAX: usize = 64 << 10;

/// What a request changes; absent: nothing.
#[derive(Debug, Default, PartialEq)]
pub struct EditFields {
    /// The name; empty: that of the producer again.
    name: Option<String>,
    /// The notes; empty: none.
    notes: Option<String>,
    /// All tags of the run from now on.
    tags: Option<BTreeSet<String>>,
    add_tags: BTreeSet<String>,
    remove_tags: BTreeSet<String>,
    archived: Option<bool>,
}

impl EditFields {
    /// The fields of a PATCH.
    ///
    /// # Errors
    /// 400 that names the field that is wrong.
    pub fn of_patch(body: Map<String, Value>) -> Result<Self, ApiError> {
        let known = ["name", "notes", "tags", "add_tags", "remove_tags", "archived"];
        let fields = Self::read(body, &known)?;
        if fields.tags.is_some() && !(fields.add_tags.is_empty() && fields.remove_tags.is_empty()) {
            return Err(ApiError::bad_request(
                "`tags` lists all tags: give either it, or `add_tags` and `remove_tags`",
            ));
        }
        if let Some(tag) = fields.add_tags.intersection(&fields.remove_tags).next() {
            return Err(ApiError::bad_request(format!("`{tag}` is in `add_tags` and in `remove_tags`")));
        }
        Ok(fields)
    }

    /// The fields of a request that adds notes, whose `tags` are added.
    ///
    /// # Errors
    /// As [`of_patch`](Self::of_patch).
    pub fn of_notes(body: Map<String, Value>) -> Result<Self, ApiError> {
        let fields = Self::read(body, &["notes", "tags"])?;
        Ok(Self { add_tags: fields.tags.unwrap_or_default(), tags: None, ..fields })
    }

    fn read(body: Map<String, Value>, known: &[&str]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Err(ApiError::bad_request(format!("the body changes nothing; give any of {}", known.join(", "))));
        }
        let mut fields = Self::default();
        for (name, value) in body {
            match name.as_str() {
                other if !known.contains(&other) => {
                    return Err(ApiError::bad_request(format!("unknown field `{other}`; known: {}", known.join(", "))));
                }
                "name" => fields.name = Some(run_name(&text(&name, value)?)?),
                "notes" => fields.notes = Some(notes(text(&name, value)?)?),
                "tags" => fields.tags = Some(tags(&name, value)?),
                "add_tags" => fields.add_tags = tags(&name, value)?,
                "remove_tags" => fields.remove_tags = tags(&name, value)?,
                _ => match value {
                    Value::Bool(archived) => fields.archived = Some(archived),
                    _ => return Err(ApiError::bad_request("`archived` must be true or false")),
                },
            }
        }
        Ok(fields)
    }

    /// The change of a run that is shown like this now.
    pub fn change(self, shown: &EditedRun) -> RunEdit {
        let (add_tags, remove_tags) = match self.tags {
            Some(tags) => {
                let gone = shown.row.tags.difference(&tags).cloned().collect();
                (tags, gone)
            }
            None => (self.add_tags, self.remove_tags),
        };
        RunEdit {
            display_name: self.name,
            notes: self.notes,
            add_tags,
            remove_tags,
            archived: self.archived,
            ..RunEdit::default()
        }
    }
}

fn text(field: &str, value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(ApiError::bad_request(format!("`{field}` must be text; empty text clears it"))),
    }
}

/// A name without the blanks around it.
fn run_name(text: &str) -> Result<String, ApiError> {
    let name = text.trim();
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(ApiError::bad_request(format!("`name` may have {NAME_CHARS_MAX} characters, at most")));
    }
    if name.chars().any(char::is_control) {
        return Err(ApiError::bad_request("`name` must be one line without control characters"));
    }
    if Uuid::try_parse(name).is_ok() {
        return Err(ApiError::bad_request("`name` must not be a UUID: the run with that id would be found instead"));
    }
    Ok(name.to_owned())
}

fn notes(text: String) -> Result<String, ApiError> {
    if text.chars().count() > NOTES_CHARS_MAX {
        return Err(ApiError::bad_request(format!("`notes` may have {NOTES_CHARS_MAX} characters, at most")));
    }
    Ok(text)
}

fn tags(field: &str, value: Value) -> Result<BTreeSet<String>, ApiError> {
    let wrong = || ApiError::bad_request(format!("`{field}` must be a list of texts that are not empty"));
    let Value::Array(tags) = value else { return Err(wrong()) };
    let tag = |tag| match tag {
        Value::String(tag) if !tag.trim().is_empty() => Ok(tag),
        _ => Err(wrong()),
    };
    tags.into_iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::RunRow;

    fn patch(body: Value) -> Result<EditFields, String> {
        let Value::Object(body) = body else { panic!("{body}") };
        EditFields::of_patch(body).map_err(|error| error.detail().to_owned())
    }

    #[test]
    fn a_wrong_field_is_refused_by_its_name() {
        for (body, told) in [
            (json!({}), "the body changes nothing; give any of name, notes"),
            (json!({"nmae": "x"}), "unknown field `nmae`; known: name, notes"),
            (json!({"name": 7}), "`name` must be text"),
            (json!({"name": null}), "empty text clears it"),
            (json!({"name": "a\nb"}), "one line"),
            (json!({"name": "x".repeat(NAME_CHARS_MAX + 1)}), "`name` may have 256 characters"),
            (json!({"name": "6F0C853B67944685B2F543019DA8836B"}), "must not be a UUID"),
            (json!({"notes": ["n"]}), "`notes` must be text"),
            (json!({"notes": "\u{e9}".repeat(NOTES_CHARS_MAX + 1)}), "`notes` may have 65536 characters"),
            (json!({"tags": "a"}), "`tags` must be a list"),
            (json!({"add_tags": ["a", ""]}), "`add_tags` must be a list of texts that are not empty"),
            (json!({"remove_tags": [7]}), "`remove_tags` must be a list"),
            (json!({"tags": [], "add_tags": ["a"]}), "give either it, or"),
            (json!({"add_tags": ["a", "b"], "remove_tags": ["b"]}), "`b` is in `add_tags` and in `remove_tags`"),
            (json!({"archived": "yes"}), "`archived` must be true or false"),
        ] {
            let refused = patch(body.clone()).unwrap_err();
            assert!(refused.contains(told), "{body}: {refused}");
        }
        for body in [
            json!({"name": "\u{6e2c}".repeat(NAME_CHARS_MAX), "notes": "", "archived": false}),
            json!({"name": "  ", "tags": []}),
        ] {
            assert!(patch(body.clone()).is_ok(), "{body}");
        }
    }

    #[test]
    fn the_whole_list_of_tags_replaces_those_shown() {
        let set = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<BTreeSet<_>>();
        let row = RunRow { tags: set(&["own", "kept"]), ..RunRow::default() };
        let mut edit = RunEdit { add_tags: set(&["ours"]), remove_tags: set(&["back"]), ..RunEdit::default() };
        let shown = EditedRun::new(row.clone(), Some(edit.clone()));
        let change = patch(json!({"tags": ["kept", "new", "back"], "name": " n "})).unwrap().change(&shown);
        assert_eq!((&change.remove_tags, change.display_name.as_deref()), (&set(&["ours", "own"]), Some("n")));
        edit.apply(&change);
        assert_eq!(EditedRun::new(row, Some(edit)).row.tags, set(&["back", "kept", "new"]));
    }
}
