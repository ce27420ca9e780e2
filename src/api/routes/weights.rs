//! Statistics of a network's weights, as far as dashboards show them.

use serde_json::{Value, json};

/// The statistics of these weights, zeros without any. Deviations are those of a sample.
pub fn statistics(mut weights: Vec<f64>) -> Value {
    weights.sort_unstable_by(f64::total_cmp);
    let n = weights.len();
    let count = |is: fn(f64) -> bool| weights.iter().filter(|weight| is(**weight)).count();
    let mean = if n == 0 { 0.0 } else { weights.iter().sum::<f64>() / n as f64 };
    let moment = |power: i32| weights.iter().map(|weight| (weight - mean).powi(power)).sum::<f64>();
    let variance = if n < 2 { 0.0 } else { moment(2) / (n - 1) as f64 };
    let deviation = variance.sqrt();
    let within = |sigmas: f64| weights.iter().filter(|weight| (*weight - mean).abs() <= sigmas * deviation).count();
    let (median, q1, q3) = (quantile(&weights, 0.5), quantile(&weights, 0.25), quantile(&weights, 0.75));
    let mut distances: Vec<f64> = weights.iter().map(|weight| (weight - median).abs()).collect();
    distances.sort_unstable_by(f64::total_cmp);
    let spread = quantile(&distances, 0.5);
    json!({
        "total_weights": n,
        "positive_weights": count(|weight| weight > 0.0),
        "negative_weights": count(|weight| weight < 0.0),
        "zero_weights": count(|weight| weight == 0.0),
        "mean": mean,
        "std_dev": deviation,
        "variance": variance,
        "skewness": skewness(n, moment(2), moment(3)),
        "kurtosis": kurtosis(n, moment(2), moment(4)),
        "median": median,
        "mad": spread,
        "median_ad": spread,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "min": weights.first().copied().unwrap_or(0.0),
        "max": weights.last().copied().unwrap_or(0.0),
        "z_score_distribution": {
            "within_1_sigma": within(1.0),
            "within_2_sigma": within(2.0),
            "within_3_sigma": within(3.0),
            "beyond_3_sigma": n - within(3.0),
        },
    })
}

/// A quantile, interpolated linearly.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = part * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// Of a sample, from the sums of the squares and the cubes of the distances from the mean.
fn skewness(n: usize, squares: f64, cubes: f64) -> f64 {
    let count = n as f64;
    if n < 3 || squares == 0.0 {
        return 0.0;
    }
    let biased = cubes / count / (squares / count).powf(1.5);
    biased * (count * (count - 1.0)).sqrt() / (count - 2.0)
}

/// Above that of the normal distribution; of a sample, from the sums of the squares and the fourth powers.
fn kurtosis(n: usize, squares: f64, fourths: f64) -> f64 {
    let count = n as f64;
    if n < 4 || squares == 0.0 {
        return 0.0;
    }
    let biased = fourths / count / (squares / count).powi(2);
    ((count * count - 1.0) * biased - 3.0 * (count - 1.0).powi(2)) / ((count - 2.0) * (count - 3.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_are_those_of_a_sample() {
        let found = statistics(vec![3.0, -1.0, 0.0, 1.0, 2.0, 9.0]);
        // From the definitions, by hand: mean 14/6, squares 96 - 6 * mean².
        let variance: f64 = (96.0 - 14.0 * 14.0 / 6.0) / 5.0;
        for (name, expected) in [
            ("total_weights", 6.0),
            ("positive_weights", 4.0),
            ("negative_weights", 1.0),
            ("zero_weights", 1.0),
            ("mean", 14.0 / 6.0),
            ("variance", variance),
            ("std_dev", variance.sqrt()),
            ("median", 1.5),
            ("q1", 0.25),
            ("q3", 2.75),
            ("iqr", 2.5),
            ("mad", 1.5),
            ("skewness", 1.626_701_7),
            ("kurtosis", 3.050_692_5),
            ("min", -1.0),
            ("max", 9.0),
        ] {
            let value = found[name].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-5, "{name}: {value}, not {expected}");
        }
        assert_eq!(found["z_score_distribution"]["within_1_sigma"], 5);
        assert_eq!(found["z_score_distribution"]["beyond_3_sigma"], 0);
    }

    #[test]
    fn few_equal_or_no_weights_have_finite_statistics() {
        for (weights, mean, within) in [(vec![], 0.0, 0), (vec![0.5], 0.5, 1), (vec![2.0; 5], 2.0, 5)] {
            let found = statistics(weights);
            assert_eq!((found["mean"].as_f64(), found["std_dev"].as_f64()), (Some(mean), Some(0.0)));
            assert_eq!(found["z_score_distribution"]["within_3_sigma"], within);
            assert!(found.as_object().unwrap().values().all(|value| !value.is_null()), "{found}");
        }
    }
}
