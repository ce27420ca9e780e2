//! What Redis sends to a subscriber: one item of RESP3 at the beginning of the bytes received.
//!
//! Only what a subscriber needs is told apart: messages, confirmed subscriptions, and replies to its few commands. All else is skipped.
//! Source: <https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md>.

use std::ops::Range;

/// Longest text. The limit of Redis, `proto-max-bulk-len`, is 512 MiB unless it was raised.
const TEXT_MAX: usize = 1 << 30;
/// Longest line: a simple reply, an error, or a number.
const LINE_MAX: usize = 64 << 10;
/// Deepest nesting of a reply. The deepest that a subscriber gets is the greeting, with the arguments of modules.
const DEPTH_MAX: usize = 8;

/// What stands at the beginning of the bytes, and where it ends. Places are offsets into them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: Kind,
    /// The first byte behind it. Of a message it may lie behind the bytes received: then only its payload has not all arrived.
    pub(super) end: usize,
}

/// The kinds of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message: its channel (not the pattern that matched), and its payload.
    Message { channel: Range<usize>, payload: Range<usize> },
    /// A subscription to this channel or pattern is in force.
    Subscribed(Range<usize>),
    /// A reply to a command; of one that is neither text nor an error the range is empty.
    Reply { is_error: bool, text: Range<usize> },
    /// Anything else that Redis sends unasked.
    Other,
}

/// Why there is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoItem {
    /// It has not all arrived.
    Incomplete,
    /// These bytes are no RESP3, or nothing that Redis sends to a subscriber.
    Malformed,
}

/// Reads the item at the beginning.
pub(super) fn item(bytes: &[u8]) -> Result<Item, NoItem> {
    let mut cursor = Cursor { bytes, at: 0 };
    let kind = match cursor.byte()? {
        b'>' => return push(cursor),
        b'+' => Kind::Reply { is_error: false, text: cursor.line()? },
        b'-' => Kind::Reply { is_error: true, text: cursor.line()? },
        b'$' => Kind::Reply { is_error: false, text: cursor.sized()? },
        b'!' => Kind::Reply { is_error: true, text: cursor.sized()? },
        b'=' => {
            // Three letters of its format and a colon stand in front.
            let text = cursor.sized()?;
            Kind::Reply { is_error: false, text: text.end.min(text.start + 4)..text.end }
        }
        _ => {
            cursor.at = 0;
            cursor.skip(DEPTH_MAX)?;
            Kind::Reply { is_error: false, text: 0..0 }
        }
    };
    Ok(Item { kind, end: cursor.at })
}

fn push(mut cursor: Cursor<'_>) -> Result<Item, NoItem> {
    let values = cursor.count()?;
    let name = cursor.text()?;
    let kind = match (&cursor.bytes[name], values) {
        (b"message", 3) => return message(cursor),
        (b"pmessage", 4) => {
            cursor.text()?;
            return message(cursor);
        }
        (b"subscribe" | b"psubscribe", 3) => {
            let channel = cursor.text()?;
            cursor.skip(DEPTH_MAX)?;
            Kind::Subscribed(channel)
        }
        _ => {
            for _ in 1..values {
                cursor.skip(DEPTH_MAX)?;
            }
            Kind::Other
        }
    };
    Ok(Item { kind, end: cursor.at })
}

fn message(mut cursor: Cursor<'_>) -> Result<Item, NoItem> {
    let channel = cursor.text()?;
    if cursor.byte()? != b'$' {
        return Err(NoItem::Malformed);
    }
    let length = cursor.length()?;
    let payload = cursor.at..cursor.at + length;
    let end = payload.end + 2;
    if cursor.bytes.get(payload.end..end).is_some_and(|line_end| line_end != b"\r\n") {
        return Err(NoItem::Malformed);
    }
    Ok(Item { kind: Kind::Message { channel, payload }, end })
}

