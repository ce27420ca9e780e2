//! The tokens of the command line, and the daemons to which it sends them.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    api,
    cli::CliError,
    config::{Settings, Url},
    logging::Chain,
    secret::Secret,
    tls::Tls,
};

/// How to authenticate, and which authorities to trust.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Credentials {
    /// A file with the token: the token alone, or lines `name scope token` as `token new` prints them, of which the first with
    /// enough scope is used; absent: the variable CASCOR_INGEST_TOKEN, which may hold the same, or CASCOR_INGEST_TOKEN_FILE; else,
    /// for the daemon at `client.url`, `client.token_file`; else, for the daemon at `http.listen` on this machine,
    /// `http.tokens_file`, if it is readable.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A PEM file of the authorities to trust for https; absent: `client.ca` for the daemon at `client.url`, else those of
    /// the operating system.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Send the token to another machine in clear text (http), where the network can read it.
    #[arg(long)]
    pub insecure_token: bool,
}

impl Credentials {
    /// The first flag that is given.
    pub fn first_flag(&self) -> Option<&'static str> {
        let given = [
            ("--token-file", self.token_file.is_some()),
            ("--ca", self.ca.is_some()),
            ("--insecure-token", self.insecure_token),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// The tokens of the flag, else of the environment, else of the settings.
    fn given(&self, url: &Url, settings: &Settings) -> Result<Option<Tokens>, CliError> {
        let variable = |name: &str| env::var(name).ok().filter(|text| !text.trim().is_empty());
        let read = |path: &Path| {
            let origin = format!("`{}`", path.display());
            let text = Secret::read(path);
            text.map_err(|error| CliError::failed(format!("failed to read {origin}"), error)).map(|text| (origin, text))
        };
        let of_settings = settings.client.token_file.as_ref().filter(|_| settings.client.names(url));
        let (origin, text) = if let Some(path) = &self.token_file {
            read(path)?
        } else if let Some(text) = variable("CASCOR_INGEST_TOKEN") {
            ("the variable CASCOR_INGEST_TOKEN".to_owned(), Secret::new(text))
        } else if let Some(path) = variable("CASCOR_INGEST_TOKEN_FILE") {
            read(Path::new(&path))?
        } else if let Some(path) = of_settings {
            read(path)?
        } else {
            return Ok(None);
        };
        Tokens::parse(text.expose()).map(Some).ok_or_else(|| {
            CliError::Usage(format!("{origin} holds no token: neither one alone nor a line like `name scope token`"))
        })
    }

    /// The token to send to a daemon.
    ///
    /// # Errors
    /// When its file cannot be read or holds none, or when it would be sent in clear text to another machine.
    pub fn token(&self, url: &Url, settings: &Settings) -> Result<Tokens, CliError> {
        let http = &settings.http;
        let Some(tokens) = self.given(url, settings)? else {
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
    pub fn tls(&self, url: &Url, settings: &Settings) -> Tls {
        let of_settings = || settings.client.ca.clone().filter(|_| settings.client.names(url));
        Tls { ca: self.ca.clone().or_else(of_settings), ..Tls::default() }
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

/// The tokens for requests that read, that publish messages, and that change something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    read: Option<Secret>,
    publish: Option<Secret>,
    admin: Option<Secret>,
    /// Why the configured file gives none, if one is configured and does not.
    pub problem: Option<String>,
}

impl Tokens {
    /// The tokens of `http.tokens_file`; none if it is unreadable or invalid.
    fn configured(http: &api::Config) -> Self {
        let Some(path) = &http.tokens_file else { return Self::default() };
        let problem = api::read_tokens(path).err().map(|error| format!("`http.tokens_file`: {}", Chain(&error)));
        let usable = Some(path).filter(|_| problem.is_none());
        let text = usable.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let lines = lines(&text);
        Self {
            problem,
            read: first(&lines, &["read", "admin"]),
            publish: first(&lines, &["publish", "admin"]),
            admin: first(&lines, &["admin"]),
        }
    }

    /// The tokens of a text with one token alone, or with lines of a file of tokens. Without enough scope the first is used, so
    /// that the daemon's refusal names it.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let token = || Some(Secret::new(text));
            return Some(Self { read: token(), publish: token(), admin: token(), problem: None });
        }
        let lines = lines(text);
        let (_, any) = lines.first()?;
        let best = |scopes| first(&lines, scopes).or_else(|| Some(any.clone()));
        Some(Self {
            read: best(&["read", "admin"]),
            publish: best(&["publish", "admin"]),
            admin: best(&["admin"]),
            problem: None,
        })
    }

    /// The token for a request.
    pub fn for_request(&self, method: &str, path: &str) -> Option<&Secret> {
        match method {
            "GET" => self.read.as_ref(),
            _ if path == api::MESSAGES_PATH => self.publish.as_ref(),
            _ => self.admin.as_ref(),
        }
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
    use crate::config::ClientConfig;

    fn token(url: &str, credentials: &Credentials, http: &api::Config) -> Result<(String, String), String> {
        token_with(url, credentials, &Settings { http: http.clone(), ..Settings::default() })
    }

    fn token_with(url: &str, credentials: &Credentials, settings: &Settings) -> Result<(String, String), String> {
        let tokens = credentials.token(&Url::parse(url).unwrap(), settings).map_err(|error| error.to_string())?;
        let text = |method| tokens.for_request(method, "/").map(|token| token.expose().to_owned()).unwrap_or_default();
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
    fn the_token_of_the_settings_is_for_their_daemon_alone() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["token", "other"].map(|name| dir.path().join(name));
        fs::write(&path, "0123456789abcdef\n").unwrap();
        fs::write(&other, "fedcba9876543210\n").unwrap();
        let client = ClientConfig { url: "https://lab.example".into(), token_file: Some(path.clone()), ca: Some(path) };
        let settings = Settings { client, ..Settings::default() };
        let (flags, none) = (Credentials::default(), Ok((String::new(), String::new())));
        let sent = |token: &str| Ok((token.to_owned(), token.to_owned()));
        for (url, expected) in [
            ("https://lab.example:443", sent("0123456789abcdef")),
            ("https://evil.example", none.clone()),
            ("http://lab.example:443", none),
        ] {
            assert_eq!(token_with(url, &flags, &settings), expected, "{url}");
            let url = Url::parse(url).unwrap();
            assert_eq!(flags.tls(&url, &settings).ca.is_some(), settings.client.names(&url));
        }
        let flags = Credentials { token_file: Some(other), ..flags };
        assert_eq!(
            token_with("https://lab.example", &flags, &settings),
            sent("fedcba9876543210"),
            "the flag comes first"
        );
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
        // Messages need no more than the scope for them.
        fs::write(&path, "ann admin 00000000000admin\nlab publish 00000000publish0\n").unwrap();
        let tokens = given.token(&Url::parse("http://localhost").unwrap(), &Settings::default()).unwrap();
        let sent = tokens.for_request("POST", "/api/messages").map(Secret::expose);
        assert_eq!(sent, Some("00000000000admin"), "the first with enough scope");
        fs::write(&path, "lab publish 00000000publish0\nann admin 00000000000admin\n").unwrap();
        let tokens = given.token(&Url::parse("http://localhost").unwrap(), &Settings::default()).unwrap();
        let sent = |path| tokens.for_request("POST", path).map(Secret::expose);
        assert_eq!((sent("/api/messages"), sent("/api/runs")), (Some("00000000publish0"), Some("00000000000admin")));
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
