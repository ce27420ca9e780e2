//! Keys that had another name: both work, in every source.

/// The former and the present name of each.
pub const RENAMED: [(&str, &str); 6] = [
    ("http.body", "http.max_body"),
    ("http.header", "http.max_header"),
    ("http.points", "http.max_points"),
    ("http.runs", "http.max_runs"),
    ("spool.linger", "spool.checkpoint_delay"),
    ("spool.orphans_in", "spool.orphan_search_dirs"),
];

/// The present name of a key.
pub fn present_name(key: &str) -> &str {
    RENAMED.iter().find(|(former, _)| *former == key).map_or(key, |(_, present)| present)
}
