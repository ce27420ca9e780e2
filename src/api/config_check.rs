//! Problems and warnings of the settings of `[http]`.

use std::net::SocketAddr;

use tokio::sync::Semaphore;

use super::{
    auth::{AccessPolicy, MAKE_A_TOKEN, SessionKey, cors, loose_permissions, read_tokens, target},
    config::Config,
    memory_budget::PAGE_RESERVATION,
};
use crate::{curve::POINTS_MIN, section::require, units::ByteSize};

/// Upper limit of `http.sessions`.
const SESSIONS_MAX: usize = 1_024;

impl Config {
    /// Warns of an address that other machines reach while there are no tokens: nearly everything is refused.
    pub fn network_warning(&self) -> Option<String> {
        let is_closed = !self.listen.is_empty()
            && self.tokens_file.is_none()
            && AccessPolicy::at(&self.listen) == AccessPolicy::Network;
        is_closed.then(|| {
            format!(
                "`http.listen` is not a loopback address and there are no tokens: only /, /healthz, /readyz and /metrics answer; \
                 {MAKE_A_TOKEN}"
            )
        })
    }

    /// Adds warnings: settings that work, but are probably not meant.
    pub fn warnings(&self, warnings: &mut Vec<String>) {
        for (key, path) in [("tokens_file", &self.tokens_file), ("session_key_file", &self.session_key_file)] {
            let loose = path.as_deref().and_then(loose_permissions);
            warnings.extend(loose.map(|what| format!("`http.{key}`: {what}")));
        }
    }

    /// Adds problems of the token and key files. Only a process that serves HTTP needs them; other commands run without.
    pub fn file_problems(&self, problems: &mut Vec<String>) {
        self.tls.file_problems("http", problems);
        if let Some(Err(error)) = self.tokens_file.as_deref().map(read_tokens) {
            problems.push(format!("`http.tokens_file`: {error}"));
        }
        if let Some(Err(error)) = self.session_key_file.as_deref().map(SessionKey::read) {
            problems.push(format!("`http.session_key_file`: {error}"));
        }
    }

    /// Adds problems of the settings themselves, without reading the files that they name.
    pub fn problems(&self, problems: &mut Vec<String>) {
        require(
            problems,
            self.listen.is_empty() || self.listen.parse::<SocketAddr>().is_ok(),
            format!("`http.listen` = \"{}\" is not an address and port such as 127.0.0.1:8050", self.listen),
        );
        require(problems, self.sessions <= SESSIONS_MAX, format!("`http.sessions` must be at most {SESSIONS_MAX}"));
        self.tls.problems("http", problems);
        cors::problems(&self.allow_origins, problems);
        target::problems(&self.trusted_hosts, problems);
        for (key, n) in [
            ("page_rows", self.page_rows),
            ("max_runs", self.max_runs),
            ("exports", self.exports),
            ("streams", self.streams),
            ("stream_points", self.stream_points),
            ("connections", self.connections),
            ("connections_per_address", self.connections_per_address),
            ("sessions", self.sessions),
            ("max_messages", self.max_messages),
        ] {
            require(problems, n > 0, format!("`http.{key}` must be at least 1"));
        }
        for (key, n) in [("exports", self.exports), ("compressions", self.compressions)] {
            require(
                problems,
                n <= Semaphore::MAX_PERMITS,
                format!("`http.{key}` must be at most {}", Semaphore::MAX_PERMITS),
            );
        }
        require(problems, self.max_points >= POINTS_MIN, format!("`http.max_points` must be at least {POINTS_MIN}"));
        require(problems, self.memory.as_usize() >= PAGE_RESERVATION, "`http.memory` must be at least 16MiB");
        require(problems, self.max_header >= ByteSize::kib(8), "`http.max_header` must be at least 8KiB");
        require(problems, self.stream_buffer >= ByteSize::kib(64), "`http.stream_buffer` must be at least 64KiB");
        for (key, time) in [
            ("stale_after", self.stale_after),
            ("stream_interval", self.stream_interval),
            ("session_lifetime", self.session_lifetime),
            ("header_timeout", self.header_timeout),
            ("request_timeout", self.request_timeout),
            ("write_timeout", self.write_timeout),
            ("anonymous_body_timeout", self.anonymous_body_timeout),
        ] {
            require(problems, !time.is_zero(), format!("`http.{key}` must be longer than zero"));
        }
    }
}
