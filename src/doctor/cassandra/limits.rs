//! Limits of the server below those of this program: sizes of requests and rows, guardrails, time-outs.

use std::collections::HashMap;

use scylla::client::session::Session;
use serde_json::Value;

use super::{AREA, Finding, Report, not_permitted, rows, text};
use crate::{
    config::Settings,
    doctor::bytes,
    units::{self, ByteSize},
};

/// Cassandra's default for a request and for a row.
const DEFAULT_LIMIT: u64 = 16 << 20;
/// Names that the table of metrics may have in `extra`.
const ITEMS: u64 = 4_096;
/// Tables of this program, columns of the widest, and indexes of one.
const TABLES: u64 = 12;
const COLUMNS: u64 = 30;
const INDEXES: u64 = 2;

/// The settings of the node that answered.
struct Server(HashMap<String, String>);

pub(super) async fn examine(settings: &Settings, session: &Session, copies: Option<usize>, report: &mut Report) {
    match rows(session, "SELECT JSON name, value FROM system_views.settings", None).await {
        Ok(rows) => {
            let pairs = rows.iter().filter(|row| row.get("value").is_some_and(Value::is_string));
            let server =
                Server(pairs.map(|row| (text(row, "name").to_owned(), text(row, "value").to_owned())).collect());
            report.saw(format!("limits and guardrails: {} settings of one node", server.0.len()));
            report.extend(server.sizes(settings));
            report.extend(server.thresholds());
            report.extend(server.switches());
            report.extend(server.consistency(settings, copies));
            report.extend(server.timeouts(settings));
        }
        Err(error) => {
            report.push(not_permitted("limits of requests and rows, and guardrails,", "system_views.settings", error));
        }
    }
}

impl Server {
    fn size(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse::<ByteSize>().ok().map(|size| size.0)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse::<u64>().ok()
    }

    fn duration(&self, name: &str) -> Option<std::time::Duration> {
        units::parse_duration(self.0.get(name)?).ok()
    }

    /// Whether the largest row passes: `limits.text`.
    fn sizes(&self, settings: &Settings) -> Option<Finding> {
        let row = settings.limits.text.0;
        let mutation =
            self.size("max_mutation_size").or_else(|| self.size("commitlog_segment_size").map(|size| size / 2));
        let known = [
            ("native_transport_max_frame_size", self.size("native_transport_max_frame_size")),
            ("max_mutation_size (half of commitlog_segment_size)", mutation),
            ("column_value_size_fail_threshold", self.size("column_value_size_fail_threshold")),
        ];
        let low: Vec<_> =
            known.into_iter().filter_map(|(name, size)| Some((name, size.filter(|size| *size < row)?))).collect();
        let least = low.iter().map(|(_, size)| *size).min()?;
        let evidence: Vec<_> = low.iter().map(|(name, size)| format!("{name} is {}", bytes(*size))).collect();
        let evidence = format!("{}; `limits.text` is {}", evidence.join(", "), settings.limits.text);
        let fix = "in cassandra.yaml: `native_transport_max_frame_size: 48MiB`, `commitlog_segment_size: 96MiB`; rows that were refused: \
                   `cascor-ingest deadletter replay`";
        Some(if least < DEFAULT_LIMIT {
            let what = format!(
                "Cassandra refuses rows of more than {}, less than it does by default: they become dead letters",
                bytes(least)
            );
            Finding::loses(AREA, what).fix(fix).evidence(evidence)
        } else {
            let what = format!(
                "Cassandra refuses rows of more than {}, which `limits` permit: they become dead letters",
                bytes(least)
            );
            Finding::advice(AREA, what).fix(fix).evidence(evidence)
        })
    }

    /// Guardrails that count something.
    fn thresholds(&self) -> Vec<Finding> {
        let known = [
            ("items_per_collection_fail_threshold", ITEMS, "metrics with more extra names become dead letters"),
            ("tables_fail_threshold", TABLES, "`schema apply` cannot create the tables"),
            ("columns_per_table_fail_threshold", COLUMNS, "`schema apply` cannot create the tables"),
            ("secondary_indexes_per_table_fail_threshold", INDEXES, "runs cannot be listed by status and dataset"),
        ];
        let numbers = known.into_iter().filter_map(|(name, ours, consequence)| {
            let theirs = self.number(name).filter(|theirs| *theirs < ours)?;
            Some(guardrail(name, &theirs.to_string(), &format!("{consequence} ({ours} are needed)")))
        });
        let sizes = [("collection_size_fail_threshold", 1 << 20, "metrics with many extra names become dead letters")];
        let sizes = sizes.into_iter().filter_map(|(name, ours, consequence)| {
            let theirs = self.size(name).filter(|theirs| *theirs < ours)?;
            Some(guardrail(name, &bytes(theirs), consequence))
        });
        let pages = self.number("page_size_fail_threshold").filter(|rows| *rows < 5_000);
        let pages = pages.map(|rows| {
            guardrail("page_size_fail_threshold", &rows.to_string(), "exports and lists read pages of up to 5000 rows")
        });
        numbers.chain(sizes).chain(pages).collect()
    }

