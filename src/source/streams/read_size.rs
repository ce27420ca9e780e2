//! How many entries are read at once where the server may not measure them: few where those before were large. Pure.
//!
//! Redis answers with all of them in one piece, which is in memory as a whole before the first can be passed on.

/// Most entries of one answer.
pub(super) const ENTRIES_MAX: usize = 512;
/// Of the first answer: the size of the entries is not known.
const ENTRIES_FIRST: usize = 1;
/// Bytes of one answer; without a measurement, as far as the entries are as large as the largest of late.
pub(super) const ANSWER_BYTES: usize = 8 << 20;
/// Answers after which the largest entry counts half.
const MEMORY: u32 = 64;

/// Chooses the number of entries.
#[derive(Debug)]
pub(super) struct ReadSize {
    entries: usize,
    largest: usize,
    since: u32,
}

impl Default for ReadSize {
    fn default() -> Self {
        Self { entries: ENTRIES_FIRST, largest: 1, since: 0 }
    }
}

impl ReadSize {
    /// Entries to ask for, while there is room for so many, and for so many bytes; 0: it has to be waited for room.
    pub(super) fn next(&self, frames: usize, bytes: usize) -> usize {
        let room = bytes.min(ANSWER_BYTES) / self.largest;
        self.entries.min(room.max(usize::from(bytes > 0))).min(frames)
    }

    /// Bytes of the largest entry of late.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Takes in an answer: the size of each entry.
    pub(super) fn answered(&mut self, sizes: impl IntoIterator<Item = usize>) {
        let (mut count, mut largest) = (0, 0);
        for size in sizes {
            (count, largest) = (count + 1, largest.max(size));
        }
        if count == 0 {
            return;
        }
        self.since += 1;
        if self.since >= MEMORY {
            (self.since, self.largest) = (0, (self.largest / 2).max(1));
        }
        if largest >= self.largest {
            (self.since, self.largest) = (0, largest.max(1));
        }
        if count >= self.entries {
            self.entries = (2 * self.entries).min(ENTRIES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 80 << 20;

    #[test]
    fn few_entries_are_read_while_they_are_large() {
        let mut size = ReadSize::default();
        assert_eq!(size.next(1_000, ROOM), ENTRIES_FIRST);
        for _ in 0..10 {
            size.answered(vec![200; size.next(1_000, ROOM)]);
        }
        assert_eq!((size.next(10_000, ROOM), size.next(7, ROOM), size.next(0, ROOM)), (ENTRIES_MAX, 7, 0));
        assert_eq!((size.next(10_000, 2_000), size.next(10_000, 100), size.next(10_000, 0)), (10, 1, 0));
        size.answered([200, 4 << 20]);
        assert_eq!(size.next(10_000, ROOM), 2);
        size.answered([20 << 20]);
        assert_eq!(size.next(10_000, ROOM), 1, "one is always read");
        for _ in 0..20 * MEMORY {
            size.answered([200]);
        }
        assert_eq!(size.next(10_000, ROOM), ENTRIES_MAX, "that was long ago");
    }
}
