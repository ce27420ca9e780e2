//! `status`: what the daemons say about themselves, read from their keys in Redis.

use fred::{clients::Client, interfaces::KeysInterface, types::Value as Reply};
use serde_json::Value;

use super::{CliError, connect::connect, output};
use crate::config::Settings;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this daemon; absent: all of them.
    daemon: Option<String>,
}

/// Prints the status of one daemon or of all.
pub async fn run(settings: Settings, args: Args, json: bool) -> Result<(), CliError> {
    let client = connect(&settings.redis).await?;
    let prefix = format!("{}ingest:", settings.redis.key_prefix);
    let instances = match args.daemon {
        Some(instance) => vec![instance],
        None => instances(&client, &prefix).await?,
    };
    let mut found = Vec::new();
    for instance in instances {
        let text: Option<String> = client
            .get(format!("{prefix}{instance}"))
            .await
            .map_err(|error| CliError::failed("failed to read a status", error))?;
        // A key that expired between the scan and now, or that somebody else wrote, is no daemon.
        if let Some(status) = text.and_then(|text| serde_json::from_str::<Value>(&text).ok()) {
            found.push((instance, status));
        }
    }
    if found.is_empty() {
        return Err(CliError::No("no daemon has said anything within the last seconds".into()));
    }
    if json {
        let all = found.into_iter().collect::<serde_json::Map<_, _>>();
        return output::json(&Value::Object(all));
    }
    for (instance, status) in found {
        let mut rows = Vec::new();
        flatten("", &status, &mut rows);
        output::table(&[&instance, ""], rows)?;
    }
    Ok(())
}

/// Names of all daemons whose status is still there.
pub async fn instances(client: &Client, prefix: &str) -> Result<Vec<String>, CliError> {
    let failed = |error| CliError::failed("failed to look for daemons", error);
    let pattern = format!("{}*", escape(prefix));
    let (mut cursor, mut names) = ("0".to_owned(), Vec::new());
    loop {
        let page: Reply = client.scan_page(cursor, pattern.clone(), Some(1_000), None).await.map_err(failed)?;
        let (next, keys): (String, Vec<String>) = page.convert().map_err(failed)?;
        names.extend(keys.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned));
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    // Under the same prefix are the shared open runs and the canaries of readiness.
    names.retain(|name| !name.starts_with("run:") && !name.starts_with("canary:"));
    names.sort();
    names.dedup();
    Ok(names)
}

fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, character| {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
        escaped
    })
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, rows);
            }
        }
        other => rows.push(vec![output::cell(Some(&Value::from(prefix))), output::cell(Some(other))]),
    }
}
