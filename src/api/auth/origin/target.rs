//! Which server a request names, and whether a proxy passed it on.
//!
//! The name decides whether a request counts as local and whether its page is of this server, so it must be unambiguous: one `Host`
//! header, without user-info, the same as in a request target in absolute form ([RFC 9112, 3.2]).

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, header, uri::Authority},
};

use crate::api::{config::Config, error::ApiError};

/// Headers by which proxies say that they pass a request on, besides those that begin with [`FORWARDED_PREFIX`].
const PROXY_HEADERS: [&str; 12] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-original-host",
    "x-envoy-external-address",
    "true-client-ip",
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
];
/// `X-Forwarded`, `X-Forwarded-For`, `-Host`, `-Proto`, `-Port`, `-Prefix` and the like.
const FORWARDED_PREFIX: &str = "x-forwarded";

/// Refuses a request that names its server ambiguously.
///
/// # Errors
/// 400 for several `Host` headers, one that is no host, user-info, or a request target with another host.
pub fn check(request: &Request) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ApiError::bad_request("the request has several Host headers"));
    }
    let named = host.map(|host| host.to_str().ok().and_then(plain)).map(|host| {
        host.ok_or_else(|| {
            ApiError::bad_request("the Host header must be a host and a port, without user-info or anything else")
        })
    });
    let named = named.transpose()?;
    let Some(target) = request.uri().authority() else { return Ok(()) };
    if target.as_str().contains('@') {
        return Err(ApiError::bad_request("the request target must not have user-info"));
    }
    let same = |named: Authority| named.as_str().eq_ignore_ascii_case(target.as_str());
    if named.is_some_and(|named| !named.as_str().is_empty() && !same(named)) {
        return Err(ApiError::bad_request("the Host header and the request target name different servers"));
    }
    Ok(())
}

/// A `Host` header that is a host and perhaps a port.
fn plain(host: &str) -> Option<Authority> {
    host.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
}

/// Whether a proxy says that it passed the request on.
pub fn is_proxied(headers: &HeaderMap) -> bool {
    PROXY_HEADERS.iter().any(|name| headers.contains_key(*name))
        || headers.keys().any(|name| name.as_str().starts_with(FORWARDED_PREFIX))
}

/// The `Host` header as sent; empty without one.
pub fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether `host:port` names loopback.
pub fn is_loopback(host: &str) -> bool {
    let Ok(uri) = format!("http://{host}/").parse::<Uri>() else { return false };
    let name = uri.host().unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || address(name).is_some_and(|address| address.is_loopback())
}

/// Refuses names that are neither loopback nor in `http.trusted_hosts`; with an empty list every name is accepted.
///
/// # Errors
/// 421 with the name.
pub fn check_trusted(config: &Config, headers: &HeaderMap) -> Result<(), ApiError> {
    let host = host(headers);
    let named = plain(host).is_some_and(|authority| names(config, authority.host()));
    if config.trusted_hosts.is_empty() || is_loopback(host) || named {
        return Ok(());
    }
    let detail = format!("the Host header `{}` is not in `http.trusted_hosts`", host.escape_debug());
    Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

/// Whether connections from this address are exempt from `http.connections_per_address`: loopback, and addresses in
/// `http.trusted_hosts` (proxies).
pub fn is_trusted_address(config: &Config, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || config.trusted_hosts.iter().any(|trusted| address(trusted) == Some(peer))
}

fn names(config: &Config, host: &str) -> bool {
    config.trusted_hosts.iter().any(|trusted| match (address(trusted), address(host)) {
        (Some(trusted), Some(host)) => trusted == host,
        _ => trusted.eq_ignore_ascii_case(host),
    })
}

/// An IP address, also in the brackets that IPv6 has in a `Host` header.
fn address(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Adds problems of `http.trusted_hosts`.
pub fn problems(hosts: &[String], problems: &mut Vec<String>) {
    let is_name = |host: &str| plain(host).is_some_and(|authority| authority.as_str() == authority.host());
    for host in hosts.iter().filter(|host| address(host).is_none() && (!is_name(host) || host.contains('*'))) {
        let host = host.escape_debug();
        problems.push(format!("`http.trusted_hosts`: `{host}` is not a host name or an address, without a port"));
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Request {
        let request =
            hosts.iter().fold(Request::builder().uri(target), |built, host| built.header(header::HOST, *host));
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn a_request_names_one_server_without_user_info() {
        for (target, hosts, allowed) in [
            ("/", &["localhost"][..], true),
            ("/", &["localhost:8050"], true),
            ("/", &["[::1]:8050"], true),
            ("/", &[], true),
            ("/", &["localhost", "localhost"], false),
            ("/", &["localhost", "evil.example"], false),
            ("/", &["ann@localhost"], false),
            ("/", &["localhost@evil.example"], false),
            ("/", &["ann:secret@localhost:8050"], false),
            ("/", &["localhost/path"], false),
            ("/", &["local host"], false),
            ("http://localhost/", &["localhost"], true),
            ("http://LOCALHOST:8050/", &["localhost:8050"], true),
            ("http://localhost/", &[], true),
            ("http://evil.example/", &["localhost"], false),
            ("http://localhost@evil.example/", &["localhost@evil.example"], false),
            ("http://ann@localhost/", &["localhost"], false),
            ("http://ann@localhost/", &[], false),
        ] {
            assert_eq!(check(&request(target, hosts)).is_ok(), allowed, "{target} {hosts:?}");
        }
    }

    #[test]
    fn proxies_are_known_by_their_headers() {
        for (name, proxied) in [
            ("x-forwarded-for", true),
            ("X-Forwarded-Proto", true),
            ("x-forwarded-anything", true),
            ("X-Forwarded", true),
            ("Client-IP", true),
            ("True-Client-IP", true),
            ("Fastly-Client-IP", true),
            ("Forwarded", true),
            ("Via", true),
            ("X-Real-IP", true),
            ("cf-connecting-ip", true),
            ("x-forward", false),
            ("accept", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), "".parse().unwrap());
            assert_eq!(is_proxied(&headers), proxied, "{name}");
        }
    }

    #[test]
    fn trusted_hosts_are_names_and_addresses() {
        let trusting = |hosts: &[&str]| Config {
            trusted_hosts: hosts.iter().map(ToString::to_string).collect(),
            ..Config::default()
        };
        for (hosts, host, allowed) in [
            (&[][..], "any.example", true),
            (&["dash.example"], "dash.example", true),
            (&["dash.example"], "DASH.example:8443", true),
            (&["dash.example"], "127.0.0.1:8050", true),
            (&["dash.example"], "dash.example.evil", false),
            (&["dash.example"], "evil.example", false),
            (&["dash.example"], "", false),
            (&["fd00::1"], "[fd00::1]:443", true),
            (&["10.0.0.1"], "10.0.0.2", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(check_trusted(&trusting(hosts), &headers).is_ok(), allowed, "{hosts:?} {host}");
        }
        let config = trusting(&["10.0.0.1", "dash.example"]);
        for (peer, trusted) in
            [("10.0.0.1", true), ("::ffff:10.0.0.1", true), ("127.0.0.9", true), ("::1", true), ("10.0.0.2", false)]
        {
            assert_eq!(is_trusted_address(&config, peer.parse().unwrap()), trusted, "{peer}");
        }
        let mut found = Vec::new();
        let hosts = ["dash.example", "10.0.0.1", "fd00::1", "[fd00::1]", "*.example", "a:80", "http://a", "a@b", ""];
        problems(&hosts.map(str::to_owned), &mut found);
        assert_eq!(found.len(), 5, "{found:?}");
    }
}
