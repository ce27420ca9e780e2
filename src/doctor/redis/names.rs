//! Two daemons of one name: they overwrite each other's status, answer for each other, and merge their gaps.

use std::time::Duration;

use fred::clients::Client;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::AREA;
use crate::{
    config::Settings,
    doctor::{Finding, Report},
    redis::{STATUS_VALUE, ValueLookup, read_value},
};

/// A daemon writes its status every second.
const POLL_INTERVAL: Duration = Duration::from_millis(40);

/// The fields of a status that identify its process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Owner {
    process: String,
    started_at: String,
}

/// Watches who writes the status of this instance.
pub(super) async fn examine(settings: &Settings, client: &Client, watch: Duration) -> Report {
    let key = format!("{}ingest:{}", settings.redis.key_prefix, settings.instance);
    let (until, mut seen) = (Instant::now() + watch, Vec::new());
    loop {
        // A missing right is a finding of `rights`.
        let Ok(status) = read_value(client, &key, STATUS_VALUE).await else { break };
        if let ValueLookup::Usable(status) = status
            && let Ok(owner) = serde_json::from_str::<Owner>(&status)
            && seen.last() != Some(&owner)
        {
            seen.push(owner);
        }
        if Instant::now() >= until {
            break;
        }
        sleep(POLL_INTERVAL).await;
    }
    let mut report = Report::default();
    report.saw(match seen.last() {
        Some(owner) => {
            format!("daemon `{}`: runs as {}", settings.instance, crate::logging::Untrusted(owner.process.as_bytes()))
        }
        None => format!("daemon `{}`: has reported no status in the last seconds", settings.instance),
    });
    report.extend(conflict(&settings.instance, &seen));
    report
}

/// A process that writes again after another did.
fn conflict(instance: &str, seen: &[Owner]) -> Option<Finding> {
    let again = seen.iter().enumerate().find(|(at, owner)| seen[..*at].contains(owner))?.1;
    let other = seen.iter().find(|other| *other != again)?;
    let what = format!(
        "two daemons run under the name `{instance}`: they overwrite each other's status, and their gaps become the same rows"
    );
    let name = |owner: &Owner| {
        let text = format!("{} (since {})", owner.process, owner.started_at);
        crate::logging::Untrusted(text.as_bytes()).to_string()
    };
    let evidence = format!("its status is written by {} and by {}, in turn", name(again), name(other));
    Some(Finding::loses(AREA, what).fix("set `instance` to a name of its own in one of them").evidence(evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_that_take_turns_are_a_conflict() {
        let owner = |process: &str| Owner { process: process.into(), started_at: "x".into() };
        for (seen, is_conflict) in [
            (&[][..], false),
            (&["a"], false),
            (&["a", "b"], false),
            (&["a", "b", "a"], true),
            (&["a", "b", "c"], false),
        ] {
            let seen: Vec<_> = seen.iter().map(|process| owner(process)).collect();
            assert_eq!(conflict("lab", &seen).is_some(), is_conflict, "{seen:?}");
        }
    }
}
