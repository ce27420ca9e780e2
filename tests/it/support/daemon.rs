//! The real program, as a user starts it.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    cassandra::Cassandra,
    http::{self, Response},
    ports::free_port,
    process::Process,
    redis::Redis,
    wait_for, wait_until,
};

/// The binary under test.
pub fn binary() -> String {
    std::env::var(OPTIMISED).unwrap_or_else(|_| env!("CARGO_BIN_EXE_cascor-ingest").into())
}

/// Names an optimised build to test in place of the one that belongs to the tests: some promises concern speed.
pub const OPTIMISED: &str = "CASCOR_TEST_BINARY";

/// The instance name of a daemon that is not given another.
pub const INSTANCE: &str = "test";

/// How long a daemon may take to be ready, or to end. Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(30);

/// How to start a daemon.
#[derive(Clone, Debug)]
pub struct Builder {
    toml: String,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    http_host: &'static str,
    http_port: u16,
}

impl Builder {
    /// Listens for HTTP on this address of the machine instead of on loopback.
    pub fn listen_on(mut self, host: &'static str) -> Self {
        self.http_host = host;
        self
    }

    /// A line of the configuration: `("writer.flush_interval", "\"50ms\"")`. The value is TOML.
    pub fn set(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.toml.push_str(&format!("{key} = {}\n", value.as_ref()));
        self
    }

    /// Writes to Cassandra instead of SQLite. The schema is not applied; see [`Daemon::apply_schema`].
    pub fn cassandra(mut self, cassandra: &Cassandra) -> Self {
        self.toml.push_str(&cassandra.toml());
        self
    }

    /// A variable of its environment, which is otherwise empty but for PATH and HOME.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Started by another program: `["strace", "-f", "-e", "inject=fdatasync:error=EIO"]`.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// Everything prepared, nothing running: for commands, and to apply a schema first.
    pub fn prepare(self) -> Daemon {
        let dir = TempDir::with_prefix("cascor-ingest").unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        let head = format!("state_dir = {:?}\nhttp.listen = \"{}:{}\"\n", state, self.http_host, self.http_port);
        let instance = if self.toml.lines().any(|line| line.starts_with("instance")) {
            String::new()
        } else {
            format!("instance = \"{INSTANCE}\"\n")
        };
        fs::write(dir.path().join("config.toml"), format!("{instance}{head}{}", self.toml)).unwrap();
        Daemon { process: None, state, dir, builder: self }
    }

    /// Starts it; does not wait for anything.
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.launch();
        daemon
    }

    /// Starts it and waits until `/readyz` answers 200.
    #[track_caller]
    pub fn start_ready(self) -> Daemon {
        let mut daemon = self.start();
        daemon.wait_ready();
        daemon
    }
}

/// A daemon with its configuration and state, running or not.
#[derive(Debug)]
pub struct Daemon {
    process: Option<Process>,
    state: PathBuf,
    dir: TempDir,
    builder: Builder,
}

impl Daemon {
    /// A daemon on this Redis and an SQLite file of its own.
    pub fn on(redis: &Redis) -> Builder {
        Self::at(&redis.url())
    }

    /// A daemon on this Redis URL and an SQLite file of its own.
    pub fn at(url: &str) -> Builder {
        let toml = format!("redis.url = \"{url}\"\n");
        Builder { toml, environment: Vec::new(), wrapper: Vec::new(), http_host: "127.0.0.1", http_port: free_port() }
    }

