//! A server that cannot be reached, or is another one: the log, the status and the command line name the fault and the remedy.

use std::{fs, net::TcpListener, path::Path, process::Command, thread, time::Duration};

use cascor_ingest::{
    reach::{Protocol, Server},
    tls::{self, Tls},
};

use crate::support::{
    cassandra::Cassandra,
    daemon::Daemon,
    ports::free_port,
    process::Process,
    redis::{Options, Redis, make_certificates},
    skip, wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);

/// A server of openssl with the certificate `name.pem`.
fn tls_server(dir: &Path, name: &str, more: &[&str]) -> (Process, u16) {
    let port = free_port();
    let mut command = Command::new("openssl");
    command.args([
        "s_server",
        "-quiet",
        "-accept",
        &port.to_string(),
        "-cert",
        &format!("{name}.pem"),
        "-key",
        "redis.key",
    ]);
    let process = Process::spawn(command.args(more).current_dir(dir), &dir.join(format!("{name}.log")));
    wait_until("openssl to listen", LIMIT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (process, port)
}

/// A server that answers everything with this, and never closes a connection by itself.
fn answering(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 512];
                while std::io::Read::read(&mut client, &mut buffer).is_ok_and(|read| read > 0) {
                    let _ = std::io::Write::write_all(&mut client, answer);
                }
            });
        }
    });
    port
}

