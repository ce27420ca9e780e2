//! A parsed page of documentation: its fenced examples, its tables, and words in backticks.

use std::{collections::BTreeSet, fs};

use crate::support::repository;

/// A fenced block. The words after its language state the expected result.
#[derive(Clone, Debug)]
pub struct Example {
    /// The page and the line, for failures.
    pub place: String,
    /// `json`, `hex`, `text`, `python`, ...
    pub language: String,
    /// `accepted training_metrics`, `refused unknown_shape`, ...
    pub words: Vec<String>,
    /// What is between the fences.
    pub text: String,
}

impl Example {
    /// The messages of the block: each begins a line; indented lines continue it.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages: Vec<String> = Vec::new();
        for line in self.text.lines() {
            match messages.last_mut().filter(|_| line.starts_with(' ')) {
                Some(message) => *message = format!("{message}\n{line}"),
                None => messages.push(line.to_owned()),
            }
        }
        let bytes = |message: String| if self.language == "hex" { unhex(&message) } else { message.into_bytes() };
        messages.into_iter().map(bytes).collect()
    }

    /// The block as one JSON value.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.place))
    }

    /// The first word.
    pub fn sort(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Whether it has this word.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// The text of a page of the repository.
pub fn read(page: &str) -> String {
    fs::read_to_string(repository(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The fenced blocks of a page.
pub fn examples(page: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut open: Option<Example> = None;
    for (number, line) in read(page).lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(example), None) => {
                example.text.push_str(line);
                example.text.push('\n');
            }
            (None, Some(head)) => {
                let mut words = head.split_whitespace().map(str::to_owned);
                open = Some(Example {
                    place: format!("{page}:{}", number + 1),
                    language: words.next().unwrap_or_default(),
                    words: words.collect(),
                    text: String::new(),
                });
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a fence is not closed");
    found
}

/// The page without its fenced blocks.
pub fn prose(page: &str) -> String {
    let mut fenced = false;
    let text = read(page);
    let lines = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The text in backticks.
pub fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The part of a page below a heading, up to the next heading of the same or a higher level.
#[track_caller]
pub fn section(page: &str, heading: &str) -> String {
    let level = |line: &str| line.chars().take_while(|c| *c == '#').count();
    let text = prose(page);
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "{page} has no `{heading}`");
    let own = level(heading);
    lines.take_while(|line| !(1..=own).contains(&level(line))).collect::<Vec<_>>().join("\n")
}

/// The cells of the rows of all tables in a text, without their headings.
pub fn table_rows(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        if line.starts_with("| ---") {
            rows.pop();
        } else {
            rows.push(line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect());
        }
    }
    rows
}

/// Every word in backticks of a page.
pub fn names(page: &str) -> BTreeSet<String> {
    quoted(&prose(page)).into_iter().map(str::to_owned).collect()
}
