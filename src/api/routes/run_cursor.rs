//! Cursors of lists of runs: where a list goes on, and the list that it belongs to.
//!
//! ```text
//! <before>.<fingerprint>                          newest first
//! <before>.<until>.<key>.<after>.<fingerprint>    sorted
//! ```
//! `before`, `until` and `after` are the start and the id of a run, or `-`. The key is a number (`f`, its bits), text (`t`, its
//! UTF-8 in hexadecimal), NaN (`x`) or absent (`n`).

use uuid::Uuid;

use crate::{
    store::{
        RunsCursor,
        run_list::{SortKey, SortPosition},
    },
    units::Micros,
};

/// The cursor as text, for the list with this fingerprint.
pub fn write(cursor: &RunsCursor, fingerprint: u64, is_sorted: bool) -> String {
    let before = place(cursor.before);
    if !is_sorted {
        return format!("{before}.{fingerprint:016x}");
    }
    let (key, after) = match &cursor.after {
        Some(after) => (key(&after.key), place(Some((after.start, after.run_id)))),
        None => ("-".into(), "-".into()),
    };
    format!("{before}.{}.{key}.{after}.{fingerprint:016x}", place(cursor.until))
}

/// The inverse of [`write`]; `None` when the text is no cursor of this list.
pub fn parse(text: &str, fingerprint: u64, is_sorted: bool) -> Option<RunsCursor> {
    let parts: Vec<&str> = text.split('.').collect();
    let &[ref place @ .., given] = parts.as_slice() else { return None };
    if u64::from_str_radix(given, 16) != Ok(fingerprint) {
        return None;
    }
    match (place, is_sorted) {
        (&[before], false) => Some(RunsCursor { before: Some(parse_place(before)??), ..RunsCursor::default() }),
        (&[before, until, key, after], true) => {
            let after = match (key, parse_place(after)?) {
                ("-", None) => None,
                (key, Some((start, run_id))) => Some(SortPosition { key: parse_key(key)?, start, run_id }),
                _ => return None,
            };
            Some(RunsCursor { before: parse_place(before)?, until: parse_place(until)?, after })
        }
        _ => None,
    }
}

fn place(place: Option<(Micros, Uuid)>) -> String {
    place.map_or("-".into(), |(start, run_id)| format!("{start}_{}", run_id.as_simple()))
}

/// `None`: not a place; `Some(None)`: none.
fn parse_place(text: &str) -> Option<Option<(Micros, Uuid)>> {
    if text == "-" {
        return Some(None);
    }
    let (start, run_id) = text.split_once('_')?;
    Some(Some((start.parse().ok()?, Uuid::try_parse(run_id).ok()?)))
}

fn key(key: &SortKey) -> String {
    match key {
        SortKey::Number(number) => format!("f{:016x}", number.to_bits()),
        SortKey::Text(text) => text.bytes().fold("t".to_owned(), |hex, byte| format!("{hex}{byte:02x}")),
        SortKey::Nan => "x".into(),
        SortKey::Absent => "n".into(),
    }
}

fn parse_key(text: &str) -> Option<SortKey> {
    match (text.get(..1)?, &text[1..]) {
        ("f", bits) => Some(SortKey::Number(f64::from_bits(u64::from_str_radix(bits, 16).ok()?))),
        ("t", hex) => {
            let byte = |at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
            Some(SortKey::Text(String::from_utf8(bytes?).ok()?))
        }
        ("x", "") => Some(SortKey::Nan),
        ("n", "") => Some(SortKey::Absent),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_for_its_own_list_only() {
        let place = Some((-5, Uuid::from_u128(7)));
        let newest = RunsCursor { before: place, ..RunsCursor::default() };
        let text = write(&newest, 9, false);
        assert_eq!(parse(&text, 9, false), Some(newest.clone()));
        assert_eq!((parse(&text, 8, false), parse(&text, 9, true)), (None, None));
        let keys = [SortKey::Number(-0.1), SortKey::Text("é.-_".into()), SortKey::Text(String::new()), SortKey::Nan];
        for key in keys.into_iter().chain([SortKey::Absent]) {
            let after = Some(SortPosition { key, start: i64::MAX, run_id: Uuid::from_u128(8) });
            for cursor in [
                RunsCursor { before: place, until: place, after: after.clone() },
                RunsCursor { after, ..RunsCursor::default() },
                newest.clone(),
            ] {
                assert_eq!(parse(&write(&cursor, u64::MAX, true), u64::MAX, true), Some(cursor));
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let id = "00000000000000000000000000000007";
        for text in ["", ".", "9", "x.9", "-.9", &format!("5_{id}"), &format!("{id}.9"), "5_7.9", "é.9", "-.-.-.-"] {
            assert_eq!(parse(text, 9, false), None, "{text}");
        }
        for key in ["", "f", "fz", "t1", "tzz", "tff", "xx", "n1", "-", "é"] {
            assert_eq!(parse(&format!("-.-.{key}.5_{id}.9"), 9, true), None, "{key}");
        }
    }
}