/// Walks over the bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, NoItem> {
        let byte = *self.bytes.get(self.at).ok_or(NoItem::Incomplete)?;
        self.at += 1;
        Ok(byte)
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> Result<Range<usize>, NoItem> {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(LINE_MAX)];
        let Some(length) = rest.iter().position(|byte| *byte == b'\r') else {
            return Err(if rest.len() < LINE_MAX { NoItem::Incomplete } else { NoItem::Malformed });
        };
        let line = self.at..self.at + length;
        self.at = line.end + 1;
        if self.byte()? == b'\n' { Ok(line) } else { Err(NoItem::Malformed) }
    }

    /// The rest of the line: how many bytes or values follow.
    fn count(&mut self) -> Result<usize, NoItem> {
        let line = self.line()?;
        let mut count = 0_usize;
        for byte in &self.bytes[line.clone()] {
            let digit = byte.is_ascii_digit().then(|| usize::from(byte - b'0'));
            count = digit.and_then(|digit| count.checked_mul(10)?.checked_add(digit)).ok_or(NoItem::Malformed)?;
        }
        if line.is_empty() { Err(NoItem::Malformed) } else { Ok(count) }
    }

    /// The same of the bytes of a text.
    fn length(&mut self) -> Result<usize, NoItem> {
        self.count().and_then(|length| if length <= TEXT_MAX { Ok(length) } else { Err(NoItem::Malformed) })
    }

    /// The rest of the line, and as many bytes behind it as it says.
    fn sized(&mut self) -> Result<Range<usize>, NoItem> {
        let length = self.length()?;
        let text = self.at..self.at + length;
        match self.bytes.get(text.end..text.end + 2) {
            Some(b"\r\n") => {
                self.at = text.end + 2;
                Ok(text)
            }
            Some(_) => Err(NoItem::Malformed),
            None => Err(NoItem::Incomplete),
        }
    }

    /// A value that is text: in a push, a name or a channel.
    fn text(&mut self) -> Result<Range<usize>, NoItem> {
        match self.byte()? {
            b'$' => self.sized(),
            b'+' => self.line(),
            _ => Err(NoItem::Malformed),
        }
    }

    /// Passes over one value of any kind.
    fn skip(&mut self, depth: usize) -> Result<(), NoItem> {
        let Some(depth) = depth.checked_sub(1) else { return Err(NoItem::Malformed) };
        match self.byte()? {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => _ = self.line()?,
            // RESP2 writes null so.
            b'$' | b'*' if self.bytes[self.at..].starts_with(b"-1\r\n") => self.at += 4,
            b'$' | b'!' | b'=' => _ = self.sized()?,
            b'*' | b'~' | b'>' => {
                for _ in 0..self.count()? {
                    self.skip(depth)?;
                }
            }
            b'%' => {
                for _ in 0..self.count()? {
                    self.skip(depth)?;
                    self.skip(depth)?;
                }
            }
            _ => return Err(NoItem::Malformed),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the item is, with the texts instead of their places.
    fn told(bytes: &[u8]) -> (String, usize) {
        let Item { kind, end } = item(bytes).unwrap();
        let text = |place: Range<usize>| String::from_utf8_lossy(&bytes[place]).into_owned();
        let kind = match kind {
            Kind::Message { channel, payload } => format!("{}: {}", text(channel), text(payload)),
            Kind::Subscribed(channel) => format!("subscribed {}", text(channel)),
            Kind::Reply { is_error, text: place } => format!("{is_error} {}", text(place)),
            Kind::Other => "other".into(),
        };
        (kind, end)
    }

    const ITEMS: [(&str, &str); 12] = [
        (">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5\r\na\r\nbc\r\n", "ch: a\r\nbc"),
        (">3\r\n$7\r\nmessage\r\n$0\r\n\r\n$0\r\n\r\n", ": "),
        (">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\nch\r\n$1\r\nx\r\n", "ch: x"),
        (">3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", "subscribed ch"),
        (">3\r\n$10\r\npsubscribe\r\n$2\r\nc*\r\n:2\r\n", "subscribed c*"),
        (">2\r\n$10\r\ninvalidate\r\n*-1\r\n", "other"),
        ("+PONG\r\n", "false PONG"),
        ("-NOPERM no\r\n", "true NOPERM no"),
        ("$4\r\nrole\r\n", "false role"),
        ("=8\r\ntxt:role\r\n", "false role"),
        ("!5\r\nERR x\r\n", "true ERR x"),
        (
            "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:7\r\n$7\r\nmodules\r\n*1\r\n%1\r\n+a\r\n,1.5\r\n",
            "false ",
        ),
    ];

    #[test]
    fn every_item_that_a_subscriber_gets_is_told_apart() {
        for (bytes, expected) in ITEMS {
            let with_more = [bytes.as_bytes(), b">3\r\n"].concat();
            assert_eq!(told(&with_more), (expected.to_owned(), bytes.len()), "{bytes:?}");
        }
    }

    #[test]
    fn an_item_of_which_only_a_part_has_arrived_is_waited_for() {
        for (bytes, _) in ITEMS {
            for length in 0..bytes.len() {
                match item(&bytes.as_bytes()[..length]) {
                    Err(NoItem::Incomplete) => {}
                    Ok(Item { kind: Kind::Message { payload, .. }, end }) => {
                        assert!(payload.start <= length && end == bytes.len(), "{bytes:?} {length}");
                    }
                    other => panic!("{bytes:?} {length}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_resp_is_named_so_and_waits_for_nothing() {
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1);
        let long = format!("+{}", "x".repeat(LINE_MAX));
        for bytes in [
            "HTTP/1.1 400 Bad Request\r\n",
            ">x\r\n",
            ">3\r\n:1\r\n",
            ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n:5\r\n",
            ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$-1\r\n",
            ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1\r\nxyz",
            ">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1073741825\r\n",
            "$99999999999999999999999\r\n",
            "$1\r\nxyz",
            "+one\rtwo",
            &deep,
            &long,
        ] {
            assert_eq!(item(bytes.as_bytes()), Err(NoItem::Malformed), "{bytes:?}");
        }
    }
}
