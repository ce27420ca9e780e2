//! The steps of a history, and how often each is taken.

use crate::{random::Random, sim::End};

/// Steps of a spool and its disk.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Append {
        count: usize,
        large: bool,
    },
    Write,
    Sync,
    Read,
    Rewind,
    Commit {
        part: usize,
    },
    Keep,
    Linger {
        ms: u64,
    },
    Wait {
        ms: u64,
    },
    FailSyncs(u32),
    FailWrites(u32),
    /// The disk has no more than this free.
    Full {
        left: u64,
    },
    ReadOnly,
    Mend,
    /// The machine stops after so many operations.
    StopIn(u32),
    Crash(End),
    Close,
}

/// A random step, by the frequency of its kind.
pub fn step(random: &mut Random) -> Step {
    let end = |random: &mut Random| if random.coin() { End::Killed } else { End::PowerCut };
    match random.below(100) {
        0..24 => Step::Append { count: 1 + random.below(8), large: random.one_in(12) },
        24..34 => Step::Write,
        34..46 => Step::Sync,
        46..56 => Step::Read,
        56..58 => Step::Rewind,
        58..64 => Step::Commit { part: random.below(256) },
        64..72 => Step::Keep,
        72..73 => Step::Linger { ms: *random.pick(&[0, 0, 300]) },
        73..78 => Step::Wait { ms: *random.pick(&[1, 60, 150, 1_500]) },
        78..80 => Step::FailSyncs(*random.pick(&[1, 1, 2, 3, 1_000])),
        80..82 => Step::FailWrites(*random.pick(&[1, 2, 3, 1_000])),
        82..85 => Step::Full { left: *random.pick(&[0, 20, 100, 700, 3_000]) },
        85..86 => Step::ReadOnly,
        86..91 => Step::Mend,
        91..95 => Step::StopIn(random.below(14) as u32),
        95..97 => Step::Crash(end(random)),
        97 => Step::Close,
        _ => Step::Sync,
    }
}
