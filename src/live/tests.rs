use futures_util::FutureExt;
use uuid::Uuid;

use super::*;

fn event(epoch: u32) -> LiveEvent {
    let decided =
        Resolved { run_id: Uuid::from_u128(1), event_time: 5, received_at: 6, has_event_time: true, opened_run: false };
    let payload = format!("{{\"epoch\": {epoch}, \"loss\": 0.5}}");
    LiveEvent::new(Kind::Metrics, decided, "c".into(), payload.into())
}

fn epochs(drained: &Drained) -> Vec<i64> {
    let rendered = |event: &Arc<LiveEvent>| serde_json::from_str::<serde_json::Value>(event.json().unwrap());
    drained.events.iter().map(|event| rendered(event).unwrap()["epoch"].as_i64().unwrap()).collect()
}

#[test]
fn no_event_is_made_without_a_subscriber() {
    let live = LiveFeed::new(1 << 20, 8);
    live.publish(|| panic!("made"));
    let mut subscriber = live.subscribe(None, 0).unwrap();
    live.publish(|| event(1));
    live.publish(|| event(2));
    assert_eq!(epochs(&subscriber.drain()), [1, 2]);
    assert!(subscriber.drain().events.is_empty());
}

#[test]
fn a_slow_subscriber_loses_the_oldest_events_and_learns_how_many() {
    let live = LiveFeed::new(4 * event(0).ring_bytes(), 8);
    let mut subscriber = live.subscribe(None, 0).unwrap();
    (0..10).for_each(|epoch| live.publish(|| event(epoch)));
    let drained = subscriber.drain();
    assert_eq!((epochs(&drained), drained.skipped), (vec![6, 7, 8, 9], 6));
    let topology =
        |bytes: usize| LiveEvent::new(Kind::Topology, event(0).decided, "c".into(), vec![b' '; bytes].into());
    live.publish(|| topology(LARGE_VALUE - 1));
    let drained = subscriber.drain();
    assert_eq!((drained.events.len(), drained.skipped), (0, 1), "one that is larger than the ring");
    live.publish(|| event(10));
    live.publish(|| topology(20 << 20));
    let drained = subscriber.drain();
    let sizes: Vec<_> = drained.events.iter().map(|event| event.bytes()).collect();
    assert_eq!((sizes, drained.skipped), (vec![event(10).bytes(), 20 << 20], 0), "a large payload is not kept");
}

#[test]
fn missed_messages_are_skipped_and_later_ones_are_shown() {
    let live = LiveFeed::new(1 << 20, 8);
    assert!(!live.has_subscribers());
    let mut subscriber = live.subscribe(None, 0).unwrap();
    assert!(live.has_subscribers());
    live.publish(|| event(1));
    live.mark_lost();
    live.publish(|| event(2));
    let drained = subscriber.drain();
    assert_eq!((epochs(&drained), drained.skipped), (vec![2], 2));
    live.mark_lost();
    assert_eq!(subscriber.drain().skipped, 1);
    assert_eq!(subscriber.drain().skipped, 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_reconnects_soon_resumes() {
    let live = LiveFeed::new(1 << 20, 8);
    let mut subscriber = live.subscribe(None, 0).unwrap();
    live.publish(|| event(1));
    subscriber.drain();
    let token = subscriber.resume_token();
    drop(subscriber);
    live.publish(|| event(2));
    let mut again = live.subscribe(Some(&token), 0).unwrap();
    assert!(again.resumed);
    assert_eq!(epochs(&again.drain()), [2]);
    let token = again.resume_token();
    drop(again);
    tokio::time::advance(RESUME_WINDOW + Duration::from_secs(1)).await;
    live.publish(|| event(3));
    live.publish(|| panic!("nobody is coming back"));
    for lost in [token.as_str(), "1-1", "nonsense", ""] {
        let mut late = live.subscribe(Some(lost), 0).unwrap();
        assert!(!late.resumed && late.drain().events.is_empty(), "{lost}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_feed_has_no_subscriber_once_the_resume_window_is_over() {
    let live = LiveFeed::new(1 << 20, 8);
    drop(live.subscribe(None, 0).unwrap());
    live.mark_lost();
    assert!(live.has_subscribers(), "it may come back");
    tokio::time::advance(RESUME_WINDOW + Duration::from_secs(1)).await;
    assert!(!live.has_subscribers());
    live.publish(|| panic!("nobody is coming back"));
}

#[test]
fn the_number_of_subscribers_has_a_bound() {
    let live = LiveFeed::new(1 << 20, 1);
    let subscriber = live.subscribe(None, 0).unwrap();
    assert!(live.subscribe(None, 0).is_none());
    drop(subscriber);
    assert!(live.subscribe(None, 0).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_a_subscriber_and_says_while_it_cannot_read() {
    let live = LiveFeed::new(1 << 20, 8);
    let waiting = {
        let live = live.clone();
        async move { live.wait_for_subscriber().await }
    };
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none(), "no subscriber");
    let subscriber = live.subscribe(None, 0).unwrap();
    assert!(waiting.as_mut().now_or_never().is_some());
    drop(subscriber);
    live.wait_for_subscriber().await;
    assert!(live.is_live());
    let outages = [live.outage(), live.outage()];
    assert!(!live.is_live());
    let [first, second] = outages;
    drop(first);
    assert!(!live.is_live(), "another part is not read");
    drop(second);
    assert!(live.is_live());
}
