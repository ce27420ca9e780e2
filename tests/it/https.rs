//! The command line with a daemon behind a TLS proxy; and to which servers it sends a token.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    daemon::Daemon,
    redis::{Redis, make_certificates},
    wait_until,
};

const ADMIN: &str = "admin-token-0123456789";
const READER: &str = "reader-token-0123456789";
const LIMIT: Duration = Duration::from_secs(30);

/// A proxy with the certificate of `dir`, for the life of the process; returns its port. It sets `X-Forwarded-For`.
fn proxy(dir: &Path, to: u16) -> u16 {
    let chain = CertificateDer::pem_file_iter(dir.join("redis.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(dir.join("redis.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            // Connections are served one after another: the command line sends one request at a time.
            while let Ok((client, _)) = listener.accept().await {
                let Ok(client) = acceptor.accept(client).await else { continue };
                let mut client = BufReader::new(client);
                let mut line = String::new();
                client.read_line(&mut line).await.unwrap();
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                server.write_all(format!("{line}X-Forwarded-For: 10.0.0.9\r\n").as_bytes()).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    });
    port
}

fn with_tokens(redis: &Redis, dir: &Path) -> Daemon {
    let path = dir.join("tokens");
    fs::write(&path, format!("bob read {READER}\nann admin {ADMIN}\n")).unwrap();
    let daemon = Daemon::on(redis).set("http.tokens_file", format!("{:?}", path.display().to_string())).start_ready();
    let message = json!({"run_id": "spiral", "epoch": 1, "loss": 0.5}).to_string();
    redis.client().publish("cascor:training", message);
    daemon.wait_rows("SELECT count(*) FROM training_metrics", 1);
    daemon
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

#[test]
fn a_daemon_behind_tls_is_asked_when_its_certificate_is_right() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    make_certificates(dir.path());
    let daemon = with_tokens(&redis, dir.path());
    let port = proxy(dir.path(), daemon.http_port());
    let url = format!("https://localhost:{port}");
    let ca = dir.path().join("ca.pem").display().to_string();
    let token = dir.path().join("token").display().to_string();
    fs::write(&token, format!("{READER}\n")).unwrap();
    let trusting = ["--url", &url, "--ca", &ca, "--token-file", &token];
    let runs: Value = serde_json::from_str(&daemon.succeed(&[&["runs", "--json"], &trusting[..]].concat())).unwrap();
    assert!(runs.to_string().contains("spiral"), "{runs}");
    daemon.succeed(&[&["status"], &trusting[..]].concat());
    daemon.succeed(&[&["tail", "--for", "1s"], &trusting[..]].concat());
    // A streamed answer with its checksum as a trailer, direct and through the proxy.
    let export = |name: &str, place: &[&str]| {
        let file = dir.path().join(name).display().to_string();
        daemon.succeed(&[&["export", "spiral", "-o", &file], place].concat());
        fs::read(file).unwrap()
    };
    let plain = format!("http://127.0.0.1:{}", daemon.http_port());
    let exported = export("secure.csv", &trusting);
    assert_eq!(exported, export("plain.csv", &["--url", &plain, "--token-file", &token]));
    assert!(exported.len() > 100);
    // The system's authorities, here set by `SSL_CERT_FILE`.
    let system = |file: &str| {
        let mut command = daemon.prepared(&["runs", "--url", &url, "--token-file", &token]);
        run(command.env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR"))
    };
    assert!(system(&ca).status.success(), "{}", error(&system(&ca)));
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let unknown = other.path().join("ca.pem").display().to_string();
    for output in [
        system(&unknown),
        daemon.command(&["runs", "--url", &url, "--ca", &unknown, "--token-file", &token]),
        daemon.command(&["runs", "--url", &format!("https://127.0.0.2:{port}"), "--ca", &ca, "--token-file", &token]),
    ] {
        assert!(!output.status.success() && error(&output).contains("failed to reach"), "{}", error(&output));
    }
    let output = daemon.command(&["runs", "--url", &url, "--ca", "/nonexistent.pem", "--token-file", &token]);
    assert!(!output.status.success() && error(&output).contains("/nonexistent.pem"), "{}", error(&output));
}

/// A server that gives this answer to every request.
fn answering(answer: &'static str) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut asked = String::new();
            let mut lines = std::io::BufReader::new(client.try_clone().unwrap());
            while std::io::BufRead::read_line(&mut lines, &mut asked).is_ok_and(|read| read > 2) {}
            let _ = std::io::Write::write_all(&mut client, answer.as_bytes());
        }
    });
    port
}