/// A certificate that is signed by the authority of `dir`, named `name.pem`.
fn certificate(dir: &Path, name: &str, extension: &str, days: &str) {
    fs::write(dir.join("extension"), extension).unwrap();
    let script = format!(
        "openssl x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days {days} -extfile extension"
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_connection_is_named_with_what_to_do() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(dir.path());
    make_certificates(other.path());
    certificate(dir.path(), "expired", "subjectAltName=DNS:localhost", "0");
    certificate(dir.path(), "elsewhere", "subjectAltName=DNS:elsewhere.example", "30");
    thread::sleep(Duration::from_millis(1_100));
    let redis = Redis::with(Options { tls: true, ..Options::default() });
    let redis_ca = redis.ca();
    let ours = dir.path().join("ca.pem");
    let (_expired, expired) = tls_server(dir.path(), "expired", &[]);
    let (_elsewhere, elsewhere) = tls_server(dir.path(), "elsewhere", &[]);
    let ca = ours.display().to_string();
    let (_asking, asking) = tls_server(dir.path(), "redis", &["-Verify", "1", "-verify_return_error", "-CAfile", &ca]);
    let http = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let cassandra = answering(&[0x84, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (full, _listener, _held) = full_port();
    let tls_port = redis.tls_port.unwrap();
    let table: &[(&str, u16, Option<&Path>, Protocol, &str)] = &[
        ("no-such-host.invalid", 6_379, None, Protocol::Redis, "the name `no-such-host.invalid` has no address"),
        (
            "127.0.0.1",
            1,
            None,
            Protocol::Redis,
            "nothing listens at `127.0.0.1:1` (connection refused); start Redis there",
        ),
        ("127.0.0.1", 1, None, Protocol::Cassandra, "start Cassandra there, or correct host and port"),
        ("127.0.0.1", full, None, Protocol::Redis, "does not answer in time; a firewall may drop the packets"),
        ("localhost", redis.port, Some(&redis_ca), Protocol::Redis, "speaks no TLS; name its TLS port"),
        ("localhost", tls_port, None, Protocol::Redis, "speaks TLS; let `redis.url` begin with rediss://"),
        ("localhost", tls_port, None, Protocol::Http, "the address is probably https://localhost:"),
        (
            "localhost",
            tls_port,
            Some(&ours),
            Protocol::Redis,
            "an authority that is not trusted here; name the file of that authority in `redis.tls.ca`",
        ),
        ("localhost", expired, Some(&ours), Protocol::Redis, "has expired; renew it on the server"),
        (
            "localhost",
            elsewhere,
            Some(&ours),
            Protocol::Redis,
            "is for other names than `localhost`; connect by a name that it has",
        ),
        (
            "localhost",
            asking,
            Some(&ours),
            Protocol::Cassandra,
            "asks for a client certificate; set `store.cassandra.tls.cert`",
        ),
        ("localhost", http, None, Protocol::Redis, "is a web server (HTTP), not Redis; correct host and port"),
        ("localhost", http, None, Protocol::Cassandra, "is a web server (HTTP), not Cassandra"),
        ("localhost", http, Some(&ours), Protocol::Redis, "is a web server (HTTP), not Redis"),
        ("localhost", cassandra, None, Protocol::Redis, "is Cassandra, not Redis; correct host and port"),
        ("localhost", redis.port, None, Protocol::Cassandra, "is Redis, not Cassandra; correct host and port"),
        ("localhost", redis.port, None, Protocol::Http, "is Redis, not cascor-ingest"),
        ("localhost", redis.port, None, Protocol::Redis, ""),
        ("localhost", tls_port, Some(&redis_ca), Protocol::Redis, ""),
        ("localhost", http, None, Protocol::Http, ""),
    ];
    for (host, port, ca, protocol, words) in table {
        let tls = ca.map(|ca| tls::client_config(&Tls { ca: Some(ca.to_owned()), ..Tls::default() }).unwrap());
        let limit = Duration::from_secs(1);
        let server = Server { protocol: *protocol, host: (*host).to_owned(), port: *port, tls, limit };
        let said = server.diagnose().await.map_or_else(String::new, |fault| fault.to_string());
        println!("{said}");
        assert_eq!(said.is_empty(), words.is_empty(), "{host}:{port} {protocol:?}: {said}");
        assert!(said.contains(words), "{host}:{port} {protocol:?}: {said}");
    }
}

/// A port whose backlog is full, so that it takes no connection, as behind a firewall that drops packets. The streams keep it so.
fn full_port() -> (u16, tokio::net::TcpListener, Vec<std::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let (address, mut held) = (listener.local_addr().unwrap(), Vec::new());
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
    }
    (address.port(), listener, held)
}

#[test]
fn the_log_and_the_status_name_the_fault_of_each_server() {
    let redis = Redis::with(Options { tls: true, ..Options::default() });
    let http = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let mut daemons = vec![
        (Daemon::at(&format!("redis://127.0.0.1:{http}")), "is a web server (HTTP), not Redis"),
        (Daemon::at(&format!("redis://localhost:{}", redis.tls_port.unwrap())), "speaks TLS; let `redis.url` begin"),
        (Daemon::at(&redis.tls_url().replace("localhost", "127.0.0.1")), "authority that is not trusted here"),
    ];
    match Cassandra::shared() {
        None => skip("the_log_and_the_status_name_the_fault_of_each_server", "no Cassandra"),
        Some(cassandra) => {
            let place = format!("{}:{}", cassandra.host, cassandra.port);
            daemons.push((Daemon::at(&format!("redis://{place}")), "is Cassandra, not Redis"));
        }
    }
    let on_redis = || {
        let port = redis.port.to_string();
        Daemon::on(&redis)
            .set("store.kind", "\"cassandra\"")
            .set("store.cassandra.contact_points", "[\"127.0.0.1\"]")
            .set("store.cassandra.port", port)
    };
    daemons.push((on_redis(), "is Redis, not Cassandra; correct host and port"));
    for (builder, words) in daemons {
        let daemon = builder.start();
        daemon.wait_log(words);
        wait_until("the status to say it", LIMIT, || {
            let port = daemon.http_port();
            crate::support::http::get(port, "/api/status").is_ok_and(|answer| answer.body.contains(words))
        });
        wait_until("/readyz to say it", LIMIT, || daemon.get("/readyz").body.contains(words));
    }
}
