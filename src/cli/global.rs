//! The flags of every subcommand, and the settings that they make.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, SETTINGS, args};
use crate::{
    app::Reload,
    config::{self, ConfigSources, Settings},
    logging::{self, LevelHandle},
};

/// Flags of every subcommand.
#[derive(Debug, Args)]
pub struct Global {
    /// Settings: TOML, or the YAML of an existing deployment (.yaml, .yml); absent: /etc/cascor-ingest/config.toml where it exists
    /// (--config /dev/null reads none).
    #[arg(long, short, global = true, hide = true, help_heading = SETTINGS, value_name = "FILE", env = "CASCOR_INGEST_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long, global = true, display_order = 900)]
    pub(super) json: bool,
    /// When to colour: auto is on a terminal, unless `NO_COLOR` is set.
    #[arg(long, global = true, display_order = 901, value_name = "WHEN", default_value = "auto")]
    pub(super) color: clap::ColorChoice,
    /// Set a key: `--set spool.capacity=1GiB`.
    #[arg(long, global = true, hide = true, help_heading = SETTINGS, value_name = "KEY=VALUE", value_parser = args::pair)]
    pub(super) set: Vec<(String, String)>,
    /// Name of this daemon among others (`instance`).
    #[arg(long, global = true, hide = true, help_heading = SETTINGS, value_name = "NAME")]
    pub(super) instance: Option<String>,
    /// Where the spool and the database are (`state_dir`).
    #[arg(long, global = true, hide = true, help_heading = SETTINGS, value_name = "DIR")]
    pub(super) state_dir: Option<String>,
    /// Where Redis is (`redis.url`).
    #[arg(long, global = true, hide = true, help_heading = SETTINGS, value_name = "URL")]
    pub(super) redis_url: Option<String>,
    /// Where rows are kept (`store.kind`): sqlite or cassandra.
    #[arg(long, global = true, hide = true, help_heading = SETTINGS, value_name = "KIND")]
    pub(super) store: Option<String>,
    /// How much to log (`log.level`): `info`, or `info,cascor_ingest::writer=debug`.
    #[arg(long, global = true, hide = true, help_heading = SETTINGS, value_name = "LEVELS")]
    pub(super) log_level: Option<String>,
    /// Shape of a log line (`log.format`): text or json.
    #[arg(long, global = true, hide = true, help_heading = SETTINGS, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
}

impl Global {
    /// Refuses flags that name a store, a directory or a Redis of this machine, where a daemon is asked.
    pub(super) fn refuse_settings_of_this_machine(&self, filters_by_instance: bool) -> Result<(), CliError> {
        let given = [
            ("--store", self.store.is_some()),
            ("--state-dir", self.state_dir.is_some()),
            ("--redis-url", self.redis_url.is_some()),
            ("--instance", self.instance.is_some() && !filters_by_instance),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(CliError::Usage(format!(
                "{flag} has no effect: a daemon is asked (--url, CASCOR_INGEST_URL or `client.url`), which has its own settings; \
                 --url \"\" asks none"
            ))),
        }
    }

    /// Whether flags name what is to be used, instead of the service of this machine.
    pub(super) fn names_settings(&self) -> bool {
        let named = [&self.store, &self.state_dir, &self.redis_url, &self.instance];
        !self.set.is_empty() || named.into_iter().any(Option::is_some)
    }

    /// The sources that these flags name.
    pub(super) fn sources(&self) -> ConfigSources {
        let named = [
            ("instance", &self.instance),
            ("state_dir", &self.state_dir),
            ("redis.url", &self.redis_url),
            ("store.kind", &self.store),
            ("log.level", &self.log_level),
            ("log.format", &self.log_format),
        ];
        let named = named.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text.clone()?)));
        ConfigSources::of_process(self.config.clone(), self.set.iter().cloned().chain(named).collect())
    }

    /// The settings; installs the log and writes the warnings.
    pub(super) fn settings(&self, listens: bool) -> Result<(Settings, Option<LevelHandle>), CliError> {
        let load = if listens { config::load_to_listen } else { config::load };
        let loaded = load(&self.sources()).map_err(CliError::Config)?;
        // Fails only when a log is installed already.
        let levels = logging::install(&loaded.settings.log).ok();
        for warning in loaded.warnings {
            tracing::warn!(warning, "configuration");
        }
        Ok((loaded.settings, levels))
    }

    /// Reads the same sources again.
    pub(super) fn reload(&self) -> Reload {
        let sources = self.sources();
        Box::new(move || {
            config::load_to_listen(&sources).map(|loaded| loaded.settings).map_err(|problems| problems.to_string())
        })
    }
}
