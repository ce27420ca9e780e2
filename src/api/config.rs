//! Settings of the HTTP side: where it listens, and the limit of everything that a client decides.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{cors, memory_budget, session::SessionKey, target, tokens};
use crate::{
    curve::POINTS_MIN,
    units::{self, ByteSize},
};

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

/// Sessions that are remembered of one token, at most.
const SESSIONS_MAX: usize = 1_024;

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

impl Config {
    /// Adds what is odd about these settings, and loses nothing.
    pub fn warnings(&self, warnings: &mut Vec<String>) {
        for (key, path) in [("tokens_file", &self.tokens_file), ("session_key_file", &self.session_key_file)] {
            let loose = path.as_deref().and_then(tokens::loose_permissions);
            warnings.extend(loose.map(|what| format!("`http.{key}`: {what}")));
        }
    }

    /// Adds what is wrong with the files that guard HTTP. They concern who listens alone: other commands go on without them.
    pub fn file_problems(&self, problems: &mut Vec<String>) {
        if let Some(Err(error)) = self.tokens_file.as_deref().map(tokens::read) {
            problems.push(format!("`http.tokens_file`: {error}"));
        }
        if let Some(Err(error)) = self.session_key_file.as_deref().map(SessionKey::read) {
            problems.push(format!("`http.session_key_file`: {error}"));
        }
    }

    /// Adds what is wrong with these settings, but for the files that they name.
    pub fn problems(&self, problems: &mut Vec<String>) {
        if !self.listen.is_empty() && self.listen.parse::<SocketAddr>().is_err() {
            problems
                .push(format!("`http.listen` = \"{}\" is not an address and port such as 127.0.0.1:8050", self.listen));
        }
        if self.sessions > SESSIONS_MAX {
            problems.push(format!("`http.sessions` must be at most {SESSIONS_MAX}"));
        }
        cors::problems(&self.allow_origins, problems);
        target::problems(&self.trusted_hosts, problems);
        let counts = [
            ("page_rows", self.page_rows),
            ("max_runs", self.max_runs),
            ("exports", self.exports),
            ("streams", self.streams),
            ("stream_points", self.stream_points),
            ("connections", self.connections),
            ("connections_per_address", self.connections_per_address),
            ("sessions", self.sessions),
        ];
        problems
            .extend(counts.iter().filter(|(_, n)| *n == 0).map(|(key, _)| format!("`http.{key}` must be at least 1")));
        for (key, n) in [("exports", self.exports), ("compressions", self.compressions)] {
            if n > Semaphore::MAX_PERMITS {
                problems.push(format!("`http.{key}` must be at most {}", Semaphore::MAX_PERMITS));
            }
        }
        if self.max_points < POINTS_MIN {
            problems.push(format!("`http.max_points` must be at least {POINTS_MIN}"));
        }
        if self.memory.as_usize() < memory_budget::PAGE_RESERVATION {
            problems.push("`http.memory` must be at least 16MiB".into());
        }
        if self.max_header < ByteSize::kib(8) {
            problems.push("`http.max_header` must be at least 8KiB".into());
        }
        if self.stream_buffer < ByteSize::kib(64) {
            problems.push("`http.stream_buffer` must be at least 64KiB".into());
        }
        let times = [
            ("stream_interval", self.stream_interval),
            ("session_lifetime", self.session_lifetime),
            ("header_timeout", self.header_timeout),
            ("request_timeout", self.request_timeout),
            ("write_timeout", self.write_timeout),
            ("anonymous_body_timeout", self.anonymous_body_timeout),
        ];
        problems.extend(
            times
                .iter()
                .filter(|(_, time)| time.is_zero())
                .map(|(key, _)| format!("`http.{key}` must be longer than zero")),
        );
    }
}
