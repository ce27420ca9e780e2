//! The address of a daemon.

use std::net::IpAddr;

/// Where a daemon answers: `http://host:port` or `https://host:port`, with a path where a proxy has put it under one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host and port as given, for the `Host` header.
    pub authority: String,
    /// Without brackets.
    pub host: String,
    /// As given, else the default of the scheme.
    pub port: u16,
    /// The path below which it answers, without a slash at its end; mostly empty.
    pub prefix: String,
}

impl Url {
    /// Reads `http://host:port`; the port is 80, for `https` 443, where none is given.
    ///
    /// # Errors
    /// Shows the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = scheme.eq_ignore_ascii_case("https");
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let prefix = path.trim_end_matches('/');
        let unknown = || format!("`{text}` is no address of a daemon; write it like http://127.0.0.1:8050");
        let is_plain = !authority.contains(['/', '@', '?', '#', '\\'])
            && !authority.contains(|character: char| character.is_whitespace() || character.is_control());
        let is_path = prefix.chars().all(|character| character.is_ascii_alphanumeric() || "/-_.~".contains(character));
        if !is_plain || !is_path || !(tls || scheme.eq_ignore_ascii_case("http")) {
            return Err(unknown());
        }
        // The colons of an IPv6 address are within its brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| unknown())?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() || bare.contains(['[', ']']) || (bare.contains(':') && bare == host) {
            return Err(unknown());
        }
        Ok(Self { tls, authority: authority.to_owned(), host: bare.to_owned(), port, prefix: prefix.to_owned() })
    }

    /// Whether both name the same path at the same port of the same host, in the same protocol.
    pub fn is_same_server(&self, other: &Self) -> bool {
        self.prefix == other.prefix
            && self.tls == other.tls
            && self.port == other.port
            && self.host.eq_ignore_ascii_case(&other.host)
    }

    /// Whether the host is a loopback name or address.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_daemons_are_parsed() {
        for (text, expected) in [
            ("http://127.0.0.1:8050", Some((false, "127.0.0.1", 8050, true))),
            ("127.0.0.1:8050", Some((false, "127.0.0.1", 8050, true))),
            ("localhost:8050", Some((false, "localhost", 8050, true))),
            ("http://host/", Some((false, "host", 80, false))),
            ("[::1]:8050", Some((false, "::1", 8050, true))),
            ("http://[fd00::1]", Some((false, "fd00::1", 80, false))),
            ("https://host", Some((true, "host", 443, false))),
            ("HTTPS://host:8443/", Some((true, "host", 8443, false))),
            ("https://[::ffff:127.0.0.1]", Some((true, "::ffff:127.0.0.1", 443, true))),
            ("http://localhost.evil.example", Some((false, "localhost.evil.example", 80, false))),
            ("http://127.0.0.1.evil.example", Some((false, "127.0.0.1.evil.example", 80, false))),
            ("http://host/path/", Some((false, "host", 80, false))),
            ("http://host/a path", None),
            ("http://host/path?query", None),
            ("http://host:port", None),
            ("http://host:99999", None),
            ("http://ann@host", None),
            ("http://127.0.0.1#@evil.example", None),
            ("http://127.0.0.1\\.evil.example", None),
            ("http://::1", None),
            ("ftp://host", None),
            ("http://", None),
            ("", None),
        ] {
            let url = Url::parse(text).ok();
            let seen = url.as_ref().map(|url| (url.tls, url.host.as_str(), url.port, url.is_loopback()));
            assert_eq!(seen, expected, "{text}");
        }
        let behind_a_proxy = Url::parse("https://dash.example/cascor/").unwrap();
        assert_eq!((&*behind_a_proxy.authority, &*behind_a_proxy.prefix), ("dash.example", "/cascor"));
        assert!(!behind_a_proxy.is_same_server(&Url::parse("https://dash.example/other").unwrap()));
    }
}
