//! HTTPS spoken by the daemon itself: certificates on disk, their replacement, and clients that do not speak TLS.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    daemon::Daemon,
    redis::{Redis, make_certificates},
    wait_until,
};

const ADMIN: &str = "admin-token-0123456789";
const LIMIT: Duration = Duration::from_secs(30);

/// A directory with `ca.pem`, `redis.pem` and `redis.key`, and a daemon that speaks TLS with them.
struct Secure {
    _redis: Redis,
    daemon: Daemon,
    dir: tempfile::TempDir,
}

impl Secure {
    fn start() -> Self {
        let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
        make_certificates(dir.path());
        let tokens = dir.path().join("tokens");
        fs::write(&tokens, format!("ann admin {ADMIN}\n")).unwrap();
        let path = |name: &str| format!("{:?}", dir.path().join(name).display().to_string());
        let daemon = Daemon::on(&redis)
            .set("http.tokens_file", path("tokens"))
            .set("http.tls.cert", path("redis.pem"))
            .set("http.tls.key", path("redis.key"))
            .set("http.header_timeout", "\"1s\"")
            .set("http.connections", "8")
            .start();
        daemon.wait_log("HTTP is listening");
        let secure = Self { _redis: redis, daemon, dir };
        wait_until("HTTPS to be ready", LIMIT, || secure.curl(&["-o", "/dev/null", "-f"], "/readyz").is_ok());
        secure
    }

    fn port(&self) -> u16 {
        self.daemon.http_port()
    }

    fn curl(&self, more: &[&str], path: &str) -> Result<String, String> {
        let (ca, url) = (self.dir.path().join("ca.pem"), format!("https://localhost:{}{path}", self.port()));
        let output = Command::new("curl").arg("-sS").arg("--cacert").arg(ca).args(more).arg(url).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The serial number of the certificate that is presented.
    fn serial(&self) -> String {
        let script = format!(
            "openssl s_client -connect localhost:{} </dev/null 2>/dev/null | openssl x509 -noout -serial",
            self.port()
        );
        String::from_utf8(Command::new("sh").args(["-c", &script]).output().unwrap().stdout).unwrap()
    }

    fn status(&self) -> serde_json::Value {
        let bearer = format!("Authorization: Bearer {ADMIN}");
        serde_json::from_str(&self.curl(&["-H", &bearer], "/api/status").unwrap()).unwrap()
    }
}

/// Another certificate of `dir`'s authority, in place of the one in use.
fn renew(dir: &Path, days: &str) {
    let output = Command::new("openssl")
        .args(
            "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out next.pem -extfile san -days"
                .split(' '),
        )
        .arg(days)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if days == "0" {
        // It is valid for this second.
        std::thread::sleep(Duration::from_millis(2_100));
    }
    fs::rename(dir.join("next.pem"), dir.join("redis.pem")).unwrap();
}

#[test]
fn the_daemon_speaks_https_and_the_command_line_asks_it() {
    let secure = Secure::start();
    assert!(secure.curl(&[], "/").unwrap().contains("<html"), "the dashboard");
    let url = format!("https://localhost:{}", secure.port());
    let ca = secure.dir.path().join("ca.pem").display().to_string();
    let token = secure.dir.path().join("token").display().to_string();
    fs::write(&token, ADMIN).unwrap();
    secure.daemon.succeed(&["status", "--url", &url, "--ca", &ca, "--token-file", &token]);
    secure.daemon.succeed(&["runs", "--url", &url, "--ca", &ca, "--token-file", &token]);
    // The cookie is for TLS alone, also on this machine.
    let sign_in =
        ["-i", "-X", "POST", "-H", "Content-Type: application/json", "-d", &format!("{{\"token\": \"{ADMIN}\"}}")];
    let answer = secure.curl(&sign_in, "/api/session").unwrap();
    assert!(answer.contains("__Host-cascor_session=") && answer.contains(" Secure;"), "{answer}");
    // Plain HTTP is told what to use, by the server and by the command line.
    let mut plain = TcpStream::connect(("127.0.0.1", secure.port())).unwrap();
    plain.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("use https://"), "{answer}");
    let plain = format!("http://localhost:{}", secure.port());
    let output = secure.daemon.command(&["status", "--url", &plain, "--token-file", &token]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("use https://"), "{said}");
}

#[test]
fn a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let mut secure = Secure::start();
    let first = secure.serial();
    assert!(first.starts_with("serial="), "{first}");
    renew(secure.dir.path(), "30");
    secure.daemon.process().signal(Signal::HUP);
    wait_until("the new certificate after SIGHUP", LIMIT, || secure.serial() != first);
    let second = secure.serial();
    // Expired: the former one stays.
    renew(secure.dir.path(), "0");
    secure.daemon.process().signal(Signal::HUP);
    secure.daemon.wait_log("the former certificate stays in use");
    assert_eq!(secure.serial(), second);
    let problem = secure.status()["access"]["certificate_problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("redis.pem") && problem.contains("not valid now"), "{problem}");
    assert!(secure.curl(&[], "/metrics").unwrap().contains("cascor_api_certificate_outdated 1"));
    // A file that is replaced needs no signal.
    renew(secure.dir.path(), "30");
    wait_until("the certificate to be read again", Duration::from_secs(40), || secure.serial() != second);
    assert!(secure.status()["access"]["certificate_problem"].is_null());
}

#[test]
fn slow_handshakes_do_not_use_up_the_connections() {
    let secure = Secure::start();
    let slow: Vec<_> = (0..60)
        .map(|n| {
            let mut stream = TcpStream::connect(("127.0.0.1", secure.port())).unwrap();
            if n % 2 == 0 {
                // The begin of a handshake.
                stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
            }
            stream
        })
        .collect();
    let begun = tokio::time::Instant::now();
    assert!(secure.curl(&["--max-time", "3"], "/healthz").is_ok());
    println!("answered after {:?} beside {} unfinished handshakes", begun.elapsed(), slow.len());
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let ended = stream.read(&mut [0; 64]);
        assert!(
            !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "kept open: {ended:?}"
        );
    }
}

#[test]
fn certificates_that_cannot_work_are_refused_at_the_start_by_name() {
    let redis = Redis::start();
    let [dir, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    make_certificates(dir.path());
    make_certificates(other.path());
    fs::write(dir.path().join("empty"), "").unwrap();
    renew(other.path(), "0");
    let file = |dir: &tempfile::TempDir, name: &str| dir.path().join(name);
    let quoted = |path: &PathBuf| format!("{:?}", path.display().to_string());
    for (cert, key, words) in [
        (file(&dir, "redis.pem"), file(&other, "redis.key"), "redis.key` does not belong to the certificate `"),
        (file(&other, "redis.pem"), file(&other, "redis.key"), "redis.pem` is not valid now; renew it"),
        (file(&dir, "empty"), file(&dir, "redis.key"), "empty` holds no certificate"),
        (file(&dir, "redis.pem"), file(&dir, "redis.pem"), "redis.pem` holds no private key"),
        (file(&dir, "redis.pem"), file(&dir, "absent.key"), "absent.key`"),
    ] {
        let daemon = Daemon::on(&redis).set("http.tls.cert", quoted(&cert)).set("http.tls.key", quoted(&key)).prepare();
        for command in ["check", "run"] {
            let output = daemon.command(&[command]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{command}: {said}");
            assert!(said.contains("`http.tls`: ") && said.contains(words), "{command}: {said}");
        }
    }
}
