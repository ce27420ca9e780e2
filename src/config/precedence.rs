//! The order of the sources of a value.

/// Which source a value comes from; a later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    File,
    Credentials,
    OldEnvironment,
    Environment,
    Flags,
}
