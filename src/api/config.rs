//! Settings of the HTTP side: where it listens, and the limit of everything that a client decides.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::units::{self, ByteSize};

/// Who may read without a token once there are tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AnonymousRead {
    /// Nobody: reading needs a token everywhere.
    #[default]
    None,
    /// Local requests, where `http.listen` is a loopback address.
    Loopback,
}

/// Where to listen, and what a client may ask for.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; empty: no HTTP.
    pub listen: String,
    /// Who may do what: lines of `name scope token`, the scope `read`, `publish` or `admin`. Read again at SIGHUP.
    pub tokens_file: Option<PathBuf>,
    /// Who may read without a token once there are tokens.
    pub anonymous_read: AnonymousRead,
    /// Host names and addresses, without a port. Where there are any, requests but for the probes must name one of them, or
    /// loopback, as their `Host`. Connections from those that are addresses (proxies) have no share of their own.
    pub trusted_hosts: Vec<String>,
    /// The key that sessions are signed with; absent: one that is made in the state directory. Daemons that share it share
    /// their sessions.
    pub session_key_file: Option<PathBuf>,
    /// A session ends this long after it began, however much it is used.
    #[serde(with = "units::duration")]
    pub session_lifetime: Duration,
    /// Sessions of one token at once; one more ends the oldest.
    pub sessions: usize,
    /// Origins of other dashboards, whose pages may use the API from their browsers, also for commands; those of another host send
    /// a token. `*`: every page may read what needs no session.
    pub allow_origins: Vec<String>,
    /// Rows of one page, at most.
    pub page_rows: usize,
    /// Points of one curve, at most.
    pub max_points: usize,
    /// Runs in one comparison or export, at most.
    pub max_runs: usize,
    /// Exports at once; one more is told to come back.
    pub exports: usize,
    /// Streams at once; one more is told so.
    pub streams: usize,
    /// How often a client of a stream gets something, at most.
    #[serde(with = "units::duration")]
    pub stream_interval: Duration,
    /// Metrics of all runs in one chunk of a stream, at most; what is left out is counted.
    pub stream_points: usize,
    /// Messages kept for streams, while there are any.
    pub stream_buffer: ByteSize,
    /// Memory for the rows and curves that answers and exports are made of, and for their text until it is sent, together; more
    /// wait until some is sent. What needs more than there is takes all of it, and is alone.
    pub memory: ByteSize,
    /// Answers compressed at once; others are sent as they are. 0: none is.
    pub compressions: usize,
    /// Connections at once. One more takes the place of the client that has kept the server waiting for a request longest; when
    /// all are being answered, only the probes, the dashboard's page and authenticated requests still are.
    pub connections: usize,
    /// Connections of one address, at most, of those; not of loopback and of addresses in `trusted_hosts`. With more, only
    /// authenticated requests are answered.
    pub connections_per_address: usize,
    /// Connections beyond `connections` that authenticated requests alone may keep.
    pub reserved_connections: usize,
    /// Of `streams` and `exports`, so many are for authenticated requests alone, where others may read beside them. One is
    /// always left to those.
    pub reserved_streams: usize,
    /// See `reserved_streams`.
    pub reserved_exports: usize,
    /// The body of a request without a token or a session, at most.
    pub anonymous_body: ByteSize,
    /// How long that may take to come.
    #[serde(with = "units::duration")]
    pub anonymous_body_timeout: Duration,
    /// The head of a request, at most; at least 8 KiB.
    pub max_header: ByteSize,
    /// The body of a request, at most.
    pub max_body: ByteSize,
    /// How long a client may take to send the head of a request; an idle connection is closed after it, too.
    #[serde(with = "units::duration")]
    pub header_timeout: Duration,
    /// How long an answer may take to begin.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// A client that takes nothing of its answer for this long is dropped.
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8050".into(),
            tokens_file: None,
            anonymous_read: AnonymousRead::None,
            trusted_hosts: Vec::new(),
            session_key_file: None,
            session_lifetime: Duration::from_secs(7 * 24 * 3_600),
            sessions: 32,
            allow_origins: Vec::new(),
            page_rows: 10_000,
            max_points: 20_000,
            max_runs: 16,
            exports: 4,
            streams: 32,
            stream_interval: Duration::from_millis(100),
            stream_points: 500,
            stream_buffer: ByteSize::mib(8),
            memory: ByteSize::mib(64),
            compressions: 32,
            connections: 256,
            connections_per_address: 64,
            reserved_connections: 32,
            reserved_streams: 8,
            reserved_exports: 1,
            anonymous_body: ByteSize::kib(64),
            anonymous_body_timeout: Duration::from_secs(5),
            max_header: ByteSize::kib(16),
            max_body: ByteSize::mib(1),
            header_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }
}
