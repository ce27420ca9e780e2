//! A scrape of `/metrics`, and quantiles of the observations between two scrapes. Shared with the tests.

use std::collections::BTreeMap;

/// The samples of a page, by name with labels.
pub type Samples = BTreeMap<String, f64>;

/// Reads a page.
pub fn samples(page: &str) -> Samples {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// A quantile of a histogram between two scrapes, interpolated within its bucket.
pub fn quantile(before: &Samples, after: &Samples, name: &str, q: f64) -> f64 {
    let prefix = format!("{name}_bucket{{le=\"");
    let mut buckets: Vec<(f64, f64)> = after
        .iter()
        .filter_map(|(key, value)| {
            let bound = key.strip_prefix(&prefix)?.strip_suffix("\"}")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, value - before.get(key).copied().unwrap_or(0.0)))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = buckets.last().map_or(0.0, |last| last.1) * q;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= wanted {
            let inside = if count > below { (wanted - below) / (count - below) } else { 1.0 };
            return if bound.is_finite() { low + (bound - low) * inside } else { low };
        }
        (low, below) = (bound, count);
    }
    f64::NAN
}
