use super::*;

/// Rows with one value each, the oldest first; handed over as pages of seven, the newest first.
#[derive(Clone, Default)]
struct Run(Vec<(Sample, Option<f64>, Option<&'static str>)>);

impl Run {
    fn row(mut self, epoch: impl Into<Option<i32>>, units: impl Into<Option<i32>>, value: f64) -> Self {
        let at = self.0.len() as i64;
        let (epoch, hidden_units) = (epoch.into(), units.into());
        let seq = Some(at);
        let sample =
            Sample { timestamp: at * 1_000_000, event_id: at, epoch, step: None, hidden_units, seq, phase: None };
        self.0.push((sample, Some(value), None));
        self
    }

    fn phase(mut self, phase: &'static str) -> Self {
        self.0.last_mut().unwrap().2 = Some(phase);
        self
    }

    fn fold(&self, fold: &mut impl SampleSink) {
        for chunk in self.0.iter().rev().collect::<Vec<_>>().chunks(7) {
            let mut page = Samples::default();
            for (sample, value, phase) in chunk {
                let phase = phase.map(|phase| page.phase(phase));
                page.rows.push(Sample { phase, ..*sample });
                page.values.push(*value);
            }
            fold.add(&page);
        }
    }

    fn curve(&self, axis: Axis, points: usize, raw: bool) -> Curve {
        let mut reducer = Reducer::new(axis, 1, points, raw);
        self.fold(&mut reducer);
        reducer.finish()
    }
}

fn last(curve: &Curve) -> Vec<f64> {
    curve.points.iter().map(|point| point.fields[0].last).collect()
}

/// A noisy run of `n` rows with an extreme and a NaN in it.
fn long(n: i32) -> Run {
    (0..n).fold(Run::default(), |run, n| {
        let value = match n {
            777 => 1e9,
            778 => -1e9,
            901 => f64::NAN,
            902 => f64::INFINITY,
            _ => f64::from((n * 7_919) % 1_000),
        };
        run.row(n, None, value)
    })
}

#[test]
fn a_short_run_is_exact() {
    let curve = long(100).curve(Axis::Time(0), 100, false);
    assert_eq!((curve.shift, curve.of, curve.points.len()), (None, 100, 100));
    assert!(curve.points.windows(2).all(|two| two[0].newest.timestamp < two[1].newest.timestamp));
}

#[test]
fn a_reduced_run_hides_no_extreme_and_no_nan() {
    let run = long(5_000);
    for (axis, points) in [(Axis::Time(0), 50), (Axis::Epoch, 50), (Axis::Time(0), 1), (Axis::Epoch, 4_999)] {
        let curve = run.curve(axis, points, false);
        assert!(curve.points.len() <= points.max(POINTS_MIN) && curve.shift.is_some(), "{axis:?} {points}");
        assert_eq!(curve.of, 5_000);
        assert_eq!(curve.points.iter().map(|point| point.rows).sum::<u32>(), 5_000);
        let fields: Vec<_> = curve.points.iter().map(|point| point.fields[0]).collect();
        assert_eq!(fields.iter().map(|field| field.min).reduce(f64::min), Some(-1e9));
        assert_eq!(fields.iter().map(|field| field.max).reduce(f64::max), Some(1e9));
        assert_eq!(fields.iter().map(|field| field.non_finite).sum::<u32>(), 2);
        for point in &curve.points {
            // Every bucket says of its rows exactly what they are.
            let width = 1_i64 << curve.shift.unwrap();
            let inside = |sample: &Sample| {
                let x = if axis == Axis::Epoch { i64::from(sample.epoch.unwrap()) } else { sample.timestamp };
                (point.x..point.x + width).contains(&x)
            };
            let rows: Vec<_> = run.0.iter().filter(|(sample, ..)| inside(sample)).collect();
            let field = point.fields[0];
            assert_eq!(rows.len(), point.rows as usize);
            assert_eq!(rows[0].1.unwrap().to_bits(), field.first.to_bits());
            assert_eq!(rows[rows.len() - 1].1.unwrap().to_bits(), field.last.to_bits());
        }
    }
}

#[test]
fn points_do_not_move_as_data_arrives() {
    let mut known: Option<Curve> = None;
    for n in 2_000..2_400 {
        let curve = long(n).curve(Axis::Time(0), 200, false);
        if let Some(known) = known.filter(|known| known.shift == curve.shift) {
            // All but the last, which still grows.
            let settled = known.points.len() - 1;
            assert_eq!(known.points[..settled], curve.points[..settled], "{n} rows");
        }
        known = Some(curve);
    }
}

#[test]
fn a_run_resumed_from_a_checkpoint_replaces_what_it_repeats() {
    let attempts = |epochs: &[(i32, i32)]| {
        epochs
            .iter()
            .fold(Run::default(), |run, (attempt, epoch)| run.row(*epoch, None, f64::from(attempt * 100 + epoch)))
    };
    for (name, epochs, expected) in [
        ("once", &[(0, 1), (0, 2), (0, 3)][..], &[1.0, 2.0, 3.0][..]),
        ("resumed", &[(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)], &[1.0, 102.0, 103.0]),
        ("resumed further back", &[(0, 1), (0, 2), (0, 3), (1, 3), (2, 2), (2, 4)], &[1.0, 202.0, 204.0]),
        ("from the start", &[(0, 1), (0, 2), (1, 1)], &[101.0]),
        ("twice, the second time less far back", &[(0, 1), (0, 4), (1, 2), (1, 5), (2, 4)], &[1.0, 102.0, 204.0]),
        ("several values of an epoch", &[(0, 1), (0, 1), (0, 2), (0, 2)], &[1.0, 1.0, 2.0, 2.0]),
    ] {
        assert_eq!(last(&attempts(epochs).curve(Axis::Time(0), 100, false)), expected, "{name}");
        assert_eq!(last(&attempts(epochs).curve(Axis::Time(0), 100, true)).len(), epochs.len(), "{name}, raw");
    }
}

#[test]
fn a_part_of_a_curve_is_as_in_the_whole() {
    let run =
        Run::default().row(1, None, 1.0).row(2, None, 2.0).row(3, None, 3.0).row(2, None, 102.0).row(3, None, 103.0);
    let part = |until: Option<Micros>| {
        let mut reducer = Reducer::new(Axis::Time(0), 1, 100, false).until(until);
        run.fold(&mut reducer);
        reducer.finish()
    };
    let at = |row: i64| Some(row * 1_000_000);
    for (until, values, replaced) in
        [(None, &[1.0, 102.0, 103.0][..], 2), (at(3), &[1.0, 102.0], 2), (at(2), &[1.0], 2), (at(1), &[1.0], 1)]
    {
        let curve = part(until);
        assert_eq!(
            (last(&curve), curve.of, curve.replaced),
            (values.to_vec(), values.len() as u64, replaced),
            "{until:?}"
        );
    }
}

#[test]
fn epochs_that_begin_again_with_a_unit_or_a_phase_replace_nothing() {
    let cascade = Run::default().row(1, 0, 1.0).row(2, 0, 2.0).row(1, 1, 3.0).row(2, 1, 4.0).row(1, 2, 5.0);
    assert_eq!(last(&cascade.curve(Axis::Time(0), 100, false)), [1.0, 2.0, 3.0, 4.0, 5.0]);
    let phases = Run::default()
        .row(9, None, 1.0)
        .phase("output")
        .row(1, None, 2.0)
        .phase("candidate")
        .row(1, None, 3.0)
        .phase("output");
    assert_eq!(last(&phases.curve(Axis::Time(0), 100, false)), [1.0, 2.0, 3.0]);
    // Units are never lost: fewer of them are an earlier network.
    let resumed = Run::default().row(1, 0, 1.0).row(1, 1, 2.0).row(1, 2, 3.0).row(5, 1, 4.0).row(1, 2, 5.0);
    assert_eq!(last(&resumed.curve(Axis::Time(0), 100, false)), [1.0, 2.0, 4.0, 5.0]);
    // One that knows no units and no phase: only epochs count; without one, everything does.
    let none = Run::default().row(None, None, 1.0).row(None, None, 2.0);
    assert_eq!(last(&none.curve(Axis::Time(0), 100, false)), [1.0, 2.0]);
}

#[test]
fn curves_are_laid_beside_each_other() {
    let curve = long(1_000).curve(Axis::Epoch, 1_000, false);
    let wide = curve.widened(5);
    assert_eq!((wide.len(), wide.keys().nth(1)), (32, Some(&32)));
    assert_eq!(wide.values().map(|bucket| bucket.rows).sum::<u32>(), 1_000);
}

#[test]
fn aggregates_are_those_of_the_rows() {
    let mut aggregates = Aggregates::new(1, false);
    long(1_000).fold(&mut aggregates);
    let field = &aggregates.fields[0];
    let finite: Vec<f64> = long(1_000).0.iter().filter_map(|row| row.1).filter(|value| value.is_finite()).collect();
    let mean = finite.iter().sum::<f64>() / finite.len() as f64;
    assert!((field.mean().unwrap() - mean).abs() < 1e-6 * mean.abs().max(1.0), "{:?} {mean}", field.mean());
    assert_eq!((field.count, field.non_finite, aggregates.rows), (1_000, 2, 1_000));
    assert_eq!(field.max.map(|at| (at.value, at.epoch)), Some((1e9, Some(777))));
    assert_eq!(field.min.map(|at| (at.value, at.epoch)), Some((-1e9, Some(778))));
    assert_eq!(field.last.and_then(|at| at.epoch), Some(999));
    assert_eq!(field.first_non_finite.and_then(|at| at.epoch), Some(901));
    let mut nothing = Aggregates::new(1, false);
    Run::default().row(1, None, f64::NAN).fold(&mut nothing);
    assert_eq!((nothing.fields[0].mean(), nothing.fields[0].min), (None, None));
}

#[test]
fn growth_tells_what_each_unit_did() {
    let mut growth = Growth::default();
    Run::default().row(1, 0, 0.9).row(2, 0, 0.5).row(1, 1, 0.6).row(2, 1, 0.2).row(1, 2, 0.3).fold(&mut growth);
    let levels: Vec<_> =
        growth.levels.iter().rev().map(|level| (level.hidden_units, level.first, level.last)).collect();
    assert_eq!(levels, [(0, Some(0.9), Some(0.5)), (1, Some(0.6), Some(0.2)), (2, Some(0.3), Some(0.3))]);
}

#[test]
fn a_network_that_grows_without_end_is_told_by_its_newest_levels() {
    let run = (0..10_000).fold(Run::default(), |run, units| run.row(1, units, 0.5));
    let mut growth = Growth::default();
    run.fold(&mut growth);
    assert_eq!((growth.levels.len(), growth.truncated), (4_096, true));
    assert_eq!((growth.levels[0].hidden_units, growth.levels[4_095].hidden_units), (9_999, 5_904));
}

#[test]
fn rows_on_both_sides_of_zero_come_to_an_end() {
    let run = [-1, 0, -1_000_000, 1_000_000, i32::MIN, i32::MAX]
        .into_iter()
        .fold(Run::default(), |run, epoch| run.row(epoch, None, 1.0));
    for points in [0, 1, 2, 3] {
        let curve = run.curve(Axis::Epoch, points, true);
        assert!(curve.points.len() <= points.max(POINTS_MIN), "{points}: {}", curve.points.len());
        assert_eq!(curve.points.iter().map(|point| point.rows).sum::<u32>(), 6);
    }
    let farthest = run.curve(Axis::Time(i64::MAX), 1, true);
    assert_eq!(farthest.points.iter().map(|point| point.rows).sum::<u32>(), 6);
}

#[test]
fn a_phase_of_its_own_in_every_row_takes_bounded_memory() {
    let mut all = Phases::default();
    let mut numbers = std::collections::HashSet::new();
    for n in 0..20 {
        let mut page = Samples::default();
        for row in 0..10_000 {
            numbers.insert(page.phase(&format!("{n}-{row}-{}", "é".repeat(500))));
        }
        numbers.extend(all.of(&page));
    }
    assert_eq!((all.names.len(), numbers.len()), (PHASES_MAX, PHASES_MAX));
    assert!(all.names.iter().all(|name| name.len() <= PHASE_BYTES));
    assert_eq!(all.name(Some(0)).map(|name| &name[..4]), Some("0-0-"));
}

#[test]
fn the_best_of_a_metric_is_known_where_its_name_says_what_is_better() {
    use std::cmp::Ordering::{Greater, Less};
    let better = |name: &str| Field::named(name).better();
    for name in ["train_accuracy", "val_accuracy", "top_acc5", "f1", "f1,macro", "valAUC", "r2"] {
        assert_eq!(better(name), Some(Greater), "{name}");
    }
    for name in ["train_loss", "val_loss", "valLoss", "loss2", "rmse", "word error", "ppl"] {
        assert_eq!(better(name), Some(Less), "{name}");
    }
    for name in ["epoch", "seq", "hidden_units", "learning_rate", "grad_norm", "accumulated", "größe/日本", ""] {
        assert_eq!(better(name), None, "{name}");
    }
}
