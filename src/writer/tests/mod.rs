//! The writer against an in-memory store that fails and dawdles as told, with time paused.

mod faults;
mod flow;
mod lost;
mod merge;
mod refused;
mod replay;
mod support;
