//! Slow clients, many at once and in every shape: an administrator at the same address is answered beside them, and
//! messages are written as soon as without them.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;

use crate::{
    histogram,
    slow::{Attack, SHAPES, Shape},
    support::{
        cassandra::{Cassandra, python},
        daemon::{Builder, Daemon},
        redis::Redis,
        skip,
        stream::Stream,
        wait_until,
    },
};

const TRAINING: &str = "cascor:training";
const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";
const ADMIN: &str = "admin-token-0123456789";
const CLIENTS: usize = 270;
/// Longest answer time for the administrator.
const ANSWER: Duration = Duration::from_secs(1);
/// Slack beyond twice the time without clients: other tests run beside this one.
const FLOOR: f64 = 0.02;
/// Rows of the run that is read, and what is beside their numbers: one page is some megabytes.
const ROWS: u64 = 1_000;
const BESIDE: usize = 4_000;
const LIMIT: Duration = Duration::from_secs(30);

/// Length of the measurement of each shape.
fn span() -> Duration {
    if crate::is_long() { Duration::from_secs(15) } else { Duration::from_millis(800) }
}

/// A daemon with a token.
fn with_token(builder: Builder) -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    fs::write(&path, format!("ann admin {ADMIN}\n")).unwrap();
    let mut daemon = builder.set("http.tokens_file", format!("{:?}", path.display().to_string())).prepare();
    if daemon.uses_cassandra() {
        daemon.apply_schema();
    }
    daemon.launch();
    daemon.wait_ready();
    (dir, daemon)
}

/// An answer that the administrator got.
struct Answer {
    status: u16,
    took: Duration,
    text: String,
}

/// One request with this header, and how long it took to its end; that of a stream has begun.
fn ask(server: SocketAddr, method: &str, path: &str, credential: &str) -> Answer {
    let asked = Instant::now();
    let mut stream = TcpStream::connect_timeout(&server, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let body = match (method, path) {
        ("POST", "/api/session") => json!({"token": ADMIN}).to_string(),
        ("POST", _) => json!({"command": "status"}).to_string(),
        _ => String::new(),
    };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{credential}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).is_ok() {
        let mut piece = [0; 16 << 10];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            answer.extend_from_slice(&piece[..read]);
            if path == "/api/stream" && answer.windows(5).any(|text| text == b"hello") {
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, took: asked.elapsed(), text }
}

fn bearer() -> String {
    format!("Authorization: Bearer {ADMIN}")
}

/// Requests of the administrator over a span: with the token, and after signing in with it. Returns the slowest answer,
/// or the first that was wrong or late.
fn administer(server: SocketAddr, span: Duration) -> Result<Duration, String> {
    let export = format!("/api/export?run_id={RUN}&format=csv&start_time=2100-01-01T00:00:00Z");
    let range = format!("/api/metrics/range?run_id={RUN}&limit=5");
    let mut slowest = Duration::ZERO;
    let mut good = |method: &str, path: &str, credential: &str| {
        let answer = ask(server, method, path, credential);
        if !(200..300).contains(&answer.status) || answer.took > ANSWER {
            return Err(format!("{method} {path}: {} after {:?}", answer.status, answer.took));
        }
        slowest = slowest.max(answer.took);
        Ok(answer)
    };
    let signed = good("POST", "/api/session", "Accept: */*")?;
    let set = signed.text.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap_or_default();
    let (bearer, session) = (bearer(), format!("Cookie: {}", set.split(';').next().unwrap_or_default()));
    let requests = [
        ("GET", "/api/status", &bearer),
        ("POST", "/api/control", &bearer),
        ("GET", "/api/runs", &bearer),
        ("GET", "/api/stream", &bearer),
        ("GET", "/api/stream", &session),
        ("GET", range.as_str(), &session),
        ("GET", export.as_str(), &bearer),
        ("GET", "/metrics", &bearer),
        ("GET", "/", &session),
    ];
    let began = Instant::now();
    for (n, (method, path, credential)) in requests.iter().cycle().enumerate() {
        if began.elapsed() >= span && n >= requests.len() {
            break;
        }
        good(method, path, credential)?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(slowest)
}

/// The administrator's work, and seconds from receipt to disk meanwhile, p99.
fn observed(daemon: &Daemon, span: Duration) -> Result<(Duration, f64), String> {
    let server = SocketAddr::from(([127, 0, 0, 1], daemon.http_port()));
    let samples = || histogram::samples(&ask(server, "GET", "/metrics", &bearer()).text);
    let before = samples();
    let slowest = administer(server, span)?;
    let after = samples();
    Ok((slowest, histogram::quantile(&before, &after, "cascor_intake_written_seconds", 0.99)))
}

/// Waits for exactly so many rows in the store.
fn wait_rows(daemon: &Daemon, cassandra: Option<&Cassandra>, rows: u64) {
    let sql = "SELECT count(*) FROM training_metrics";
    match cassandra {
        None => daemon.wait_rows(sql, rows.cast_signed()),
        Some(cassandra) => {
            let count = || cassandra.count(sql);
            wait_until("the rows", LIMIT, || count() >= rows.cast_signed());
            assert_eq!(count(), rows.cast_signed());
        }
    }
}

/// A run with large rows.
fn fill(redis: &Redis, rows: u64) {
    let note = "x".repeat(BESIDE);
    let messages: Vec<_> = (0..rows)
        .map(|n| json!({"run_id": RUN, "seq": n, "epoch": n, "loss": 0.5, "note": note}).to_string())
        .collect();
    redis.client().publish_all(TRAINING, &messages).unwrap();
}

/// How many files and connections the daemon has open.
fn files(daemon: &mut Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.process().id())).unwrap().count()
}

