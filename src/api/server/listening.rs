//! Whether HTTP listens, for the status object; and the address of the dashboard.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::{api::Config, listeners};

/// Whether HTTP listens. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Listening {
    listen: String,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Listening,
    Failed(String),
}

impl Listening {
    /// HTTP on `http.listen`, before it listens.
    pub fn new(listen: &str) -> Self {
        Self { listen: listen.to_owned(), state: Arc::new(Mutex::new(State::Starting)) }
    }

    pub(super) fn set_listening(&self) {
        self.set(State::Listening);
    }

    pub(super) fn set_failed(&self, problem: String) {
        self.set(State::Failed(problem));
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// A part of the status object; null without HTTP.
    pub fn to_json(&self) -> Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let problem = if let State::Failed(problem) = &state { Some(problem) } else { None };
        if self.listen.is_empty() {
            return Value::Null;
        }
        json!({ "listen": self.listen, "listening": state == State::Listening, "problem": problem })
    }
}

/// The address of the dashboard for a browser on this machine; `None` without HTTP.
pub fn dashboard_url(config: &Config) -> Option<String> {
    let address: SocketAddr = config.listen.parse().ok()?;
    let scheme = if config.tls.files().is_some() { "https" } else { "http" };
    Some(match address.ip() {
        ip if !ip.is_unspecified() => format!("{scheme}://{address}/"),
        // Also right in a container whose port is published under the same number.
        _ => format!(
            "{scheme}://{}/ (listens on every address of this machine)",
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        ),
    })
}

/// Why the address cannot be used: with the process that uses its port, where that is known.
pub fn bind_problem(address: &str, error: &io::Error) -> String {
    let holder = address.parse().ok().filter(|_| error.kind() == io::ErrorKind::AddrInUse).and_then(listeners::find);
    match holder {
        Some(holder) => format!("{address} is in use by {holder}"),
        None => format!("{address} cannot be used: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_has_an_address_that_a_browser_opens() {
        for (listen, expected) in [
            ("127.0.0.1:8050", Some("http://127.0.0.1:8050/")),
            ("10.0.0.7:80", Some("http://10.0.0.7:80/")),
            ("[::1]:8050", Some("http://[::1]:8050/")),
            ("0.0.0.0:8050", Some("http://127.0.0.1:8050/ (listens on every address of this machine)")),
            ("[::]:8050", Some("http://127.0.0.1:8050/ (listens on every address of this machine)")),
            ("", None),
        ] {
            let mut config = Config { listen: listen.into(), ..Config::default() };
            assert_eq!(dashboard_url(&config).as_deref(), expected, "{listen}");
            (config.tls.cert, config.tls.key) = (Some("cert.pem".into()), Some("key.pem".into()));
            let encrypted = expected.map(|address| address.replace("http:", "https:"));
            assert_eq!(dashboard_url(&config), encrypted, "{listen}");
        }
    }

    #[test]
    fn a_port_in_use_is_a_problem_that_names_the_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let listening = Listening::new(&address);
        assert_eq!(listening.to_json(), json!({ "listen": address, "listening": false, "problem": null }));
        let error = std::net::TcpListener::bind(&address).unwrap_err();
        listening.set_failed(bind_problem(&address, &error));
        let problem = listening.to_json()["problem"].as_str().unwrap().to_owned();
        assert!(problem.starts_with(&format!("{address} is in use by process {} (", std::process::id())), "{problem}");
        listening.set_listening();
        assert_eq!(listening.to_json(), json!({ "listen": address, "listening": true, "problem": null }));
        assert_eq!(Listening::new("").to_json(), Value::Null);
    }
}
