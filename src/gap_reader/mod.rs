//! Gaps as the store has them: those that were recorded ([`ledger`]), and those in the stored `seq` of a run ([`missing`]).

pub mod ledger;
pub mod missing;
