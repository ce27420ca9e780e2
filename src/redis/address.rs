//! The address of the server: `redis.url`, read and printed.

use fred::types::config::{Config as RedisConfig, ServerConfig};

use crate::host;

/// Reads the address. The error says what is wrong, and never contains the password.
pub(super) fn parse(url: &str) -> Result<RedisConfig, &'static str> {
    if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("must begin with redis:// or rediss://; write it like \"redis://host:6379/0\"");
    }
    if url.contains('?') {
        return Err("carries parameters behind `?`, which are not understood; set keys instead");
    }
    // TLS is set up by this program, from the files of the configuration.
    let plain = url.replacen("rediss://", "redis://", 1);
    let mut settings = RedisConfig::from_url_centralized(&plain)
        .map_err(|_| "cannot be read; write it like \"redis://host:6379/0\"")?;
    let [server] = &settings.server.hosts()[..] else { return Err("must name one host") };
    // In a URL the address of an IPv6 host stands in brackets, which no resolver understands.
    let host = server.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if host::check(&host).is_err() {
        return Err("names no host that there can be; write it like \"redis://host:6379/0\", with one host");
    }
    settings.server = ServerConfig::new_centralized(host, server.port);
    Ok(settings)
}

/// The host that an address names.
pub(super) fn host(url: &str) -> Option<String> {
    let server = parse(url).ok()?.server.hosts().into_iter().next()?;
    Some(server.host.to_string())
}

/// A URL without its password and query.
pub fn redact(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or("");
    let shown = match rest.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:(hidden)@{place}"),
            None => format!("{login}@{place}"),
        },
        None => rest.to_owned(),
    };
    if scheme.is_empty() { shown } else { format!("{scheme}://{shown}") }
}
