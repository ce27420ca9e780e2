//! Notifications to the service manager: READY, STATUS, WATCHDOG, STOPPING. Without one, nothing is sent.

use std::{
    convert::Infallible,
    env,
    ffi::OsStr,
    fmt::Write,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::Instant;
use tracing::warn;

use crate::lifecycle::Signal;

/// A counter that a stage increments in each round of its loop.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// One more round.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Rounds so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long the service manager may take to make room for a notification.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells the service manager that the daemon is up.
pub fn ready() {
    Notifier::default().send(NotifyState::Ready);
}

/// Tells the service manager that the daemon is about to end.
pub fn stopping() {
    Notifier::default().send(NotifyState::Stopping);
}

/// Sends notifications, and warns of each reason for which one fails once.
#[derive(Debug, Default)]
struct Notifier {
    complaint: String,
}

impl Notifier {
    fn send(&mut self, state: NotifyState<'_>) {
        let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
        match send_to(&socket, &state) {
            Ok(()) => self.complaint.clear(),
            Err(error) => {
                let text = error.to_string();
                if text != self.complaint {
                    warn!(%error, ?socket, notification = %state, "service manager did not take a notification");
                    self.complaint = text;
                }
            }
        }
    }
}

/// `socket` is an absolute path, or begins with `@` and names a socket that is in no file system.
fn send_to(socket: &OsStr, state: &NotifyState<'_>) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "the socket is neither a path nor an `@` name")),
    };
    let mut message = String::new();
    writeln!(message, "{state}").map_err(io::Error::other)?;
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(SEND_TIMEOUT))?;
    datagram.send_to_addr(message.as_bytes(), &address).map(drop)
}

/// The timeout of the watchdog, if there is one.
fn watchdog() -> Option<Duration> {
    let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    if let Some(given) = env::var_os("WATCHDOG_USEC").filter(|_| limit.is_none())
        && env::var_os("WATCHDOG_PID").is_none_or(|pid| pid.to_str() == Some(&std::process::id().to_string()))
    {
        warn!(WATCHDOG_USEC = ?given, "service manager asks for a watchdog that cannot be read; it is not fed");
    }
    limit
}

/// An idle stage beats this often at least, with some slack.
const LONGEST_BEAT: Duration = Duration::from_secs(2);

/// Sends a status line every five seconds, and feeds the watchdog as long as every heartbeat moves.
///
/// # Errors
/// Never.
pub async fn run(
    heartbeats: Vec<(&'static str, Heartbeat)>,
    status: impl Fn() -> String + Send,
    mut stop: Signal,
) -> Result<(), Infallible> {
    let (watchdog, mut notifier) = (watchdog(), Notifier::default());
    let every = watchdog.map_or(Duration::from_secs(5), |limit| (limit / 3).min(Duration::from_secs(5)));
    let mut status_at = Instant::now();
    let mut seen: Vec<(u64, Instant)> = heartbeats.iter().map(|(_, beat)| (beat.count(), status_at)).collect();
    loop {
        tokio::select! {
            () = stop.stopped() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
        let now = Instant::now();
        for ((_, beat), (count, moved_at)) in heartbeats.iter().zip(&mut seen) {
            if std::mem::replace(count, beat.count()) != *count {
                *moved_at = now;
            }
        }
        let is_stuck = |moved_at: Instant| now.duration_since(moved_at) >= every.max(LONGEST_BEAT);
        let stuck = (0..seen.len()).rev().find(|stage| is_stuck(seen[*stage].1)).map(|stage| heartbeats[stage].0);
        match stuck {
            Some(stage) => warn!(stage, "stage makes no progress; the watchdog is not fed"),
            None if watchdog.is_some() => notifier.send(NotifyState::Watchdog),
            None => {}
        }
        if status_at <= Instant::now() {
            status_at = Instant::now() + Duration::from_secs(5);
            notifier.send(NotifyState::Status(&status()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_reaches_a_path_and_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("cascor-ingest/test/{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, listener) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&by_name).unwrap()),
        ] {
            listener.set_read_timeout(Some(SEND_TIMEOUT)).unwrap();
            send_to(&socket, &NotifyState::Status("fine")).unwrap();
            let mut buffer = [0; 64];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"STATUS=fine\n", "{socket:?}");
        }
        for nowhere in ["@", "relative", "vsock:2:1234", "/nowhere/notify", "@cascor-ingest/nobody"] {
            assert!(send_to(OsStr::new(nowhere), &NotifyState::Ready).is_err(), "{nowhere}");
        }
    }
}
