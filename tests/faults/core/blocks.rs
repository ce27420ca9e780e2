//! Block faults of disks.

use crate::{
    harness::{Budget, Tried, each},
    image::{Original, goes_on},
    random::Random,
};

const BYTES: usize = 64 << 10;

/// One to four faults in one image: zeroed, doubled, swapped, random, from another spool, or from the segment before.
pub fn random_blocks(budget: &Budget) -> Tried {
    let original = Original::new(budget.seed, 3, BYTES);
    let foreign = Original::new(budget.seed + 1, 1, BYTES);
    let count = each(budget, 10_000 * budget.times, |number| {
        let mut random = Random::new(budget.seed ^ (number << 8));
        let target = random.below(3);
        let mut content = original.segments[target].1.clone();
        for _ in 0..=random.below(4) {
            let size = *random.pick(&[512, 4096]);
            let mut place = || random.below(BYTES / size) * size;
            let (here, there) = (place(), place());
            let whole = here..here + size;
            let kind = random.below(6);
            if budget.only.is_some() {
                println!("{kind}: {size} bytes of segment {target}, here {here}, there {there}");
            }
            match kind {
                0 => content[whole].fill(0),
                1 => content.copy_within(there..there + size, here),
                2 => {
                    let kept = content[whole.clone()].to_vec();
                    content.copy_within(there..there + size, here);
                    content[there..there + size].copy_from_slice(&kept);
                }
                3 => random.fill(&mut content[whole]),
                4 => content[whole.clone()].copy_from_slice(&foreign.segments[0].1[whole]),
                _ => content[whole.clone()].copy_from_slice(&original.segments[(target + 1) % 3].1[whole]),
            }
        }
        let sim = original.with(target, content.clone());
        let intact = original.intact(target, &content);
        let outcome = original.check(&sim, &intact);
        let touched = intact.iter().filter(|intact| !**intact).count() as u64;
        // A doubled or moved record is read at its new place; only touched records may be lost.
        assert!(outcome.missing + outcome.at_end <= touched);
        assert!(outcome.missing + outcome.at_end == 0 || !outcome.quarantine.is_empty(), "keeps the bytes");
        goes_on(&sim, &original.config);
    });
    Tried { count, notes: String::new() }
}
