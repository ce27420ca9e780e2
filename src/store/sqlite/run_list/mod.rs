//! Lists of runs.
//!
//! Which runs match is decided outside SQL, so that a list can stop at any run. Newest first, the index `runs_by_month` gives the
//! order. Any other order is computed once from all runs and remembered ([`orders`]); no index is kept for it, which each write of
//! a run would have to keep.

mod changes;
mod newest;
mod order;
mod orders;
mod request;
mod rows;
mod sorted;

pub(super) use self::{changes::ChangesTrim, orders::RunOrders};
use self::{
    newest::newest_first,
    order::RunOrder,
    orders::OrderState,
    sorted::{by_order, by_reading_all},
};

/// Runs between two looks at the clock.
const CLOCK_ROWS: usize = 64;
