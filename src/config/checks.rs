//! What no type can say: settings that cannot work, by key.

use std::time::Duration;

use super::Settings;
use crate::{store::StoreKind, tls::Tls};

const CONSISTENCIES: [&str; 8] = ["ANY", "ONE", "TWO", "THREE", "QUORUM", "ALL", "LOCAL_QUORUM", "LOCAL_ONE"];

/// Adds everything that is wrong with `settings`.
pub fn problems(settings: &Settings, problems: &mut Vec<String>) {
    settings.limits.problems(problems);
    settings.spool.problems(problems);
    settings.writer.problems(problems);
    settings.log.problems(problems);
    settings.http.problems(problems);
    let mut check = |fine: bool, problem: &str| {
        if !fine {
            problems.push(problem.to_owned());
        }
    };
    let name = &settings.instance;
    check(!name.is_empty() && !name.contains(char::is_control), "`instance` must be a name without control characters");
    check(settings.shutdown_grace > Duration::ZERO, "`shutdown_grace` must be above zero");
    check(
        jiff::tz::TimeZone::get(&settings.intake.time_zone).is_ok(),
        "`intake.time_zone` must be a name of the time zone database, such as \"UTC\" or \"Europe/Berlin\"",
    );
    let latest = &settings.latest;
    for (key, ttl) in [
        ("metrics_ttl", latest.metrics_ttl),
        ("topology_ttl", latest.topology_ttl),
        ("state_ttl", latest.state_ttl),
        ("history_ttl", latest.history_ttl),
        ("control_ttl", latest.control_ttl),
        ("status_ttl", latest.status_ttl),
    ] {
        check(ttl >= Duration::from_millis(1), &format!("`latest.{key}` must be at least 1ms"));
    }
    redis(settings, problems);
    if settings.store.kind == StoreKind::Cassandra {
        cassandra(settings, problems);
    }
    tls("redis", &settings.redis.tls, problems);
    tls("store.cassandra", &settings.store.cassandra.tls, problems);
}

fn redis(settings: &Settings, problems: &mut Vec<String>) {
    let redis = &settings.redis;
    // The value is never shown: what cannot be read may hold a password in the wrong place.
    if !["redis://", "rediss://", "valkey://", "valkeys://"].iter().any(|scheme| redis.url.starts_with(scheme)) {
        problems.push("`redis.url` must begin with redis:// or rediss://".into());
    } else if redis.url.contains('?') {
        problems.push("`redis.url` carries parameters behind `?`, which are not understood; set keys instead".into());
    }
    if redis.training_channels.is_empty() {
        problems.push("`redis.training_channels` must name at least one channel".into());
    }
    let channels: Vec<_> = (redis.training_channels.iter().map(|channel| ("redis.training_channels", channel)))
        .chain(redis.control_channels.iter().map(|channel| ("redis.control_channels", channel)))
        .collect();
    for (at, (key, channel)) in channels.iter().enumerate() {
        if channel.is_empty() {
            problems.push(format!("`{key}` holds an empty name"));
        }
        for (other_key, other) in &channels[at + 1..] {
            if overlap(channel.as_bytes(), other.as_bytes()) {
                problems.push(format!(
                    "`{key}` = \"{channel}\" and `{other_key}` = \"{other}\" overlap: a message would arrive twice"
                ));
            }
        }
    }
}

/// Whether some channel matches both. A `[...]` counts as any one character, which can only see too many overlaps.
pub fn overlap(a: &[u8], b: &[u8]) -> bool {
    let head = |pattern: &[u8]| -> Option<(Option<u8>, usize)> {
        match pattern {
            [] => None,
            [b'?', ..] => Some((None, 1)),
            [b'[', rest @ ..] => {
                Some((None, 2 + rest.iter().position(|byte| *byte == b']').unwrap_or(rest.len().saturating_sub(1))))
            }
            [b'\\', byte, ..] => Some((Some(*byte), 2)),
            [byte, ..] => Some((Some(*byte), 1)),
        }
    };
    match (a, b) {
        // The star stands for nothing, or for what begins the other side.
        ([b'*', rest @ ..], _) => overlap(rest, b) || head(b).is_some_and(|(_, length)| overlap(a, &b[length..])),
        (_, [b'*', ..]) => overlap(b, a),
        _ => match (head(a), head(b)) {
            (None, None) => true,
            (Some((x, length)), Some((y, other))) => {
                (x.is_none() || y.is_none() || x == y) && overlap(&a[length..], &b[other..])
            }
            _ => false,
        },
    }
}

fn cassandra(settings: &Settings, problems: &mut Vec<String>) {
    let cluster = &settings.store.cassandra;
    let mut check = |fine: bool, problem: String| {
        if !fine {
            problems.push(problem);
        }
    };
    let named = |point: &String| !point.is_empty();
    check(
        !cluster.contact_points.is_empty() && cluster.contact_points.iter().all(named),
        "`store.cassandra.contact_points` must name at least one host".into(),
    );
    check(cluster.port != 0, "`store.cassandra.port` must not be 0".into());
    check(cluster.pool_size != 0, "`store.cassandra.pool_size` must be at least 1".into());
    check((1..=5_000).contains(&cluster.page_rows), "`store.cassandra.page_rows` must be between 1 and 5000".into());
    let keyspace = &cluster.keyspace;
    // Cassandra's own rule for the name of a keyspace.
    check(
        (1..=48).contains(&keyspace.len()) && keyspace.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
        "`store.cassandra.keyspace` must be 1 to 48 letters, digits and underscores".into(),
    );
    check(
        cluster.password.is_none() || cluster.username.is_some(),
        "`store.cassandra.username` must be set when there is a password".into(),
    );
    for (key, level) in [("write", &cluster.consistency_write), ("read", &cluster.consistency_read)] {
        let known = |level: &String| CONSISTENCIES.contains(&level.to_ascii_uppercase().as_str());
        check(
            level.as_ref().is_none_or(known),
            format!("`store.cassandra.consistency_{key}` must be one of {}", CONSISTENCIES.join(", ")),
        );
    }
}

fn tls(section: &str, tls: &Tls, problems: &mut Vec<String>) {
    if tls.cert.is_some() != tls.key.is_some() {
        problems.push(format!("`{section}.tls.cert` and `{section}.tls.key` must be set together"));
    }
    for (key, path) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
        let Some(path) = path else { continue };
        if let Err(error) = std::fs::File::open(path) {
            problems.push(format!("`{section}.tls.{key}`: `{}` cannot be read: {error}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn overlapping_patterns_are_seen() {
        for (a, b, both) in [
            ("cascor:training", "cascor:training", true),
            ("cascor:training", "cascor:control", false),
            ("lab:*:training", "lab:7:training", true),
            ("lab:*:training", "lab:7:control", false),
            ("lab:*:training", "*:x:training", true),
            ("lab:*", "*:lab", true),
            ("a*c", "ab", false),
            ("a*", "b*", false),
            ("a?c", "abc", true),
            ("a[xyz]c", "a?c", true),
            ("a\\*", "ab", false),
            ("*", "**", true),
            ("", "*", true),
        ] {
            assert_eq!(overlap(a.as_bytes(), b.as_bytes()), both, "{a} and {b}");
            assert_eq!(overlap(b.as_bytes(), a.as_bytes()), both, "{b} and {a}");
        }
    }
}
