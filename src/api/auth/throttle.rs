//! Throttles wrong tokens by address: a bucket of [`BURST`] attempts, refilled by one every [`REFILL`].
//!
//! Only wrong tokens are counted, so a valid token is never refused. Tokens are too long to be guessed; the throttle bounds what
//! guessing adds to the log.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::client_address::network;

/// Wrong tokens before the first 429.
const BURST: u32 = 20;
/// The time after which one more may be tried.
const REFILL: Duration = Duration::from_secs(3);
/// Addresses remembered; one more replaces the one that has been silent longest.
const ADDRESSES_MAX: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<IpAddr, Instant>>);

impl Throttle {
    /// Takes one from the bucket of this address; `Err`: it is empty for this long.
    pub fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let now = Instant::now();
        // A bucket is the time at which it will be full again.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&address) {
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= ADDRESSES_MAX
                && let Some(longest) = buckets.iter().min_by_key(|(_, full_at)| **full_at).map(|(address, _)| *address)
            {
                buckets.remove(&longest);
            }
        }
        let full_at = buckets.entry(address).or_insert(now);
        let taken = (*full_at).max(now) + REFILL;
        let empty_for = (taken - now).saturating_sub(REFILL * BURST);
        if !empty_for.is_zero() {
            return Err(empty_for);
        }
        *full_at = taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_own_bucket_that_fills_up_again() {
        let throttle = Throttle::default();
        (0..BURST).for_each(|_| assert_eq!(throttle.take(address(1)), Ok(())));
        assert_eq!(throttle.take(address(1)), Err(REFILL));
        assert_eq!(throttle.take(address(2)), Ok(()), "another address");
        tokio::time::advance(REFILL).await;
        assert_eq!(throttle.take(address(1)), Ok(()));
        assert!(throttle.take(address(1)).is_err());
        tokio::time::advance(REFILL * BURST * 2).await;
        assert_eq!((0..2 * BURST).filter(|_| throttle.take(address(1)).is_ok()).count(), BURST as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_bounded_and_the_busiest_is_kept() {
        let throttle = Throttle::default();
        (0..BURST).for_each(|_| _ = throttle.take(address(0)));
        (1..=ADDRESSES_MAX as u32 + 200).for_each(|n| assert_eq!(throttle.take(address(n)), Ok(())));
        assert_eq!(throttle.0.lock().unwrap().len(), ADDRESSES_MAX);
        assert!(throttle.take(address(0)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_ipv6_network_is_one_address() {
        let throttle = Throttle::default();
        let of = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
        assert_eq!((0..2 * BURST).filter(|n| throttle.take(of(*n as u16)).is_ok()).count(), BURST as usize);
        assert_eq!(throttle.take(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1])), Ok(()));
    }
}
