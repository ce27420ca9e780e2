//! The source against a real Redis.

use std::{
    process::{Command as Process, Stdio},
    time::Duration,
};

use cascor_ingest::{frame::IntakeItem, gaps::GapReason, redis::Config, secret::Secret};
use tokio::time::{sleep, timeout};

use crate::{
    redis_rig::{Rig, SOON, Server},
    support::skip,
};

/// RESP of `PUBLISH channel payload`, over and over.
fn publishes(channel: &str, payload: &str, times: usize) -> String {
    let command =
        format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{payload}\r\n", channel.len(), payload.len());
    command.repeat(times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_received_soon_after_the_start_and_our_own_are_not() {
    let server = Server::start(16_401, &[]).await;
    let config = Config { training_channels: vec!["cascor:training".into(), "*:ingest:*".into()], ..server.config() };
    let mut rig = Rig::start(&config);
    let took = rig.ready(SOON).await;
    println!("ready after {took:?}");
    assert!(rig.status.first_confirmed().borrow().is_some());
    server.cli(&["PUBLISH", "cascor:ingest:run:x", "ours"]);
    for n in 0..100 {
        server.cli(&["PUBLISH", "cascor:training", &format!("{n}")]);
    }
    server.cli(&["PUBLISH", "cascor:control", "pause"]);
    server.cli(&["PUBLISH", "lab:ingest:a", "pattern"]);
    // The command comes on a connection of its own, before or after anything else.
    let mut frames = Vec::new();
    for _ in 0..102 {
        frames.push(rig.frame().await);
    }
    let (commands, frames): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| frame.control);
    assert_eq!(
        commands.iter().map(|frame| (&*frame.channel, &frame.payload[..])).collect::<Vec<_>>(),
        [("cascor:control", &b"pause"[..])]
    );
    for (n, frame) in frames[..100].iter().enumerate() {
        assert_eq!((&*frame.channel, &frame.payload[..]), ("cascor:training", n.to_string().as_bytes()));
        assert!(n == 0 || frame.received_at > frames[n - 1].received_at);
    }
    assert_eq!((&*frames[100].channel, &frames[100].payload[..]), ("lab:ingest:a", &b"pattern"[..]));
    assert_eq!(rig.bytes.bytes(), 0);
    rig.stopper.stop();
    while rig.tasks.join_next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_of_a_flood_is_a_frame_or_in_a_gap() {
    let server = Server::start(16_402, &[]).await;
    let mut rig = Rig::start(&Config { queue_frames: 1_000, ..server.config() });
    rig.ready(SOON).await;
    tokio::task::block_in_place(|| server.pipe(&publishes("cascor:training", "{\"epoch\":1}", 100_000)));
    let (mut frames, mut lost) = (0, 0);
    while frames + lost < 100_000 {
        match rig.next().await {
            Some(IntakeItem::Frames(_)) => frames += 1,
            Some(IntakeItem::Gap(gap)) => {
                assert!(gap.started_at <= gap.ended_at);
                assert_eq!(gap.reason, GapReason::QueueFull);
                lost += gap.lost.unwrap();
            }
            other => panic!("{frames} frames, {lost} lost, {other:?}"),
        }
    }
    println!("{frames} frames, {lost} lost");
    assert_eq!(frames + lost, 100_000);
    assert!(lost > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_be_absent_at_start_and_die_and_come_back() {
    let mut server = Server::start(16_403, &[]).await;
    server.kill();
    let mut rig = Rig::start(&server.config());
    sleep(Duration::from_millis(300)).await;
    let error = rig.status.connections()[0].error.clone().unwrap();
    assert!(error.contains("refused"), "{error}");
    server.up().await;
    let took = rig.ready(SOON).await;
    println!("ready {took:?} after the first start");
    for round in 0..3 {
        server.kill();
        rig.not_ready(SOON).await;
        sleep(Duration::from_millis(700)).await;
        server.up().await;
        let took = rig.ready(SOON).await;
        println!("ready {took:?} after the restart");
        let gap = rig.gap(GapReason::Disconnected).await;
        assert!(gap.ended_at - gap.started_at >= 700_000, "{round}: {gap:?}");
        assert_eq!(gap.lost, None);
        let other = rig.gap(GapReason::Disconnected).await;
        assert_ne!(gap.source, other.source);
        server.cli(&["PUBLISH", "cascor:training", "back"]);
        assert_eq!(&rig.frame().await.payload[..], b"back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_redis_is_noticed_and_resubscribed() {
    let server = Server::start(16_404, &[]).await;
    let mut rig = Rig::start(&server.config());
    rig.ready(SOON).await;
    server.signal("-STOP");
    rig.not_ready(Duration::from_secs(6)).await;
    sleep(Duration::from_secs(4)).await;
    assert!(rig.status.connections()[0].error.as_deref().unwrap().contains("in time"), "{:?}", rig.status);
    server.signal("-CONT");
    rig.ready(Duration::from_millis(500)).await;
    let gap = rig.gap(GapReason::Disconnected).await;
    assert!(gap.ended_at - gap.started_at > 5_000_000, "{gap:?}");
    server.cli(&["PUBLISH", "cascor:training", "back"]);
    assert_eq!(&rig.frame().await.payload[..], b"back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ipv6_address_of_redis_is_reached() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skip("an_ipv6_address_of_redis_is_reached", "no IPv6");
    }
    let server = Server::start(16_411, &["--bind", "127.0.0.1", "::1"]).await;
    let mut rig = Rig::start(&Config { url: "redis://[::1]:16411/0".into(), ..server.config() });
    rig.ready(SOON).await;
    server.cli(&["PUBLISH", "cascor:training", "in"]);
    assert_eq!(&rig.frame().await.payload[..], b"in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_named_and_tried_again() {
    let server = Server::start(16_405, &["--requirepass", "right"]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "wrong-secret\n").unwrap();
    let nothing = Rig::start(&server.config());
    let mut rig = Rig::start(&Config { password_file: Some(file.clone()), ..server.config() });
    sleep(Duration::from_millis(500)).await;
    let error = rig.status.connections()[0].error.clone().unwrap();
    assert!(error.contains("WRONGPASS") && !error.contains("wrong-secret"), "{error}");
    let error = nothing.status.connections()[0].error.clone().unwrap();
    assert!(error.contains("NOAUTH"), "{error}");
    std::fs::write(&file, "right\n").unwrap();
    rig.ready(Duration::from_millis(1_300)).await;
    server.cli(&["-a", "right", "PUBLISH", "cascor:training", "in"]);
    assert_eq!(&rig.frame().await.payload[..], b"in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_channel_is_named_and_the_others_work() {
    let server = Server::start(16_406, &[]).await;
    server.cli(&[
        "ACL",
        "SETUSER",
        "me",
        "on",
        ">pw",
        "+@all",
        "~*",
        "resetchannels",
        "&cascor:training",
        "&cascor:control",
    ]);
    let config = Config {
        username: Some("me".into()),
        password: Some(Secret::new("pw")),
        training_channels: vec!["lab:*".into(), "cascor:training".into(), "cascor:events".into()],
        ..server.config()
    };
    let mut rig = Rig::start(&config);
    sleep(Duration::from_millis(800)).await;
    assert_eq!(rig.status.unconfirmed(), ["lab:*", "cascor:events"]);
    assert!(rig.status.connections()[0].error.as_deref().unwrap().contains("NOPERM"));
    assert!(!rig.readiness.missing().is_empty());
    server.cli(&["PUBLISH", "cascor:training", "heard"]);
    assert_eq!(&rig.frame().await.payload[..], b"heard");
    server.cli(&["ACL", "SETUSER", "me", "&cascor:events", "&lab:*"]);
    rig.ready(Duration::from_secs(5)).await;
    let gap = rig.gap(GapReason::NotListening).await;
    assert!(gap.channel.is_some(), "{gap:?}");
    server.cli(&["PUBLISH", "cascor:events", "heard"]);
    assert_eq!(&*rig.frame().await.channel, "cascor:events");
    // Taken away again: Redis closes the connection.
    server.cli(&["ACL", "SETUSER", "me", "resetchannels", "&cascor:training", "&cascor:control"]);
    rig.not_ready(SOON).await;
    sleep(Duration::from_millis(800)).await;
    server.cli(&["PUBLISH", "cascor:training", "still"]);
    assert_eq!(&rig.frame().await.payload[..], b"still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_survives_flushes_kills_and_large_messages_of_other_clients() {
    let server = Server::start(16_407, &["--client-output-buffer-limit", "pubsub 1mb 0 0"]).await;
    let mut rig = Rig::start(&server.config());
    rig.ready(SOON).await;
    server.cli(&["FLUSHALL"]);
    server.cli(&["PUBLISH", "cascor:training", "after the flush"]);
    assert_eq!(&rig.frame().await.payload[..], b"after the flush");
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    rig.gap(GapReason::Disconnected).await;
    rig.ready(SOON).await;
    // One message larger than what Redis holds for a subscriber: it closes the connection.
    let large = "x".repeat(8 << 20);
    tokio::task::block_in_place(|| server.pipe(&publishes("cascor:training", &large, 1)));
    let gap = loop {
        match rig.next().await.expect("a gap") {
            IntakeItem::Gap(gap) if gap.source == "redis" => break gap,
            _ => {}
        }
    };
    println!("{gap:?}");
    // The new subscription shows at its first message; until then the large one may still cause a disconnect.
    let heard = async {
        loop {
            server.cli(&["PUBLISH", "cascor:training", "after the cut"]);
            if let Ok(frame) = timeout(SOON, rig.frame()).await {
                break frame;
            }
        }
    };
    let heard = timeout(Duration::from_secs(5), heard).await.expect("listening again");
    assert_eq!(&heard.payload[..], b"after the cut");
}

/// A CA, and a certificate of `127.0.0.1` that it signed.
fn certificates(dir: &std::path::Path) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=redis -keyout one.key -out one.csr
        echo subjectAltName=IP:127.0.0.1 > ext
        openssl x509 -req -in one.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out one.pem";
    let made = Process::new("sh").args(["-ec", script]).current_dir(dir).stderr(Stdio::null()).status().unwrap();
    assert!(made.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_certificates_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (text("ca.pem"), text("one.pem"), text("one.key"));
    let _server = Server::start(
        16_410,
        &[
            "--port",
            "0",
            "--tls-port",
            "16410",
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
        ],
    )
    .await;
    let url = "rediss://127.0.0.1:16410/0".to_owned();
    let tls = cascor_ingest::tls::Tls {
        enabled: false,
        ca: Some(path("ca.pem")),
        cert: Some(path("one.pem")),
        key: Some(path("one.key")),
    };
    let rig = Rig::start(&Config { url: url.clone(), tls, ..Config::default() });
    rig.ready(Duration::from_secs(1)).await;
    // Without the CA the certificate is not trusted.
    let stranger = Rig::start(&Config { url, ..Config::default() });
    sleep(Duration::from_millis(700)).await;
    let error = stranger.status.connections()[0].error.clone().unwrap();
    assert!(error.to_lowercase().contains("certificate") || error.contains("UnknownIssuer"), "{error}");
}