/// The administrator beside clients of these shapes, `idle` being the files without any: whether answers and what is received are in time, or why not.
fn beside(daemon: &mut Daemon, idle: usize, shapes: &[Shape]) -> Result<(), String> {
    let server = SocketAddr::from(([127, 0, 0, 1], daemon.http_port()));
    let (alone, quiet) = observed(daemon, span() / 2)?;
    let attack = Attack::start(server, CLIENTS, shapes, RUN);
    wait_until("the clients", LIMIT, || attack.tally.opened.load(Ordering::Relaxed) >= CLIENTS as u64);
    // A command without a token is refused before its body.
    if shapes != [Shape::Body] {
        wait_until("the connections", LIMIT, || files(daemon).saturating_sub(idle) > CLIENTS / 2);
    }
    let (slowest, attacked) = observed(daemon, span())?;
    let seen = format!(
        "answers {slowest:?}, alone {alone:?}; written p99 {attacked:.4} s, alone {quiet:.4} s; {:?}",
        attack.tally
    );
    println!("{shapes:?}: {seen}");
    if attacked <= 2.0 * quiet + FLOOR { Ok(()) } else { Err(seen) }
}

fn answered_beside_slow_clients(redis: &Redis, cassandra: Option<&Cassandra>) {
    // Readers beside the administrator take the most memory.
    let builder = Daemon::on(redis).set("http.anonymous_read", "\"loopback\"");
    let (_dir, mut daemon) = with_token(cassandra.into_iter().fold(builder, Builder::cassandra));
    fill(redis, ROWS);
    wait_rows(&daemon, cassandra, ROWS);
    let idle = files(&mut daemon);
    let stop = Arc::new(AtomicBool::new(false));
    let trainer = redis.train(&stop, |n| json!({"run_id": "live", "seq": n, "epoch": n, "loss": 0.5}).to_string());
    let mixed = [SHAPES.as_slice()];
    for shapes in SHAPES.iter().map(std::slice::from_ref).chain(mixed) {
        // Other tests may disturb a span; a failure is several disturbed spans in a row.
        let tries: Vec<_> = (0..4).map_while(|_| beside(&mut daemon, idle, shapes).err()).collect();
        assert!(tries.len() < 4, "{shapes:?}: {tries:#?}");
    }
    stop.store(true, Ordering::Relaxed);
    let sent = trainer.join().unwrap();
    wait_rows(&daemon, cassandra, sent + ROWS);
}

