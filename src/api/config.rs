//! Settings of the HTTP API: the address to listen on, and a limit for everything that a client can use up.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::units::{self, ByteSize};

/// Which requests may read without a token once tokens are configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AnonymousRead {
    /// None: reading always needs a token.
    #[default]
    None,
    /// Local requests, where `http.listen` is a loopback address.
    Loopback,
}

/// The section `[http]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port; empty: no HTTP.
    pub listen: String,
    /// The file of tokens: lines of `name scope token`, the scope `read`, `publish` or `admin`. Reloaded at SIGHUP.
    pub tokens_file: Option<PathBuf>,
    /// Which requests may read without a token once tokens are configured.
    pub anonymous_read: AnonymousRead,
    /// Host names and addresses, without a port. If set, the `Host` of a request must be one of them or loopback, except for
    /// probes. Connections from a listed address (a proxy) are not limited by `connections_per_address`.
    pub trusted_hosts: Vec<String>,
    /// The file of the key that signs sessions; absent: a key generated in the state directory. Daemons with the same key share
    /// their sessions.
    pub session_key_file: Option<PathBuf>,
    /// Maximum age of a session, even of one in use.
    #[serde(with = "units::duration")]
    pub session_lifetime: Duration,
    /// Maximum sessions of one token; one more ends the oldest.
    pub sessions: usize,
    /// Origins of other dashboards, whose pages may use the API from a browser, commands included; pages of another host must send
    /// a token. `*`: pages of any origin may read what needs no session.
    pub allow_origins: Vec<String>,
    /// Maximum rows of a page.
    pub page_rows: usize,
    /// Maximum points of a curve.
    pub max_points: usize,
    /// Maximum runs of a comparison or an export.
    pub max_runs: usize,
    /// Maximum concurrent exports; one more is answered with 429.
    pub exports: usize,
    /// Maximum concurrent streams; one more is answered with 429.
    pub streams: usize,
    /// Minimum time between two chunks of a stream.
    #[serde(with = "units::duration")]
    pub stream_interval: Duration,
    /// Maximum metrics rows of all runs in one chunk of a stream; rows left out are counted.
    pub stream_points: usize,
    /// Memory for messages that streams have not read yet.
    pub stream_buffer: ByteSize,
    /// The memory budget of answers and exports: their rows and curves, and their text until it is sent. When it is used up,
    /// requests wait. An answer larger than the budget takes all of it.
    pub memory: ByteSize,
    /// Maximum answers compressed at once; beyond it they are sent uncompressed. 0: no compression.
    pub compressions: usize,
    /// Maximum connections. One more evicts the connection that has been idle longest; while all are being answered, further
    /// connections serve only probes, the dashboard's page, signing in and authenticated requests.
    pub connections: usize,
    /// Maximum of those connections for one client address; loopback and addresses in `trusted_hosts` are exempt. Connections
    /// beyond it are served as those beyond `connections`.
    pub connections_per_address: usize,
    /// Connections beyond `connections` that are kept for authenticated requests.
    pub reserved_connections: usize,
    /// Streams kept for authenticated requests where requests without a token may read, too; one always stays for the latter.
    pub reserved_streams: usize,
    /// The same for exports.
    pub reserved_exports: usize,
    /// Maximum body of a request without a token or a session.
    pub anonymous_body: ByteSize,
    /// Time-out of receiving such a body.
    #[serde(with = "units::duration")]
    pub anonymous_body_timeout: Duration,
    /// Maximum head of a request; at least 8 KiB.
    pub max_header: ByteSize,
    /// Maximum body of a request.
    pub max_body: ByteSize,
    /// Time-out of receiving the head of a request; also closes an idle connection.
    #[serde(with = "units::duration")]
    pub header_timeout: Duration,
    /// Time-out until an answer begins.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// Time-out of writing: a client that reads nothing of its answer for this long is disconnected.
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
