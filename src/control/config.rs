//! Settings of the control channel.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    section::{self, require},
    units,
};

/// Which commands to obey.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Every command, only those addressed to this daemon, or none. All are recorded.
    pub obey: Obey,
    /// A pause ends by itself after this long.
    #[serde(with = "units::duration")]
    pub pause_max: Duration,
    /// How long `flush` waits for the store unless the command says otherwise.
    #[serde(with = "units::duration")]
    pub flush_timeout: Duration,
}

/// See [`Config::obey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the contract's names")]
pub enum Obey {
    All,
    Targeted,
    None,
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("control")
    }
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        require(problems, !self.pause_max.is_zero(), "`control.pause_max` must be longer than zero");
        require(problems, !self.flush_timeout.is_zero(), "`control.flush_timeout` must be longer than zero");
    }
}
