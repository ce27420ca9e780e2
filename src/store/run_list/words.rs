//! The words of a search among runs.
//!
//! A word occurs in a run when it is part of its name (the published or the given one), its id, its dataset, a tag, the notes, the
//! creator or the text of the configuration. `key=value` compares a key of the configuration instead; it also occurs in the other
//! texts where it stands alone, because runs are often named by their settings (`lr=0.1,units=4`).

use std::borrow::Cow;

use uuid::{Uuid, fmt::Hyphenated};

use super::{
    config_value::{self, is_value},
    fold::fold,
};
use crate::event::EditedRun;

/// Maximum words of a search.
pub const WORDS_MAX: usize = 64;

/// Words that must all occur in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Words(Vec<Word>);

#[derive(Clone, Debug, PartialEq)]
struct Word {
    /// Without upper and lower case.
    text: String,
    /// The word as the id of a run.
    run_id: Option<Uuid>,
    /// The word as `key=value`.
    setting: Option<Setting>,
}

#[derive(Clone, Debug, PartialEq)]
struct Setting {
    key: String,
    value: String,
}

impl Words {
    /// The words of a text, separated by blanks.
    ///
    /// # Errors
    /// When there are too many.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<_> = text.split_whitespace().map(Word::new).collect();
        if words.len() > WORDS_MAX {
            return Err(format!("has {} words, more than {WORDS_MAX}", words.len()));
        }
        Ok(Self(words))
    }

    /// Whether there are none, so that every run matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all words occur in the run.
    pub fn occur_in(&self, run: &EditedRun) -> bool {
        self.0.iter().all(|word| word.occurs_in(run))
    }

    /// Whether all words may occur in a run with these texts, as they are stored (sets and maps as JSON): a cheap test that is never
    /// wrongly false.
    pub fn may_occur_in<'t>(&self, texts: impl Iterator<Item = &'t str> + Clone) -> bool {
        self.0.iter().all(|word| {
            word.run_id.is_some()
                || word.setting.is_some()
                || texts.clone().any(|text| contains(text, &word.text) || text.contains('\\'))
        })
    }
}

impl Word {
    fn new(text: &str) -> Self {
        let text = fold(text);
        let setting = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
        let setting = setting.map(|(key, value)| Setting { key: key.into(), value: value.into() });
        Self { run_id: Uuid::try_parse(&text).ok(), setting, text }
    }

    fn occurs_in(&self, run: &EditedRun) -> bool {
        let row = &run.row;
        let mut id = [0; Hyphenated::LENGTH];
        let id: &str = row.run_id.as_hyphenated().encode_lower(&mut id);
        let texts = [&run.display_name, &row.run_name, &row.dataset_name, &row.notes, &row.created_by];
        let mut texts = texts.into_iter().flatten().chain(&row.tags).map(String::as_str).chain([id]);
        let config = row.config_json.as_deref().unwrap_or_default();
        match &self.setting {
            None => {
                self.run_id == Some(row.run_id)
                    || texts.any(|text| contains(text, &self.text))
                    || contains(&unescaped(config), &self.text)
            }
            Some(setting) => setting.is_in(config) || texts.any(|text| stands_alone(text, &self.text)),
        }
    }
}

impl Setting {
    fn is_in(&self, config: &str) -> bool {
        let last = self.key.rsplit('.').next().unwrap_or(&self.key);
        // Parsing takes longest.
        let may_be = config.contains('\\') || contains(config, last) || last.parse::<usize>().is_ok();
        may_be && config_value::any(config, &self.key, |value| is_value(value, &self.value))
    }
}

/// Whether a folded word is part of the text.
fn contains(text: &str, word: &str) -> bool {
    if !text.is_ascii() {
        return fold(text).contains(word);
    }
    let (text, word) = (text.as_bytes(), word.as_bytes());
    let Some(first) = word.first() else { return true };
    text.windows(word.len()).any(|part| part[0].to_ascii_lowercase() == *first && part.eq_ignore_ascii_case(word))
}

/// Whether a folded word is part of the text, and is no part of a longer word there: `lr=0.1` is none of `lr=0.15`.
fn stands_alone(text: &str, word: &str) -> bool {
    if !contains(text, word) {
        return false;
    }
    let text = fold(text);
    let goes_on = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(goes_on)
            && !text[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '.')
    })
}

