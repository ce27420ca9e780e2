//! The names of consistency levels.

use scylla::statement::Consistency;

/// Every consistency that a row can be written or read with.
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

/// The consistency of this name, in whatever case it is written.
pub(super) fn consistency(name: &str) -> Option<Consistency> {
    let found = CONSISTENCIES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, consistency)| *consistency)
}
