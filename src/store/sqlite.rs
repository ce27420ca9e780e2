//! One SQLite file: the store where one machine is enough.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the file is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Empty: `<state_dir>/cascor.db`.
    pub path: PathBuf,
}
