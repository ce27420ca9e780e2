//! The messages of a body that holds many. Each is a range of its bytes, as if it had been published alone; whether it is a message
//! is decided when it is decoded, so that one that is none does not affect its neighbours.

use std::ops::Range;

use super::{Limits, json, pack, trim};

/// The messages of `body`, in order; `None`: there are more than `max`.
///
/// By its first byte, a body is MessagePack, one map or several one after the other, or a list of them; a JSON array; one JSON
/// object, over any number of lines; or else lines of JSON. What cannot be told apart is one message, and rejected as such.
pub fn split(body: &[u8], max: usize) -> Option<Vec<Range<usize>>> {
    let start = body.len() - trim(body).len();
    let mut found = Found { messages: Vec::new(), max };
    match body.get(start) {
        None => Some(()),
        Some(0x80..=0x9f | 0xdc..=0xdf) => found.add_packed(body, start),
        Some(b'[') => found.add_array(body, start),
        Some(_) if is_one(&body[start..]) => found.add(body, start..body.len()),
        Some(_) => found.add_lines(body, start),
    }?;
    Some(found.messages)
}

struct Found {
    messages: Vec<Range<usize>>,
    max: usize,
}

impl Found {
    /// Adds a message, without the white space around it.
    fn add(&mut self, body: &[u8], range: Range<usize>) -> Option<()> {
        let (start, text) = (range.start, &body[range]);
        let from = start + (text.len() - text.trim_ascii_start().len());
        self.push(from..start + text.trim_ascii_end().len().max(from - start))
    }

    fn push(&mut self, range: Range<usize>) -> Option<()> {
        self.messages.push(range);
        (self.messages.len() <= self.max).then_some(())
    }

    fn add_lines(&mut self, body: &[u8], start: usize) -> Option<()> {
        let mut at = start;
        for line in body[start..].split(|byte| *byte == b'\n') {
            if !line.trim_ascii().is_empty() {
                self.add(body, at..at + line.len())?;
            }
            at += line.len() + 1;
        }
        Some(())
    }

    fn add_array(&mut self, body: &[u8], start: usize) -> Option<()> {
        let mut at = json::skip_space(body, start + 1);
        while at < body.len() && body[at] != b']' {
            let end = json::item_end(body, at);
            self.add(body, at..end)?;
            at = json::skip_space(body, end + usize::from(body.get(end) == Some(&b',')));
        }
        let rest = body.get(at + 1..).unwrap_or_default();
        if rest.trim_ascii().is_empty() { Some(()) } else { self.add(body, at + 1..body.len()) }
    }

    fn add_packed(&mut self, body: &[u8], start: usize) -> Option<()> {
        let is_list = matches!(body[start], 0x90..=0x9f | 0xdc | 0xdd);
        let mut at = match pack::open(body, start) {
            Some((_, first)) if is_list => first,
            _ => start,
        };
        while at < body.len() {
            let end = pack::value_end(body, at).unwrap_or(body.len());
            self.push(at..end)?;
            at = end;
        }
        Some(())
    }
}

/// Whether this is one message, or at least not lines with one each.
fn is_one(body: &[u8]) -> bool {
    let is_whole = |text: &str| json::check(text, &Limits::NONE).is_ok();
    let lines = || body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let is_object = |line: &[u8]| line.starts_with(b"{") && line.ends_with(b"}");
    std::str::from_utf8(body).is_ok_and(is_whole) || !lines().any(is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &[u8]) -> Vec<&[u8]> {
        split(body, 99).unwrap().into_iter().map(|range| &body[range]).collect()
    }

    #[test]
    fn json_is_one_object_an_array_or_lines() {
        for (body, messages) in [
            ("", &[][..]),
            (" \n ", &[]),
            ("{}", &["{}"]),
            ("\u{feff} {\"a\": 1}\r\n", &["{\"a\": 1}"]),
            ("{\n  \"a\": [\n    {\"b\": 1}\n  ]\n}\n", &["{\n  \"a\": [\n    {\"b\": 1}\n  ]\n}"]),
            ("{\"a\":NaN}\n\n {\"b\":2}\r\n", &["{\"a\":NaN}", "{\"b\":2}"]),
            ("{\"a\":1\n{\"b\":2}\nx\n{}", &["{\"a\":1", "{\"b\":2}", "x", "{}"]),
            // Not closed, and no line of it is an object.
            ("{\n  \"a\": 1,\n", &["{\n  \"a\": 1,"]),
            ("nonsense\nand more", &["nonsense\nand more"]),
            ("[]", &[]),
            ("[ {\"a\":\"},]\\\"\"} ,\n{\"b\":[1,{}]}, 7 ]\n", &["{\"a\":\"},]\\\"\"}", "{\"b\":[1,{}]}", "7"]),
            ("[{\"a\": nonsense}, {}, ]", &["{\"a\": nonsense}", "{}"]),
            ("[{}, {\"a\": [", &["{}", "{\"a\": ["]),
            ("[{}, ", &["{}"]),
            ("[{}] {}", &["{}", "{}"]),
            ("[, {}]", &["", "{}"]),
            ("[\"open]", &["\"open]"]),
        ] {
            let texts: Vec<_> =
                texts(body.as_bytes()).into_iter().map(|text| std::str::from_utf8(text).unwrap()).collect();
            assert_eq!(texts, messages, "{body:?}");
        }
    }

    #[test]
    fn half_a_character_stays_with_its_line() {
        assert_eq!(texts(b"{\"a\":1}\n{\"\xc3\"}\n{}"), [&b"{\"a\":1}"[..], b"{\"\xc3\"}", b"{}"]);
        assert_eq!(texts(b"{\"a\":\"\xc3"), [&b"{\"a\":\"\xc3"[..]]);
    }

    #[test]
    fn msgpack_is_maps_one_after_the_other_or_a_list() {
        let (one, two) = (&b"\x81\xa1a\x01"[..], &b"\xde\x00\x01\xa1b\x92\x01\x80"[..]);
        for (body, messages) in [
            (one.to_vec(), &[one][..]),
            ([one, two].concat(), &[one, two]),
            ([b"\x92", one, two].concat(), &[one, two]),
            ([b"\xdc\x00\x02", one, two].concat(), &[one, two]),
            (b"\x90".to_vec(), &[]),
            // What follows a list, or is no map, is a message of its own.
            ([b"\x91", one, b"\x05"].concat(), &[one, b"\x05"]),
            // What breaks off is the last.
            ([one, &two[..6]].concat(), &[one, &two[..6]]),
            (b"\xdd\xff\xff\xff\xff\x01".to_vec(), &[b"\xdd\xff\xff\xff\xff\x01"]),
            (b"\xdf\xff\xff\xff\xff".to_vec(), &[b"\xdf\xff\xff\xff\xff"]),
            ([one, b"\xc1", one].concat(), &[one, b"\xc1\x81\xa1a\x01"]),
        ] {
            assert_eq!(texts(&body), messages, "{body:?}");
        }
    }

    #[test]
    fn no_more_are_split_than_may_be() {
        for body in ["{}\n{}\n{}", "[1,2,3]"] {
            assert_eq!(split(body.as_bytes(), 2), None, "{body}");
            assert_eq!(split(body.as_bytes(), 3).map(|found| found.len()), Some(3));
        }
        assert_eq!(split(&[0x80; 3], 2), None);
    }
}
