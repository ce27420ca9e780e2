use std::time::Duration;

use tokio::time::timeout;

use super::{budget::PERMIT_BYTES, read::EXPECT_TIMEOUT, *};
use crate::{memory::MemoryLimit, units::ByteSize};

/// A read of `bytes`.
async fn read_bytes(mut reservation: Reservation, bytes: usize) -> Reservation {
    reservation.read_within(|| Box::pin(async { Ok(()) }), |()| bytes).await.unwrap();
    reservation
}

fn free(budget: &MemoryBudget) -> [usize; 4] {
    [&budget.general, &budget.page_pool, &budget.value_pool, &budget.read_slots].map(|part| part.available_permits())
}

#[tokio::test(start_paused = true)]
async fn memory_is_reserved_until_the_text_is_sent() {
    let budget = MemoryBudget::new(ByteSize::mib(72), MemoryLimit::default());
    let (all, max_wait) = (free(&budget), Duration::from_secs(1));
    let large = read_bytes(Reservation::reserve_page(&budget).await, 20 << 20).await;
    assert_eq!(large.held_permits(), (40 << 10) + 1, "its text, too");
    let second = Reservation::reserve(&budget, 2 << 20).await;
    assert!(timeout(max_wait, read_bytes(second, 20 << 20)).await.is_err(), "no memory for another");
    let text = large.attach(vec![0; 24 << 20]);
    assert_eq!(all[0] - free(&budget)[0], (24 << 10) + 1, "no more than the text takes");
    let slice = text.slice(..9);
    drop(text);
    assert_ne!(free(&budget), all, "a part of it is still to be sent");
    drop(slice);
    assert_eq!(free(&budget), all);
    // Above the budget: all of it.
    let reservation = read_bytes(Reservation::reserve_page(&budget).await, 1 << 30).await;
    assert_eq!((free(&budget)[0], reservation.bytes()), (0, usize::MAX));
    drop(reservation.attach(vec![0; 80 << 20]));
    assert_eq!(free(&budget), all);
}

#[tokio::test(start_paused = true)]
async fn exports_leave_memory_for_a_page_and_for_values() {
    for size in [16, 64] {
        let budget = MemoryBudget::new(ByteSize::mib(size), MemoryLimit::default());
        let all = free(&budget);
        let max_wait = Duration::from_secs(1);
        let export = read_bytes(Reservation::reserve(&budget, 1 << 20).await, 1 << 30).await;
        assert_eq!(free(&budget)[0], 0, "an export may have all of the budget");
        let other = timeout(max_wait, Reservation::reserve(&budget, 1)).await;
        assert!(other.is_err(), "another waits");
        let page = timeout(max_wait, Reservation::reserve_page(&budget)).await.unwrap();
        let page = timeout(EXPECT_TIMEOUT * 2, read_bytes(page, PAGE_RESERVATION / 8)).await.unwrap();
        let value =
            timeout(Duration::from_secs(1), Reservation::reserve_value(&budget, SMALL_VALUE_BYTES)).await.unwrap();
        assert_eq!(value.bytes(), SMALL_VALUE_BYTES + PERMIT_BYTES);
        drop((export, page, value));
        assert_eq!(free(&budget), all, "{size} MiB");
    }
}