#[test]
fn a_url_with_the_wrong_scheme_is_named() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    make_certificates(dir.path());
    let daemon = Daemon::on(&redis).start_ready();
    let (plain, secure) = (daemon.http_port(), proxy(dir.path(), daemon.http_port()));
    let nginx = answering(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html><head><title>400 The \
         plain HTTP request was sent to HTTPS port</title></head></html>",
    );
    let redirecting = answering(
        "HTTP/1.1 301 Moved\r\nLocation: https://ingest.example/api/runs\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    for (url, told) in [
        (format!("https://localhost:{plain}"), format!("probably http://localhost:{plain}")),
        (format!("http://localhost:{secure}"), format!("probably https://localhost:{secure}")),
        (format!("http://localhost:{nginx}"), format!("probably https://localhost:{nginx}")),
        (format!("http://localhost:{redirecting}"), "leads to https://ingest.example:".to_owned()),
    ] {
        let output = daemon.command(&["runs", "--url", &url]);
        assert!(!output.status.success() && error(&output).contains(&told), "{url}: {}", error(&output));
    }
}

#[test]
fn the_command_line_works_where_there_are_tokens() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let daemon = with_tokens(&redis, dir.path());
    let url = format!("http://127.0.0.1:{}", daemon.http_port());
    // From the configured file, if readable: the first token with a sufficient scope.
    daemon.succeed(&["runs", "--url", &url]);
    daemon.succeed(&["status", "--url", &url]);
    daemon.succeed(&["tail", "--for", "1s", "--url", &url]);
    daemon.succeed(&["runs", "note", "spiral", "a note", "--url", &url]);
    // Through Redis, the store and the files.
    daemon.succeed(&["status"]);
    daemon.succeed(&["control", "status"]);
    daemon.succeed(&["spool", "status"]);
    daemon.succeed(&["tail", "--for", "1s"]);
    // Precedence: flag, variable, configured file.
    let token = dir.path().join("token").display().to_string();
    fs::write(&token, format!("{READER}\n")).unwrap();
    let with =
        |arguments: &[&str]| run(daemon.prepared(arguments).env("CASCOR_INGEST_TOKEN", "wrong-token-0123456789"));
    assert!(error(&with(&["runs", "--url", &url])).contains("token"));
    let output = with(&["runs", "--url", &url, "--token-file", &token]);
    assert!(output.status.success(), "{}", error(&output));
    // A line of the token file, and the whole file; a token with an insufficient scope is named.
    fs::write(&token, format!("bob read {READER}\n")).unwrap();
    daemon.succeed(&["runs", "--url", &url, "--token-file", &token]);
    let refused = daemon.command(&["runs", "tag", "spiral", "a", "--url", &url, "--token-file", &token]);
    assert!(error(&refused).contains("failed to change: the token `bob` may only read"), "{}", error(&refused));
    let line = run(daemon.prepared(&["runs", "--url", &url]).env("CASCOR_INGEST_TOKEN", format!("ann admin {ADMIN}")));
    assert!(line.status.success(), "{}", error(&line));
    let whole = dir.path().join("tokens").display().to_string();
    daemon.succeed(&["runs", "tag", "spiral", "a", "--url", &url, "--token-file", &whole]);
}

#[test]
fn a_token_is_not_sent_in_clear_text_to_another_machine_unless_asked() {
    let (redis, dir) = (Redis::start(), tempfile::tempdir().unwrap());
    let daemon = with_tokens(&redis, dir.path());
    let token = dir.path().join("token").display().to_string();
    fs::write(&token, format!("{READER}\n")).unwrap();
    // Not a loopback name, although it resolves to this machine.
    let url = format!("http://0.0.0.0:{}", daemon.http_port());
    let refused = daemon.command(&["runs", "--url", &url, "--token-file", &token]);
    assert_eq!(refused.status.code(), Some(2), "{}", error(&refused));
    assert!(error(&refused).contains("clear text") && error(&refused).contains("--insecure-token"));
    let refused = run(daemon.prepared(&["status", "--url", &url]).env("CASCOR_INGEST_TOKEN", READER));
    assert!(error(&refused).contains("clear text"), "{}", error(&refused));
    // The tokens of the configuration are for the configured daemon alone.
    let without = daemon.command(&["runs", "--url", &url]);
    assert!(!without.status.success() && error(&without).contains("a token is needed"), "{}", error(&without));
    daemon.succeed(&["runs", "--url", &url, "--token-file", &token, "--insecure-token"]);
    wait_until("the daemon", LIMIT, || daemon.get("/readyz").status == 200);
    assert!(!daemon.log().contains(READER));
}
