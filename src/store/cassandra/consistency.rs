//! Names of consistency levels.

use scylla::statement::Consistency;

/// Consistency levels for reads and writes.
pub(super) const CONSISTENCIES: [(&str, Consistency); 9] = [
    ("ANY", Consistency::Any),
    ("ONE", Consistency::One),
    ("TWO", Consistency::Two),
    ("THREE", Consistency::Three),
    ("QUORUM", Consistency::Quorum),
    ("ALL", Consistency::All),
    ("LOCAL_ONE", Consistency::LocalOne),
    ("LOCAL_QUORUM", Consistency::LocalQuorum),
    ("EACH_QUORUM", Consistency::EachQuorum),
];

/// Parses a consistency level, ignoring case.
pub(super) fn consistency(name: &str) -> Option<Consistency> {
    let found = CONSISTENCIES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, consistency)| *consistency)
}
