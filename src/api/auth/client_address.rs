//! The address of a client.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// The peer address of a connection, an extension of each of its requests; absent for a request made inside this process. An IPv4
/// peer of a dual-stack socket has its IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(peer: SocketAddr) -> Self {
        Self(peer.ip().to_canonical())
    }
}

/// The address that limits count: an IPv4 address, or the /64 network of an IPv6 address, whose other half its owner can choose.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_counts_by_its_network() {
        for (address, counted) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
            ("2001:db8:0:2:2:3:4:5", "2001:db8:0:2::"),
        ] {
            assert_eq!(network(address.parse().unwrap()), counted.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_socket_is_itself() {
        for (peer, address) in
            [("10.0.0.1:1", "10.0.0.1"), ("[::ffff:10.0.0.1]:1", "10.0.0.1"), ("[2001:db8::1]:1", "2001:db8::1")]
        {
            let peer: SocketAddr = peer.parse().unwrap();
            assert_eq!(ClientAddress::from(peer), ClientAddress(address.parse().unwrap()));
        }
    }
}
