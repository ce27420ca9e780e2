//! The tokens of the command line, and the daemons to which it sends them.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::url::Url;
use crate::{api, cli::CliError, secret::Secret, tls::Tls};

/// How to authenticate, and which authorities to trust.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Credentials {
    /// A file with the token: the token alone, or lines `name scope token` as `token new` prints them, of which the first with
    /// enough scope is used; absent: the variable CASCOR_INGEST_TOKEN, which may hold the same; else, for the daemon at
    /// `http.listen` on this machine, `http.tokens_file`, if it is readable.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub token_file: Option<PathBuf>,
    /// A PEM file of the authorities to trust for https; absent: those of the operating system.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub ca: Option<PathBuf>,
    /// Send the token to another machine in clear text (http), where the network can read it.
    #[arg(long, requires = "url")]
    pub insecure_token: bool,
}

impl Credentials {
    /// The tokens of the file, else of the environment.
    fn given(&self) -> Result<Option<Tokens>, CliError> {
        let (origin, text) = match &self.token_file {
            Some(path) => {
                let origin = format!("`{}`", path.display());
                let text = Secret::read(path);
                (origin.clone(), text.map_err(|error| CliError::failed(format!("failed to read {origin}"), error))?)
            }
            None => match env::var("CASCOR_INGEST_TOKEN").ok().map(Secret::new).filter(|text| !text.is_empty()) {
                Some(text) => ("the variable CASCOR_INGEST_TOKEN".to_owned(), text),
                None => return Ok(None),
            },
        };
        Tokens::parse(text.expose()).map(Some).ok_or_else(|| {
            CliError::Usage(format!("{origin} holds no token: neither one alone nor a line like `name scope token`"))
        })
    }

    /// The token to send to a daemon.
    ///
    /// # Errors
    /// When its file cannot be read or holds none, or when it would be sent in clear text to another machine.
    pub fn token(&self, url: &Url, http: &api::Config) -> Result<Tokens, CliError> {
        let Some(tokens) = self.given()? else {
            return Ok(if is_configured_daemon(url, http) { Tokens::configured(http) } else { Tokens::default() });
        };
        if !url.tls && !url.is_loopback() && !self.insecure_token {
            return Err(CliError::Usage(format!(
                "the token would be sent in clear text to `{}`, which is another machine; use https://, or a tunnel to a \
                 loopback address, or say --insecure-token",
                url.host
            )));
        }
        Ok(tokens)
    }

    /// TLS to the daemon.
    pub fn tls(&self) -> Tls {
        Tls { ca: self.ca.clone(), ..Tls::default() }
    }
}

/// Whether the address is one of the configured daemon, the only one that gets its tokens: on this machine other users may listen
/// on other ports.
fn is_configured_daemon(url: &Url, http: &api::Config) -> bool {
    local_address(url, http).is_some()
        || (url.tls && http.trusted_hosts.iter().any(|name| name.eq_ignore_ascii_case(&url.host)))
}

/// The loopback address of the configured daemon, if `url` names it. `localhost` may resolve to several addresses; on one where
/// the daemon does not listen, another user may.
pub fn local_address(url: &Url, http: &api::Config) -> Option<SocketAddr> {
    let listen: SocketAddr = http.listen.parse().ok().filter(|listen: &SocketAddr| listen.port() == url.port)?;
    let at = match listen.ip().to_canonical() {
        IpAddr::V4(at) if at.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(at) if at.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        at => at,
    };
    let named = url.host.parse::<IpAddr>().ok().map_or(at, |named| named.to_canonical());
    let listens = named == at || (listen.ip().is_unspecified() && (listen.is_ipv6() || named.is_ipv4()));
    (url.is_loopback() && named.is_loopback() && listens).then(|| SocketAddr::new(named, url.port))
}

/// The tokens for requests that read, and for those that change something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    read: Option<Secret>,
    admin: Option<Secret>,
}

impl Tokens {
    /// The tokens of `http.tokens_file`; none if it is unreadable or invalid.
    fn configured(http: &api::Config) -> Self {
        let usable = http.tokens_file.as_ref().filter(|path| api::read_tokens(path).is_ok());
        let text = usable.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let lines = lines(&text);
        Self { read: first(&lines, &["read", "admin"]), admin: first(&lines, &["admin"]) }
    }

    /// The tokens of a text with one token alone, or with lines of a file of tokens. Without enough scope the first is used, so
    /// that the daemon's refusal names it.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Some(Self { read: Some(Secret::new(text)), admin: Some(Secret::new(text)) });
        }
        let lines = lines(text);
        let (_, any) = lines.first()?;
        let best = |scopes| first(&lines, scopes).or_else(|| Some(any.clone()));
        Some(Self { read: best(&["read", "admin"]), admin: best(&["admin"]) })
    }

    /// The token for a request with this method.
    pub fn for_method(&self, method: &str) -> Option<&Secret> {
        if method == "GET" { self.read.as_ref() } else { self.admin.as_ref() }
    }
}

