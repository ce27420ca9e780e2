//! The streams that are configured: whether their keys are streams that this login may read, and how far their group is.

use fred::{clients::Client, types::Value};

use super::{AREA, ask, grant};
use crate::{
    config::Settings,
    doctor::{Finding, Report},
    redis::{Acl, Resource},
};

/// What the settings do where the key is no stream.
const CORRECT: &str = "delete or rename that key, or correct `redis.streams`";

pub(super) async fn examine(settings: &Settings, client: &Client) -> Report {
    let (mut report, acl) = (Report::default(), Acl::of(&settings.redis));
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
    let shown = |count: Option<u64>| count.map_or_else(|| "an unknown number of".to_owned(), |count| count.to_string());
    format!(
        "stream `{stream}`, group `{group}`: {} consumers, {} entries read and not acknowledged, {} entries not read yet",
        shown(number("consumers")),
        shown(number("pending")),
        shown(number("lag"))
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
