//! Parser of `.cql` files: splits statements and fills placeholders. Servers accept one statement per request, and some refuse a
//! trailing comment, so the parser handles strings, `$$` and comments.

use super::SchemaError;

/// One statement, without its semicolon and comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Text sent to the server.
    pub text: String,
    /// File and line, for messages.
    pub place: String,
}

/// The statements of a file.
///
/// # Errors
/// An unterminated string or comment.
pub fn split(file: &str, text: &str) -> Result<Vec<Statement>, SchemaError> {
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut begins_at = 1;
    let mut rest = text;
    let line_of = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    let unended = |what, at: &str| SchemaError::Text { place: format!("{file}:{}", line_of(at)), what };
    while let Some(c) = rest.chars().next() {
        if let Some(after) = comment(rest).map_err(|what| unended(what, rest))? {
            current.push(' ');
            rest = after;
            continue;
        }
        if let Some(length) = quoted(rest).map_err(|what| unended(what, rest))? {
            if current.trim().is_empty() {
                begins_at = line_of(rest);
            }
            current.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        if c == ';' && !inside_batch(&current) {
            push(&mut statements, &mut current, file, begins_at);
        } else {
            if current.trim().is_empty() && !c.is_whitespace() {
                begins_at = line_of(rest);
            }
            current.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    push(&mut statements, &mut current, file, begins_at);
    Ok(statements)
}

fn push(statements: &mut Vec<Statement>, current: &mut String, file: &str, line: usize) {
    let text = current.trim();
    if !text.is_empty() {
        statements.push(Statement { text: text.to_owned(), place: format!("{file}:{line}") });
    }
    current.clear();
}

/// The text after the comment at the start of `text`; a line comment leaves its newline.
fn comment(text: &str) -> Result<Option<&str>, &'static str> {
    if text.starts_with("--") || text.starts_with("//") {
        return Ok(Some(text.find('\n').map_or("", |end| &text[end..])));
    }
    if let Some(inner) = text.strip_prefix("/*") {
        let end = inner.find("*/").ok_or("a comment does not end")?;
        return Ok(Some(&inner[end + 2..]));
    }
    Ok(None)
}

/// The length of the string or quoted name at the start of `text`. A doubled quote counts as two adjacent strings, with the same
/// result.
fn quoted(text: &str) -> Result<Option<usize>, &'static str> {
    for (quote, what) in
        [("$$", "a `$$` string does not end"), ("'", "a string does not end"), ("\"", "a quoted name does not end")]
    {
        if let Some(inner) = text.strip_prefix(quote) {
            let end = inner.find(quote).ok_or(what)?;
            return Ok(Some(end + 2 * quote.len()));
        }
    }
    Ok(None)
}

/// A batch contains semicolons of its own.
fn inside_batch(current: &str) -> bool {
    let mut words = current.split_whitespace();
    let begins = words.next().is_some_and(|word| word.eq_ignore_ascii_case("BEGIN"));
    let last: Vec<&str> = current.split_whitespace().rev().take(2).collect();
    let ends = matches!(last[..], [batch, apply] if batch.eq_ignore_ascii_case("BATCH") && apply.eq_ignore_ascii_case("APPLY"));
    begins && !ends
}

/// Fills `${NAME}`.
///
/// # Errors
/// A name without a value.
pub fn fill(statement: &Statement, values: &[(&str, &str)]) -> Result<Statement, SchemaError> {
    let mut text = String::with_capacity(statement.text.len());
    let mut rest = statement.text.as_str();
    while let Some((before, after)) = rest.split_once("${") {
        text.push_str(before);
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| SchemaError::Text { place: statement.place.clone(), what: "a `${` does not end" })?;
        let value = values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
            SchemaError::Placeholder { place: statement.place.clone(), name: name.chars().take(64).collect() }
        })?;
        text.push_str(value);
        rest = after;
    }
    text.push_str(rest);
    Ok(Statement { text: text.trim().to_owned(), place: statement.place.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split("f", text).unwrap().into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_strings_and_batches() {
        for (text, expected) in [
            ("", &[][..]),
            ("-- only a comment", &[]),
            ("a; b ;;\n c", &["a", "b", "c"]),
            ("a 'x;y''z;' b; c", &["a 'x;y''z;' b", "c"]),
            ("a \"q;\" ; b", &["a \"q;\"", "b"]),
            ("a $$ ; ' $$ ; b", &["a $$ ; ' $$", "b"]),
            ("a -- ; no\n b; // ; no\n c /* ; ' */ d; -- end", &["a  \n b", "c   d"]),
            ("a '--' b; c", &["a '--' b", "c"]),
            ("BEGIN BATCH x; y; APPLY BATCH; z", &["BEGIN BATCH x; y; APPLY BATCH", "z"]),
            ("é 'ü;'; ß", &["é 'ü;'", "ß"]),
        ] {
            assert_eq!(texts(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_statement_knows_its_line() {
        let statements = split("x.cql", "\n-- c\n a;\n\n 'b'\n;c").unwrap();
        let places: Vec<_> = statements.iter().map(|statement| statement.place.as_str()).collect();
        assert_eq!(places, ["x.cql:3", "x.cql:5", "x.cql:6"]);
    }

    #[test]
    fn an_unterminated_token_is_an_error_with_its_line() {
        for (text, line) in [("a;\n'b", 2), ("/* ", 1), ("\n\n$$ x", 3), ("\"x", 1)] {
            let error = split("f", text).unwrap_err().to_string();
            assert!(error.contains(&format!("f:{line}")), "{error}");
        }
    }

    #[test]
    fn placeholders_are_filled_and_unknown_ones_named() {
        let statement = Statement { text: "CREATE ${A}.t ${B}".into(), place: "f:7".into() };
        assert_eq!(fill(&statement, &[("A", "k"), ("B", "")]).unwrap().text, "CREATE k.t");
        let error = fill(&statement, &[("A", "k")]).unwrap_err().to_string();
        assert!(error.contains("f:7") && error.contains("${B}"), "{error}");
    }
}