/// The lines `name scope token` of a text, without their names.
fn lines(text: &str) -> Vec<(&str, Secret)> {
    text.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<(&str, Secret)> {
    let words: Vec<_> = text.split_whitespace().collect();
    let &[name, scope, secret] = words.as_slice() else { return None };
    let is_token = !name.starts_with('#')
        && ["read", "publish", "admin"].contains(&scope)
        && !secret.contains(|c: char| c.is_control());
    is_token.then(|| (scope, Secret::new(secret)))
}

fn first(lines: &[(&str, Secret)], scopes: &[&str]) -> Option<Secret> {
    lines.iter().find(|(scope, _)| scopes.contains(scope)).map(|(_, secret)| secret.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(url: &str, credentials: &Credentials, http: &api::Config) -> Result<(String, String), String> {
        let tokens = credentials.token(&Url::parse(url).unwrap(), http).map_err(|error| error.to_string())?;
        let text = |method| tokens.for_method(method).map(|token| token.expose().to_owned()).unwrap_or_default();
        Ok((text("GET"), text("POST")))
    }

    #[test]
    fn a_token_is_sent_in_clear_text_only_to_this_machine_unless_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "0123456789abcdef\n").unwrap();
        let careful = Credentials { token_file: Some(path), ..Credentials::default() };
        let told = Credentials { insecure_token: true, ..careful.clone() };
        for (url, credentials, sent) in [
            ("http://127.0.0.1:8050", &careful, true),
            ("http://localhost:8050", &careful, true),
            ("http://[::1]:8050", &careful, true),
            ("https://ingest.example", &careful, true),
            ("http://ingest.example", &careful, false),
            ("http://10.0.0.1:8050", &careful, false),
            ("http://127.0.0.1.evil.example", &careful, false),
            ("http://ingest.example", &told, true),
        ] {
            let token = token(url, credentials, &api::Config::default());
            assert_eq!(token.is_ok(), sent, "{url}: {token:?}");
            assert!(token.is_ok() || token.is_err_and(|error| error.contains("--insecure-token")), "{url}");
        }
    }

    #[test]
    fn the_configured_tokens_are_for_the_configured_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(
            &path,
            "# ours\nlab publish 00000000publish0\nann admin 00000000000admin\nbob read 000000000000read\n",
        )
        .unwrap();
        let http = api::Config {
            tokens_file: Some(path.clone()),
            trusted_hosts: vec!["ingest.example".into()],
            ..api::Config::default()
        };
        let none = Ok((String::new(), String::new()));
        let ours = Ok(("00000000000admin".to_owned(), "00000000000admin".to_owned()));
        for (url, sent) in [
            ("http://127.0.0.1:8050", &ours),
            ("http://localhost:8050", &ours),
            ("https://localhost:8050", &ours),
            ("http://[::ffff:127.0.0.1]:8050", &ours),
            ("http://127.0.0.1:8051", &none),
            ("http://localhost", &none),
            ("https://localhost", &none),
            ("http://127.0.0.2:8050", &none),
            ("http://[::1]:8050", &none),
            ("https://Ingest.example", &ours),
            ("http://ingest.example", &none),
            ("https://evil.example", &none),
        ] {
            assert_eq!(&token(url, &Credentials::default(), &http), sent, "{url}");
        }
        for (listen, url, address) in [
            ("127.0.0.1:8050", "http://localhost:8050", Some("127.0.0.1:8050")),
            ("[::1]:8050", "http://localhost:8050", Some("[::1]:8050")),
            ("0.0.0.0:8050", "http://localhost:8050", Some("127.0.0.1:8050")),
            ("0.0.0.0:8050", "http://[::1]:8050", None),
            ("[::]:8050", "http://127.0.0.1:8050", Some("127.0.0.1:8050")),
            ("10.0.0.1:8050", "http://localhost:8050", None),
            ("10.0.0.1:8050", "http://10.0.0.1:8050", None),
            ("", "http://localhost:8050", None),
        ] {
            let http = api::Config { listen: listen.into(), ..api::Config::default() };
            let found = local_address(&Url::parse(url).unwrap(), &http);
            assert_eq!(found, address.map(|address| address.parse().unwrap()), "{listen} {url}");
        }
        fs::write(&path, "bob read 000000000000read\nann admin 00000000000admin\n").unwrap();
        let each = Ok(("000000000000read".to_owned(), "00000000000admin".to_owned()));
        assert_eq!(token("http://localhost:8050", &Credentials::default(), &http), each);
        fs::remove_file(&path).unwrap();
        assert_eq!(token("http://localhost:8050", &Credentials::default(), &http), none);
    }

    #[test]
    fn a_given_file_holds_a_token_or_lines_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let given = Credentials { token_file: Some(path.clone()), ..Credentials::default() };
        for (text, read, change) in [
            ("0123456789abcdef\n", "0123456789abcdef", "0123456789abcdef"),
            ("ann admin 00000000000admin\n", "00000000000admin", "00000000000admin"),
            ("bob read 000000000000read", "000000000000read", "000000000000read"),
            (
                "# ours\nlab publish 00000000publish0\nbob read 000000000000read\n\nann admin 00000000000admin\n",
                "000000000000read",
                "00000000000admin",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let seen = token("http://localhost", &given, &api::Config::default());
            assert_eq!(seen, Ok((read.into(), change.into())), "{text:?}");
        }
        for text in ["", "\n", "# nobody\n", "open sesame hush-hush\n", "hush-hush\nhush-hush", "hush\u{7}hush"] {
            fs::write(&path, text).unwrap();
            let error = token("http://localhost", &given, &api::Config::default()).unwrap_err();
            assert!(error.contains("holds no token") && !error.contains("hush"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_configured_file_that_no_daemon_takes_holds_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let http = api::Config { tokens_file: Some(path.clone()), ..api::Config::default() };
        for (text, sent) in
            [("ann admin 00000000000admin\n", "00000000000admin"), ("ann admin 00000000000admin\nx y\n", "")]
        {
            fs::write(&path, text).unwrap();
            let seen = token("http://localhost:8050", &Credentials::default(), &http);
            assert_eq!(seen, Ok((sent.into(), sent.into())), "{text:?}");
        }
    }
}
