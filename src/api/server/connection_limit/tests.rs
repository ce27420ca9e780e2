use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    admission::{EVICTION_GRACE, MIN_IDLE, PROBE_SLOTS},
    limiter::MAX_QUEUED,
    *,
};

fn limiter(general: usize) -> Arc<ConnectionLimiter> {
    ConnectionLimiter::new(ConnectionLimits { general, reserved: 3, per_address: 2 })
}

async fn permit(limiter: &Arc<ConnectionLimiter>) -> Arc<ConnectionPermit> {
    let permit = tokio::time::timeout(EVICTION_GRACE * 2, limiter.acquire(None)).await.expect("a slot");
    permit.wait_for_client();
    Arc::new(permit)
}

async fn is_evicted(permit: &ConnectionPermit) -> bool {
    tokio::time::timeout(Duration::ZERO, permit.evicted()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_connection_is_evicted() {
    let limiter = limiter(2);
    let (slow, other) = (permit(&limiter).await, permit(&limiter).await);
    let (began, third) = (Instant::now(), permit(&limiter).await);
    assert_eq!(
        (began.elapsed(), third.class()),
        (EVICTION_GRACE, Class::General),
        "not before a head can have arrived"
    );
    assert!(is_evicted(&slow).await && !is_evicted(&other).await);
    drop(slow);
    // A busy connection stays; afterwards it is the last to be evicted.
    let guard = other.begin_request();
    tokio::time::advance(Duration::from_secs(60)).await;
    let fourth = permit(&limiter).await;
    assert!(is_evicted(&third).await && !is_evicted(&other).await);
    drop(third);
    // It is busy, too, while its answer is being written.
    let written = other.begin_request();
    drop(guard);
    tokio::time::advance(EVICTION_GRACE * 2).await;
    let third = permit(&limiter).await;
    assert!(is_evicted(&fourth).await && !is_evicted(&other).await);
    drop((fourth, written));
    let fourth = third;
    tokio::time::advance(EVICTION_GRACE * 2).await;
    let _fifth = permit(&limiter).await;
    assert!(is_evicted(&fourth).await && !is_evicted(&other).await);
}

#[tokio::test(start_paused = true)]
async fn while_all_are_busy_the_reserve_is_for_authenticated_requests() {
    let limiter = limiter(1);
    let first = permit(&limiter).await;
    let guard = first.begin_request();
    let mut others = Vec::new();
    for _ in 0..PROBE_SLOTS + 3 + 5 {
        let other = permit(&limiter).await;
        assert_eq!(other.class(), Class::Reserve);
        others.push((other.begin_request(), other));
    }
    let mut evicted = 0;
    for (_, other) in &others {
        evicted += usize::from(is_evicted(other).await);
    }
    assert_eq!(evicted, 5, "the oldest of them were evicted, though they were being answered");
    // Three are admitted and stay, however many come.
    let admitted: Vec<_> = others.drain(..).skip(5).take(4).collect();
    let kept = admitted.iter().filter(|(_, other)| other.admit()).count();
    assert_eq!(kept, 3);
    for _ in 0..3 * PROBE_SLOTS {
        let other = permit(&limiter).await;
        others.push((other.begin_request(), other));
    }
    for (_, other) in admitted.iter().take(3) {
        assert!(!is_evicted(other).await && other.admit(), "admitted once");
    }
    assert!(is_evicted(&admitted[3].1).await);
    drop((others, admitted));
    assert!(permit(&limiter).await.admit(), "given back");
    drop((guard, first));
    assert_eq!(permit(&limiter).await.class(), Class::General, "given back");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_not_read_yet_is_not_evicted() {
    let limiter = limiter(2);
    let unread = [limiter.acquire(None).await, limiter.acquire(None).await];
    tokio::time::advance(EVICTION_GRACE * 9).await;
    let waits = tokio::time::timeout(EVICTION_GRACE * 9, limiter.acquire(None)).await;
    assert!(waits.is_err(), "for a general slot, which is soon there");
    assert!(!is_evicted(&unread[0]).await && !is_evicted(&unread[1]).await);
    unread.iter().for_each(ConnectionPermit::wait_for_client);
    let began = Instant::now();
    let other = permit(&limiter).await;
    assert_eq!((other.class(), began.elapsed()), (Class::General, EVICTION_GRACE));
    assert!(is_evicted(&unread[0]).await && !is_evicted(&unread[1]).await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_unread_connections_gets_a_reserved_slot_when_all_become_busy() {
    let limiter = limiter(2);
    let unread = [limiter.acquire(None).await, limiter.acquire(None).await].map(Arc::new);
    let mut waiting = tokio::task::JoinSet::new();
    let next = Arc::clone(&limiter);
    waiting.spawn(async move { next.acquire(None).await.class() });
    tokio::time::advance(EVICTION_GRACE).await;
    let _requests = unread.each_ref().map(ConnectionPermit::begin_request);
    let class = tokio::time::timeout(EVICTION_GRACE, waiting.join_next()).await.expect("a slot");
    assert_eq!(class.unwrap().unwrap(), Class::Reserve);
}

#[tokio::test(start_paused = true)]
async fn a_cheap_request_keeps_its_slot_of_the_reserve_until_its_answer_is_made() {
    let limiter = limiter(1);
    let first = permit(&limiter).await;
    let _busy = first.begin_request();
    let asked = permit(&limiter).await;
    let _request = asked.begin_request();
    asked.begin_answer();
    let mut flood = vec![];
    for _ in 0..3 * PROBE_SLOTS {
        flood.push(permit(&limiter).await);
    }
    assert!(!is_evicted(&asked).await);
    asked.has_answered();
    for _ in 0..2 * PROBE_SLOTS {
        flood.push(permit(&limiter).await);
    }
    assert!(is_evicted(&asked).await, "its client reads the answer slowly");
}

#[tokio::test(start_paused = true)]
async fn an_address_has_its_share_and_no_more() {
    let (limiter, one, other) = (limiter(4), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let class = |permit: &ConnectionPermit| permit.class();
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(limiter.acquire(Some(one)).await);
    }
    taken.iter().for_each(ConnectionPermit::wait_for_client);
    assert_eq!(
        taken.iter().map(class).collect::<Vec<_>>(),
        [Class::General, Class::General, Class::Reserve, Class::Reserve]
    );
    assert_eq!(class(&limiter.acquire(Some(other)).await), Class::General);
    assert_eq!(class(&limiter.acquire(None).await), Class::General);
    taken.remove(0);
    taken.push(limiter.acquire(Some(one)).await);
    assert_eq!(taken.last().map(class), Some(Class::General), "given back");
    assert!(limiter.exceeds_share(one) && !limiter.exceeds_share(other));
    drop(taken);
    assert!(limiter.slots.pools().shares.is_empty() && !limiter.exceeds_share(one));
}

#[tokio::test(start_paused = true)]
async fn probes_do_not_queue_behind_a_flood_while_nearly_all_are_busy() {
    let limiter = limiter(40);
    let mut taken = Vec::new();
    for _ in 0..40 {
        taken.push(permit(&limiter).await);
    }
    let answers: Vec<_> = taken.iter().skip(MIN_IDLE - 1).map(ConnectionPermit::begin_request).collect();
    let (began, mut flood) = (Instant::now(), Vec::new());
    for _ in 0..100 {
        flood.push(permit(&limiter).await);
    }
    assert!(began.elapsed() <= EVICTION_GRACE * 4, "{:?}: both pools evict", began.elapsed());
    assert!(flood.iter().take(PROBE_SLOTS).all(|permit| permit.class() == Class::Reserve), "at once");
    drop((flood, answers));
    let full: Vec<_> = [permit(&limiter).await, permit(&limiter).await].into();
    assert!(full.iter().all(|permit| permit.class() == Class::General), "there is enough to be moved");
}

#[tokio::test(start_paused = true)]
async fn slots_are_neither_lost_nor_made() {
    let limiter = limiter(3);
    for _ in 0..10 {
        let mut taken = Vec::new();
        for _ in 0..8 {
            taken.push(permit(&limiter).await);
        }
        let _answers: Vec<_> = taken.iter().skip(6).map(ConnectionPermit::begin_request).collect();
    }
    let pools = limiter.slots.pools();
    assert_eq!((pools.general.available, pools.reserve.available, pools.reserved), (3, PROBE_SLOTS + 3, 3));
    assert!(pools.general.idle.is_empty() && pools.reserve.idle.is_empty());
    assert_eq!((pools.general.unread, pools.reserve.unread), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_address_waits_in_a_queue_of_its_own() {
    let (limiter, one, other) = (limiter(4), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let held: Vec<_> = [limiter.acquire(Some(one)).await, limiter.acquire(Some(one)).await].into();
    let (sender, mut taken) = tokio::sync::mpsc::channel(MAX_QUEUED);
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..MAX_QUEUED {
        let (limiter, sender, slot) =
            (Arc::clone(&limiter), sender.clone(), limiter.try_queue().expect("a queue slot"));
        waiting.spawn(async move {
            let permit = limiter.acquire_queued(one, slot).await;
            permit.wait_for_client();
            let _ = sender.send((n, permit)).await;
        });
    }
    assert!(limiter.try_queue().is_none(), "more are closed");
    let began = Instant::now();
    let permit = limiter.acquire(Some(other)).await;
    assert_eq!((permit.class(), began.elapsed()), (Class::General, Duration::ZERO), "others are not held up");
    for n in 0..MAX_QUEUED {
        assert_eq!(taken.recv().await.map(|(n, _)| n), Some(n));
    }
    assert!(limiter.try_queue().is_some());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_network_has_one_share() {
    let limiter = limiter(8);
    let of = |network: u16, host: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]));
    let mut taken = Vec::new();
    for (network, host, class) in [
        (1, 1, Class::General),
        (1, 2, Class::General),
        (1, 3, Class::Reserve),
        (2, 1, Class::General),
        (1, 4, Class::Reserve),
    ] {
        taken.push(limiter.acquire(of(network, host)).await);
        assert_eq!(taken.last().unwrap().class(), class, "{network} {host}");
    }
    assert!(limiter.exceeds_share(of(1, 9).unwrap()) && !limiter.exceeds_share(of(2, 9).unwrap()));
    taken.clear();
    assert!(!limiter.exceeds_share(of(1, 9).unwrap()), "given back");
}
