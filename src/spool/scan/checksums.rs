//! The checksum of any range of a file, in time that does not depend on its length.
//!
//! Without it, bytes that look like the heads of long records would each be hashed to their claimed ends: 16 MiB of them, which any
//! client may publish, would take an hour. CRC-32C is linear: the checksum of a range follows from those of two prefixes.

use std::io;

use super::Scan;

/// Between two places whose checksums are kept.
const STEP_BYTES: usize = 4 << 10;
/// The polynomial of CRC-32C, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Checksums of the beginnings of a file, all of which start at the same place.
#[derive(Debug)]
pub(super) struct PrefixChecksums {
    from: u64,
    /// Of the first 0, 1, 2, ... steps.
    prefixes: Vec<u32>,
    powers: [u32; 32],
}

impl PrefixChecksums {
    /// Reads from `from` to the end once.
    pub(super) fn new(scan: &Scan, from: u64) -> io::Result<Self> {
        let (mut prefixes, mut place, mut sum) = (vec![0], from, 0);
        loop {
            let bytes = scan.read(place, super::CHUNK_BYTES)?;
            for step in bytes.chunks(STEP_BYTES) {
                sum = crc32c::crc32c_append(sum, step);
                prefixes.push(sum);
            }
            place += bytes.len() as u64;
            if bytes.len() < super::CHUNK_BYTES {
                return Ok(Self { from, prefixes, powers: powers() });
            }
        }
    }

    /// Of everything from the first place to `to`.
    fn up_to(&self, scan: &Scan, to: u64) -> io::Result<Option<u32>> {
        let steps = (to - self.from) / STEP_BYTES as u64;
        let Some(sum) = self.prefixes.get(usize::try_from(steps).unwrap_or(usize::MAX)) else { return Ok(None) };
        let begin = self.from + steps * STEP_BYTES as u64;
        let rest = scan.read(begin, (to - begin) as usize)?;
        Ok((rest.len() as u64 == to - begin).then(|| crc32c::crc32c_append(*sum, &rest)))
    }

    /// The checksum that starts as `start` and goes on over the bytes from `from` to `to`; `None` where there are none.
    pub(super) fn between(&self, scan: &Scan, start: u32, from: u64, to: u64) -> io::Result<Option<u32>> {
        let prefixes = self.up_to(scan, from)?.zip(self.up_to(scan, to)?);
        Ok(prefixes.map(|(before, behind)| self.shift(start ^ before, to - from) ^ behind))
    }

    /// What so many zero bytes make of a checksum, apart from what they make of none.
    fn shift(&self, sum: u32, bytes: u64) -> u32 {
        let bits = self.powers.iter().enumerate().filter(|(n, _)| bytes >> n & 1 == 1);
        bits.fold(sum, |sum, (_, power)| product(*power, sum))
    }
}

/// x to the 8 * 2^n, for each n.
fn powers() -> [u32; 32] {
    let mut power = 1 << (31 - 8);
    std::array::from_fn(|_| {
        let this = power;
        power = product(power, power);
        this
    })
}

/// Of two polynomials, modulo ours; the highest bit is the coefficient of 1.
fn product(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = (b >> 1) ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}
