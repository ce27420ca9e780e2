//! Private Redis servers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{
    ports::{free_node_port, free_port},
    process::Process,
    resp::Resp,
    resp::Value,
    wait_for,
};

/// Events that a training process publishes a second, in groups.
const RATE: u64 = 500;
const GROUP: u64 = 5;

/// How to start a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Password of the default user.
    pub password: Option<&'static str>,
    /// A TLS port beside the plain one; see [`Redis::ca`].
    pub tls: bool,
    /// More of its command line: `["--maxmemory", "1mb"]`.
    pub more: Vec<&'static str>,
}

/// A server of one test.
#[derive(Debug)]
pub struct Redis {
    process: Option<Process>,
    dir: TempDir,
    options: Options,
    /// Its plain port.
    pub port: u16,
    /// Its TLS port, when asked for.
    pub tls_port: Option<u16>,
}

impl Redis {
    /// Starts a server with no password and no files, and waits until it answers.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// Starts a server and waits until it answers.
    #[track_caller]
    pub fn with(options: Options) -> Self {
        let mut redis = Self::absent(options);
        redis.launch();
        redis
    }

    /// A server that is not started yet: its address is known, nothing listens there.
    pub fn absent(options: Options) -> Self {
        let dir = TempDir::with_prefix("cascor-redis").unwrap();
        if options.tls {
            make_certificates(dir.path());
        }
        let tls_port = options.tls.then(free_port);
        let port = if options.more.contains(&"--cluster-enabled") { free_node_port() } else { free_port() };
        Self { process: None, dir, options, port, tls_port }
    }

    /// Starts it (again) on the same port.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let mut command = Command::new("redis-server");
        command.arg("--port").arg(self.port.to_string()).args(["--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--loglevel", "notice", "--dir"]).arg(self.dir.path());
        if let Some(password) = self.options.password {
            command.args(["--requirepass", password]);
        }
        if let Some(port) = self.tls_port {
            command.arg("--tls-port").arg(port.to_string()).args(["--tls-auth-clients", "no"]);
            for (option, file) in [("cert", "redis.pem"), ("key", "redis.key"), ("ca-cert", "ca.pem")] {
                command.arg(format!("--tls-{option}-file")).arg(self.dir.path().join(file));
            }
        }
        command.args(&self.options.more);
        let mut process = Process::spawn(&mut command, &self.dir.path().join("redis.log"));
        let (port, password) = (self.port, self.options.password);
        wait_for("Redis to answer", Duration::from_secs(10), || {
            if process.ended().is_some() {
                panic!("redis-server ended:\n{}", process.log_tail());
            }
            let mut client = Resp::connect(port).ok()?;
            authenticate(&mut client, password);
            (client.command_bytes(&[b"PING"]).ok()? == Value::Simple("PONG".into())).then_some(())
        });
        self.process = Some(process);
    }

    /// `redis://127.0.0.1:port/0`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// `rediss://localhost:port/0`
    pub fn tls_url(&self) -> String {
        format!("rediss://localhost:{}/0", self.tls_port.unwrap())
    }

    /// The authority that signed its certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A connection, logged in.
    #[track_caller]
    pub fn client(&self) -> Resp {
        let mut client = Resp::connect(self.port).unwrap();
        authenticate(&mut client, self.options.password);
        client
    }

    /// Publishes the messages of a training process, each made of its number, until stopped; returns their number.
    pub fn train(&self, stop: &Arc<AtomicBool>, message: fn(u64) -> String) -> thread::JoinHandle<u64> {
        let (mut client, stop) = (self.client(), Arc::clone(stop));
        thread::spawn(move || {
            let (began, mut sent) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                let group: Vec<_> = (sent..sent + GROUP).map(message).collect();
                let heard = client.publish_all("cascor:training", &group).unwrap();
                assert_eq!(heard, GROUP.cast_signed(), "the daemon listens");
                sent += GROUP;
                thread::sleep(Duration::from_secs_f64(sent as f64 / RATE as f64).saturating_sub(began.elapsed()));
            }
            sent
        })
    }

    /// How many subscribers the channel has (patterns not counted).
    #[track_caller]
    pub fn subscribers(&self, channel: &str) -> i64 {
        match self.client().command(&["PUBSUB", "NUMSUB", channel]) {
            Value::Array(parts) => parts.last().and_then(Value::integer).unwrap_or(0),
            other => panic!("PUBSUB NUMSUB was answered {other:?}"),
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&mut self) {
        self.process.as_mut().unwrap().signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.as_mut().unwrap().signal(Signal::CONT);
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }
}

fn authenticate(client: &mut Resp, password: Option<&str>) {
    if let Some(password) = password {
        let _ = client.command_bytes(&[b"AUTH", password.as_bytes()]); // PING says whether it worked
    }
}

/// `ca.pem`, and `redis.pem` with `redis.key` for localhost, signed by it.
pub fn make_certificates(dir: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    fs::write(dir.join("san"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n").unwrap();
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=test-ca"));
    openssl(&format!("req {key} -keyout redis.key -out redis.csr -subj /CN=localhost"));
    openssl("x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out redis.pem -days 30 -extfile san");
}
