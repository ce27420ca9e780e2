//! TLS to Redis and to Cassandra, from PEM files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// TLS to a server: its CA, and our certificate where it asks for one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file of the authorities to trust; absent: those of the operating system.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}
