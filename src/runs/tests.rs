use super::*;

const IDLE: Duration = Duration::from_secs(6 * 3_600);
const TIMEOUTS: Timeouts = Timeouts { idle: IDLE, end_grace: Duration::from_secs(5) };
const ZERO: Duration = Duration::ZERO;

fn hints(kind: Kind) -> RunHints<'static> {
    RunHints {
        kind,
        run_id: None,
        epoch: None,
        phase: None,
        hidden_units: None,
        event_time: 1,
        has_event_time: true,
        received_at: 2,
        payload: b"{}",
    }
}

fn metrics(epoch: i32, phase: &'static str, hidden: i32) -> RunHints<'static> {
    RunHints {
        epoch: Some(epoch),
        phase: Some(phase),
        hidden_units: Some(hidden),
        event_time: 77,
        ..hints(Kind::Metrics)
    }
}

fn at(resolver: &mut Resolver, hints: &RunHints<'_>) -> RunAssignment {
    resolver.decide("c", hints, ZERO)
}

#[test]
fn an_own_id_takes_precedence_and_keeps_the_open_run() {
    let mut resolver = Resolver::new(TIMEOUTS);
    let open = at(&mut resolver, &hints(Kind::Metrics));
    assert_eq!((open.run_id, open.opened_run, open.changed), (implicit_run_id("c", 1, b"{}"), true, true));
    for kind in [Kind::Metrics, Kind::RunEnd, Kind::State] {
        let own = RunHints { run_id: Some(Uuid::from_u128(9)), ..hints(kind) };
        assert_eq!(at(&mut resolver, &own).run_id, Uuid::from_u128(9));
        assert_eq!(at(&mut resolver, &hints(Kind::State)).run_id, open.run_id, "{kind:?}");
    }
    assert_ne!(resolver.decide("d", &hints(Kind::State), ZERO).run_id, open.run_id, "channels are apart");
}

#[test]
fn a_start_opens_a_run_which_stays_after_its_end_until_the_next() {
    let mut resolver = Resolver::new(TIMEOUTS);
    let own = Uuid::from_u128(5);
    let start = at(&mut resolver, &RunHints { run_id: Some(own), ..hints(Kind::RunStart) });
    assert_eq!(start, RunAssignment { run_id: own, opened_run: false, changed: true });
    assert_eq!(at(&mut resolver, &metrics(9, "output", 1)).run_id, own);
    let end = at(&mut resolver, &RunHints { run_id: Some(own), ..hints(Kind::RunEnd) });
    assert_eq!(end, RunAssignment { run_id: own, opened_run: false, changed: true });
    for late in [hints(Kind::State), hints(Kind::RunEnd), hints(Kind::Metrics), metrics(9, "output", 1)] {
        assert_eq!(at(&mut resolver, &late).run_id, own, "{late:?}");
    }
    let next = at(&mut resolver, &metrics(8, "candidate", 7));
    assert!(next.opened_run && next.changed && next.run_id != own, "a metrics epoch below the last of an ended run");
    let start = at(&mut resolver, &RunHints { event_time: 3, ..hints(Kind::RunStart) });
    assert_eq!((start.run_id, start.opened_run), (implicit_run_id("c", 3, b"{}"), false));
    assert_eq!(at(&mut resolver, &hints(Kind::State)).run_id, start.run_id);
}

#[test]
fn epochs_that_start_again_are_a_new_run_unless_the_network_grew() {
    for (name, before, then, new) in [
        ("same phase, nothing grew", (7, "output", 2), (0, "output", 2), true),
        ("epoch one", (7, "output", 2), (1, "output", 2), true),
        ("fewer units", (7, "output", 2), (0, "output", 0), true),
        ("grew", (7, "output", 2), (0, "output", 3), false),
        ("another phase", (7, "output", 2), (0, "candidate", 2), false),
        ("not at the beginning", (7, "output", 2), (2, "output", 2), false),
        ("not below", (1, "output", 2), (1, "output", 2), false),
    ] {
        let mut resolver = Resolver::new(TIMEOUTS);
        let first = at(&mut resolver, &metrics(before.0, before.1, before.2));
        let second = at(&mut resolver, &RunHints { event_time: 99, ..metrics(then.0, then.1, then.2) });
        assert_eq!(second.opened_run, new, "{name}");
        assert_eq!(second.run_id != first.run_id, new, "{name}");
    }
}

#[test]
fn idle_time_counts_only_while_subscribed_and_across_restarts() {
    let half = IDLE / 2;
    let mut resolver = Resolver::new(TIMEOUTS);
    let first = resolver.decide("c", &hints(Kind::Metrics), ZERO);
    let json = serde_json::to_string(&resolver.state(half)).unwrap();
    let restored = || Resolver::restore(TIMEOUTS, serde_json::from_str(&json).unwrap());
    let later = RunHints { event_time: 5, ..hints(Kind::State) };
    assert_eq!(restored().decide("c", &later, half - Duration::from_secs(1)).run_id, first.run_id);
    let second = restored().decide("c", &later, half);
    assert!(second.opened_run && second.run_id != first.run_id);
}

#[test]
fn the_newest_run_is_adopted_and_a_reset_forgets_all() {
    let run = |id, opened_at| OpenRun {
        run_id: Uuid::from_u128(id),
        opened_at,
        ended: false,
        ended_at: None,
        last_epoch: None,
        phases: Vec::new(),
        former: Vec::new(),
        closed_at: None,
        reset: None,
    };
    let mut resolver = Resolver::new(TIMEOUTS);
    assert!(resolver.open_run("c").is_none());
    assert!(resolver.adopt("c", run(1, 10), ZERO));
    assert!(!resolver.adopt("c", run(2, 9), ZERO), "older");
    assert!(resolver.adopt("c", run(3, 11), ZERO));
    assert_eq!(at(&mut resolver, &hints(Kind::State)).run_id, Uuid::from_u128(3));
    assert!(!resolver.adopt("c", OpenRun { ended: true, ..run(3, 50) }, ZERO));
    assert!(resolver.open_run("c").unwrap().ended);
    resolver.close(|_, _| true);
    assert!(at(&mut resolver, &hints(Kind::State)).opened_run);
}

#[test]
fn open_runs_are_rebuilt_from_stored_decisions() {
    let mut resolver = Resolver::new(TIMEOUTS);
    let id = Uuid::from_u128(4);
    resolver.observe("c", &metrics(7, "output", 2), id, false, ZERO);
    assert_eq!(at(&mut resolver, &metrics(8, "output", 2)).run_id, id);
    assert!(at(&mut resolver, &metrics(0, "output", 2)).opened_run, "the epochs were taken in as well");
}

#[test]
fn the_number_of_channels_is_bounded() {
    let mut resolver = Resolver::new(TIMEOUTS);
    for n in 0..DEFAULT_CHANNELS_MAX + 10 {
        resolver.decide(&n.to_string(), &hints(Kind::State), ZERO);
    }
    assert_eq!(resolver.open_runs().count(), DEFAULT_CHANNELS_MAX);
    assert!(resolver.open_run("0").is_none() && resolver.open_run(&(DEFAULT_CHANNELS_MAX + 9).to_string()).is_some());
}

#[test]
fn metrics_belong_to_an_ended_run_for_the_grace_only() {
    const SECOND: Micros = 1_000_000;
    let end = RunHints { event_time: 100 * SECOND, received_at: 200 * SECOND, ..metrics_at(0, true) };
    for (name, end_own, then, new) in [
        ("own times within", true, RunHints { received_at: 900 * SECOND, ..metrics_at(105, true) }, false),
        ("own times beyond", true, RunHints { received_at: 200 * SECOND, ..metrics_at(106, true) }, true),
        ("before the end", true, RunHints { received_at: 900 * SECOND, ..metrics_at(60, true) }, false),
        ("receipt within", true, RunHints { received_at: 205 * SECOND, ..metrics_at(0, false) }, false),
        ("receipt beyond", true, RunHints { received_at: 206 * SECOND, ..metrics_at(0, false) }, true),
        ("the end has no time", false, RunHints { received_at: 204 * SECOND, ..metrics_at(900, true) }, false),
        ("no metrics", true, RunHints { kind: Kind::State, received_at: 240 * SECOND, ..metrics_at(0, false) }, false),
    ] {
        let mut resolver = Resolver::new(TIMEOUTS);
        let first = at(&mut resolver, &metrics_at(90, true));
        at(&mut resolver, &RunHints { kind: Kind::RunEnd, has_event_time: end_own, ..end });
        let json = serde_json::to_string(&resolver.state(ZERO)).unwrap();
        for mut resolver in [resolver, Resolver::restore(TIMEOUTS, serde_json::from_str(&json).unwrap())] {
            let assignment = at(&mut resolver, &then);
            assert_eq!((assignment.opened_run, assignment.run_id != first.run_id), (new, new), "{name}");
        }
    }
}

#[test]
fn an_ended_run_without_the_time_of_its_end_is_over_and_silence_ends_every_other() {
    let mut resolver = Resolver::new(TIMEOUTS);
    let first = at(&mut resolver, &metrics(3, "output", 1));
    at(&mut resolver, &hints(Kind::RunEnd));
    let json = serde_json::to_value(resolver.open_run("c").unwrap()).unwrap();
    let old: serde_json::Map<_, _> =
        json.as_object().unwrap().clone().into_iter().filter(|(key, _)| key != "ended_at").collect();
    resolver.replace("c", Some(serde_json::from_value(old.into()).unwrap()), ZERO);
    assert_eq!(at(&mut resolver, &hints(Kind::State)).run_id, first.run_id, "no metrics");
    let late = RunHints { event_time: 9, ..hints(Kind::State) };
    assert!(resolver.decide("c", &late, IDLE).opened_run, "silent for too long");
    resolver.replace("c", Some(serde_json::from_value(json).unwrap()), ZERO);
    assert_eq!(at(&mut resolver, &hints(Kind::Metrics)).run_id, first.run_id, "within the grace");
}

fn metrics_at(seconds: Micros, own_time: bool) -> RunHints<'static> {
    RunHints { event_time: seconds * 1_000_000, has_event_time: own_time, ..hints(Kind::Metrics) }
}

