//! Which values still count after a run was resumed from a checkpoint.

/// The curve of one field, walked from the newest value to the oldest.
///
/// A resumed run goes back: later values have a smaller epoch than earlier ones of the same phase and number of hidden units, or
/// fewer hidden units. The earlier values from that epoch on (or with more units) are replaced. Epochs that begin again with a
/// phase or with a unit, as cascade-correlation's do, replace nothing. Where a value says too little (no epoch; several phases,
/// but never a number of units) nothing is taken as replaced: shown twice is better than hidden.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    /// Hidden units of the oldest value that counts so far.
    units: Option<i32>,
    /// What was seen of each phase at that number of units.
    seen: Vec<Supersession>,
    /// The phase of the last value.
    current: usize,
}

#[derive(Clone, Copy, Debug)]
struct Supersession {
    phase: Option<u16>,
    /// The smallest epoch so far.
    least: i32,
    /// Where the run was resumed: from this epoch on, what is older is replaced.
    cut: Option<i32>,
}

impl Effective {
    /// Whether the next older value counts.
    pub fn counts(&mut self, units: Option<i32>, phase: Option<u16>, epoch: Option<i32>) -> bool {
        match (units, self.units) {
            (Some(units), Some(later)) if units > later => return false,
            (Some(units), later) if later != Some(units) => {
                self.units = Some(units);
                self.seen.clear();
            }
            _ => {}
        }
        let Some(epoch) = epoch else { return true };
        if self.seen.get(self.current).is_none_or(|seen| seen.phase != phase) {
            if self.units.is_none() {
                self.seen.clear();
            }
            let known = self.seen.iter().position(|seen| seen.phase == phase);
            self.current = known.unwrap_or_else(|| {
                self.seen.push(Supersession { phase, least: i32::MAX, cut: None });
                self.seen.len() - 1
            });
        }
        let seen = &mut self.seen[self.current];
        if epoch > seen.least {
            seen.cut = Some(seen.least);
            return false;
        }
        if seen.cut.is_some_and(|cut| epoch >= cut) {
            return false;
        }
        seen.least = epoch;
        true
    }
}
