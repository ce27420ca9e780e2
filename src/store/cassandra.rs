//! Apache Cassandra (5.0, 4.1) through the scylla driver.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{secret::Secret, tls::Tls, units};

/// Where the cluster is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Hosts, each `host` or `host:port`.
    pub contact_points: Vec<String>,
    /// Port of every node.
    pub port: u16,
    /// Where the tables are.
    pub keyspace: String,
    /// User.
    pub username: Option<String>,
    /// Password; better given as a file or by `CASSANDRA_PASSWORD`.
    pub password: Option<Secret>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// Preferred datacenter; absent: all are equal.
    pub local_datacenter: Option<String>,
    /// Absent: LOCAL_ONE for one replica, else LOCAL_QUORUM.
    pub consistency_write: Option<String>,
    /// Absent: LOCAL_ONE for one replica, else LOCAL_QUORUM.
    pub consistency_read: Option<String>,
    /// Longest wait for an answer; above the server's own time-outs.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// Longest wait for a connection.
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    /// Connections to each node.
    pub pool_size: usize,
    /// TLS; used when `ca` is set or `enabled`.
    pub tls: Tls,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            contact_points: vec!["127.0.0.1".into()],
            port: 9042,
            keyspace: "cascor".into(),
            username: None,
            password: None,
            password_file: None,
            local_datacenter: None,
            consistency_write: None,
            consistency_read: None,
            request_timeout: Duration::from_secs(12),
            connect_timeout: Duration::from_secs(5),
            pool_size: 2,
            tls: Tls::default(),
        }
    }
}
