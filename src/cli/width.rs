//! Text fitted to the width of a terminal, which is counted in columns: a wide character takes two, a combining one none.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Shows that text was cut.
const ELLIPSIS: char = '…';

/// Columns that text takes. Terminals disagree about emoji of several characters: the larger count, so that no terminal has to
/// break a line.
pub fn columns(text: &str) -> usize {
    text.width().max(text.chars().map(columns_of).sum())
}

fn columns_of(character: char) -> usize {
    character.width().unwrap_or(0)
}

/// The text, or as much of it as fits and an ellipsis.
pub fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if columns(text) <= width {
        return text.into();
    }
    let mut kept = beginning(text, width.saturating_sub(1)).to_owned();
    kept.push(ELLIPSIS);
    kept.into()
}

/// The longest beginning that fits; a character keeps the combining ones that follow it.
fn beginning(text: &str, width: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, character)| {
        taken += columns_of(*character);
        taken > width
    });
    let mut kept = end.map_or(text, |(end, _)| &text[..end]);
    // A variation selector may widen the character before it.
    while columns(kept) > width {
        let (last, _) = kept.char_indices().next_back().unwrap_or_default();
        kept = &kept[..last];
    }
    kept
}

/// The text as lines that fit. Lines are broken after blanks and commas; a longer word is broken between two characters, but not
/// within a number, unless that is longer than a line.
pub fn wrap(text: &str, width: usize) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while columns(rest) > width {
        let fits = beginning(rest, width);
        let (line, more) = rest.split_at(break_at(rest, fits.len()));
        lines.push(line.trim_end_matches(' '));
        rest = more.trim_start_matches(' ');
    }
    lines.push(rest);
    lines
}

/// Where to break a text of which this many bytes fit.
fn break_at(text: &str, fits: usize) -> usize {
    let (line, more) = text.split_at(fits);
    if more.starts_with(' ') {
        return fits;
    }
    let indented = line.len() - line.trim_start_matches(' ').len();
    if let Some(at) = line.rfind([' ', ',']).filter(|at| *at >= indented) {
        return at + 1;
    }
    let before_number = line.trim_end_matches(is_of_number).len();
    if more.starts_with(is_of_number) && before_number > indented {
        return before_number;
    }
    // At least one character, so that every line makes progress.
    fits.max(text.chars().next().map_or(1, char::len_utf8))
}

fn is_of_number(character: char) -> bool {
    character.is_ascii_digit() || matches!(character, '.' | '-' | '+')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_cut_by_its_width() {
        for (text, width, shown) in [
            ("spiral", 6, "spiral"),
            ("spirals", 6, "spira…"),
            ("日本語の実験", 7, "日本語…"),
            ("日本語の実験", 6, "日本…"),
            ("e\u{301}e\u{301}e\u{301}", 3, "e\u{301}e\u{301}e\u{301}"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("👍👍", 3, "👍…"),
            ("\u{2764}\u{fe0f}xx", 3, "\u{2764}\u{fe0f}…"),
            ("\u{2764}\u{fe0f}xx", 2, "\u{2764}…"),
            ("x", 0, "…"),
        ] {
            assert_eq!(cut(text, width), shown, "{text} in {width}");
        }
    }

    #[test]
    fn lines_are_broken_where_a_reader_expects_it() {
        for (text, width, lines) in [
            ("", 5, &[""][..]),
            ("more with --limit 5", 10, &["more with", "--limit 5"]),
            ("[0.125,0.25,0.5]", 8, &["[0.125,", "0.25,", "0.5]"]),
            ("rate:0.125", 8, &["rate:", "0.125"]),
            ("-- a comment", 6, &["-- a", "commen", "t"]),
            ("日本語の実験", 5, &["日本", "語の", "実験"]),
            ("    indented text", 12, &["    indented", "text"]),
            ("12345678901", 5, &["12345", "67890", "1"]),
        ] {
            assert_eq!(wrap(text, width), lines, "{text} in {width}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_longer_and_nothing_is_lost(text in "\\PC{0,80}", width in 2_usize..30) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| columns(line) <= width), "{lines:?}");
            let letters = |text: &str| text.replace(' ', "");
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
            prop_assert!(columns(&cut(&text, width)) <= width);
        }
    }
}
