use std::collections::BTreeSet;

use super::*;

const RUN: Uuid = Uuid::from_u128(1);

fn lost(tracker: &mut SeqTracker, now: Micros, force: bool) -> Vec<u64> {
    tracker.drain(now, force).iter().map(|gap| gap.lost.unwrap()).collect()
}

#[test]
fn a_jump_is_a_gap_of_exactly_that_size() {
    let mut tracker = SeqTracker::default();
    for (at, seq) in [(0, 5), (10, 6), (20, 10), (30, 11), (40, 21)] {
        tracker.observe(RUN, seq, "c", at);
    }
    let gaps = tracker.drain(GAP_WINDOW + 10, false);
    assert_eq!(gaps.len(), 1, "one gap a window");
    let gap = &gaps[0];
    assert_eq!((gap.lost, gap.started_at, gap.ended_at, gap.run_id), (Some(12), 10, 40, Some(RUN)));
    assert!(lost(&mut tracker, 9 * GAP_WINDOW, true).is_empty(), "reported once");
}

#[test]
fn a_late_message_is_not_lost() {
    let mut tracker = SeqTracker::default();
    for (at, seq) in [(0, 1), (1, 3), (2, 2), (3, 3), (4, 4)] {
        tracker.observe(RUN, seq, "c", at);
    }
    assert!(lost(&mut tracker, 5, true).is_empty());
}

#[test]
fn a_start_of_the_run_begins_its_seq_anew() {
    let mut tracker = SeqTracker::default();
    let mut lose = |start: Option<Micros>, seqs: &[i64]| {
        let at = start.unwrap_or_default();
        start.into_iter().for_each(|start| tracker.start(RUN, start, start));
        seqs.iter().for_each(|seq| tracker.observe(RUN, *seq, "c", at));
        lost(&mut tracker, 9 * GAP_WINDOW, true)
    };
    assert_eq!(lose(Some(10), &[1, 2, 5]), [2]);
    assert_eq!(lose(Some(20), &[1, 2, 3]), [0; 0], "lower than the last of the start before");
    assert_eq!(lose(None, &[7]), [3]);
    // The start before is delivered again.
    assert_eq!(lose(Some(10), &[1, 8]), [0; 0]);
    assert_eq!(lose(Some(30), &[0, 1, 12]), [10], "a count from 0, and a loss beyond the last of the start before");
}

#[test]
fn what_was_lost_before_a_start_stays_lost() {
    let mut tracker = SeqTracker::default();
    for seq in [1, 4] {
        tracker.observe(RUN, seq, "c", 10);
    }
    tracker.start(RUN, 20, 20);
    for seq in [1, 2, 3] {
        tracker.observe(RUN, seq, "c", 30);
    }
    assert_eq!(lost(&mut tracker, 40, true), [2]);
    let saved = serde_json::to_string(&tracker).unwrap();
    let mut restored: SeqTracker = serde_json::from_str(&saved).unwrap();
    restored.observe(RUN, 5, "c", 50);
    assert_eq!(lost(&mut restored, 60, true), [1]);
    let old = r#"{"runs":{"00000000-0000-0000-0000-000000000001":{"last":3,"last_at":9,"hole":null}}}"#;
    let mut old: SeqTracker = serde_json::from_str(old).unwrap();
    old.observe(RUN, 5, "c", 60);
    assert_eq!(lost(&mut old, 70, true), [1], "a file of an earlier version");
}

#[test]
fn gaps_are_gathered_until_their_window_is_over() {
    let mut tracker = SeqTracker::default();
    tracker.observe(RUN, 1, "c", 0);
    tracker.observe(RUN, 3, "c", 100);
    assert!(lost(&mut tracker, 200, false).is_empty());
    assert_eq!(lost(&mut tracker, GAP_WINDOW, false), [1]);
    tracker.observe(RUN, 1, "c", 300);
    assert!(lost(&mut tracker, 0, true).is_empty(), "an old message is no hole");
}

