//! Keys that had another name: both work, in every source. And keys that are gone: a value is taken and has no effect.

/// The former and the present name of each.
pub const RENAMED: [(&str, &str); 6] = [
    ("http.body", "http.max_body"),
    ("http.header", "http.max_header"),
    ("http.points", "http.max_points"),
    ("http.runs", "http.max_runs"),
    ("spool.linger", "spool.checkpoint_delay"),
    ("spool.orphans_in", "spool.orphan_search_dirs"),
];

/// Keys of former releases without an effect, each with the reason.
pub const REMOVED: [(&str, &str); 1] =
    [("redis.receive_buffer", "messages wait in the connection to Redis and in the queue to intake")];

/// Why a key has no effect any more.
pub fn removed(key: &str) -> Option<&'static str> {
    REMOVED.iter().find(|(name, _)| *name == key).map(|(_, reason)| *reason)
}

/// The present name of a key.
pub fn present_name(key: &str) -> &str {
    RENAMED.iter().find(|(former, _)| *former == key).map_or(key, |(_, present)| present)
}
