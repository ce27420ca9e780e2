//! Untrusted text on a terminal must not move the cursor, change colours or the title, answer for the user, hide text or reverse it.
//!
//! One rule ([`is_unsafe`]) and one writer ([`Output`]) serve everything that the program prints: on a terminal unsafe characters are
//! escaped; elsewhere the bytes are written as they are.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use rustix::termios::tcgetwinsize;

/// Columns of a terminal that does not report its width, where the variable `COLUMNS` does not say it either.
const COLUMNS_ASSUMED: usize = 80;

/// Whether a terminal would not simply show this character: C0 and C1 controls, DEL, changes of text direction, and characters
/// without width.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}' | '\u{1160}'
                | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Text of one field: every unsafe character is escaped, also line ends and tabs.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| write_escaped(f, character))
    }
}

/// Writes a character, or its escape. An escape of four digits is valid in JSON, too.
pub fn write_escaped(out: &mut impl fmt::Write, character: char) -> fmt::Result {
    match u32::from(character) {
        _ if !is_unsafe(character) => out.write_char(character),
        code @ 0..=0xffff => write!(out, "\\u{code:04x}"),
        code => write!(out, "\\u{{{code:x}}}"),
    }
}

/// A stream of lines, escaped on a terminal. Line ends and tabs stay.
#[derive(Debug)]
pub struct Output<W: Write> {
    out: W,
    kind: OutputMode,
    /// The beginning of an incomplete character, or a carriage return before an unknown byte.
    pending: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputMode {
    /// No terminal.
    Raw,
    /// Every unsafe character is escaped.
    Text,
    /// As `Text`, but escape characters pass: colours of ours. Untrusted text was escaped before.
    Coloured,
}

impl OutputMode {
    fn of(out: &impl IsTerminal) -> Self {
        if out.is_terminal() { Self::Text } else { Self::Raw }
    }
}

/// Standard output.
pub fn stdout() -> Output<io::Stdout> {
    Output::new(io::stdout(), OutputMode::of(&io::stdout()))
}

/// Standard output for text that has colours of ours, in which everything untrusted was escaped.
pub fn coloured_stdout() -> Output<io::Stdout> {
    Output::new(io::stdout(), if io::stdout().is_terminal() { OutputMode::Coloured } else { OutputMode::Raw })
}

/// Whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns of the terminal of standard output; `None`: it is no terminal, and a line may be of any length.
pub fn stdout_columns() -> Option<usize> {
    columns(&io::stdout())
}

/// Columns of the terminal of standard error.
pub fn stderr_columns() -> Option<usize> {
    columns(&io::stderr())
}

fn columns(out: &(impl IsTerminal + AsFd)) -> Option<usize> {
    // Serial lines and `script` report 0.
    let reported = || tcgetwinsize(out).ok().map(|size| size.ws_col.into()).filter(|columns| *columns > 0);
    let told = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0);
    out.is_terminal().then(|| reported().or_else(told).unwrap_or(COLUMNS_ASSUMED))
}

/// Moves to the top of a terminal on standard output and clears it; elsewhere nothing.
///
/// # Errors
/// When it cannot be written.
pub fn clear() -> io::Result<()> {
    let mut out = io::stdout();
    if out.is_terminal() { out.write_all(b"\x1b[H\x1b[J") } else { Ok(()) }
}

/// Standard error.
pub fn stderr() -> Output<io::Stderr> {
    Output::new(io::stderr(), OutputMode::of(&io::stderr()))
}

/// Opens standard error for log lines, which have colours on a terminal.
pub fn log() -> impl Fn() -> Output<io::Stderr> {
    let kind = if io::stderr().is_terminal() { OutputMode::Coloured } else { OutputMode::Raw };
    move || Output::new(io::stderr(), kind)
}

/// Prints a line to standard error. A closed standard error is ignored.
pub fn print_notice(message: fmt::Arguments<'_>) {
    let _ = writeln!(stderr(), "{message}");
}

