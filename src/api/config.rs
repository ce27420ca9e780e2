//! Settings of the HTTP API: the address to listen on, and a limit for everything that a client can use up.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    section,
    tls::ServerTls,
    units::{self, ByteSize, Micros},
};

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
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port; empty: no HTTP.
    pub listen: String,
    /// Whether the process ends where it cannot listen there; otherwise it tries again.
    pub required: bool,
    /// TLS of the API. The files are read again at SIGHUP, and when they change.
    pub tls: ServerTls,
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
    /// Whether the labels of metrics have their former name, `name`, too.
    pub metrics_former_label: bool,
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
    /// Silence after which a running run is shown as stale.
    #[serde(with = "units::duration")]
    pub stale_after: Duration,
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
    /// Maximum body of a request without a token or a session, other than messages.
    pub anonymous_body: ByteSize,
    /// Time-out of receiving such a body.
    #[serde(with = "units::duration")]
    pub anonymous_body_timeout: Duration,
    /// Maximum head of a request; at least 8 KiB.
    pub max_header: ByteSize,
    /// Maximum body of a request, other than messages.
    pub max_body: ByteSize,
    /// Maximum body of messages (`POST /api/messages`).
    pub max_messages_body: ByteSize,
    /// Maximum messages of a request.
    pub max_messages: usize,
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

impl Config {
    /// [`stale_after`](Self::stale_after) in microseconds.
    pub fn stale_micros(&self) -> Micros {
        Micros::try_from(self.stale_after.as_micros()).unwrap_or(Micros::MAX)
    }
}

impl Default for Config {
    fn default() -> Self {
        section::defaults("http")
    }
}
