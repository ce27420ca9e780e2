//! Whose connection a request came on.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// The address of the peer of a connection, as an extension of each of its requests. A peer that reaches a dual-stack socket over
/// IPv4 has its IPv4 address. Absent: the request was made inside this process.
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

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 one, whose other half is its owner's to choose.
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
    fn half_of_an_ipv6_address_is_its_owners_to_choose() {
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
