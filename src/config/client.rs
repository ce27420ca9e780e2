//! The daemon that commands ask by HTTP.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::url::Url;

/// Settings of the commands that ask a daemon.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientConfig {
    /// The daemon to ask; empty: none, commands open the store and Redis themselves.
    pub url: String,
    /// A file with the token for this daemon, and for no other.
    pub token_file: Option<PathBuf>,
    /// A PEM file of the authorities to trust for this daemon.
    pub ca: Option<PathBuf>,
}

impl ClientConfig {
    /// Adds the problems that types cannot exclude, by key.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if self.url.is_empty() {
            let without_url = [("client.token_file", self.token_file.is_some()), ("client.ca", self.ca.is_some())];
            let set = without_url.into_iter().filter(|(_, is_set)| *is_set);
            problems.extend(set.map(|(key, _)| format!("`{key}` is for the daemon at `client.url`, which is not set")));
        } else if let Err(problem) = Url::parse(&self.url) {
            problems.push(format!("`client.url`: {problem}"));
        }
    }

    /// Whether `url` is the daemon of these settings.
    pub fn names(&self, url: &Url) -> bool {
        Url::parse(&self.url).is_ok_and(|own| own.is_same_server(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_its_daemon_and_a_wrong_address_are_problems() {
        for (url, token_file, expected) in [
            ("", None, None),
            ("http://lab:8050", Some("t"), None),
            ("", Some("t"), Some("`client.token_file` is for the daemon at `client.url`")),
            ("ftp://lab", None, Some("`client.url`: `ftp://lab` is no address")),
        ] {
            let mut problems = Vec::new();
            ClientConfig { url: url.into(), token_file: token_file.map(Into::into), ca: None }.problems(&mut problems);
            assert_eq!(problems.len(), usize::from(expected.is_some()), "{problems:?}");
            assert!(problems.iter().all(|problem| problem.contains(expected.unwrap_or_default())), "{problems:?}");
        }
    }

    #[test]
    fn the_daemon_of_the_settings_is_recognised_in_any_spelling() {
        let config = ClientConfig { url: "https://Lab.example".into(), ..ClientConfig::default() };
        for (url, same) in [
            ("https://lab.example:443/", true),
            ("http://lab.example:443", false),
            ("https://lab.example:8443", false),
            ("https://lab.example.evil", false),
        ] {
            assert_eq!(config.names(&Url::parse(url).unwrap()), same, "{url}");
        }
    }
}
