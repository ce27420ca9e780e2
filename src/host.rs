//! Names and addresses of hosts in settings: invalid ones are refused before a name server is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

/// Whether this name or address is always this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

/// Why `text` is neither the name nor the address of a host, if it is not.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
        return Ok(());
    }
    if text.contains(':') {
        // An address with the number of its interface, `fe80::1%2`.
        let scoped = format!("[{text}]:1").parse::<SocketAddrV6>().is_ok();
        return if scoped { Ok(()) } else { Err("is no IPv6 address") };
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > 253 {
        return Err("is longer than the name of a host may be");
    }
    let is_label = |label: &str| {
        // Names of containers hold underscores.
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(known) && !label.starts_with('-') && !label.ends_with('-')
    };
    if !name.split('.').all(is_label) {
        return Err("is not the name of a host: letters, digits, `-`, `_` and dots");
    }
    // No domain ends in a number, so that this was to be an address.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("is no IPv4 address");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_what_is_none() {
        let long = "a".repeat(64);
        for host in
            ["db1", "cassandra_1", "a.b-c.lab.", "10.0.0.1", "::1", "2001:db8::9042", "fe80::1%2", "xn--bcher-kva"]
        {
            assert_eq!(check(host), Ok(()), "{host}");
        }
        for no in [
            "",
            ".",
            "a..b",
            "c1;c2",
            "c1 c2",
            "c1,c2",
            "[\"c1\"",
            "'c1'",
            "c1/ks",
            "u@c1",
            "-c1",
            "c1-",
            "*",
            "bücher",
            "10",
            "10.0.0.256",
            "1.2.3",
            "1.2.3.4.5",
            "::1::",
            "c1:x",
            "fe80::1%eth0",
            "a\nb",
            &long,
        ] {
            assert!(check(no).is_err(), "{no}");
        }
    }
}
