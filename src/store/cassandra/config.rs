//! Connection settings of the Cassandra cluster.

use std::{path::PathBuf, sync::Arc, time::Duration};

use scylla::statement::Consistency;
use serde::{Deserialize, Serialize};

use super::{
    Replication,
    consistency::{CONSISTENCIES, consistency},
    contact_points,
};
use crate::{
    host,
    logging::Chain,
    reach::{Protocol, Server},
    secret::{Secret, SecretFileError},
    section::{self, require},
    tls::{self, Tls},
    units,
};

/// Maximum rows of one page: all of them are in memory at once.
const PAGE_ROWS_MAX: usize = 5_000;

/// Connection settings of the Cassandra cluster.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Hosts, each `host` or `host:port`.
    pub contact_points: Vec<String>,
    /// Port of every node.
    pub port: u16,
    /// Keyspace.
    pub keyspace: String,
    /// User name.
    pub username: Option<String>,
    /// Password; prefer `password_file` or `CASSANDRA_PASSWORD`.
    pub password: Option<Secret>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Preferred datacenter; absent: no preference.
    pub local_datacenter: Option<String>,
    /// Replication of a keyspace that the schema tool creates, such as `NetworkTopologyStrategy:dc1=3`; absent: one copy on a
    /// cluster of one node.
    pub replication: Option<Replication>,
    /// Read consistency; absent: LOCAL_ONE with one replica, else LOCAL_QUORUM.
    pub consistency_write: Option<String>,
    /// Write consistency; absent: LOCAL_ONE with one replica, else LOCAL_QUORUM.
    pub consistency_read: Option<String>,
    /// Request timeout; must exceed the server's own timeouts.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// Connect timeout.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// Connections per node.
    pub pool_size: usize,
    /// Maximum rows per page in bulk reads. Fewer rows make reads slower; more rows take more memory when row sizes jump.
    /// One-shot commands use larger pages.
    pub page_rows: usize,
    /// TLS settings.
    pub tls: Tls,
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("store.cassandra")
    }
}

impl Config {
    /// Appends the problems of these settings.
    pub fn problems(&self, problems: &mut Vec<String>) {
        self.contact_point_problems(problems);
        for (key, count) in [("port", usize::from(self.port)), ("pool_size", self.pool_size)] {
            require(problems, count > 0, format!("`store.cassandra.{key}` must be at least 1"));
        }
        require(
            problems,
            (1..=PAGE_ROWS_MAX).contains(&self.page_rows),
            format!("`store.cassandra.page_rows` must be between 1 and {PAGE_ROWS_MAX}"),
        );
        for (key, time) in [("request_timeout", self.request_timeout), ("connect_timeout", self.connect_timeout)] {
            require(problems, !time.is_zero(), format!("`store.cassandra.{key}` must be longer than zero"));
        }
        // Cassandra's own rule for the name of a keyspace.
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.keyspace.is_empty() || self.keyspace.len() > 48 || !self.keyspace.chars().all(named) {
            problems.push(format!(
                "`store.cassandra.keyspace` must be 1 to 48 letters, digits and underscores, not `{}`",
                self.keyspace.escape_debug()
            ));
        }
        self.consistency_problems(problems);
        self.login_problems(problems);
        self.tls.problems("store.cassandra", problems);
    }

    fn consistency_problems(&self, problems: &mut Vec<String>) {
        for (key, name) in [("write", &self.consistency_write), ("read", &self.consistency_read)] {
            let Some(name) = name else { continue };
            // The server accepts ANY for writes only.
            let usable = |level: &Consistency| key == "write" || *level != Consistency::Any;
            if consistency(name).is_none_or(|level| !usable(&level)) {
                let levels = CONSISTENCIES.iter().filter(|(_, level)| usable(level));
                problems.push(format!(
                    "`store.cassandra.consistency_{key}` is `{}`; it must be one of {}",
                    name.escape_debug(),
                    levels.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                ));
            }
        }
    }

    fn login_problems(&self, problems: &mut Vec<String>) {
        let username = self.username.as_ref().is_some_and(|name| !name.is_empty());
        // With a password but no user name the driver sends no login at all. A user name without a password stays valid: existing
        // files may have one for servers without authentication.
        require(
            problems,
            username || (self.password.is_none() && self.password_file.is_none()),
            "`store.cassandra.username` must be set when there is a password",
        );
    }

    /// Appends the problems of the files that these settings name.
    pub fn file_problems(&self, problems: &mut Vec<String>) {
        problems.extend(self.password().err().map(|error| Chain(&error).to_string()));
        self.tls.file_problems("store.cassandra", problems);
    }

    /// The password to log in with.
    pub(super) fn password(&self) -> Result<Option<Secret>, SecretFileError> {
        Secret::of("store.cassandra.password_file", self.password_file.as_deref(), self.password.as_ref())
    }

    fn contact_point_problems(&self, problems: &mut Vec<String>) {
        require(
            problems,
            !self.contact_points.is_empty(),
            "`store.cassandra.contact_points` must name at least one host",
        );
        for entry in &self.contact_points {
            if let Err(problem) = contact_points::address(entry, self.port) {
                problems.push(format!("`store.cassandra.contact_points`: `{}` {problem}", entry.escape_debug()));
            }
        }
    }

    /// Appends the warnings about these settings.
    pub fn warnings(&self, warnings: &mut Vec<String>) {
        let password = self.password.is_some() || self.password_file.is_some();
        let hosts = self.contact_points.iter().filter_map(|entry| contact_points::host(entry).ok());
        if let Some(host) = hosts.into_iter().find(|host| !host::is_loopback(host))
            && password
            && !self.tls.is_enabled()
        {
            warnings.push(tls::plain_password("Cassandra", host, "set `store.cassandra.tls.enabled = true`"));
        }
    }

    /// The contact points, as servers to reach.
    pub(super) fn servers(&self, tls: Option<Arc<rustls::ClientConfig>>) -> Vec<Server> {
        let parts = |address: String| {
            let (host, port) = address.rsplit_once(':')?;
            Some((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.parse().ok()?))
        };
        let server = |(host, port)| Server {
            protocol: Protocol::Cassandra,
            host,
            port,
            tls: tls.clone(),
            limit: self.connect_timeout,
        };
        self.addresses().into_iter().filter_map(parts).map(server).collect()
    }

    /// The contact points as `host:port`.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.contact_points.iter().filter_map(|entry| contact_points::address(entry, self.port).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_by_its_key() {
        let config = Config {
            contact_points: vec![],
            keyspace: "a\"b".into(),
            consistency_write: Some("MOST".into()),
            pool_size: 0,
            password: Some(Secret::new("x")),
            ..Config::default()
        };
        let mut problems = Vec::new();
        config.problems(&mut problems);
        for key in ["contact_points", "keyspace", "consistency_write", "pool_size", "username"] {
            assert!(problems.iter().any(|problem| problem.contains(key)), "{key}: {problems:?}");
        }
        let mut none = Vec::new();
        Config::default().problems(&mut none);
        assert_eq!(none, Vec::<String>::new());
    }
}
