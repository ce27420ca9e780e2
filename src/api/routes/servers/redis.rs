//! Redis, as INFO shows it.

use std::{collections::BTreeMap, time::Duration};

use axum::extract::State;
use fred::{clients::Client, interfaces::ClientLike, types::InfoKind};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout};

use super::head::{DISABLED, DOWN, UNAVAILABLE, UP, answer_head, present};
use crate::api::{
    error::{ApiResult, json as json_answer},
    state::ApiState,
};

/// Time-out of all questions together: a panel waits two seconds.
const REDIS_TIMEOUT: Duration = Duration::from_millis(1_000);

/// The sections of INFO that are shown. The default sections include a line for each kind of error that scripts have returned,
/// without a bound.
const SECTIONS: [InfoKind; 5] =
    [InfoKind::Server, InfoKind::Clients, InfoKind::Memory, InfoKind::Stats, InfoKind::Keyspace];

/// `GET /api/v1/redis/status`
pub async fn status(State(state): State<ApiState>) -> ApiResult {
    let (mut answer, info) = redis(&state).await;
    let details = json!({
        "version": info.text("redis_version"),
        "uptime_seconds": info.whole("uptime_in_seconds"),
        "connected_clients": info.whole("connected_clients"),
        "used_memory_human": info.text("used_memory_human"),
        "latency_ms": info.latency.map(|latency| (latency.as_secs_f64() * 1e5).round() / 1e2),
    });
    answer.insert("details".into(), present(details));
    json_answer(&answer)
}

/// `GET /api/v1/redis/metrics`
pub async fn metrics(State(state): State<ApiState>) -> ApiResult {
    let (mut answer, info) = redis(&state).await;
    let (hits, misses) = (info.whole("keyspace_hits"), info.whole("keyspace_misses"));
    let rate = hits.zip(misses).map(|(hits, misses)| match hits + misses {
        0 => 0.0,
        all => (hits as f64 / all as f64 * 1e4).round() / 1e2,
    });
    let metrics = match info.latency {
        None => json!({}),
        Some(_) => json!({
            "memory": present(json!({
                "used_memory_bytes": info.whole("used_memory"),
                "used_memory_human": info.text("used_memory_human"),
                "used_memory_peak_human": info.text("used_memory_peak_human"),
                "mem_fragmentation_ratio": info.text("mem_fragmentation_ratio").and_then(|ratio| ratio.parse::<f64>().ok()),
            })),
            "stats": present(json!({
                "total_connections_received": info.whole("total_connections_received"),
                "total_commands_processed": info.whole("total_commands_processed"),
                "instantaneous_ops_per_sec": info.whole("instantaneous_ops_per_sec"),
                "keyspace_hits": hits,
                "keyspace_misses": misses,
                "hit_rate_percent": rate,
            })),
            "clients": present(json!({
                "connected_clients": info.whole("connected_clients"),
                "blocked_clients": info.whole("blocked_clients"),
            })),
            "keyspace": info.keyspace(),
        }),
    };
    answer.insert("metrics".into(), metrics);
    json_answer(&answer)
}

/// The head of an answer about Redis, and its INFO.
async fn redis(state: &ApiState) -> (Map<String, Value>, Info) {
    let Some(link) = &state.redis else {
        return (answer_head(DISABLED, "this process uses no Redis"), Info::default());
    };
    let Some(client) = link.client() else {
        let outages = link.outages();
        let status = if outages.connected_before { DOWN } else { UNAVAILABLE };
        let why = outages.error.unwrap_or_else(|| "there is no connection to Redis".into());
        return (answer_head(status, &why), Info::default());
    };
    match timeout(REDIS_TIMEOUT, Info::fetch(&client)).await {
        Ok(Ok(info)) => {
            let message = info.refused.clone().unwrap_or_else(|| "Redis answers".into());
            (answer_head(UP, &message), info)
        }
        Ok(Err(error)) => (answer_head(DOWN, error.details()), Info::default()),
        Err(_) => (answer_head(DOWN, &format!("Redis does not answer within {REDIS_TIMEOUT:?}")), Info::default()),
    }
}

/// The fields of INFO.
#[derive(Debug, Default)]
struct Info {
    fields: BTreeMap<String, String>,
    /// Latency of a PING; absent: no answer.
    latency: Option<Duration>,
    /// Why INFO was refused.
    refused: Option<String>,
}

impl Info {
    async fn fetch(client: &Client) -> Result<Self, fred::error::Error> {
        let began = Instant::now();
        client.ping::<()>(None).await?;
        let mut info = Self { latency: Some(began.elapsed()), ..Self::default() };
        for section in SECTIONS {
            match client.info::<String>(Some(section)).await {
                Ok(text) => info.fields.extend(fields(&text)),
                // The access list may deny this command.
                Err(error) => {
                    info.refused = Some(format!("Redis answers, but not to INFO: {}", error.details()));
                    break;
                }
            }
        }
        Ok(info)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn whole(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// The databases that hold keys: `db0:keys=1,expires=0,avg_ttl=0`.
    fn keyspace(&self) -> Value {
        let is_database = |name: &str| name.strip_prefix("db").is_some_and(|n| n.parse::<u32>().is_ok());
        let counts = |text: &str| -> Map<String, Value> {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs.filter_map(|(name, count)| Some((name.to_owned(), count.parse::<u64>().ok()?.into()))).collect()
        };
        let databases = self.fields.iter().filter(|(name, _)| is_database(name));
        databases.map(|(name, text)| (name.clone(), Value::Object(counts(text)))).collect()
    }
}

/// The lines `name:value` of INFO.
fn fields(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_name() {
        let text = "# Server\r\nredis_version:7.0.15\r\n# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=9\r\ndbsize:7\r\n";
        let info = Info { fields: fields(text), ..Info::default() };
        assert_eq!((info.text("redis_version"), info.whole("keyspace_hits")), (Some("7.0.15"), None));
        assert_eq!(info.keyspace(), json!({"db0": {"keys": 2, "expires": 1, "avg_ttl": 9}}));
    }
}
