//! Gathers every component's settings: defaults, then the file, then the environment, then flags.
//!
//! Each value is set alone, so that one bad value hides no other: [`load`] reports every problem at once, by key. The key decides
//! the type of a value, not its looks: `0123` stays a text where a text is expected. Secrets ([`secrets`]) never enter the merged
//! layers or an error.

mod client;
mod credentials;
mod environment;
mod layers;
mod legacy;
mod lists;
mod precedence;
mod renamed;
mod secrets;
#[cfg(test)]
mod tests;
mod url;
mod variables;
mod yaml;

use std::{
    collections::BTreeMap,
    env, fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::{client::ClientConfig, environment::ENV_PREFIX, url::Url};
use crate::{
    access, api, control, dead_letter, files, intake, latest, logging, redis,
    section::{self, require},
    spool, store, units,
    wire::Limits,
    writer,
};
use layers::Layers;
use precedence::Precedence;

/// The file that is read where none is named, if it exists: the settings of the service of this machine.
pub const SYSTEM_FILE: &str = "/etc/cascor-ingest/config.toml";

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of this daemon among others; empty: the host name.
    pub instance: String,
    /// Holds `spool/`, `deadletter/`, `cascor.db`; empty: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/cascor-ingest`, else
    /// `~/.local/state/cascor-ingest`.
    pub state_dir: PathBuf,
    /// Longest time for a clean shutdown; what is not stored by then stays in the spool.
    #[serde(with = "units::duration")]
    pub shutdown_grace: Duration,
    /// Where messages come from.
    pub redis: redis::Config,
    /// Limits of a message.
    pub limits: Limits,
    /// Run and time of a message.
    pub intake: intake::Config,
    /// The durable log.
    pub spool: spool::Config,
    /// Rejected messages and rows.
    #[serde(rename = "deadletter")]
    pub dead_letter: dead_letter::Config,
    /// Batches of rows.
    pub writer: writer::Config,
    /// Where rows are kept.
    pub store: store::Config,
    /// The latest-state keys.
    pub latest: latest::Config,
    /// Control commands.
    pub control: control::Config,
    /// The HTTP API.
    pub http: api::Config,
    /// The daemon that commands ask.
    pub client: ClientConfig,
    /// The log.
    pub log: logging::Config,
}

impl Default for Settings {
    fn default() -> Self {
        section::defaults("")
    }
}

/// The sources of settings. Tests bring their own environment.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// The file of `--config`, else [`SYSTEM_FILE`] where it exists.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Flags, as pairs of key and text.
    pub flags: Vec<(String, String)>,
}

impl ConfigSources {
    /// The file and flags of the command line, with the environment of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        // A value that is no UTF-8 is kept, so that it is reported instead of ignored.
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        let env = env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        let is_absent = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        let system = || Some(PathBuf::from(SYSTEM_FILE)).filter(|path| !path.metadata().is_err_and(is_absent));
        Self { file: file.or_else(system), env, flags }
    }
}

/// Valid settings, with warnings.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The result, with every directory filled in.
    pub settings: Settings,
    /// What is unusual, but works.
    pub warnings: Vec<String>,
}

/// Every problem, by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [one] => write!(f, "configuration: {one}"),
            many => {
                write!(f, "configuration has {} problems:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for Problems {}

/// Gathers, completes and checks the settings for a one-shot command. The files that they name (passwords, certificates, HTTP) are
/// not read: a command reads those that it uses.
///
/// # Errors
/// Every problem, at once.
pub fn load(sources: &ConfigSources) -> Result<Loaded, Problems> {
    load_for(sources, false)
}

/// The same for a daemon, or to check whether one could start: the files that the settings name must be valid.
///
/// # Errors
/// Every problem, at once.
pub fn load_to_listen(sources: &ConfigSources) -> Result<Loaded, Problems> {
    load_for(sources, true)
}

fn load_for(sources: &ConfigSources, listens: bool) -> Result<Loaded, Problems> {
    let mut layers = Layers::new();
    if let Some(path) = &sources.file {
        read_file(path, sources, &mut layers);
    }
    credentials::apply(&sources.env, &mut layers);
    legacy::apply(&sources.env, &mut layers);
    environment::apply(&sources.env, &mut layers);
    for (key, text) in &sources.flags {
        layers.set_text(key, text, Precedence::Flags, "command line");
    }
    let (mut settings, mut problems, mut warnings) = layers.finish();
    settings.fill_in(&sources.env, &mut problems);
    settings.problems(&mut problems);
    if listens {
        settings.file_problems(&mut problems);
    }
    settings.warnings(&mut warnings);
    settings.http.warnings(&mut warnings);
    warnings.extend(settings.http.network_warning().filter(|_| listens));
    if problems.is_empty() { Ok(Loaded { settings, warnings }) } else { Err(Problems(problems)) }
}

fn read_file(path: &Path, sources: &ConfigSources, layers: &mut Layers) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let denied = access::problem(path);
            return layers.problem(denied.unwrap_or_else(|| format!("`{}` cannot be read: {error}", path.display())));
        }
    };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => yaml::apply(&text, path, &sources.env, layers),
        _ => layers.set_toml(&text, path),
    }
}

