//! Inputs for the decoders: files of the repository, changed in a few places. Plain mutation, no coverage guidance: the decoders are
//! small and a run makes tens of thousands of inputs a second.

use std::{collections::BTreeSet, fs, path::Path};

use crate::random::Random;

/// Tokens of the decoders.
const TOKENS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"null",
    b"NaN",
    b"-Infinity",
    b"Infinity",
    b"true",
    b"1e309",
    b"-0",
    b"-0.0",
    b"9223372036854775808",
    b"18446744073709551616",
    b"1e-400",
    b"0.1",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\x00",
    b"\"type\":",
    b"\"data\":{",
    b"\"metrics\":{",
    b"\"network_topology\":{",
    b"\"connections\":[",
    b"\"nodes\":[",
    b"\"timestamp\":",
    b"\"epoch\":",
    b"\"hidden_units\":[",
    b"\"run_id\":",
    b"\"dataset\":{",
    b"\"config\":{",
    b"\"tags\":[",
    b"\"seq\":",
    b"\"event_type\":",
    b"\"weights\":[",
    b"\"class_distribution\":{",
    b"\"command\":",
    b"\"params\":{",
    b"\"timeout\":",
    b"\"topology\"",
    b"\"training_start\"",
    b"2026-11-20T10:15:00",
    b"0000-01-01T00:00:00",
    b"9999-12-31T23:59:60Z",
    b"1e18",
    b"-1",
    b"\"_ingest\":",
    b"\x80",
    b"\x8f",
    b"\x90",
    b"\xc0",
    b"\xc1",
    b"\xc4\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc7\x0c\xff",
    b"\xca\x7f\xc0\x00\x00",
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xd6\xff\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xde\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xa0",
];

/// Every file of a folder of the repository whose name ends like this.
pub fn seeds(folders: &[&str], ends: &[&str]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: BTreeSet<_> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}")))
        .map(|entry| entry.unwrap().path())
        .filter(|path| ends.iter().any(|end| path.to_string_lossy().ends_with(end)))
        .collect();
    assert!(!files.is_empty());
    files.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One of the seeds, changed in a few places; small numbers are the seeds themselves.
pub fn mutated(seeds: &[Vec<u8>], number: u64, random: &mut Random) -> Vec<u8> {
    if let Some(seed) = seeds.get(number as usize) {
        return seed.clone();
    }
    let mut bytes = random.pick(seeds).clone();
    mutate(&mut bytes, seeds, random);
    while random.coin() {
        mutate(&mut bytes, seeds, random);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let longest = 1 << random.below(8);
    let to = (at + 1 + random.below(longest)).min(bytes.len());
    match random.below(12) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.next() as u8,
        2 => drop(bytes.drain(at..to)),
        3 => {
            let piece = bytes[at..to].to_vec();
            let most = if random.one_in(50) { 300 } else { 3 };
            let copies = 1 + random.below(most);
            bytes.splice(at..at, piece.repeat(copies));
        }
        4 => {
            let other = random.pick(seeds);
            let from = random.below(other.len() + 1);
            let until = (from + random.below(80)).min(other.len());
            bytes.splice(at..to, other[from..until].iter().copied());
        }
        5 => {
            // A length or a number, in either order of bytes.
            let number = *random.pick(&[0u64, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX]);
            let width = *random.pick(&[1, 2, 4, 8]);
            let raw = if random.coin() {
                number.to_le_bytes()[..width].to_vec()
            } else {
                number.to_be_bytes()[8 - width..].to_vec()
            };
            let end = (at + width).min(bytes.len());
            bytes.splice(at..end, raw);
        }
        6 => bytes.truncate(at),
        7 => {
            let deep = random.below(100);
            let (open, close) = *random.pick(&[("[", "]"), ("{\"data\":", "}"), ("{\"a\":[", "]}")]);
            bytes.splice(at..at, [open.repeat(deep), close.repeat(deep)].concat().into_bytes());
        }
        8 => {
            let digits = (0..1 + random.below(30)).map(|_| b'0' + random.below(10) as u8).collect::<Vec<_>>();
            bytes.splice(at..at, digits);
        }
        _ => {
            let token = *random.pick(TOKENS);
            let until = if random.coin() { at } else { to };
            bytes.splice(at..until, token.iter().copied());
        }
    }
}
