//! Which server a request names, and which page it comes from.

pub mod cors;
pub mod fetch_site;
pub mod target;
