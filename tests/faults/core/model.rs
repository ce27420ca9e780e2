use crate::harness::{Budget, Tried};
pub fn histories(_: &Budget) -> Tried { Tried::default() }
