//! Whose connection a request came on.

use std::net::{IpAddr, SocketAddr};

/// The address of the peer of a connection, as an extension of each of its requests. A peer that reaches a dual-stack socket over
/// IPv4 has its IPv4 address. Absent: the request was made inside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl From<SocketAddr> for ClientAddress {
    fn from(peer: SocketAddr) -> Self {
        Self(peer.ip().to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
