//! Notifications of the service manager, over both kinds of sockets.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use crate::support::{daemon::Daemon, redis::Redis};

/// Receives until `wanted` has come.
#[track_caller]
fn wait_for_word(listener: &UnixDatagram, wanted: &str) {
    let mut buffer = [0; 4_096];
    loop {
        let length = listener.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line.starts_with(wanted)) {
            return;
        }
    }
}

#[test]
fn the_service_manager_is_notified_at_a_path_and_at_an_abstract_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let name = format!("cascor-ingest/{}", path.display());
    let by_name = SocketAddr::from_abstract_name(&name).unwrap();
    for (socket, listener) in [
        (path.display().to_string(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{name}"), UnixDatagram::bind_addr(&by_name).unwrap()),
    ] {
        listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let redis = Redis::start();
        let mut daemon = Daemon::on(&redis).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "900000").start();
        for word in ["READY=1", "WATCHDOG=1", "STATUS="] {
            wait_for_word(&listener, word);
        }
        assert!(daemon.terminate().success());
        wait_for_word(&listener, "STOPPING=1");
        assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
    }
}

#[test]
fn a_failed_notification_of_the_service_manager_is_a_warning() {
    for (socket, reason) in [("@cascor-ingest/nobody", "Connection refused"), ("vsock:2:1", "neither a path")] {
        let redis = Redis::start();
        let mut daemon = Daemon::on(&redis).env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "soon").start_ready();
        assert!(daemon.terminate().success());
        let log = daemon.log();
        let warned = |words: &[&str]| {
            log.lines().any(|line| line.contains("WARN") && words.iter().all(|word| line.contains(word)))
        };
        assert!(warned(&[reason, "READY=1", socket]) && warned(&["STOPPING=1"]), "{log}");
        assert!(warned(&["watchdog", "soon"]), "{log}");
    }
}
