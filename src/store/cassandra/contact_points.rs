//! Parsing of contact points: `host`, `host:port`, IPv6 with or without brackets, `cassandra://host`.

use crate::host;

/// URL scheme accepted before a host.
const SCHEME: &str = "cassandra://";

/// A contact point as `host:port`; `port` is the default.
///
/// # Errors
/// The problem of the contact point.
pub(super) fn address(entry: &str, port: u16) -> Result<String, &'static str> {
    let (host, given) = parts(entry)?;
    let port = match given {
        None => port,
        Some(text) => {
            text.parse().ok().filter(|port| *port > 0).ok_or("has a port that is not a number from 1 to 65535")?
        }
    };
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// The host of a contact point.
///
/// # Errors
/// The problem of the contact point.
pub(super) fn host(entry: &str) -> Result<&str, &'static str> {
    parts(entry).map(|(host, _)| host)
}

fn parts(entry: &str) -> Result<(&str, Option<&str>), &'static str> {
    let entry = entry.trim();
    let plain = match entry.get(..SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let rest = &entry[SCHEME.len()..];
            rest.strip_suffix('/').unwrap_or(rest)
        }
        _ => entry,
    };
    if plain.contains("://") || plain.contains('/') {
        return Err("is no host: write the host alone, or host:port, without a scheme or path");
    }
    let (host, port) = split(plain)?;
    host::check(host)?;
    Ok((host, port))
}

/// Splits into the host without brackets and the port, if any.
fn split(plain: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(inside) = plain.strip_prefix('[') {
        let (host, rest) = inside.split_once(']').ok_or("has no `]` behind its `[`")?;
        if !host.contains(':') {
            return Err("is no IPv6 address");
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("has text other than a port after its `]`"),
        };
    }
    // More than one colon without brackets is an IPv6 address.
    Ok(match plain.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (plain, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_point_is_read_or_refused() {
        for (entry, expected) in [
            ("db1", Some("db1:9042")),
            ("db2:9043", Some("db2:9043")),
            (" 10.0.0.1\n", Some("10.0.0.1:9042")),
            ("10.0.0.1:9043", Some("10.0.0.1:9043")),
            ("::1", Some("[::1]:9042")),
            ("[::1]", Some("[::1]:9042")),
            ("[::1]:9044", Some("[::1]:9044")),
            ("cassandra://c1", Some("c1:9042")),
            ("Cassandra://c1:9043/", Some("c1:9043")),
            ("cassandra://[::1]:9044", Some("[::1]:9044")),
            ("cassandra://c1/keyspace", None),
            ("cassandra://", None),
            ("http://c1", None),
            ("c1:", None),
            ("c1:0", None),
            ("c1:99999", None),
            ("c1:cql", None),
            ("c1;c2", None),
            ("c1 c2", None),
            ("c1,c2", None),
            ("[\"c1\"", None),
            ("[c1]", None),
            ("[::1", None),
            ("[::1]9042", None),
            ("10.0.0.256", None),
            ("", None),
        ] {
            assert_eq!(address(entry, 9042).ok().as_deref(), expected, "{entry}");
        }
        for url in ["http://x/y", "http://c1", "c1/ks", "cassandra://c1:9042/ks"] {
            assert!(address(url, 9042).unwrap_err().starts_with("is no host: write the host alone"), "{url}");
        }
    }
}