#[test]
fn an_administrator_is_answered_beside_slow_clients_of_every_shape() {
    answered_beside_slow_clients(&Redis::start(), None);
}

#[test]
fn an_administrator_is_answered_beside_slow_clients_who_read_cassandra() {
    let name = "an_administrator_is_answered_beside_slow_clients_who_read_cassandra";
    if !crate::is_long() {
        println!("{name} is a part of the long tier");
        return;
    }
    let Some(cassandra) = Cassandra::shared() else { return skip(name, "CASCOR_TEST_CASSANDRA is not set") };
    if python().is_none() {
        return skip(name, "CASCOR_TEST_PYTHON is not set");
    }
    answered_beside_slow_clients(&Redis::start(), Some(&cassandra));
}

#[test]
fn an_address_cannot_take_every_connection() {
    // A non-loopback address of this machine; connecting a UDP socket sends nothing.
    let address = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("10.255.255.255:9")?;
        socket.local_addr()
    });
    let Some(address) = address.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    else {
        return skip("an_address_cannot_take_every_connection", "this machine has no address but loopback");
    };
    let redis = Redis::start();
    let builder = Daemon::on(&redis).listen_on("0.0.0.0").set("http.connections_per_address", "20");
    let (_dir, mut daemon) = with_token(builder);
    fill(&redis, 1);
    wait_rows(&daemon, None, 1);
    let server = SocketAddr::new(address, daemon.http_port());
    let (before, other) = (files(&mut daemon), SocketAddr::from(([127, 0, 0, 1], daemon.http_port())));
    for (shape, clients, servers) in [
        // The administrator from the same address and from another; with more clients than may wait, from another only.
        (Shape::Header, CLIENTS, &[server, other][..]),
        (Shape::SignIn, CLIENTS, &[server, other]),
        (Shape::Header, 3 * CLIENTS, &[other]),
    ] {
        let attack = Attack::start(server, clients, &[shape], RUN);
        wait_until("the clients", LIMIT, || attack.tally.opened.load(Ordering::Relaxed) >= clients as u64);
        for server in servers {
            // A connection may find the queue full; it is repeated after others have given up.
            let again = || thread::sleep(Duration::from_millis(250));
            let tries: Vec<_> = (0..4).map_while(|_| administer(*server, span()).err().inspect(|_| again())).collect();
            assert!(tries.len() < 4, "{shape:?}, {clients} clients, to {server}: {tries:#?}");
        }
        // Its share, the reserve, which passes from one connection to the next, and the connections waiting for it.
        let most = 20 + 64 + 256 + 20;
        wait_until("few connections", LIMIT, || files(&mut daemon) - before <= most);
    }
}

#[test]
fn without_tokens_streams_go_on_beside_slow_clients() {
    let redis = Redis::start();
    let daemon = Daemon::on(&redis).start_ready();
    let port = daemon.http_port();
    let mut streams: Vec<_> = (0..32).map(|_| Stream::open(port, "", "")).collect();
    for shape in [Shape::Header, Shape::Body] {
        let attack = Attack::start(SocketAddr::from(([127, 0, 0, 1], port)), CLIENTS, &[shape], RUN);
        wait_until("the clients", LIMIT, || attack.tally.opened.load(Ordering::Relaxed) >= CLIENTS as u64);
        let epoch = shape as u8;
        redis.client().publish(TRAINING, json!({"run_id": RUN, "epoch": epoch, "loss": 0.5}).to_string());
        for stream in &mut streams {
            let rows = stream.next("metrics").data["rows"].clone();
            assert_eq!(rows[0]["epoch"], epoch, "{shape:?}: {rows}");
        }
        let asked = Instant::now();
        assert_eq!(daemon.get("/healthz").status, 200);
        assert!(asked.elapsed() < ANSWER, "{shape:?}: {:?}", asked.elapsed());
    }
}
