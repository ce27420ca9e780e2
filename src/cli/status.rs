//! `status`: what the daemons say about themselves, read from their keys in Redis; and what they have left on this machine.

use std::path::{Path, PathBuf};

use fred::{clients::Client, interfaces::KeysInterface, types::Value as Reply};
use serde_json::{Value, json};

use super::{
    CliError,
    ask::{Credentials, QueryClient, Target},
    connect::{connect, failed},
    output,
};
use crate::{
    config::Settings,
    redis::{self, Resource, STATUS_VALUE, ValueLookup},
    spool::{self, Report},
};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this daemon; absent: all of them that share our Redis.
    daemon: Option<String>,
    /// Also look here for spools that other instances have left (`spool.orphan_search_dirs`; absent: beside the state directory).
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    look_in: Vec<PathBuf>,
    /// Ask this daemon instead of Redis: http://host:port, or https://
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
}

/// Prints the status of one daemon or of all, and the spools that nobody holds.
pub async fn run(settings: Settings, args: Args, json: bool) -> Result<(), CliError> {
    // Orphans of another machine cannot be seen from here.
    let here = args.url.is_none();
    let target = Target { url: args.url, credentials: args.credentials };
    let found = if here {
        statuses(&settings, args.daemon.clone()).await
    } else {
        daemon_status(&QueryClient::connect(&settings, &target).await?, args.daemon.as_deref()).await
    };
    let dirs = if here { orphan_search_dirs(&settings, &args.look_in) } else { Vec::new() };
    let orphans = spool::orphans(&dirs, &settings.spool.dir);
    if json {
        let mut all: serde_json::Map<_, _> =
            found.as_ref().map_or_else(|_| Vec::new(), Clone::clone).into_iter().collect();
        if here {
            all.insert(ORPHANS.into(), orphans.iter().map(orphan).collect());
        }
        output::json(&Value::Object(all))?;
    } else {
        for (instance, status) in found.iter().flatten() {
            let mut rows = Vec::new();
            flatten("", status, &mut rows);
            output::table(&[instance, ""], rows)?;
        }
        if !orphans.is_empty() {
            let row = |(dir, report): &(PathBuf, Report)| {
                let owner = report.owner.clone().unwrap_or_else(|| "-".into());
                vec![dir.display().to_string(), owner, report.pending.to_string(), report.bytes.to_string()]
            };
            output::table(&["ORPHANED SPOOL", "INSTANCE", "WAITING", "BYTES"], orphans.iter().map(row).collect())?;
            output::line("nobody holds these: `cascor-ingest spool drain DIR` writes what waits into the store")?;
        }
    }
    if found?.is_empty() {
        let whom = args.daemon.map_or_else(|| "no daemon".into(), |daemon| format!("no daemon `{daemon}`"));
        return Err(CliError::NegativeAnswer(format!("{whom} has said anything within the last seconds")));
    }
    Ok(())
}

/// The key beside the names of instances.
const ORPHANS: &str = "orphaned_spools";

fn orphan_search_dirs(settings: &Settings, more: &[PathBuf]) -> Vec<PathBuf> {
    let mut dirs = settings.spool.orphan_search_dirs.clone();
    if dirs.is_empty() {
        dirs.extend(settings.state_dir.parent().map(Path::to_owned));
    }
    dirs.extend_from_slice(more);
    dirs
}

fn orphan((dir, report): &(PathBuf, Report)) -> Value {
    json!({
        "dir": dir.display().to_string(),
        "instance": report.owner,
        "pending": report.pending,
        "bytes": report.bytes,
    })
}

/// What one daemon says at the moment.
async fn daemon_status(client: &QueryClient, daemon: Option<&str>) -> Result<Vec<(String, Value)>, CliError> {
    let status = client.json("/api/status").await?;
    let name = status["instance"].as_str().unwrap_or_default().to_owned();
    match daemon {
        Some(daemon) if daemon != name => {
            Err(CliError::NegativeAnswer(format!("the daemon there is `{name}`, not `{daemon}`")))
        }
        _ => Ok(vec![(name, status)]),
    }
}

async fn statuses(settings: &Settings, daemon: Option<String>) -> Result<Vec<(String, Value)>, CliError> {
    let client = connect(&settings.redis).await?;
    let prefix = format!("{}ingest:", settings.redis.key_prefix);
    let instances = match daemon {
        Some(instance) => vec![instance],
        None => instances(&client, &settings.redis).await?,
    };
    let mut found = Vec::new();
    for instance in instances {
        let key = format!("{prefix}{instance}");
        let text = redis::read_value(&client, &key, STATUS_VALUE)
            .await
            .map_err(|error| failed(&settings.redis, "failed to read a status", Resource::Key(&key), error))?;
        // A key that expired between the scan and now, or whose value no daemon has written, is no daemon.
        if let ValueLookup::Usable(text) = text
            && let Ok(status) = serde_json::from_str::<Value>(&text)
        {
            found.push((instance, status));
        }
    }
    Ok(found)
}

/// Names of all daemons whose status is still there.
pub async fn instances(client: &Client, redis: &redis::Config) -> Result<Vec<String>, CliError> {
    let failed = |error| failed(redis, "failed to look for daemons", Resource::None, error);
    let prefix = format!("{}ingest:", redis.key_prefix);
    let pattern = format!("{}*", escape(&prefix));
    let (mut cursor, mut names) = ("0".to_owned(), Vec::new());
    loop {
        let page: Reply = client.scan_page(cursor, pattern.clone(), Some(1_000), None).await.map_err(failed)?;
        let (next, keys): (String, Vec<String>) = page.convert().map_err(failed)?;
        // Under the same prefix are the shared open runs and the canaries of readiness.
        let is_daemon = |name: &&str| !name.starts_with("run:") && !name.starts_with("canary:");
        names.extend(keys.iter().filter_map(|key| key.strip_prefix(&prefix)).filter(is_daemon).map(str::to_owned));
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
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
