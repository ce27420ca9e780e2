//! Which process of this machine listens on a TCP port, as far as `/proc` tells this user.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use crate::{access, terminal};

/// State of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The number of users that have none in the namespace of this process.
const NOBODY: u32 = 65_534;

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The user of its process.
    pub uid: u32,
    inode: u64,
}

/// The socket that takes connections to `address`: it listens there, or on all addresses.
pub fn find(address: SocketAddr) -> Option<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(parse)
        .find(|(at, _)| covers(*at, address))
        .map(|(_, found)| found)
}

/// Whether a socket on `at` keeps another from listening on `address`, or answers for it.
fn covers(at: SocketAddr, address: SocketAddr) -> bool {
    let (here, there) = (at.ip().to_canonical(), address.ip().to_canonical());
    let all = |ip: IpAddr| ip.is_unspecified();
    let same_family =
        here.is_ipv4() == there.is_ipv4() || (all(here) && here.is_ipv6()) || (all(there) && there.is_ipv6());
    at.port() == address.port() && (here == there || ((all(here) || all(there)) && same_family))
}

/// A line of the table, if its socket listens.
fn parse(line: &str) -> Option<(SocketAddr, Listener)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (local, state) = (fields.get(1)?, fields.get(3)?);
    if *state != LISTEN {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    let address = SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    Some((address, Listener { uid: fields.get(7)?.parse().ok()?, inode: fields.get(9)?.parse().ok()? }))
}

/// Words of 32 bits, each in the byte order of the machine.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (n, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(8 * n)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

impl Listener {
    /// The process that has the socket, by number and name; `None` where this user may not see it.
    fn process(&self) -> Option<(u32, String)> {
        let link = format!("socket:[{}]", self.inode);
        let has_socket = |process: &Path| {
            let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.as_os_str() == link.as_str())
        };
        let processes = fs::read_dir("/proc").ok()?.flatten();
        processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).find_map(
            |(id, path)| {
                let name = has_socket(&path).then(|| fs::read_to_string(path.join("comm")).unwrap_or_default())?;
                Some((id, name.trim().to_owned()))
            },
        )
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process() {
            Some((id, name)) => write!(f, "process {id} ({})", terminal::Escaped(&name)),
            // In a user namespace, all users of outside have this number.
            None if self.uid == NOBODY => f.write_str("a process of another user (as root, `ss -ltnp` names it)"),
            None => write!(f, "a process of {} (as root, `ss -ltnp` names it)", access::user_name(self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_on_a_port_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = find(address).unwrap();
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        assert!(found.to_string().starts_with(&format!("process {} (", std::process::id())), "{found}");
        drop(listener);
        assert_eq!(find(address), None);
    }

    #[test]
    fn a_line_of_the_table_is_an_address_and_its_owner() {
        let line = "  0: 0100007F:1F72 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 4711 1 x";
        let listens = Listener { uid: 999, inode: 4_711 };
        assert_eq!(parse(line), Some(("127.0.0.1:8050".parse().unwrap(), listens)));
        assert_eq!(parse(&line.replace(" 0A ", " 01 ")), None, "a connection");
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
        let loopback = "00000000000000000000000001000000";
        assert_eq!(parse_ip(loopback), Some("::1".parse().unwrap()));
    }

    #[test]
    fn a_socket_on_all_addresses_covers_each() {
        for (at, address, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("127.0.0.2:80", "127.0.0.1:80", false),
            ("127.0.0.1:81", "127.0.0.1:80", false),
            ("[::1]:80", "127.0.0.1:80", false),
            ("[::1]:80", "0.0.0.0:80", false),
        ] {
            assert_eq!(covers(at.parse().unwrap(), address.parse().unwrap()), expected, "{at} {address}");
        }
    }
}
