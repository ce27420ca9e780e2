//! The gaps of the last days that a stream would have prevented: Pub/Sub delivers only to what is subscribed at that moment.

use std::{collections::BTreeMap, sync::Arc};

use super::{Finding, Report, sqlite};
use crate::{
    config::Settings,
    event::GapRow,
    gap_reader::ledger::{self, Filter},
    gaps::GapReason,
    logging::Chain,
    metrics::Metrics,
    render,
    store::{Store, StoreKind, cassandra::CassandraStore, sqlite as sqlite_store},
    units::{self, Micros},
    words::counted,
};

const AREA: &str = "gaps";

/// Days that are looked at.
const DAYS: i64 = 7;
const DAY: Micros = 86_400 * 1_000_000;
/// Gaps that are read, the newest.
const GAPS_MAX: usize = 1_000;

/// Losses between the publisher and the spool: entries of a stream wait for the daemon instead.
const PREVENTED: [GapReason; 5] = [
    GapReason::NotListening,
    GapReason::Disconnected,
    GapReason::CutByRedis,
    GapReason::ClientLag,
    GapReason::QueueFull,
];

/// Reads the recorded gaps of this daemon. Where it reads streams already, there is nothing to advise.
pub(super) async fn examine(settings: &Settings) -> Report {
    let mut report = Report::default();
    if !settings.redis.streams.is_empty() {
        return report;
    }
    // A store that cannot be used is a finding of its own area.
    let Some(store) = Box::pin(open(settings)).await else { return report };
    let filter = Filter {
        instance: Some(settings.instance.clone()),
        since: Some(units::now() - DAYS * DAY),
        ..Filter::default()
    };
    match ledger::read(&*store, &filter, GAPS_MAX).await {
        Ok(gaps) => {
            report.saw(format!("gaps of daemon `{}`: {} in the last {DAYS} days", settings.instance, gaps.len()));
            report.extend(streams_advice(&gaps));
        }
        Err(error) => {
            let what = "recorded gaps could not be looked at";
            report.push(Finding::unknown(AREA, what).fix("`cascor-ingest gaps`").evidence(Chain(&error).to_string()));
        }
    }
    report
}

/// The store, when it can be used.
async fn open(settings: &Settings) -> Option<Arc<dyn Store>> {
    let store = &settings.store;
    match store.kind {
        StoreKind::Sqlite => {
            let is_usable = store.sqlite.path.exists() && sqlite::ping(settings).await.is_ok();
            let open = || sqlite_store::open_read_only(&store.sqlite, &store.retention, Metrics::new());
            is_usable.then(|| Arc::new(open()) as Arc<dyn Store>)
        }
        StoreKind::Cassandra => {
            let cassandra = CassandraStore::new(&store.cassandra, &store.retention, Metrics::new());
            cassandra.connect().await.ok()?;
            Some(cassandra)
        }
    }
}

/// Whether messages were lost that a stream would have kept.
fn is_prevented(gap: &GapRow) -> bool {
    let by_reason = PREVENTED.iter().any(|reason| reason.as_str() == gap.reason);
    by_reason && !matches!(gap.source.as_str(), "control" | "stream") && gap.lost != Some(0)
}

/// The advice about these gaps, of which the newest is first.
fn streams_advice(gaps: &[GapRow]) -> Option<Finding> {
    let prevented: Vec<_> = gaps.iter().filter(|gap| is_prevented(gap)).collect();
    let newest = prevented.first()?;
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    prevented.iter().for_each(|gap| *reasons.entry(&gap.reason).or_default() += 1);
    let reasons: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let known: i64 = prevented.iter().filter_map(|gap| gap.lost).sum();
    let is_bound = prevented.iter().any(|gap| gap.lost.is_none());
    let messages_were = |count: i64| counted(count.unsigned_abs(), "message was", "messages were");
    let lost = match (is_bound, known) {
        (true, 0) => "the number of lost messages is unknown".to_owned(),
        (true, _) => format!("at least {} lost", messages_were(known)),
        (false, _) => format!("{} lost", messages_were(known)),
    };
    let times = if prevented.len() == 1 { "once".to_owned() } else { format!("{} times", prevented.len()) };
    let what = format!(
        "Pub/Sub does not wait for the daemon: {times} in the last {DAYS} days it could not receive, and missed what was published \
         meanwhile; a stream would have kept it"
    );
    Some(
        Finding::advice(AREA, what)
            .fix("let publishers send XADD in place of PUBLISH, and name the stream in `redis.streams`: its entries wait for a daemon")
            .evidence(format!(
                "`cascor-ingest gaps`: {}; {lost}; the newest began at {}",
                reasons.join(", "),
                render::time(newest.started_at)
            )),
    )
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn gap(reason: GapReason, source: &str, lost: Option<i64>) -> GapRow {
        GapRow {
            started_at: 1_795_000_000_000_000,
            gap_id: Uuid::nil(),
            ended_at: 1_795_000_001_000_000,
            reason: reason.as_str().into(),
            source: source.into(),
            channel: None,
            instance: "a".into(),
            run_id: None,
            lost,
        }
    }

    #[test]
    fn only_what_a_stream_would_have_kept_is_counted() {
        use GapReason::{ClientLag, Disconnected, NotListening, ProcessPaused, Sequence, SpoolFull};
        for (gaps, times, evidence) in [
            (vec![gap(NotListening, "redis", None)], "once", "1 not_listening; the number of lost messages is unknown"),
            (
                vec![
                    gap(Disconnected, "redis", None),
                    gap(ClientLag, "redis", Some(7)),
                    gap(Sequence, "redis", Some(9)),
                ],
                "2 times",
                "1 client_lag, 1 disconnected; at least 7 messages were lost",
            ),
            (
                vec![gap(ClientLag, "redis", Some(7)), gap(ClientLag, "redis", Some(1))],
                "2 times",
                "2 client_lag; 8 messages were lost; the newest began at 2026-11-18T",
            ),
        ] {
            let finding = streams_advice(&gaps).unwrap();
            assert!(finding.what.contains(&format!(": {times} in the last 7 days")), "{}", finding.what);
            let shown = finding.evidence.unwrap();
            assert!(shown.contains(evidence), "{shown}");
        }
        for gaps in [
            vec![],
            vec![
                gap(NotListening, "control", None),
                gap(Disconnected, "stream", None),
                gap(ClientLag, "redis", Some(0)),
            ],
            vec![
                gap(Sequence, "redis", Some(1)),
                gap(SpoolFull, "spool", Some(1)),
                gap(ProcessPaused, "process", Some(0)),
            ],
        ] {
            assert!(streams_advice(&gaps).is_none(), "{gaps:?}");
        }
    }
}