    /// Starts it (again) on the same state.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let mut command = match self.builder.wrapper.split_first() {
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.arg("run");
        self.settle(&mut command);
        self.process = Some(Process::spawn(&mut command, &self.dir.path().join("daemon.log")));
    }

    /// From the next start on it is started by another program; by none, if empty.
    pub fn set_wrapper(&mut self, wrapper: Vec<String>) {
        self.builder.wrapper = wrapper;
    }

    /// Whether it was started, and not ended by us.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        self.wait_http("/readyz", 200);
    }

    /// Waits until a path answers with a status.
    #[track_caller]
    pub fn wait_http(&mut self, path: &str, status: u16) -> Response {
        let port = self.builder.http_port;
        let process = self.process.as_mut().unwrap();
        let mut last = None;
        let start = tokio::time::Instant::now();
        loop {
            if let Some(status) = process.ended() {
                panic!("the daemon ended with {status}:\n{}", process.log_tail());
            }
            match http::get(port, path) {
                Ok(response) if response.status == status => return response,
                answer => last = answer.ok().or(last),
            }
            assert!(
                start.elapsed() < LIMIT,
                "{path} did not answer {status}; last: {last:?}; log:\n{}",
                process.log_tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// GET on its HTTP port.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        http::get(self.builder.http_port, path).unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log()))
    }

    /// POST on its HTTP port.
    #[track_caller]
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Response {
        http::post(self.builder.http_port, path, &body.to_string())
            .unwrap_or_else(|error| panic!("POST {path}: {error}\n{}", self.log()))
    }

    /// Whether it writes to Cassandra.
    pub fn uses_cassandra(&self) -> bool {
        self.builder.toml.contains("store.kind = \"cassandra\"")
    }

    /// Its HTTP port.
    pub fn http_port(&self) -> u16 {
        self.builder.http_port
    }

    /// The value of a metric without labels, or with this one among its labels: `cascor_source_gaps_total{reason="x"}`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics").body;
        let (name, label) = name.split_once('{').unwrap_or((name, ""));
        let label = label.trim_end_matches('}');
        let is_it = |rest: &str| match label {
            "" => rest.starts_with(' '),
            label => rest.starts_with('{') && rest.contains(label),
        };
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(is_it))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The running process.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the daemon is not running")
    }

    /// SIGKILL; the state stays.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.process.take().expect("the daemon is not running").kill();
    }

    /// SIGTERM, and its end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the daemon is not running");
        process.signal(Signal::TERM);
        process.wait(LIMIT)
    }

    /// SIGTERM and a new start, until ready.
    #[track_caller]
    pub fn restart(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "ended with {status}:\n{}", self.log());
        self.launch();
        self.wait_ready();
    }

    /// Where it keeps its state.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// Adds a line to its configuration file, for the next start.
    pub fn configure(&self, key: &str, value: &str) {
        use std::io::Write;
        let mut file = OpenOptions::new().append(true).open(self.config_file()).unwrap();
        writeln!(file, "{key} = {value}").unwrap();
    }

    /// Its SQLite file.
    pub fn database(&self) -> PathBuf {
        self.state.join("cascor.db")
    }

    /// Everything it has logged, over all starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("daemon.log")).unwrap_or_default()).into_owned()
    }

    /// Waits for a text in its log.
    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        wait_until(&format!("`{text}` in the log"), LIMIT, || self.log().contains(text));
    }

    /// Runs a command of the program with the same configuration, and waits for its end.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.prepared(arguments).output().unwrap()
    }

    /// The same, not started yet.
    pub fn prepared(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).stdin(Stdio::null());
        self.settle(&mut command);
        command
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} ended with {}: {stdout}{stderr}", output.status);
        stdout
    }

    /// Creates keyspace and tables, as an operator does.
    #[track_caller]
    pub fn apply_schema(&self) {
        self.succeed(&["schema", "apply", "--wait", "60s", "--replication", "SimpleStrategy:1"]);
    }

    /// Waits until a counting query on its SQLite file answers `expected`, then makes sure that it stays so.
    #[track_caller]
    pub fn wait_rows(&self, sql: &str, expected: i64) {
        let file = self.database();
        let mut last = 0;
        let done = || {
            last = super::sqlite::count(&file, sql);
            (last >= expected).then_some(())
        };
        wait_for(&format!("{expected} rows of `{sql}`"), LIMIT, done);
        assert_eq!(last, expected, "{sql}");
    }

    fn settle(&self, command: &mut Command) {
        // The configuration is named by the environment: it works for every subcommand, wherever its flag stands.
        command.env_clear().env("CASCOR_INGEST_CONFIG", self.config_file()).current_dir(self.dir.path());
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.builder.environment.iter().map(|(name, value)| (name, value)));
    }
}
