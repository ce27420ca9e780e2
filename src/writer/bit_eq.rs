//! When two values of a column are the same.

use crate::event::SharedText;

/// Whether the column takes the value; equal bits are no change.
pub trait BitEq {
    /// Whether they are the same value.
    fn bit_eq(&self, other: &Self) -> bool;
}

impl BitEq for SharedText {
    fn bit_eq(&self, other: &Self) -> bool {
        self == other
    }
}

impl BitEq for String {
    fn bit_eq(&self, other: &Self) -> bool {
        self == other
    }
}

impl BitEq for i32 {
    fn bit_eq(&self, other: &Self) -> bool {
        self == other
    }
}

impl BitEq for f64 {
    fn bit_eq(&self, other: &Self) -> bool {
        // By bits: NaN is a value like any other, and does not change into itself.
        self.to_bits() == other.to_bits()
    }
}