#[test]
fn a_replay_reports_no_gap_twice_and_merges_none() {
    let mut tracker = SeqTracker::default();
    let mut replayed = SeqTracker::default();
    let (mut reported, mut remaining) = (Vec::new(), Vec::new());
    for (at, seq) in [(0, 1), (100, 4), (2 * GAP_WINDOW, 9), (4 * GAP_WINDOW, 12)] {
        tracker.observe(RUN, seq, "c", at);
        replayed.observe(RUN, seq, "c", at);
        let gaps = tracker.drain(at, false);
        gaps.iter().for_each(|_| replayed.mark_reported(RUN));
        reported.extend(gaps);
    }
    remaining.extend(replayed.drain(9 * GAP_WINDOW, true));
    assert!(!reported.is_empty());
    assert_eq!(remaining, tracker.drain(9 * GAP_WINDOW, true), "only what was not told is left");
    let all: u64 = reported.iter().chain(&remaining).filter_map(|gap| gap.lost).sum();
    assert_eq!(all, 2 + 4 + 2);
}

#[test]
fn a_million_runs_take_bounded_memory() {
    let mut tracker = SeqTracker::default();
    for n in 0..1_000_000u128 {
        tracker.observe(Uuid::from_u128(n), 1, "c", n as Micros);
    }
    assert!(tracker.runs.len() <= RUNS_MAX);
}

#[test]
fn a_message_that_is_sent_again_hides_no_loss() {
    for (seqs, expected) in [
        (&[1, 3, 5, 3][..], &[2][..]),
        (&[1, 3, 5, 1, 5, 3, 3], &[2]),
        (&[1, 3, 5, 2, 2], &[1]),
        (&[1, 9, 5, 3, 5, 7, 3], &[4]),
        (&[1, 9, 2, 8, 3, 7, 4, 6, 5, 5], &[]),
        (&[5, 7, 4, 3], &[1]),
    ] {
        let mut tracker = SeqTracker::default();
        seqs.iter().for_each(|seq| tracker.observe(RUN, *seq, "c", 10));
        assert_eq!(lost(&mut tracker, 20, true), expected, "{seqs:?}");
    }
}

#[test]
fn an_open_gap_of_a_file_is_continued() {
    let mut tracker = SeqTracker::default();
    [1, 4, 9].iter().for_each(|seq| tracker.observe(RUN, *seq, "c", 10));
    let mut restored: SeqTracker = serde_json::from_str(&serde_json::to_string(&tracker).unwrap()).unwrap();
    [4, 2, 6, 6].iter().for_each(|seq| restored.observe(RUN, *seq, "c", 20));
    assert_eq!(lost(&mut restored, 30, true), [4]);

    let old = r#"{"runs":{"00000000-0000-0000-0000-000000000001":{"last":4,"last_at":9,
        "hole":{"started_at":8,"ended_at":9,"first":2,"lost":2,"channel":"c"}}}}"#;
    let mut old: SeqTracker = serde_json::from_str(old).unwrap();
    [3, 7, 5, 5].iter().for_each(|seq| old.observe(RUN, *seq, "c", 10));
    assert_eq!(lost(&mut old, 20, true), [2 + 1], "a file of an earlier version does not say which are missing");
}

#[test]
fn losses_beyond_the_limit_are_counted_and_not_taken_back() {
    let mut tracker = SeqTracker::default();
    let losses = 3_000;
    (0..=losses).for_each(|n| tracker.observe(RUN, 2 * n, "c", 10));
    (0..losses).for_each(|n| tracker.observe(RUN, 2 * n + 1, "c", 20));
    let left = lost(&mut tracker, 30, true)[0];
    assert!(left > 0 && left < 3_000, "{left}");
}

proptest::proptest! {
    /// Of each start, which begins at 0, some numbers arrive, in any order and how often ever: missing is what lies below the highest
    /// and never arrived.
    #[test]
    fn what_never_arrives_is_lost(
        starts in proptest::collection::vec(proptest::collection::vec(0i64..60, 0..60), 1..5),
        is_saved: bool,
    ) {
        let mut tracker = SeqTracker::default();
        let mut expected = 0;
        for (start, seqs) in (1..).zip(&starts) {
            tracker.start(RUN, start, start);
            let arrived: Vec<i64> = std::iter::once(0).chain(seqs.iter().copied()).collect();
            arrived.iter().for_each(|seq| tracker.observe(RUN, *seq, "c", start));
            let highest = arrived.iter().max().copied().unwrap_or_default();
            let distinct: BTreeSet<i64> = arrived.iter().copied().collect();
            expected += u64::try_from(highest).unwrap() + 1 - distinct.len() as u64;
            if is_saved {
                tracker = serde_json::from_str(&serde_json::to_string(&tracker).unwrap()).unwrap();
            }
        }
        let found: u64 = lost(&mut tracker, 9, true).iter().sum();
        proptest::prop_assert_eq!(found, expected);
    }
}
