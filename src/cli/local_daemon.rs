//! The daemon of this machine, which a command asks by HTTP where its user may not read what the daemon keeps.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
};

use crate::{access, config::Settings, listeners, store::StoreKind};

/// The daemon to ask, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalDaemon {
    /// Its address.
    pub url: String,
    /// Why the command does not read what is on disk.
    pub reason: String,
}

/// The daemon that listens on `http.listen`, if this user may not read the state directory or, for a command that uses the
/// store, not write the database. `None` where there is no need, or no such daemon: another user's program may listen on the port
/// of a daemon that does not run, and must not get a token.
pub fn instead_of_files(settings: &Settings, uses_store: bool) -> Option<LocalDaemon> {
    let (state, database) = (&settings.state_dir, &settings.store.sqlite.path);
    let uses_database = uses_store && settings.store.kind == StoreKind::Sqlite;
    let denied = access::problem(state).or_else(|| access::problem(database).filter(|_| uses_database));
    let read_only = || (uses_database && access::is_read_only(database)).then(|| access::read_only(database));
    let reason = denied.or_else(read_only)?;
    let owner = fs::metadata(state).ok()?.uid();
    Some(LocalDaemon { url: url_of(settings, &[0, owner])?, reason })
}

/// The address of the daemon that listens on `http.listen` of this machine: a process of this user, of root, or of the user whose the
/// state directory is.
pub fn listening(settings: &Settings) -> Option<String> {
    let owner = fs::metadata(&settings.state_dir).ok().map(|state| state.uid());
    let users: Vec<_> = [0, rustix::process::getuid().as_raw()].into_iter().chain(owner).collect();
    url_of(settings, &users)
}

/// The address of what listens on `http.listen`, if it is a process of one of these users.
fn url_of(settings: &Settings, users: &[u32]) -> Option<String> {
    let address = loopback(settings.http.listen.parse().ok()?)?;
    let listener = listeners::find(address)?;
    let scheme = if settings.http.tls.files().is_some() { "https" } else { "http" };
    users.contains(&listener.uid).then(|| format!("{scheme}://{address}"))
}

/// The address at which a program of this machine reaches a listener.
fn loopback(listen: SocketAddr) -> Option<SocketAddr> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    ip.to_canonical().is_loopback().then(|| SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_by_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:8050", Some("127.0.0.1:8050")),
            ("[::]:8050", Some("[::1]:8050")),
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("10.0.0.1:80", None),
        ] {
            let found = loopback(listen.parse().unwrap());
            assert_eq!(found, expected.map(|address| address.parse().unwrap()), "{listen}");
        }
    }

    #[test]
    fn files_that_can_be_used_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { state_dir: dir.path().to_owned(), ..Settings::default() };
        assert_eq!(instead_of_files(&settings, true), None);
    }
}