/// JSON text with its escapes resolved.
fn unescaped(json: &str) -> Cow<'_, str> {
    if !json.contains('\\') {
        return json.into();
    }
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = &rest[at..];
        // One escape, or both of a surrogate pair.
        let length = [12, 6, 2].into_iter().find_map(|length| {
            let escape = escape.get(..length)?;
            let character: String = serde_json::from_str(&format!("\"{escape}\"")).ok()?;
            text.push_str(&character);
            Some(length)
        });
        let length = length.unwrap_or_else(|| {
            text.push('\\');
            1
        });
        rest = &escape[length..];
    }
    text.push_str(rest);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RunRow;

    fn run() -> EditedRun {
        EditedRun {
            row: RunRow {
                run_id: Uuid::from_u128(0x1234_5678_9abc_4def_8000_0000_0000_0001),
                run_name: Some("Spiral 50%_done,lr=0.1,units=4".into()),
                dataset_name: Some("ДАННЫЕ".into()),
                notes: Some("it's \"quoted\" Straße ΟΔΟΣ-ΣΑ İstanbul".into()),
                tags: ["sweep-7".into(), "日本".into()].into(),
                created_by: Some("Ann".into()),
                config_json: Some(
                    r#"{"lr": 0.10, "optimizer": {"name": "Adam", "betas": [0.9, 0.999]}, "a.b": true, "Path": "C:\\caf\u00e9", "none": null}"#
                        .into(),
                ),
                ..RunRow::default()
            },
            display_name: Some("Best of May".into()),
            ..EditedRun::default()
        }
    }

    #[test]
    fn words_occur_in_any_text_in_any_case() {
        let run = run();
        for (words, found) in [
            ("", true),
            ("spiral", true),
            ("PIRA  may\tann", true),
            ("spiral nothing", false),
            ("12345678-9ABC", true),
            ("123456789abc4def8000000000000001", true),
            ("данные", true),
            ("strasse", true),
            ("STRASSE", true),
            ("οδος", true),
            ("οδοσ-σα", true),
            ("istanbul", true),
            ("日本", true),
            ("sweep-7", true),
            ("adam", true),
            ("C:\\café", true),
            ("50%_done", true),
            ("50_", false),
            ("s%l", false),
            ("it's", true),
            ("\"quoted\"", true),
            ("' or 1=1 --", false),
            ("lr=0.1", true),
            ("LR=1e-1", true),
            ("lr=0.2", false),
            ("lr=0.10,units", false),
            ("units=4", true),
            ("units=", true),
            ("nits=4", false),
            ("optimizer.name=ADAM", true),
            ("optimizer.name=ada", false),
            ("name=adam", false),
            ("optimizer.betas.1=0.999", true),
            ("optimizer.betas=[0.9,0.999]", true),
            ("a.b=true", true),
            ("path=c:\\CAFÉ", true),
            ("none=null", true),
            ("=", true),
        ] {
            assert_eq!(Words::parse(words).unwrap().occur_in(&run), found, "{words}");
        }
        assert!(Words::parse(&"w ".repeat(WORDS_MAX + 1)).is_err());
    }

    #[test]
    fn the_cheap_test_is_never_wrongly_false() {
        let run = run();
        let tags = serde_json::to_string(&run.row.tags).unwrap();
        let row = &run.row;
        let texts = [&row.run_name, &row.dataset_name, &row.notes, &row.created_by].into_iter().flatten();
        let texts = texts.map(String::as_str).chain([tags.as_str(), row.config_json.as_deref().unwrap()]);
        for word in ["spiral", "данные", "日本", "café", "lr=0.1", "123456789abc4def8000000000000001", "straSSE"]
        {
            let words = Words::parse(word).unwrap();
            assert!(words.occur_in(&run) && words.may_occur_in(texts.clone()), "{word}");
        }
        let plain = || ["spiral", "[\"a\"]"].into_iter();
        assert!(!Words::parse("nothing").unwrap().may_occur_in(plain()));
        assert!(Words::parse("SPIRAL a").unwrap().may_occur_in(plain()));
    }
}