    /// Guardrails that switch something off.
    fn switches(&self) -> Vec<Finding> {
        let known = [
            ("secondary_indexes_enabled", "runs cannot be listed by status and dataset"),
            ("allow_filtering_enabled", "queries with ALLOW FILTERING are refused"),
        ];
        let off = known.into_iter().filter(|(name, _)| self.0.get(*name).is_some_and(|value| value == "false"));
        off.map(|(name, consequence)| guardrail(name, "false", consequence)).collect()
    }

    /// Levels of consistency that the server refuses.
    fn consistency(&self, settings: &Settings, copies: Option<usize>) -> Vec<Finding> {
        let config = &settings.store.cassandra;
        let default = if copies.unwrap_or(1) <= 1 { "LOCAL_ONE" } else { "LOCAL_QUORUM" };
        let sides = [("write", &config.consistency_write), ("read", &config.consistency_read)];
        let refused = sides.into_iter().filter_map(|(side, level)| {
            let level = level.as_deref().unwrap_or(default).to_ascii_uppercase();
            let name = format!("{side}_consistency_levels_disallowed");
            let listed = self.0.get(&name)?;
            let is_listed = listed.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == level);
            is_listed.then(|| {
                let what = format!("Cassandra refuses consistency {level}, with which this program {side}s");
                Finding::stops(AREA, what)
                    .fix(format!("set `store.cassandra.consistency_{side}` to a level that is permitted"))
                    .evidence(format!("{name}: {listed}"))
            })
        });
        refused.collect()
    }

    /// A client that gives up before the server does writes the same again and again.
    fn timeouts(&self, settings: &Settings) -> Option<Finding> {
        let ours = settings.store.cassandra.request_timeout;
        let names = ["write_request_timeout", "read_request_timeout", "range_request_timeout"];
        let (name, theirs) =
            names.iter().filter_map(|name| Some((name, self.duration(name)?))).max_by_key(|(_, timeout)| *timeout)?;
        (ours <= theirs).then(|| {
            let what =
                "requests are given up before Cassandra answers them, and are sent again while it still works on them";
            let evidence = format!(
                "`store.cassandra.request_timeout` is {}, {name} of the server {}",
                units::format_duration(ours),
                units::format_duration(theirs)
            );
            Finding::degrades(AREA, what)
                .fix("raise `store.cassandra.request_timeout` above the server's")
                .evidence(evidence)
        })
    }
}

fn guardrail(name: &str, value: &str, consequence: &str) -> Finding {
    let what = format!("a guardrail of Cassandra is below what this program needs: {consequence}");
    Finding::loses(AREA, what)
        .fix(format!("raise or remove `{name}` in cassandra.yaml"))
        .evidence(format!("{name} is {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn limits_below_ours_are_found() {
        let settings = Settings::default();
        for (name, value, level) in [
            ("native_transport_max_frame_size", "48MiB", None),
            ("native_transport_max_frame_size", "16MiB", Some(Level::Advice)),
            ("native_transport_max_frame_size", "1MiB", Some(Level::Fault)),
            ("commitlog_segment_size", "32MiB", Some(Level::Advice)),
            ("commitlog_segment_size", "96MiB", None),
            ("items_per_collection_fail_threshold", "-1", None),
            ("items_per_collection_fail_threshold", "20", Some(Level::Fault)),
            ("allow_filtering_enabled", "false", Some(Level::Fault)),
            ("secondary_indexes_enabled", "true", None),
            ("write_consistency_levels_disallowed", "[ANY, LOCAL_ONE]", Some(Level::Fault)),
            ("write_consistency_levels_disallowed", "[ANY, ONE]", None),
            ("write_request_timeout", "2000ms", None),
            ("range_request_timeout", "20000ms", Some(Level::Fault)),
        ] {
            let server = Server(HashMap::from([(name.to_owned(), value.to_owned())]));
            let findings = (server.sizes(&settings).into_iter())
                .chain(server.thresholds())
                .chain(server.switches())
                .chain(server.consistency(&settings, Some(1)))
                .chain(server.timeouts(&settings));
            let levels: Vec<_> = findings.map(|finding| finding.level).collect();
            assert_eq!(levels, level.into_iter().collect::<Vec<_>>(), "{name} {value}");
        }
    }
}
