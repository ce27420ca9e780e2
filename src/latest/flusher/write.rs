//! What is written to Redis, and what becomes of it when Redis refuses.

use std::time::Duration;

use fred::{
    clients::Client,
    error::Error as RedisError,
    interfaces::KeysInterface,
    types::{Expiration, Value},
};
use futures_util::future::join_all;
use tracing::{info, warn};

use super::Flusher;
use crate::{
    latest::{name_conflict::NameConflict, status_key::status_key},
    redis::{self, Resource, STATUS_VALUE},
};

/// The first word of the answer of a Redis that takes no more values.
const FULL: &str = "OOM";

impl Flusher {
    /// Writes the status key, and warns of another daemon that writes it, too.
    pub(super) async fn write_status(&mut self, instance: &str, status: String, name_conflict: &mut NameConflict) {
        let Some(client) = self.link.client() else { return };
        let key = status_key(&self.latest_state.prefix, instance);
        if name_conflict.is_due() {
            match self.link.read(&client, &key, STATUS_VALUE).await {
                Ok(Some(found)) => {
                    let conflict = name_conflict.check(instance, &status, &found);
                    self.metrics.name_conflict.set(i64::from(conflict));
                }
                Ok(None) => {}
                Err(error) => self.link.acl().warn(&error, Resource::Key(&key)),
            }
        }
        self.set(&client, vec![(key.clone(), status, self.latest_state.config().status_ttl)]).await;
        if self.reported_error == FULL {
            // The old one would look like that of a daemon that hangs. Without one, `status` on this machine asks the daemon itself.
            self.delete(&client, vec![key]).await;
        }
    }

    /// Deletes the keys of runs that are no longer among the most recently active. Best effort: they expire by themselves.
    pub(super) async fn delete(&self, client: &Client, keys: Vec<String>) {
        let Some(first) = keys.first().cloned() else { return };
        if let Err(error) = redis::delete(client, keys).await {
            self.link.acl().warn(&error, Resource::Key(&first));
        }
    }

    pub(super) async fn set(&mut self, client: &Client, writes: Vec<(String, String, Duration)>) {
        let (mut keys, mut calls) = (Vec::with_capacity(writes.len()), Vec::with_capacity(writes.len()));
        for (key, value, left) in writes {
            let millis = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
            if millis > 0 {
                calls.push(client.set::<Value, _, _>(key.clone(), value, Some(Expiration::PX(millis)), None, false));
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return;
        }
        // Not the client's pipeline, which flushes the socket after each command; of commands that are queued together only after the
        // last one.
        let answers = join_all(calls).await;
        let failures: Vec<(&String, &RedisError)> =
            keys.iter().zip(&answers).filter_map(|(key, answer)| Some((key, answer.as_ref().err()?))).collect();
        self.metrics.latest_errors.inc_by(failures.len() as u64);
        self.metrics.latest_writes.inc_by(keys.len().saturating_sub(failures.len()) as u64);
        // The first word names the kind (OOM, READONLY), the rule names the missing permission; the rest may differ in every reply.
        let refusal =
            |(key, error): &(&String, &RedisError)| self.link.acl().refusal(error.details(), Resource::Key(key));
        let kind = failures.first().map(|failure| match refusal(failure) {
            Some(refusal) => refusal.rule,
            None => failure.1.details().split(' ').next().unwrap_or_default().to_owned(),
        });
        match (kind, failures.first()) {
            // The connection ends with this process: a failure then is expected.
            (Some(_), _) if self.stop.is_stopped() => {}
            (Some(kind), Some((key, error))) if kind != self.reported_error => {
                let error = self.link.acl().explain(error, Resource::Key(key));
                warn!(error, "latest-state keys cannot be written");
                self.latest_state.set_problem(Some(error));
                self.reported_error = kind;
            }
            (None, _) if !self.reported_error.is_empty() => {
                info!("latest-state keys are written again");
                self.latest_state.set_problem(None);
                self.reported_error.clear();
            }
            _ => {}
        }
    }
}
