use super::*;

fn seats(any: usize) -> Arc<Seats> {
    Seats::new(Limits { any, reserved: 3, per_address: 2 })
}

async fn seat(seats: &Arc<Seats>) -> Arc<Seat> {
    Arc::new(tokio::time::timeout(GRACE * 2, seats.take(None)).await.expect("a seat"))
}

async fn is_lost(seat: &Seat) -> bool {
    tokio::time::timeout(Duration::ZERO, seat.lost()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn who_keeps_the_server_waiting_longest_makes_room() {
    let seats = seats(2);
    let (slow, other) = (seat(&seats).await, seat(&seats).await);
    let (began, third) = (Instant::now(), seat(&seats).await);
    assert_eq!((began.elapsed(), third.row()), (GRACE, Row::Any), "not before the head can have come");
    assert!(is_lost(&slow).await && !is_lost(&other).await);
    drop(slow);
    // One that is being answered stays, however long that takes; afterwards it is the last to go.
    let asked = other.asked();
    tokio::time::advance(Duration::from_secs(60)).await;
    let fourth = seat(&seats).await;
    assert!(is_lost(&third).await && !is_lost(&other).await);
    drop(third);
    // What is still to be written is a part of it.
    let written = other.asked();
    drop(asked);
    tokio::time::advance(GRACE * 2).await;
    let third = seat(&seats).await;
    assert!(is_lost(&fourth).await && !is_lost(&other).await);
    drop((fourth, written));
    let fourth = third;
    tokio::time::advance(GRACE * 2).await;
    let _fifth = seat(&seats).await;
    assert!(is_lost(&fourth).await && !is_lost(&other).await);
}

#[tokio::test(start_paused = true)]
async fn while_all_are_being_answered_the_reserve_is_for_who_is_admitted() {
    let seats = seats(1);
    let first = seat(&seats).await;
    let asked = first.asked();
    let mut others = Vec::new();
    for _ in 0..UNRESERVED + 3 + 5 {
        let other = seat(&seats).await;
        assert_eq!(other.row(), Row::Reserve);
        others.push((other.asked(), other));
    }
    let mut lost = 0;
    for (_, other) in &others {
        lost += usize::from(is_lost(other).await);
    }
    assert_eq!(lost, 5, "the oldest of them made room, though they were being answered");
    // Three are admitted and stay, however many come.
    let admitted: Vec<_> = others.drain(..).skip(5).take(4).collect();
    let kept = admitted.iter().filter(|(_, other)| other.admit()).count();
    assert_eq!(kept, 3);
    for _ in 0..3 * UNRESERVED {
        let other = seat(&seats).await;
        others.push((other.asked(), other));
    }
    for (_, other) in admitted.iter().take(3) {
        assert!(!is_lost(other).await && other.admit(), "admitted once");
    }
    assert!(is_lost(&admitted[3].1).await);
    drop((others, admitted));
    assert!(seat(&seats).await.admit(), "given back");
    drop((asked, first));
    assert_eq!(seat(&seats).await.row(), Row::Any, "given back");
}

#[tokio::test(start_paused = true)]
async fn an_address_has_its_share_and_leaves_the_rest_to_others() {
    let (seats, one, other) = (seats(4), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let row = |seat: &Seat| seat.row();
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(seats.take(Some(one)).await);
    }
    assert_eq!(taken.iter().map(row).collect::<Vec<_>>(), [Row::Any, Row::Any, Row::Reserve, Row::Reserve]);
    assert_eq!(row(&seats.take(Some(other)).await), Row::Any);
    assert_eq!(row(&seats.take(None).await), Row::Any);
    taken.remove(0);
    taken.push(seats.take(Some(one)).await);
    assert_eq!(taken.last().map(row), Some(Row::Any), "given back");
    assert!(seats.is_beyond(one) && !seats.is_beyond(other));
    drop(taken);
    assert!(seats.rows().shares.is_empty() && !seats.is_beyond(one));
}

#[tokio::test(start_paused = true)]
async fn probes_do_not_queue_behind_a_flood_while_nearly_all_are_being_answered() {
    let seats = seats(40);
    let mut taken = Vec::new();
    for _ in 0..40 {
        taken.push(seat(&seats).await);
    }
    let answers: Vec<_> = taken.iter().skip(FEW - 1).map(Seat::asked).collect();
    let (began, mut flood) = (Instant::now(), Vec::new());
    for _ in 0..100 {
        flood.push(seat(&seats).await);
    }
    assert!(began.elapsed() <= GRACE * 4, "{:?}: those of both rows make room", began.elapsed());
    assert!(flood.iter().take(UNRESERVED).all(|seat| seat.row() == Row::Reserve), "at once");
    drop((flood, answers));
    let full: Vec<_> = [seat(&seats).await, seat(&seats).await].into();
    assert!(full.iter().all(|seat| seat.row() == Row::Any), "there is enough to be moved");
}

#[tokio::test(start_paused = true)]
async fn seats_are_neither_lost_nor_made() {
    let seats = seats(3);
    for _ in 0..10 {
        let mut taken = Vec::new();
        for _ in 0..8 {
            taken.push(seat(&seats).await);
        }
        let _answers: Vec<_> = taken.iter().skip(6).map(Seat::asked).collect();
    }
    let rows = seats.rows();
    assert_eq!((rows.any.seats, rows.reserve.seats, rows.reserved), (3, UNRESERVED + 3, 3));
    assert!(rows.any.waiting.is_empty() && rows.reserve.waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_address_waits_apart_and_in_order() {
    let (seats, one, other) = (seats(4), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let held: Vec<_> = [seats.take(Some(one)).await, seats.take(Some(one)).await].into();
    let (sender, mut taken) = tokio::sync::mpsc::channel(QUEUED);
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..QUEUED {
        let (seats, sender, place) = (Arc::clone(&seats), sender.clone(), seats.queue().expect("a place"));
        waiting.spawn(async move {
            let seat = seats.take_queued(one, place).await;
            let _ = sender.send((n, seat)).await;
        });
    }
    assert!(seats.queue().is_none(), "more are closed");
    let began = Instant::now();
    let seat = seats.take(Some(other)).await;
    assert_eq!((seat.row(), began.elapsed()), (Row::Any, Duration::ZERO), "others are not held up");
    for n in 0..QUEUED {
        assert_eq!(taken.recv().await.map(|(n, _)| n), Some(n));
    }
    assert!(seats.queue().is_some());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_network_has_one_share() {
    let seats = seats(8);
    let of = |network: u16, host: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]));
    let mut taken = Vec::new();
    for (network, host, row) in
        [(1, 1, Row::Any), (1, 2, Row::Any), (1, 3, Row::Reserve), (2, 1, Row::Any), (1, 4, Row::Reserve)]
    {
        taken.push(seats.take(of(network, host)).await);
        assert_eq!(taken.last().unwrap().row(), row, "{network} {host}");
    }
    assert!(seats.is_beyond(of(1, 9).unwrap()) && !seats.is_beyond(of(2, 9).unwrap()));
    taken.clear();
    assert!(!seats.is_beyond(of(1, 9).unwrap()), "given back");
}
