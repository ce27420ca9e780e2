//! The writer against an in-memory store that fails and dawdles as told, with time paused.

mod deleted;
mod ends;
mod fake;
mod faults;
mod flow;
mod lost;
mod merge;
mod names;
mod outage;
mod refused;
mod replay;
mod support;