impl<W: Write> Output<W> {
    fn new(out: W, kind: OutputMode) -> Self {
        Self { out, kind, pending: Vec::new() }
    }

    /// Escapes the complete characters of the pending bytes and these; with `last`, also an incomplete one.
    fn escape(&mut self, bytes: &[u8], last: bool) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.pending);
        let mut shown = String::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        while let Some(chunk) = rest.utf8_chunks().next() {
            let (valid, invalid) = (chunk.valid(), chunk.invalid());
            rest = &rest[valid.len() + invalid.len()..];
            let ends = rest.is_empty() && invalid.is_empty() && !last;
            // `\r\n` is a line end, `\r` alone would write over the line.
            let complete = if ends { valid.strip_suffix('\r').unwrap_or(valid) } else { valid };
            self.show(complete, &mut shown);
            if rest.is_empty() && !last && is_incomplete_character(invalid) {
                self.pending.extend_from_slice(invalid);
            } else {
                invalid.iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
            }
            if complete.len() < valid.len() {
                self.pending.push(b'\r');
            }
        }
        self.out.write_all(shown.as_bytes())
    }

    fn show(&self, text: &str, shown: &mut String) {
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\n' | '\t' => shown.push(character),
                '\r' if characters.peek() == Some(&'\n') => {}
                '\x1b' if self.kind == OutputMode::Coloured => shown.push(character),
                _ => write_escaped(shown, character).unwrap_or_default(),
            }
        }
    }
}

/// Whether these invalid bytes could be the beginning of a character.
fn is_incomplete_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.kind == OutputMode::Raw {
            return self.out.write(bytes);
        }
        self.escape(bytes, false)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Drop for Output<W> {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            let _ = self.escape(&[], true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(kind: OutputMode, pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut output = Output::new(&mut out, kind);
        pieces.iter().for_each(|piece| output.write_all(piece).unwrap());
        drop(output);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_but_text_and_line_ends_reaches_a_terminal() {
        for (text, shown) in [
            ("grün 日本 e\u{301} 👍\tx\n", "grün 日本 e\u{301} 👍\tx\n"),
            ("\x1b[31mred\x07\x08\x7f", "\\u001b[31mred\\u0007\\u0008\\u007f"),
            ("\u{9b}31m\u{85}\0", "\\u009b31m\\u0085\\u0000"),
            ("a\u{202e}b\u{2066}c\u{200b}d\u{feff}e\u{ad}f", "a\\u202eb\\u2066c\\u200bd\\ufeffe\\u00adf"),
            ("\u{e0041}\u{2028}\u{61c}\u{3164}", "\\u{e0041}\\u2028\\u061c\\u3164"),
            ("a,b\r\nc\rd\r", "a,b\nc\\u000dd\\u000d"),
        ] {
            assert_eq!(through(OutputMode::Text, &[text.as_bytes()]), shown);
            // In any chunks.
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(through(OutputMode::Text, &bytes), shown, "byte by byte");
            assert_eq!(through(OutputMode::Raw, &bytes), text);
        }
        assert_eq!(through(OutputMode::Text, &[b"\x9b31m\xc3", b"(\xe2\x80"]), "\\x9b31m\\xc3(\\xe2\\x80");
        assert_eq!(
            through(OutputMode::Coloured, &[b"\x1b[2mINFO\x1b[0m \xc2\x9b\r"]),
            "\x1b[2mINFO\x1b[0m \\u009b\\u000d"
        );
    }

    #[test]
    fn a_field_keeps_to_its_line() {
        assert_eq!(Escaped("a\nb\tc\u{202e}").to_string(), "a\\u000ab\\u0009c\\u202e");
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let value = serde_json::json!({ "a": "\x1b]0;x\x07\u{9b}\u{202e}\u{7f}" });
        let shown = through(OutputMode::Text, &[value.to_string().as_bytes()]);
        assert!(shown.is_ascii() && !shown.contains('\x1b'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
