//! How to reach Redis: settings, TLS, and clients that know when they are cut off.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{secret::Secret, tls::Tls, units::ByteSize};

/// Where Redis is, and what to listen to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `redis://host:port/db`, or `rediss://` for TLS. Never carries the password in what is printed.
    pub url: String,
    /// ACL user.
    pub username: Option<String>,
    /// Password; better given as a file or by `REDIS_PASSWORD`.
    pub password: Option<Secret>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// TLS.
    pub tls: Tls,
    /// Channels and patterns (`lab:*:training`) with training messages.
    pub training_channels: Vec<String>,
    /// Channels and patterns with commands.
    pub control_channels: Vec<String>,
    /// Prefix of every key and channel of ours.
    pub key_prefix: String,
    /// Messages that the client may hold before it drops the oldest.
    pub receive_buffer: usize,
    /// Frames that may wait for intake.
    pub queue_frames: usize,
    /// Bytes of frames that may wait for intake.
    pub queue_bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".into(),
            username: None,
            password: None,
            password_file: None,
            tls: Tls::default(),
            training_channels: vec!["cascor:training".into()],
            control_channels: vec!["cascor:control".into()],
            key_prefix: "cascor:".into(),
            receive_buffer: 16_384,
            queue_frames: 65_536,
            queue_bytes: ByteSize::mib(64),
        }
    }
}
