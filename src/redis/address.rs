//! The address of the server: `redis.url`, read and printed.
//!
//! One server (`redis://`, `redis+unix://`), the primary that Sentinel names (`redis-sentinel://`), or the nodes of a cluster
//! (`redis-cluster://`).

use std::path::PathBuf;

use fred::types::config::{ClusterDiscoveryPolicy, Config as RedisConfig, Server, ServerConfig};
use percent_encoding::percent_decode_str;

use crate::host;

/// What the scheme of an address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Single,
    Unix,
    Sentinel,
    Cluster,
}

/// The parameters behind `?`.
#[derive(Debug, Default)]
struct Parameters {
    database: Option<u8>,
    nodes: Vec<Server>,
    service: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// The kind of the scheme, and whether it means TLS.
fn kind(scheme: &str) -> Option<(Kind, bool)> {
    Some(match scheme {
        "redis" | "valkey" => (Kind::Single, false),
        "rediss" | "valkeys" => (Kind::Single, true),
        "redis+unix" | "valkey+unix" => (Kind::Unix, false),
        "redis-sentinel" | "valkey-sentinel" => (Kind::Sentinel, false),
        "rediss-sentinel" | "valkeys-sentinel" => (Kind::Sentinel, true),
        "redis-cluster" | "valkey-cluster" => (Kind::Cluster, false),
        "rediss-cluster" | "valkeys-cluster" => (Kind::Cluster, true),
        _ => return None,
    })
}

/// Whether the scheme means TLS.
pub(super) fn is_encrypted(url: &str) -> bool {
    url.split_once("://").and_then(|(scheme, _)| kind(scheme)).is_some_and(|(_, tls)| tls)
}

/// Whether the address names the nodes of a cluster.
pub(super) fn is_cluster(url: &str) -> bool {
    url.split_once("://").and_then(|(scheme, _)| kind(scheme)).is_some_and(|(kind, _)| kind == Kind::Cluster)
}

/// Reads the address. The error says what is wrong, and never contains the password.
pub(super) fn parse(url: &str) -> Result<RedisConfig, &'static str> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let Some((kind, _)) = kind(scheme) else {
        return Err(
            "must begin with redis:// or rediss:// (TLS), redis+unix://, redis-sentinel:// or redis-cluster://; \
                    write it like \"redis://host:6379/0\"",
        );
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let parameters = parameters(query, kind)?;
    let mut settings = match kind {
        Kind::Unix => RedisConfig { server: ServerConfig::Unix { path: socket(place)? }, ..RedisConfig::default() },
        _ => network(place, kind, &parameters)?,
    };
    settings.database = match (settings.database, parameters.database) {
        (Some(path), Some(parameter)) if path != parameter => return Err("names two databases; keep one"),
        (path, parameter) => path.or(parameter),
    };
    if kind == Kind::Cluster && settings.database.is_some_and(|database| database != 0) {
        return Err("names a database, but Redis Cluster has only database 0");
    }
    Ok(settings)
}

fn socket(place: &str) -> Result<PathBuf, &'static str> {
    let path = percent_decode_str(place).decode_utf8().map_err(|_| "names a socket whose path is not UTF-8")?;
    if path.contains('@') {
        return Err("of a socket holds a login; set `redis.username` and `redis.password_file`");
    }
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("must name the socket by its whole path, like \"redis+unix:///run/redis/redis.sock\"");
    }
    Ok(PathBuf::from(&*path))
}

fn network(place: &str, kind: Kind, parameters: &Parameters) -> Result<RedisConfig, &'static str> {
    // TLS is set up by this program, from the files of the configuration.
    let mut settings = RedisConfig::from_url_centralized(&format!("redis://{place}"))
        .map_err(|_| "cannot be read; write it like \"redis://host:6379/0\"")?;
    let [first] = &settings.server.hosts()[..] else { return Err("must name one host") };
    // In a URL the address of an IPv6 host stands in brackets, which no resolver understands.
    let name = first.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if host::check(&name).is_err() {
        return Err(
            "names no host that there can be; write it like \"redis://host:6379/0\", with one host; more nodes \
                    of Sentinel or of a cluster follow as \"?node=host:port&node=host:port\"",
        );
    }
    let has_port =
        place.rsplit_once('@').map_or(place, |(_, place)| place).split('/').next().is_some_and(|authority| {
            authority.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.contains(']'))
        });
    let port = if kind == Kind::Sentinel && !has_port { 26_379 } else { first.port };
    let hosts = [Server::new(name.clone(), port)].into_iter().chain(parameters.nodes.iter().cloned()).collect();
    settings.server = match kind {
        Kind::Sentinel => ServerConfig::Sentinel {
            hosts,
            service_name: parameters
                .service
                .clone()
                .ok_or("names no service; add \"?sentinelServiceName=\" with the name in `sentinel monitor`")?,
            username: parameters.username.clone(),
            password: parameters.password.clone(),
        },
        Kind::Cluster => ServerConfig::Clustered { hosts, policy: ClusterDiscoveryPolicy::default() },
        _ => ServerConfig::new_centralized(name, port),
    };
    Ok(settings)
}

