//! Settings of intake.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::{
    runs::Timeouts,
    section::{self, require},
    units,
};

/// Evicting a channel scans all of them, and all are saved once a second.
const CHANNELS_LIMIT: usize = 65_536;

/// How messages get their time and their run.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Zone of times that carry none.
    pub time_zone: String,
    /// A channel's open run ends after this long without an event, counting only time subscribed.
    #[serde(with = "units::duration")]
    pub run_idle_timeout: Duration,
    /// For how long after the end of a channel's run metrics without a run id still belong to it.
    #[serde(with = "units::duration")]
    pub run_end_grace: Duration,
    /// Channels whose open runs are kept and shared in Redis; beyond that the least recently used is evicted.
    pub channels_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("intake")
    }
}

impl Config {
    /// When runs are left.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts { idle: self.run_idle_timeout, end_grace: self.run_end_grace }
    }

    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        // UTC needs no database, which an image of the program alone may lack.
        if self.time_zone != "UTC"
            && let Err(error) = TimeZone::get(&self.time_zone)
        {
            problems.push(format!(
                "`intake.time_zone` must be a name of the time zone database, such as \"UTC\" or \"Europe/Berlin\": {error}"
            ));
        }
        require(problems, !self.run_idle_timeout.is_zero(), "`intake.run_idle_timeout` must be longer than zero");
        require(
            problems,
            (1..=CHANNELS_LIMIT).contains(&self.channels_max),
            format!("`intake.channels_max` must be between 1 and {CHANNELS_LIMIT}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_channels_has_bounds() {
        for (channels_max, expected) in [(0, 1), (1, 0), (CHANNELS_LIMIT, 0), (CHANNELS_LIMIT + 1, 1)] {
            let mut problems = Vec::new();
            Config { channels_max, ..Config::default() }.problems(&mut problems);
            assert_eq!(problems.len(), expected, "{channels_max}: {problems:?}");
        }
    }
}
