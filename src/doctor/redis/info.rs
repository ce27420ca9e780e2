//! What INFO says: version, mode, role, memory, persistence, clients.

use std::collections::HashMap;

use super::AREA;
use crate::{
    config::Settings,
    doctor::{Finding, bytes},
};

/// Share of `maxmemory` from which values are about to be evicted or refused.
const NEARLY_FULL: u64 = 85;
/// Share of `maxclients` from which connections are about to be refused.
const CROWDED: u64 = 90;

/// The answer to INFO.
pub(super) struct Info(HashMap<String, String>);

impl Info {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.get(name).parse().unwrap_or(0)
    }

    /// `7.0.15 (standalone, master)`
    pub(super) fn describe(&self) -> String {
        let valkey = self.get("valkey_version");
        let version =
            if valkey.is_empty() { self.get("redis_version").to_owned() } else { format!("(Valkey {valkey})") };
        let mode = [self.get("redis_mode"), self.get("role")].into_iter().filter(|word| !word.is_empty());
        format!("{version} ({})", mode.collect::<Vec<_>>().join(", "))
    }

    /// Whether it keeps the keys of this program: a Sentinel keeps none, and a node of a cluster only some.
    pub(super) fn is_plain(&self) -> bool {
        !matches!(self.get("redis_mode"), "sentinel" | "cluster")
    }

    pub(super) fn findings(&self, settings: &Settings) -> Vec<Finding> {
        let findings = [
            self.mode(&settings.redis.url),
            self.role(),
            self.loading(),
            self.version(),
            self.disk(),
            self.memory(),
            self.clients(),
            self.cut_off(),
        ];
        findings.into_iter().flatten().collect()
    }

    fn mode(&self, url: &str) -> Option<Finding> {
        let mode = self.get("redis_mode");
        let evidence = format!("INFO: redis_mode:{mode}");
        let scheme = url.split("://").next().unwrap_or("");
        match mode {
            "sentinel" => {
                let what = "`redis.url` names a Sentinel, which passes no messages on";
                Some(
                    Finding::stops(AREA, what)
                        .fix("let `redis.url` begin with `redis-sentinel://`, or name the primary that the Sentinels watch")
                        .evidence(evidence),
                )
            }
            "cluster" if !scheme.contains("cluster") => {
                let what = "Redis is a node of a cluster: keys that belong to other nodes cannot be written, so latest keys, sessions and \
                            shared runs are missing";
                Some(
                    Finding::degrades(AREA, what)
                        .fix("let `redis.url` begin with `redis-cluster://`")
                        .evidence(evidence),
                )
            }
            _ => None,
        }
    }

    fn role(&self) -> Option<Finding> {
        if self.get("role") != "slave" {
            return None;
        }
        let primary = format!("{}:{}", self.get("master_host"), self.get("master_port"));
        let fix = format!("let `redis.url` name the primary, `{primary}`");
        let evidence =
            format!("INFO: role:slave, master {primary}, master_link_status:{}", self.get("master_link_status"));
        Some(if self.get("master_link_status") == "up" {
            let what = "Redis is a read-only replica: no latest key, status or session can be written";
            Finding::degrades(AREA, what).fix(fix).evidence(evidence)
        } else {
            let what = "Redis is a replica that has lost its primary: what trainers publish there does not arrive here";
            Finding::loses(AREA, what).fix(fix).evidence(evidence)
        })
    }

    fn loading(&self) -> Option<Finding> {
        (self.get("loading") == "1" || self.get("async_loading") == "1").then(|| {
            let what = "Redis is loading its data, and refuses commands until it is done";
            Finding::degrades(AREA, what).fix("wait, then run doctor again").evidence("INFO: loading:1")
        })
    }

    fn version(&self) -> Option<Finding> {
        let version = self.get("redis_version");
        if version.is_empty() {
            return None;
        }
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let (major, minor) = (parts.next()?, parts.next().unwrap_or(0));
        let evidence = format!("INFO: redis_version:{version}");
        match (major, minor) {
            (0..=5, _) => {
                let what = "Redis is older than version 6, which the daemon needs";
                Some(Finding::stops(AREA, what).fix("use Redis 7, or Valkey").evidence(evidence))
            }
            (6, _) => {
                let what = "Redis is older than version 7: ACL rules in parentheses are unknown to it";
                Some(Finding::advice(AREA, what).fix("use Redis 7, or Valkey").evidence(evidence))
            }
            _ => None,
        }
    }

    /// Nothing of the daemon's needs persistence, but a failing one stops all writes.
    fn disk(&self) -> Option<Finding> {
        let failed = [("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "append-only file")];
        let (name, kind) = failed.into_iter().find(|(name, _)| self.get(name) == "err")?;
        let what = format!("Redis cannot write its {kind}, and by default refuses writes and PING until it can");
        let fix = "repair the disk of Redis; nothing of the daemon's needs persistence: `redis-cli CONFIG SET save \"\"`, or \
                   `CONFIG SET stop-writes-on-bgsave-error no`";
        Some(Finding::degrades(AREA, what).fix(fix).evidence(format!("INFO: {name}:err")))
    }

    fn memory(&self) -> Option<Finding> {
        let (used, most, policy) = (self.number("used_memory"), self.number("maxmemory"), self.get("maxmemory_policy"));
        if most == 0 {
            return None;
        }
        let is_full = used * 100 >= most * NEARLY_FULL;
        let evicted = self.number("evicted_keys");
        let evidence = format!(
            "INFO: maxmemory {} ({} used), maxmemory_policy:{policy}, evicted_keys:{evicted}",
            bytes(most),
            bytes(used)
        );
        let fix = match policy {
            "noeviction" => "a larger `maxmemory`, or a Redis of its own",
            _ => "`redis-cli CONFIG SET maxmemory-policy noeviction` and a larger `maxmemory`, or a Redis of its own",
        };
        let finding = match (policy, is_full || evicted > 0) {
            ("noeviction", _) if !is_full => return None,
            ("noeviction", _) => Finding::degrades(
                AREA,
                "Redis has hardly memory left and refuses writes: latest keys, status and sessions go missing",
            ),
            (_, true) => Finding::degrades(
                AREA,
                "Redis evicts keys, those of the daemon too, which all expire: people are signed out, and latest values, status and \
                 shared runs go missing",
            ),
            (_, false) => Finding::advice(
                AREA,
                "Redis will evict keys of the daemon once its memory is used up: people are signed out then, and shared runs go missing",
            ),
        };
        Some(finding.fix(fix).evidence(evidence))
    }

    fn clients(&self) -> Option<Finding> {
        let (now, most) = (self.number("connected_clients"), self.number("maxclients"));
        (most > 0 && now * 100 >= most * CROWDED).then(|| {
            let what = "Redis has hardly a connection left: trainers or the daemon are refused next";
            let evidence = format!("INFO: connected_clients:{now}, maxclients:{most}");
            Finding::loses(AREA, what)
                .fix("raise `maxclients`, or end idle clients (`redis-cli CLIENT LIST`)")
                .evidence(evidence)
        })
    }

    /// Subscribers that were cut off are gaps that happened already.
    fn cut_off(&self) -> Option<Finding> {
        let cut = self.number("client_output_buffer_limit_disconnections");
        (cut > 0).then(|| {
            let what = "Redis has cut off clients whose output buffer was full; if the daemon was one, `cascor-ingest gaps` has it";
            let evidence = format!("INFO: client_output_buffer_limit_disconnections:{cut}");
            Finding::advice(AREA, what)
                .fix("`redis-cli CONFIG SET client-output-buffer-limit \"pubsub 256mb 64mb 60\"`")
                .evidence(evidence)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn levels(text: &str) -> Vec<(Level, String)> {
        let findings = Info::parse(text).findings(&Settings::default());
        findings.into_iter().map(|finding| (finding.level, finding.what)).collect()
    }

    #[test]
    fn what_info_says_is_judged() {
        for (text, level, word) in [
            ("redis_version:5.0.14", Level::Fault, "version 6"),
            ("redis_version:6.2.14", Level::Advice, "version 7"),
            ("redis_mode:sentinel", Level::Fault, "Sentinel"),
            ("redis_mode:cluster", Level::Fault, "cluster"),
            ("role:slave\r\nmaster_link_status:up", Level::Fault, "read-only"),
            ("role:slave\r\nmaster_link_status:down", Level::Fault, "lost its primary"),
            ("aof_last_write_status:err", Level::Fault, "append-only"),
            ("maxmemory:100\nused_memory:90\nmaxmemory_policy:noeviction", Level::Fault, "refuses writes"),
            ("maxmemory:100\nused_memory:10\nmaxmemory_policy:allkeys-lru", Level::Advice, "will evict"),
            ("maxmemory:100\nused_memory:10\nmaxmemory_policy:volatile-ttl\nevicted_keys:1", Level::Fault, "evicts"),
            ("connected_clients:95\nmaxclients:100", Level::Fault, "connection left"),
            ("client_output_buffer_limit_disconnections:1", Level::Advice, "cut off"),
            ("loading:1", Level::Fault, "loading"),
        ] {
            let found = levels(text);
            assert!(found.len() == 1 && found[0].0 == level && found[0].1.contains(word), "{text}: {found:?}");
        }
        let fine = "redis_version:7.0.15\nredis_mode:standalone\nrole:master\nmaxmemory:100\nused_memory:10\n\
                    maxmemory_policy:noeviction\nrdb_last_bgsave_status:ok\nconnected_clients:5\nmaxclients:100";
        assert_eq!(levels(fine), []);
    }
}