impl Settings {
    /// Completes what depends on the machine: the name of the instance and the directories.
    fn fill_in(&mut self, env: &BTreeMap<String, String>, problems: &mut Vec<String>) {
        if self.instance.is_empty() {
            self.instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        if self.state_dir.as_os_str().is_empty() {
            match default_state_dir(env) {
                Some(path) => self.state_dir = path,
                None => problems.push("`state_dir` must be set: neither $STATE_DIRECTORY nor $HOME is".into()),
            }
        }
        let state_dir = self.state_dir.clone();
        for (path, name) in [
            (&mut self.spool.dir, "spool"),
            (&mut self.dead_letter.dir, "deadletter"),
            (&mut self.store.sqlite.path, "cascor.db"),
        ] {
            if path.as_os_str().is_empty() {
                *path = state_dir.join(name);
            }
        }
    }

    /// Adds the problems that types cannot exclude, by key; each section checks its own.
    fn problems(&self, problems: &mut Vec<String>) {
        require(
            problems,
            !self.instance.is_empty() && !self.instance.contains(char::is_control),
            "`instance` must be a name without control characters",
        );
        require(problems, !self.shutdown_grace.is_zero(), "`shutdown_grace` must be above zero");
        self.redis.problems(problems);
        self.limits.problems(problems);
        self.intake.problems(problems);
        self.spool.problems(problems);
        self.writer.problems(problems);
        self.store.problems(problems);
        self.latest.problems(problems);
        self.control.problems(problems);
        self.http.problems(problems);
        self.client.problems(problems);
        self.log.problems(problems);
    }

    /// Adds the problems of the files and directories that the settings of a daemon name.
    fn file_problems(&self, problems: &mut Vec<String>) {
        for (key, dir) in
            [("state_dir", &self.state_dir), ("spool.dir", &self.spool.dir), ("deadletter.dir", &self.dead_letter.dir)]
        {
            let problem = format!("`{key}`: `{}` is a file, not a directory", dir.display());
            require(problems, !dir.is_file(), problem);
        }
        self.redis.file_problems(problems);
        self.store.file_problems(problems);
        self.http.file_problems(problems);
    }

    /// Adds what is dangerous but works: directories and files that other users may read or write, passwords in clear text on a
    /// network.
    fn warnings(&self, warnings: &mut Vec<String>) {
        let dirs = [&self.state_dir, &self.spool.dir, &self.dead_letter.dir];
        let (redis, cluster) = (&self.redis, &self.store.cassandra);
        let secrets = [
            &redis.password_file,
            &redis.tls.key,
            &cluster.password_file,
            &cluster.tls.key,
            &self.client.token_file,
            &self.http.tls.key,
        ];
        let paths = dirs.into_iter().chain(secrets.into_iter().flatten());
        warnings.extend(paths.filter_map(|path| files::exposure(path)));
        self.redis.warnings(warnings);
        self.spool.warnings(warnings);
        self.store.warnings(warnings);
    }

    /// The settings as TOML, with secrets hidden.
    ///
    /// # Errors
    /// When a path is no UTF-8, which TOML cannot say.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

fn default_state_dir(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
    // systemd separates several state directories by colons; the first is used.
    if let Some(first) = set("STATE_DIRECTORY").and_then(|dirs| dirs.split(':').next()) {
        return Some(PathBuf::from(first));
    }
    if let Some(home) = set("XDG_STATE_HOME") {
        return Some(Path::new(home).join("cascor-ingest"));
    }
    set("HOME").map(|home| Path::new(home).join(".local/state/cascor-ingest"))
}
