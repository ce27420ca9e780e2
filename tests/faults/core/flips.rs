//! Every single-bit flip and every length.

use std::path::{Path, PathBuf};

use crate::{
    harness::{Budget, Tried, each},
    image::{DIR, Original, goes_on, open},
    spool::segment::HEADER,
};

const BYTES: usize = 64 << 10;
/// Every nth image is also written to.
const WRITTEN: u64 = 64;

/// Once with the segment as the last one, whose end is searched at the start, and once with another after it.
pub fn every_bit(budget: &Budget) -> Tried {
    let mut tried = Tried::default();
    for (segments, what, step) in
        [(1, "last segment", 1), (2, "segment in front of it", if budget.times > 1 { 1 } else { 61 })]
    {
        let original = Original::new(budget.seed, segments, BYTES);
        let bytes = &original.segments[0].1;
        tried.count += each(budget, BYTES as u64 * 8 / step, |number| {
            let bit = number * step;
            let (byte, mask) = (bit as usize / 8, 1u8 << (bit % 8));
            let mut content = bytes.clone();
            content[byte] ^= mask;
            let sim = original.with(0, content.clone());
            let touched = original.places.iter().position(|(segment, place)| *segment == 0 && place.contains(&byte));
            let outcome = original.check(&sim, &original.intact(0, &content));
            match touched {
                None => {
                    assert_eq!((byte < HEADER, outcome.missing + outcome.at_end), (true, 0), "a header costs nothing")
                }
                Some(offset) => {
                    assert_eq!(outcome.missing + outcome.at_end, 1, "{what}");
                    assert_eq!(outcome.quarantine, [&content[original.places[offset].1.clone()]], "keeps the bytes");
                }
            }
            if bit % WRITTEN == 0 {
                goes_on(&sim, &original.config);
            }
        });
    }
    tried
}

/// The same two, cut at every byte.
pub fn every_length(budget: &Budget) -> Tried {
    let mut tried = Tried::default();
    for (segments, step) in [(1, 1), (2, if budget.times > 1 { 1 } else { 7 })] {
        let original = Original::new(budget.seed, segments, BYTES);
        tried.count += each(budget, BYTES as u64 / step, |number| {
            let length = number * step;
            let content = &original.segments[0].1[..length as usize];
            let sim = original.with(0, content.to_vec());
            let intact = original.intact(0, content);
            let outcome = original.check(&sim, &intact);
            let gone = intact.iter().filter(|intact| !**intact).count() as u64;
            assert_eq!(outcome.missing + outcome.at_end, gone);
            goes_on(&sim, &original.config);
        });
    }
    tried
}

/// Files of a few bytes: no content of them costs a record.
pub fn small_files(budget: &Budget) -> Tried {
    let original = Original::new(budget.seed, 2, BYTES / 8);
    let checkpoint = Path::new(DIR).join("checkpoint");
    let lock = Path::new(DIR).join("lock");
    let empty = PathBuf::from(DIR).join(format!("{:020}-000.seg", original.places.len()));
    let header = original.segments[0].1[..HEADER].to_vec();
    let mut tried = Tried::default();
    for (path, content) in [
        (checkpoint, original.sim.get(&Path::new(DIR).join("checkpoint")).unwrap()),
        (lock, b"12345\n".to_vec()),
        (empty, header),
    ] {
        let bits = content.len() as u64 * 8;
        tried.count += each(budget, bits + content.len() as u64 + 1, |number| {
            let mut damaged = content.clone();
            match number.checked_sub(bits) {
                None => damaged[number as usize / 8] ^= 1 << (number % 8),
                Some(length) => damaged.truncate(length as usize),
            }
            let sim = original.sim.copy();
            sim.edit(&path, |bytes| *bytes = damaged);
            let spool = open(&sim, &original.config).expect("always opens");
            assert_eq!(spool.recovery.pending, original.places.len() as u64);
            drop(spool);
            goes_on(&sim, &original.config);
        });
    }
    tried
}
