//! The text of the sources as the rules read it: comments, literals and test modules blanked, every line at its number.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A source file that is no test.
pub struct Source {
    /// Its path below `src/`.
    pub file: String,
    /// As it is written.
    pub text: String,
    /// Its code: comments, literals and test modules are blanks.
    pub code: String,
}

/// Every source file that is no test.
pub fn sources() -> Vec<Source> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if is_rust && !path.ends_with("tests.rs") {
                found.push(read(&root, &path));
            }
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    assert!(found.len() > 10, "found only {} source files", found.len());
    found
}

fn read(root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    Source { file, code: code_of(&text), text }
}

/// The text without comments, literals and test modules.
pub fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let opaque = opaque_length(rest, code.chars().next_back());
        let (piece, after) = rest.split_at(opaque.max(c.len_utf8()));
        if opaque > 0 {
            blank(&mut code, piece)
        } else {
            code.push_str(piece)
        }
        rest = after;
    }
    without_test_modules(&code)
}

fn blank(code: &mut String, piece: &str) {
    code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
}

/// Length of the comment or the literal that the text begins with.
fn opaque_length(text: &str, before: Option<char>) -> usize {
    let until = |start: usize, end: &str| text[start..].find(end).map_or(text.len(), |at| start + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until(2, "*/");
    }
    if text.starts_with('"') {
        return quoted_length(text, '"');
    }
    let mut after_quote = text.strip_prefix('\'').unwrap_or_default().chars();
    if let Some(first) = after_quote.next() {
        // Anything else is a lifetime.
        return if first == '\\' || after_quote.next() == Some('\'') { quoted_length(text, '\'') } else { 0 };
    }
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r')).filter(|_| !before.is_some_and(is_word));
    let Some(raw) = raw else { return 0 };
    let unhashed = raw.trim_start_matches('#');
    let hashes = raw.len() - unhashed.len();
    if unhashed.starts_with('"') {
        until(text.len() - unhashed.len() + 1, &format!("\"{}", "#".repeat(hashes)))
    } else {
        0
    }
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether the character may be part of an identifier.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Test modules may import anything. Of an inline one only the block is blanked; the code after it is checked.
fn without_test_modules(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(at);
        out.push_str(before);
        let length = test_module_length(item);
        let (piece, after) = item.split_at(length.unwrap_or(1));
        if length.is_some() {
            blank(&mut out, piece)
        } else {
            out.push_str(piece)
        }
        rest = after;
    }
    out + rest
}

/// Length of the module that stands behind `#[cfg(test)]`: its block, or its declaration.
fn test_module_length(item: &str) -> Option<usize> {
    let mut head = item;
    while head.starts_with("#[") {
        head = head[head.find(']')? + 1..].trim_start();
    }
    let after_visibility = if head.starts_with("pub(") { &head[head.find(')')? + 1..] } else { head };
    let name = after_visibility.trim_start_matches("pub").trim_start().strip_prefix("mod ")?;
    let mut depth = 0_usize;
    for (at, c) in name.char_indices() {
        depth = match c {
            '{' => depth + 1,
            '}' => depth - 1,
            _ => depth,
        };
        if depth == 0 && matches!(c, '}' | ';') {
            return Some(item.len() - name.len() + at + 1);
        }
    }
    None
}

/// Line, name and length of each function that rustfmt has laid out over several lines.
pub fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut open: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        let starts = line.starts_with("fn ") || (line.contains(" fn ") && line.contains('('));
        if starts && !line.ends_with([';', '}']) {
            let name = line.split_once("fn ").map(|(_, rest)| rest.split(|c| !is_word(c)).next().unwrap_or_default());
            open.insert(indent, (number, name.unwrap_or_default().to_owned()));
        } else if line == "}"
            && let Some((start, name)) = open.remove(&indent)
        {
            found.push((start + 1, name, number - start + 1));
        }
    }
    found
}

#[test]
fn only_comments_literals_and_test_modules_are_blanked() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b\n */ c", "a     \n    c"),
        ("f(\"b\\\"c\", 'd', '\\'') e", "f(      ,    ,     ) e"),
        ("r#\"b\"c\"# 'a d", "         'a d"),
        ("xr\"b\" r#type", "xr    r#type"),
        ("#[cfg(test)]\nmod tests;\nuse a;", "            \n          \nuse a;"),
        (
            "#[cfg(test)]\n#[allow(b)]\nmod t { fn f() { '}' } }\nuse a;",
            "            \n           \n                        \nuse a;",
        ),
        ("#[cfg(test)]\npub mod t {\n}\nuse a;", "            \n           \n \nuse a;"),
        ("#[cfg(test)]\npub(super) mod t {\n}\nuse a;", "            \n                  \n \nuse a;"),
        ("#[cfg(test)]\nuse a;", "#[cfg(test)]\nuse a;"),
    ] {
        assert_eq!(code_of(text), code, "{text}");
    }
}
