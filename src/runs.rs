//! Which run an event belongs to.
