//! The streams that are configured, or that the running daemon reads: whether their keys are streams that this login may read, and how far their group is.

use fred::{clients::Client, types::Value};

use super::{AREA, ask, grant};
use crate::{
    config::Settings,
    doctor::{Finding, Report},
    redis::{Acl, Resource, STATUS_VALUE, ValueLookup, read_value},
    words::counted,
};

/// What the settings do where the key is no stream.
const CORRECT: &str = "delete or rename that key, or correct `redis.streams`";

/// The settings with the streams that the running daemon of this name reads, where these settings name none: it may have been started
/// with other ones.
pub(super) async fn with_those_of_daemon(settings: &Settings, client: &Client) -> Settings {
    let mut settings = settings.clone();
    if settings.redis.streams.is_empty() {
        let key = format!("{}ingest:{}", settings.redis.key_prefix, settings.instance);
        if let Ok(ValueLookup::Usable(status)) = read_value(client, &key, STATUS_VALUE).await {
            settings.redis.streams = names_of(&status);
        }
    }
    settings
}

/// The streams of a status.
fn names_of(status: &str) -> Vec<String> {
    let status: serde_json::Value = serde_json::from_str(status).unwrap_or_default();
    let streams = status["redis"]["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = streams.iter().filter_map(|stream| stream["name"].as_str());
    names.filter(|name| !name.chars().any(char::is_control)).map(str::to_owned).collect()
}

/// The stream of the examples, where no stream is read: what was appended to it is stored by no daemon without a group of it.
async fn unread(settings: &Settings, client: &Client) -> Option<Finding> {
    let stream = format!("{}training:stream", settings.redis.key_prefix);
    let groups: Vec<Value> = ask(client, "XINFO", &["GROUPS", &stream]).await.ok()?.into_array();
    groups.is_empty().then(|| {
        let what = format!("there are entries in the stream `{stream}`, and no daemon reads it");
        let fix =
            format!("`redis.streams = [\"{stream}\"]`, or `cascor-ingest run --set 'redis.streams=[\"{stream}\"]'`");
        Finding::advice(AREA, what).fix(fix).evidence(format!("XINFO GROUPS {stream}: empty; `redis.streams` is empty"))
    })
}

pub(super) async fn examine(settings: &Settings, client: &Client) -> Report {
    let (mut report, acl) = (Report::default(), Acl::of(&settings.redis));
    if settings.redis.streams.is_empty() {
        report.extend(unread(settings, client).await);
    }
    for stream in &settings.redis.streams {
        match ask(client, "XINFO", &["GROUPS", stream]).await {
            Ok(groups) => report.saw(describe(stream, &settings.redis.group, &groups)),
            Err(error) if error.details().contains("no such key") => {
                report.saw(format!("stream `{stream}`: nothing was appended yet"));
            }
            Err(error) if error.details().starts_with("WRONGTYPE") => {
                let what = format!("the key `{stream}` is no stream, so nothing of it is read");
                report.push(Finding::stops(AREA, what).fix(CORRECT).evidence(error.details().to_owned()));
            }
            Err(error) => {
                // A missing right to the command itself is named with the rights.
                let refusal = acl.refusal(error.details(), Resource::Key(stream)).filter(|it| it.rule.starts_with('~'));
                report.extend(refusal.map(|refusal| {
                    let what = format!("the login may not use the stream `{stream}`, so nothing of it is read");
                    Finding::stops(AREA, what).fix(grant(&refusal)).evidence(error.details().to_owned())
                }));
            }
        }
    }
    report
}

/// What Redis says of the group.
fn describe(stream: &str, group: &str, groups: &Value) -> String {
    let is_ours = |of: &&Value| field(of, "name").and_then(|name| name.as_string()).as_deref() == Some(group);
    let groups: Vec<Value> = groups.clone().into_array();
    let Some(ours) = groups.iter().find(is_ours) else {
        return format!("stream `{stream}`: no group `{group}` yet");
    };
    let number = |name: &str| field(ours, name).and_then(|value| value.as_u64());
    let shown = |name: &str, one: &str, many: &str| match number(name) {
        None => format!("an unknown number of {many}"),
        Some(count) => counted(count, one, many),
    };
    format!(
        "stream `{stream}`, group `{group}`: {}, {} read and not acknowledged, {} not read yet",
        shown("consumers", "consumer", "consumers"),
        shown("pending", "entry", "entries"),
        shown("lag", "entry", "entries")
    )
}

/// A field of a map, or of a list of names and values.
fn field(of: &Value, name: &str) -> Option<Value> {
    match of {
        Value::Map(map) => map.get(&name.into()).cloned(),
        list => {
            let list = list.clone().into_array();
            list.chunks_exact(2).find(|pair| pair[0].as_str().as_deref() == Some(name)).map(|pair| pair[1].clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_of_a_daemon_are_those_of_its_status() {
        let status = r#"{"redis": {"streams": [{"name": "a", "lag": 0}, {"name": "b\u001b[1m"}, {"lag": 1}]}}"#;
        assert_eq!(names_of(status), ["a"]);
        assert!(names_of("{}").is_empty() && names_of("no JSON").is_empty());
    }
}