fn parameters(query: &str, kind: Kind) -> Result<Parameters, &'static str> {
    let mut found = Parameters::default();
    for (name, value) in
        query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
    {
        let value =
            percent_decode_str(value).decode_utf8().map_err(|_| "has a parameter that is not UTF-8")?.into_owned();
        let text = Some(value.clone()).filter(|text| !text.is_empty());
        match (name, kind) {
            ("db", _) => {
                found.database = Some(value.parse().map_err(|_| "has a `db` that is no number from 0 to 255")?)
            }
            ("node", Kind::Sentinel | Kind::Cluster) => found.nodes.push(node(&value)?),
            ("sentinelServiceName", Kind::Sentinel) => found.service = text,
            ("sentinelUsername", Kind::Sentinel) => found.username = text,
            ("sentinelPassword", Kind::Sentinel) => found.password = text,
            _ => {
                return Err(
                    "carries a parameter behind `?` that is not understood. There is `db`; for Sentinel and Cluster \
                            `node`; for Sentinel `sentinelServiceName`, `sentinelUsername` and `sentinelPassword`",
                );
            }
        }
    }
    Ok(found)
}

fn node(text: &str) -> Result<Server, &'static str> {
    let wrong = "has a `node` that is not host:port";
    let (name, port) = text.rsplit_once(':').ok_or(wrong)?;
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    host::check(bare).map_err(|_| wrong)?;
    Ok(Server::new(bare, port.parse().map_err(|_| wrong)?))
}

/// The hosts that an address names; none for a socket.
pub(super) fn hosts(url: &str) -> Vec<String> {
    match parse(url).map(|settings| settings.server) {
        Err(_) | Ok(ServerConfig::Unix { .. }) => Vec::new(),
        Ok(server) => server.hosts().into_iter().map(|server| server.host.to_string()).collect(),
    }
}

/// A URL without its password, and without the values of parameters that may hold one.
pub fn redact(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('#').next().unwrap_or("");
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let shown = match rest.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:(hidden)@{place}"),
            None => format!("{login}@{place}"),
        },
        None => rest.to_owned(),
    };
    let parameters: Vec<_> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some(("db" | "node" | "sentinelServiceName" | "sentinelUsername", _)) if !part.contains('@') => {
                part.to_owned()
            }
            Some((name, _)) if !name.contains('@') => format!("{name}=(hidden)"),
            _ => "(hidden)".to_owned(),
        })
        .collect();
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    if scheme.is_empty() { format!("{shown}{query}") } else { format!("{scheme}://{shown}{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        let servers = |url: &str| match parse(url).unwrap().server {
            ServerConfig::Unix { path } => path.display().to_string(),
            server => server
                .hosts()
                .iter()
                .map(|server| format!("{}:{}", server.host, server.port))
                .collect::<Vec<_>>()
                .join(" "),
        };
        for (url, expected, database, tls) in [
            ("redis://h", "h:6379", None, false),
            ("valkeys://h:1/2", "h:1", Some(2), true),
            ("valkey://[::1]:1?db=3", "::1:1", Some(3), false),
            ("redis://h/4?db=4", "h:6379", Some(4), false),
            ("redis+unix:///run/redis/redis.sock?db=2", "/run/redis/redis.sock", Some(2), false),
            (
                "redis-sentinel://s1?node=s2:2&node=[fd00::3]:3&sentinelServiceName=mine",
                "s1:26379 s2:2 fd00::3:3",
                None,
                false,
            ),
            ("rediss-sentinel://me:pw@s1:1/5?sentinelServiceName=mine", "s1:1", Some(5), true),
            ("redis-cluster://n1:7000?node=n2:7001", "n1:7000 n2:7001", None, false),
            ("rediss-cluster://n1", "n1:6379", None, true),
        ] {
            let settings = parse(url).unwrap();
            assert_eq!(
                (servers(url).as_str(), settings.database, is_encrypted(url)),
                (expected, database, tls),
                "{url}"
            );
        }
        let with_login =
            parse("redis-sentinel://s?sentinelServiceName=m&sentinelUsername=u&sentinelPassword=p%40w").unwrap();
        let ServerConfig::Sentinel { service_name, username, password, .. } = with_login.server else { panic!() };
        assert_eq!((service_name.as_str(), username.as_deref(), password.as_deref()), ("m", Some("u"), Some("p@w")));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (url, words) in [
            ("http://h", "must begin with"),
            ("redis://h?timeout=1", "not understood"),
            ("redis://h?node=a:1", "not understood"),
            ("redis://h/1?db=2", "two databases"),
            ("redis://h?db=many", "no number"),
            ("redis-sentinel://h", "sentinelServiceName"),
            ("redis-sentinel://h?sentinelServiceName=m&node=h", "host:port"),
            ("redis-cluster://h/1", "only database 0"),
            ("redis-cluster://h?db=1", "only database 0"),
            ("redis-cluster://a:1,b:2", "cannot be read"),
            ("redis+unix://run/redis.sock", "whole path"),
            ("redis+unix://me:pw@/run/redis.sock", "holds a login"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(words) && !error.contains("pw"), "{url}: {error}");
        }
    }

    #[test]
    fn a_printed_address_keeps_the_nodes_and_no_password() {
        for (url, shown) in [
            ("redis://me:pw@h:1/2?db=2", "redis://me:(hidden)@h:1/2?db=2"),
            (
                "redis-sentinel://s?node=t:1&sentinelServiceName=m&sentinelPassword=pw",
                "redis-sentinel://s?node=t:1&sentinelServiceName=m&sentinelPassword=(hidden)",
            ),
            ("redis://h?node=a:pw@b", "redis://h?node=(hidden)"),
            ("redis+unix:///run/r.sock", "redis+unix:///run/r.sock"),
        ] {
            assert_eq!(redact(url), shown);
        }
    }
}