#[test]
fn the_least_recently_used_channel_is_evicted_and_reported() {
    let mut resolver = Resolver::new(TIMEOUTS).with_channels(3);
    let mut open = |channel: &str| {
        resolver.decide(channel, &metrics(5, "output", 0), ZERO);
        resolver.take_evicted()
    };
    for (channel, forgotten) in
        [("a", None), ("b", None), ("c", None), ("a", None), ("d", Some("b")), ("b", Some("c")), ("d", None)]
    {
        assert_eq!(open(channel).as_deref(), forgotten, "{channel}");
    }
    let state = resolver.state(Duration::ZERO);
    let fewer = Resolver::restore(TIMEOUTS, state).with_channels(2);
    let mut left: Vec<_> = fewer.open_runs().map(|(channel, _)| channel.to_owned()).collect();
    left.sort();
    assert_eq!(left, ["b", "d"], "those used last");
}

#[test]
fn an_adopted_run_is_limited_to_our_bounds() {
    let phases: Vec<_> = (0..500)
        .map(|n| serde_json::json!({"phase": format!("{n}{}", "x".repeat(1_000)), "epoch": n, "hidden_units": null}))
        .collect();
    let run = serde_json::json!({"run_id": Uuid::from_u128(1), "opened_at": 7, "phases": phases});
    let run: OpenRun = serde_json::from_value(run).unwrap();
    let run = run.within_bounds();
    assert_eq!((run.phases.len(), run.phases[PHASES_MAX - 1].epoch), (PHASES_MAX, 499));
    assert!(run.phases.iter().all(|progress| progress.phase.as_ref().unwrap().len() == PHASE_NAME_MAX));
}
