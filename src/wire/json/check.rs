//! The one pass over a text that decides whether it is JSON within the limits.

use super::{double, hex, low_surrogate, plain_end, skip_space};
use crate::{
    frame::{Reason, Rejection},
    wire::Limits,
};

/// What [`check`] has seen.
#[derive(Clone, Copy, Debug)]
pub(in crate::wire) struct Checked {
    /// Length of the longest string, as written.
    pub(in crate::wire) longest: usize,
    /// Whether every strict reader takes the text as it is: no non-finite number, no lone surrogate.
    pub(in crate::wire) is_strict_json: bool,
}

struct Scanner<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    checked: Checked,
}

/// Whether `text` is one JSON value within the limits, with nothing but white space around it.
///
/// # Errors
/// `malformed_json`, `too_deep`, or `too_large` for a map with too many fields, or too many values in all.
pub(in crate::wire) fn check(text: &str, limits: &Limits) -> Result<Checked, Rejection> {
    let mut scanner =
        Scanner { text, bytes: text.as_bytes(), at: 0, checked: Checked { longest: 0, is_strict_json: true } };
    // For each open container: whether it is a map, and its items so far.
    let mut open: Vec<(bool, usize)> = Vec::with_capacity(8);
    let mut elements = 0_usize;
    'value: loop {
        elements += 1;
        if elements > limits.elements {
            return Err(Limits::too_many_elements(limits.elements));
        }
        scanner.space();
        match scanner.peek() {
            Some(first @ (b'{' | b'[')) => {
                if open.len() >= limits.depth {
                    return Err(Limits::too_deep(limits.depth));
                }
                scanner.at += 1;
                scanner.space();
                let map = first == b'{';
                let close = if map { b'}' } else { b']' };
                if scanner.peek() == Some(close) {
                    scanner.at += 1;
                } else {
                    open.push((map, 1));
                    if map {
                        scanner.key()?;
                    }
                    continue 'value;
                }
            }
            _ => scanner.scalar()?,
        }
        // Behind a value: close what ends here, or go on to the next item.
        loop {
            scanner.space();
            let Some((map, items)) = open.last_mut() else { break 'value };
            match scanner.peek() {
                Some(b',') => {
                    scanner.at += 1;
                    *items += 1;
                    if *map {
                        if *items > limits.fields {
                            return Err(Limits::too_many_fields(limits.fields));
                        }
                        scanner.key()?;
                    }
                    continue 'value;
                }
                Some(b'}') if *map => scanner.at += 1,
                Some(b']') if !*map => scanner.at += 1,
                _ => return Err(scanner.error()),
            }
            open.pop();
        }
    }
    if scanner.at == scanner.bytes.len() { Ok(scanner.checked) } else { Err(scanner.error()) }
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn error(&self) -> Rejection {
        let detail = match self.peek() {
            Some(byte) => format!("unexpected {:?} at byte {}", char::from(byte), self.at),
            None => "ends too early".into(),
        };
        Rejection { reason: Reason::MalformedJson, detail }
    }

    fn space(&mut self) {
        self.at = skip_space(self.bytes, self.at);
    }

    fn key(&mut self) -> Result<(), Rejection> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.error());
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.error());
        }
        self.at += 1;
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), Rejection> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'0'..=b'9') => self.number(),
            Some(b'-') if self.bytes.get(self.at + 1) == Some(&b'I') => self.word("-Infinity", false),
            Some(b'-') => self.number(),
            Some(b't') => self.word("true", true),
            Some(b'f') => self.word("false", true),
            Some(b'n') => self.word("null", true),
            Some(b'N') => self.word("NaN", false),
            Some(b'I') => self.word("Infinity", false),
            _ => Err(self.error()),
        }
    }

    fn word(&mut self, word: &str, is_strict_json: bool) -> Result<(), Rejection> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error());
        }
        self.at += word.len();
        self.checked.is_strict_json &= is_strict_json;
        Ok(())
    }

    /// Steps over digits; there must be one.
    fn digits(&mut self) -> Result<(), Rejection> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from { Err(self.error()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), Rejection> {
        let from = self.at;
        let mut huge = false;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
            huge |= self.at - from > 300;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
            huge = true;
        }
        // Beyond the doubles: other readers refuse it, so it is written out as what Python makes of it.
        if huge && double(self.text.get(from..self.at).unwrap_or_default()).is_infinite() {
            self.checked.is_strict_json = false;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Rejection> {
        self.at += 1;
        let from = self.at;
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(self.error()),
            }
        }
        self.checked.longest = self.checked.longest.max(self.at - from);
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Rejection> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let unit = hex(self.bytes, self.at + 1).ok_or_else(|| self.error())?;
                self.at += 5;
                if (0xd800..0xe000).contains(&unit) {
                    match low_surrogate(self.bytes, self.at) {
                        Some(_) if unit < 0xdc00 => self.at += 6,
                        _ => self.checked.is_strict_json = false,
                    }
                }
            }
            _ => return Err(self.error()),
        }
        Ok(())
    }
}
