//! The rights of the login, one by one, each tried without an effect.
//!
//! Redis checks permissions before it executes a command, so each is sent in a form that changes nothing: on a key that does not
//! exist, with a lifetime that is refused, or, for PUBLISH, queued in a transaction that is discarded. The subscriptions are tried by
//! `messages`, which listens.

use std::collections::BTreeSet;

use fred::clients::Client;
use uuid::Uuid;

use super::{AREA, ask, grant};
use crate::{
    config::Settings,
    doctor::{Finding, Report},
    redis::{self, Acl, Resource},
};

/// A command, and what is missing without it. `KEY` stands for a key of ours.
struct Right {
    words: &'static [&'static str],
    without: &'static str,
    /// Whether only something small is missing.
    is_minor: bool,
}

const fn needed(words: &'static [&'static str], without: &'static str) -> Right {
    Right { words, without, is_minor: false }
}

const fn useful(words: &'static [&'static str], without: &'static str) -> Right {
    Right { words, without, is_minor: true }
}

const KEY: &str = "KEY";
const RIGHTS: &[Right] = &[
    needed(&["SET", KEY, "x", "PX", "0"], "latest keys, status and sessions cannot be written"),
    needed(&["GETRANGE", KEY, "0", "0"], "sessions, and the runs that instances share, cannot be read"),
    needed(&["STRLEN", KEY], "values cannot be read"),
    needed(&["DEL", KEY], "keys of a reset or a deleted run stay"),
    needed(&["PTTL", KEY], "sessions, and the history of a daemon before, cannot be taken over"),
    useful(&["INFO", "server"], "it does not notice that Redis has cut it off, nor which version it talks to"),
    useful(&["PING"], "a lost connection is noticed later"),
    useful(&["SCAN", "0", "COUNT", "1"], "`status` of the command line finds no daemons"),
    useful(&["UNLINK", KEY], "`cache clear` of the command line deletes nothing"),
];

/// What a stream needs beside them.
const STREAM_RIGHTS: &[Right] = &[
    needed(&["XREADGROUP", "GROUP", "doctor", "doctor", "STREAMS", KEY, ">"], "streams are not read"),
    useful(
        &["XREAD", "STREAMS", KEY, "0"],
        "dashboards have no live events of streams, and ask the store every few seconds",
    ),
    needed(&["XGROUP", "DESTROY", KEY, "doctor"], "the consumer group of a stream cannot be made"),
    needed(&["XACK", KEY, "doctor", "0-1"], "streams are not read, because entries could not be acknowledged"),
    needed(&["XAUTOCLAIM", KEY, "doctor", "doctor", "0", "0"], "entries that a dead daemon had read are not claimed"),
    needed(&["XINFO", "STREAM", KEY], "trimmed entries are not noticed, and the lag is unknown"),
    needed(&["XRANGE", KEY, "0-1", "0-1"], "a failover to a replica that was behind is not noticed"),
    needed(&["HGET", KEY, "doctor"], "trimmed entries are not counted"),
    needed(&["HDEL", KEY, "doctor"], "trimmed entries are counted wrongly"),
    // Not a number: refused before anything is written.
    needed(&["HINCRBY", KEY, "doctor", "none"], "trimmed entries are not counted"),
    useful(&["CLIENT", "INFO"], "an entry that comes while a daemon stops may wait for `redis.claim_after`"),
    useful(&["CLIENT", "UNBLOCK", "0"], "an entry that comes while a daemon stops may wait for `redis.claim_after`"),
    needed(&["EVAL", "return 1", "0"], "trimmed entries are not counted, and messages without a run id not assigned"),
];

pub(super) async fn examine(settings: &Settings) -> Report {
    let mut report = Report::default();
    // A connection of its own: other commands must not get into the transaction.
    let Ok(connected) = redis::connect(&settings.redis).await else { return report };
    let (client, acl) = (&connected.client, Acl::of(&settings.redis));
    let key = format!("{}ingest:doctor:{}", settings.redis.key_prefix, Uuid::new_v4().simple());
    let mut named = BTreeSet::new();
    let of_streams = if settings.redis.streams.is_empty() { &[] } else { STREAM_RIGHTS };
    for right in RIGHTS.iter().chain(of_streams) {
        let words: Vec<_> = right.words.iter().map(|word| if *word == KEY { key.as_str() } else { *word }).collect();
        let resource = if right.words.contains(&KEY) { Resource::Key(&key) } else { Resource::None };
        let Err(error) = ask(client, words[0], &words[1..]).await else { continue };
        let Some(refusal) = acl.refusal(error.details(), resource) else { continue };
        if named.insert(refusal.rule.clone()) {
            let what = format!("the login may not use {}: {}", subject(&refusal.rule), right.without);
            let finding = if right.is_minor { Finding::advice(AREA, what) } else { Finding::degrades(AREA, what) };
            report.push(finding.fix(grant(&refusal)).evidence(error.details().to_owned()));
        }
    }
    report.extend(publish(settings, client, &acl).await);
    report
        .saw(format!("rights of the login: {} commands tried without an effect", RIGHTS.len() + of_streams.len() + 1));
    report
}

/// `+set` as SET, `~cascor:*` as the keys of that pattern.
fn subject(rule: &str) -> String {
    match rule.split_at(1) {
        ("+", command) => command.replace('|', " ").to_ascii_uppercase(),
        ("~", pattern) => format!("the keys `{pattern}`"),
        _ => format!("what `{rule}` permits"),
    }
}

/// Whether receipts of commands may be published. In a transaction that is discarded; without the right to one, on a channel without
/// subscribers, which shows only whether the command is permitted. `messages` tries the channel.
async fn publish(settings: &Settings, client: &Client, acl: &Acl) -> Option<Finding> {
    let ack = settings.redis.ack_channel();
    let has_transactions = ask(client, "MULTI", &[]).await.is_ok();
    let error = if has_transactions {
        let tried = ask(client, "PUBLISH", &[&ack, ""]).await;
        let _ = ask(client, "DISCARD", &[]).await;
        tried.err()?
    } else {
        let nowhere = format!("{}ingest:doctor:{}", settings.redis.key_prefix, Uuid::new_v4().simple());
        ask(client, "PUBLISH", &[&nowhere, ""]).await.err()?
    };
    let refusal = acl.refusal(error.details(), Resource::Channel(&ack))?;
    if refusal.rule.starts_with('&') && !has_transactions {
        return None;
    }
    let what =
        format!("the login may not publish on `{ack}`: commands get no receipt, and `control --wait` waits in vain");
    Some(Finding::degrades(AREA, what).fix(grant(&refusal)).evidence(error.details().to_owned()))
}
