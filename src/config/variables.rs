//! Variables in the values of a YAML file: `${VAR}`, `${VAR:-default}`, `${VAR:default}`, `${VAR-default}` and `$VAR`.
//!
//! A default may contain variables. `$$` is a dollar sign; a `$` that precedes no name stands for itself. The value of a variable is
//! not expanded again. An empty variable counts as unset where a default follows a `:`, as in a shell.

use std::collections::BTreeMap;

/// How deep defaults may be nested.
const DEPTH_MAX: usize = 16;

/// Why a text cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub enum ExpandError {
    /// A variable without a default is not set.
    Unset {
        /// Its name.
        name: String,
        /// It was written without braces, and may be part of a password.
        bare: bool,
    },
    /// The text between `${` and `}` is invalid.
    Syntax(&'static str),
}

/// Replaces the variables of `text`.
///
/// # Errors
/// When a variable has no value, or is invalid.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<String, ExpandError> {
    replace(text, env, 0)
}

fn replace(text: &str, env: &BTreeMap<String, String>, depth: usize) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = closing(after).ok_or(ExpandError::Syntax("`${` without its `}`"))?;
            out.push_str(&braced(&after[..end], env, depth)?);
            rest = &after[end + 1..];
        } else {
            let name = &after[..name_len(after)];
            match env.get(name) {
                _ if name.is_empty() => out.push('$'),
                Some(value) => out.push_str(value),
                None => return Err(ExpandError::Unset { name: name.to_owned(), bare: true }),
            }
            rest = &after[name.len()..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of the text between braces.
fn braced(inside: &str, env: &BTreeMap<String, String>, depth: usize) -> Result<String, ExpandError> {
    let (name, rest) = inside.split_at(name_len(inside));
    if name.is_empty() {
        return Err(ExpandError::Syntax("`${` without the name of a variable behind it"));
    }
    let unset = || Err(ExpandError::Unset { name: name.to_owned(), bare: false });
    let value = env.get(name);
    let (value, default) = match (rest.strip_prefix(':'), rest.strip_prefix('-')) {
        (Some(default), _) => (value.filter(|value| !value.is_empty()), default.strip_prefix('-').unwrap_or(default)),
        (None, Some(default)) => (value, default),
        (None, None) if rest.is_empty() => return value.map_or_else(unset, |value| Ok(value.clone())),
        (None, None) => {
            return Err(ExpandError::Syntax(
                "a variable with something else than `:-default`, `:default` or `}` behind its name",
            ));
        }
    };
    match (value, default.chars().next()) {
        (Some(value), _) => Ok(value.clone()),
        // A shell's `${VAR:?message}`: it must be set.
        (None, Some('?')) => unset(),
        (None, Some('+')) => Err(ExpandError::Syntax("`:+` behind the name of a variable, which is not understood")),
        (None, _) if depth >= DEPTH_MAX => Err(ExpandError::Syntax("defaults within defaults, too deep")),
        (None, _) => replace(default, env, depth + 1),
    }
}

/// Where the `}` of a `${` is; the braces of variables inside are skipped.
fn closing(text: &str) -> Option<usize> {
    let (mut open, mut before) = (0, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        // The second `$` of `$$` begins nothing.
        before = if c == '$' && before == '$' { ' ' } else { c };
    }
    None
}

/// Length of the variable's name at the beginning of the text.
fn name_len(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> BTreeMap<String, String> {
        [("A", "a"), ("EMPTY", ""), ("COST", "5$A}"), ("_x1", "under")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn a_variable_is_its_value_or_its_default() {
        for (text, expected) in [
            ("plain", "plain"),
            ("${A}", "a"),
            ("$A", "a"),
            ("$A:1/$A-${A}b", "a:1/a-ab"),
            ("${_x1}$_x1", "underunder"),
            ("${NO:-d}", "d"),
            ("${NO:d}", "d"),
            ("${NO-d}", "d"),
            ("${NO:redis://cache.lab:6390/2}", "redis://cache.lab:6390/2"),
            ("${NO:-redis://cache.lab:6390/2}", "redis://cache.lab:6390/2"),
            ("${A:redis://cache.lab:6390/2}", "a"),
            ("redis://${NO:cache}:${NO:6379}/${NO:1}", "redis://cache:6379/1"),
            ("${NO:}", ""),
            ("${NO:-}", ""),
            ("${EMPTY}", ""),
            ("$EMPTY", ""),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY:d}", "d"),
            ("${EMPTY-d}", ""),
            ("${NO:-${A}}", "a"),
            ("${NO:${ALSO_NO:-http://x:${NEITHER:80}/}}", "http://x:80/"),
            ("${NO:-$A}", "a"),
            ("${NO:-{x}}", "{x}"),
            ("${NO:-a$$}", "a$"),
            ("${COST}", "5$A}"),
            ("pa$$word$$A", "pa$word$A"),
            ("5$, $5 and $", "5$, $5 and $"),
        ] {
            assert_eq!(expand(text, &env()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_variable_without_a_value_is_named() {
        for (text, name, bare) in [
            ("${NO}", "NO", false),
            ("x${NO}", "NO", false),
            ("$NO/1", "NO", true),
            ("${NO:?say it}", "NO", false),
            ("${NO:-${ALSO_NO}}", "ALSO_NO", false),
        ] {
            assert_eq!(expand(text, &env()), Err(ExpandError::Unset { name: name.into(), bare }), "{text}");
        }
        let deep = format!("{}x{}", "${NO:".repeat(50), "}".repeat(50));
        for text in ["${A", "${NO:-${A}", "${}", "${1}", "${A b}", "${NO:+x}", deep.as_str()] {
            assert!(matches!(expand(text, &env()), Err(ExpandError::Syntax(_))), "{text}: {:?}", expand(text, &env()));
        }
    }
}
