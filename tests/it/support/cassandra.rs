//! Cassandra: the node that all tests share, and private clusters; read with the DataStax driver for Python.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Map, Value};
use tempfile::TempDir;

use super::{repository, unique};

/// A node, and a keyspace that only this test uses.
#[derive(Debug)]
pub struct Cassandra {
    /// Its address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The keyspace; `schema apply` creates it.
    pub keyspace: String,
    owned: bool,
    login: Option<(&'static str, &'static str)>,
}

impl Cassandra {
    /// The shared node, from `CASCOR_TEST_CASSANDRA` (`host:port`). None: skip the test, visibly.
    pub fn shared() -> Option<Self> {
        let address = std::env::var("CASCOR_TEST_CASSANDRA").ok()?;
        let (host, port) = address.split_once(':').unwrap_or((&address, "9042"));
        Some(Self {
            host: host.to_owned(),
            port: port.parse().unwrap(),
            keyspace: unique("cascor_test"),
            owned: true,
            login: None,
        })
    }

    /// The same keyspace through another port of the same host.
    pub fn at_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port, keyspace: self.keyspace.clone(), owned: false, login: self.login }
    }

    /// Read by this user.
    pub fn login(mut self, user: &'static str, password: &'static str) -> Self {
        self.login = Some((user, password));
        self
    }

    /// Lines of the daemon's configuration that lead here.
    pub fn toml(&self) -> String {
        format!(
            "store.kind = \"cassandra\"\nstore.cassandra.contact_points = [\"{}\"]\nstore.cassandra.port = {}\n\
             store.cassandra.keyspace = \"{}\"\n",
            self.host, self.port, self.keyspace
        )
    }

    /// Rows of a query, by the DataStax driver for Python. Times are milliseconds, NaN is `"nan"`.
    #[track_caller]
    pub fn rows(&self, cql: &str) -> Vec<Map<String, Value>> {
        self.try_rows(&self.keyspace, cql).unwrap_or_else(|error| panic!("{cql}: {error}"))
    }

    /// The single number of `SELECT count(*) ...`.
    #[track_caller]
    pub fn count(&self, cql: &str) -> i64 {
        self.rows(cql)[0].values().next().unwrap().as_i64().unwrap()
    }

    /// Like [`rows`](Self::rows) in a keyspace (`-` for none), several statements one a line.
    pub fn try_rows(&self, keyspace: &str, cql: &str) -> Result<Vec<Map<String, Value>>, String> {
        let python = python().ok_or("CASCOR_TEST_PYTHON is not set")?;
        let mut child = Command::new(python)
            .arg(repository("tests/it/support/cql.py"))
            .args([&self.host, &self.port.to_string(), keyspace])
            .args(self.login.iter().flat_map(|(user, password)| [user, password]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        child.stdin.take().unwrap().write_all(cql.as_bytes()).map_err(|error| error.to_string())?;
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        if self.owned {
            // Without it the shared node would slow down with each test; a failure costs nothing else.
            let _ = self.try_rows("-", &format!("DROP KEYSPACE IF EXISTS {}", self.keyspace));
        }
    }
}

/// The interpreter with the driver, from `CASCOR_TEST_PYTHON`.
pub fn python() -> Option<PathBuf> {
    std::env::var_os("CASCOR_TEST_PYTHON").map(PathBuf::from)
}

/// One to three nodes of a test's own, on their own loopback addresses: for tests that kill nodes, log in or use TLS.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    net: String,
    port: u16,
}

impl Cluster {
    /// Starts the nodes and waits until they answer. `options` as of `tests/parts/cassandra.sh start`; acknowledged
    /// rows are on disk (`--sync batch`) unless they say otherwise. None: the jars are not there; skip the test.
    pub fn start(nodes: u8, net: &str, port: u16, options: &[&str]) -> Option<Self> {
        let jars = std::env::var("CASCOR_TEST_CASSANDRA_JARS").ok()?;
        let cluster = Self { dir: TempDir::with_prefix("cascor-cassandra").unwrap(), net: net.to_owned(), port };
        let (count, port) = (nodes.to_string(), port.to_string());
        let mut arguments = vec![count.as_str(), "--jars", &jars, "--net", net, "--port", &port, "--sync", "batch"];
        arguments.extend(options);
        cluster.script("start", &arguments);
        Some(cluster)
    }

    /// A keyspace of its own on the first node.
    pub fn keyspace(&self) -> Cassandra {
        Cassandra { host: self.host(1), port: self.port, keyspace: unique("cascor_test"), owned: false, login: None }
    }

    /// Address of a node, from 1.
    pub fn host(&self, node: u8) -> String {
        format!("{}.{node}", self.net)
    }

    /// The authority of a cluster started with `--tls`.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("tls/ca.pem")
    }

    /// The server's process.
    #[allow(dead_code, reason = "only the attacks trace a server")]
    pub fn pid(&self, node: u8) -> u32 {
        let file = self.dir.path().join(format!("node{node}/pid"));
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    /// SIGKILL.
    pub fn kill(&self, node: u8) {
        self.script("kill", &[&node.to_string()]);
    }

    /// Starts a node again.
    pub fn up(&self, node: u8) {
        self.script("up", &[&node.to_string()]);
    }

    /// SIGSTOP.
    pub fn pause(&self, node: u8) {
        self.script("pause", &[&node.to_string()]);
    }

    /// SIGCONT.
    pub fn resume(&self, node: u8) {
        self.script("resume", &[&node.to_string()]);
    }

    /// One statement on the first node, logged in as the superuser where there are logins.
    pub fn query(&self, cql: &str) {
        self.script("query", &["1", cql]);
    }

    #[track_caller]
    fn script(&self, verb: &str, arguments: &[&str]) {
        let output = self.command(verb, arguments).output().unwrap();
        assert!(
            output.status.success(),
            "cassandra.sh {verb} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.arg(repository("tests/parts/cassandra.sh")).arg(verb).arg(self.dir.path()).args(arguments);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The data is discarded: no clean stop is needed.
        let _ = self.command("stop", &[]).env("CASS_STOP_S", "0").output();
    }
}
