//! The log: one subscriber, set once, with levels that SIGHUP can change; and what makes untrusted text fit for it.
//!
//! Each line names the task that wrote it, by a span that the task or thread runs in ([`stage`]): `stage{task="writer"}: ` before the
//! target in text, `"span":{"task":"writer","name":"stage"}` in JSON. The names are `receive training`, `receive control`, `intake`,
//! `checkpoint`, `writer`, `control`, `latest keys`, `http`, `store`, `sqlite`, `redis commands`, and those of the smaller tasks. A span
//! is entered when a task is polled, never for an event.

use std::{error::Error, fmt, io, str::FromStr};

use serde::{Deserialize, Serialize};
use tracing::{Span, Subscriber, error_span};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::{self as tracing_fmt, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::{section, terminal};

/// How and how much to log.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `text` or `json`.
    pub format: Format,
    /// `info`, or levels by module: `info,cascor_ingest::writer=debug`.
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("log")
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "self-explanatory")]
pub enum Format {
    Text,
    Json,
}

impl Config {
    /// Adds what is wrong with these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if let Err(error) = targets(&self.level) {
            problems.push(error);
        }
    }
}

/// Changes the levels of the running log.
#[derive(Clone, Debug)]
pub struct LevelHandle(reload::Handle<Targets, Registry>);

impl LevelHandle {
    /// Sets new levels.
    ///
    /// # Errors
    /// When `level` cannot be read; the old levels stay.
    pub fn set(&self, level: &str) -> Result<(), String> {
        self.0.reload(targets(level)?).map_err(|error| error.to_string())
    }
}

/// Installs the subscriber; log lines go to standard error.
///
/// # Errors
/// When `level` cannot be read, or a subscriber is already there.
pub fn install(config: &Config) -> Result<LevelHandle, String> {
    let (filter, handle) = reload::Layer::new(targets(&config.level)?);
    let lines = lines(config.format, terminal::log());
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())?;
    Ok(LevelHandle(handle))
}

fn lines<S, W>(format: Format, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        Format::Text => {
            let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colours = io::IsTerminal::is_terminal(&io::stderr()) && !unwanted;
            tracing_fmt::layer().with_writer(writer).with_ansi(colours).boxed()
        }
        Format::Json => {
            tracing_fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer).boxed()
        }
    }
}

/// The drivers are quiet unless asked: our own lines say what their troubles mean.
fn targets(level: &str) -> Result<Targets, String> {
    // A space would make a part of the program of a level, as would a word that is none, and silence the rest.
    let parts: Vec<&str> = level.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if let Some(word) = parts.iter().find(|part| !part.contains('=') && LevelFilter::from_str(part).is_err()) {
        return Err(format!(
            "`log.level` = \"{level}\" cannot be read: `{word}` is none of off, error, warn, info, debug and trace; for a part of \
             the program write it like `cascor_ingest=debug`"
        ));
    }
    let targets = Targets::from_str(&parts.join(","))
        .map_err(|error| format!("`log.level` = \"{level}\" cannot be read: {error}"))?;
    // The driver logs each failed connection attempt as an error; the store logs the change of state once, with its cause.
    let quiet = [
        ("fred", LevelFilter::ERROR),
        ("scylla", LevelFilter::OFF),
        ("hyper", LevelFilter::ERROR),
        ("rustls", LevelFilter::ERROR),
    ];
    Ok(quiet
        .into_iter()
        .filter(|(name, _)| !level.contains(name))
        .fold(targets, |targets, (name, limit)| targets.with_target(name, limit)))
}

/// The span of a task or a thread. At level ERROR, so that it is there whatever `log.level` says.
pub fn stage(task: &str) -> Span {
    error_span!(target: "cascor_ingest", "stage", task)
}

/// An error with all its causes on one line.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Untrusted bytes, fit for a log line: what a terminal would obey escaped, cut to 200 bytes.
pub struct Untrusted<'a>(pub &'a [u8]);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.len().min(200)];
        for character in String::from_utf8_lossy(cut).chars() {
            terminal::write_escaped(f, character)?;
        }
        if cut.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_names_the_task_that_wrote_it() {
        for (format, level, expected) in [
            (Format::Text, "warn", "stage{task=\"writer\"}: cascor_ingest::logging::tests: held rows=3"),
            (Format::Json, "cascor_ingest=warn", "\"span\":{\"task\":\"writer\",\"name\":\"stage\"}"),
        ] {
            let written = Written::default();
            let writer = written.clone();
            let lines = lines(format, move || writer.clone());
            let subscriber = tracing_subscriber::registry().with(targets(level).unwrap()).with(lines);
            tracing::subscriber::with_default(subscriber, || {
                stage("writer").in_scope(|| tracing::warn!(rows = 3, "held"));
            });
            let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert!(line.contains(expected), "{line}");
        }
    }

    #[test]
    fn untrusted_text_cannot_forge_a_line() {
        assert_eq!(Untrusted(b"a\nERROR \x1b[31m").to_string(), "a\\u000aERROR \\u001b[31m");
        assert!(Untrusted(&[b'x'; 500]).to_string().ends_with("… (500 bytes)"));
    }

    #[test]
    fn levels_are_checked() {
        let mut problems = Vec::new();
        Config { level: "info,cascor_ingest::writer=debug".into(), ..Config::default() }.problems(&mut problems);
        assert!(problems.is_empty());
        assert_eq!(targets(" info , fred=warn,").unwrap().to_string(), targets("info,fred=warn").unwrap().to_string());
        for wrong in ["info,x=loud", "bogus", "info,cascor_ingest"] {
            problems.clear();
            Config { level: wrong.into(), ..Config::default() }.problems(&mut problems);
            assert!(problems[0].contains("log.level"), "{wrong}");
        }
    }
}
