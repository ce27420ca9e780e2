//! `status`: the status of each daemon, from its key in Redis, and orphaned spools on this machine.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use fred::{
    clients::Client,
    error::Error as RedisError,
    interfaces::{ClientLike, KeysInterface},
    types::InfoKind,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    CliError,
    ask::{QueryClient, Target},
    cells,
    connect::{connect, escape_glob, failed},
    global::Global,
    local_daemon, output, table,
    verdict::{SILENT_AGE_SECONDS, Verdict},
};
use crate::{
    config::{ClientConfig, Settings},
    logging::Chain,
    redis::{self, Resource, STATUS_VALUE, ValueLookup},
    render,
    spool::{self, Report},
    terminal, units,
};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this daemon; absent: all daemons on this Redis.
    daemon: Option<String>,
    /// Every field of the status, too.
    #[arg(long, short)]
    verbose: bool,
    /// Repeat every 2 seconds, or as often as this says, until Ctrl-C; on a terminal in place.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = interval)]
    watch: Option<Duration>,
    /// Also look for orphaned spools here; `spool.orphan_search_dirs`, by default the parent of `state_dir`, is searched anyway.
    #[arg(long, value_name = "DIR")]
    look_in: Vec<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// Whether the daemon at `http.listen` is asked where Redis does not answer, or has no status.
    #[arg(skip)]
    asks_local: bool,
}

impl Args {
    /// The same with what the flags of every subcommand say: `--instance` names a daemon, too, and where flags name another Redis the
    /// daemon of this machine is not meant.
    ///
    /// # Errors
    /// When two daemons are named.
    pub fn with_global(self, global: &Global) -> Result<Self, CliError> {
        let asks_local = !global.names_settings() && self.target.url.is_none();
        let daemon = match (self.daemon, &global.instance) {
            (Some(daemon), Some(instance)) if daemon != *instance => {
                let problem = format!("`{daemon}` and --instance {instance} name two daemons; name one");
                return Err(CliError::Usage(problem));
            }
            (daemon, instance) => daemon.or_else(|| instance.clone()),
        };
        Ok(Self { daemon, asks_local, ..self })
    }
}

/// What is shown at one moment.
struct Snapshot {
    /// Name and status of each daemon.
    statuses: Result<Vec<(String, Value)>, CliError>,
    /// Spools on this machine that no daemon uses; `None` if a daemon was asked, whose machine may be another.
    orphans: Option<Vec<(PathBuf, Report)>>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let is_number = text.parse::<u32>().is_ok();
    let parsed = units::parse_duration(&if is_number { format!("{text}s") } else { text.to_owned() });
    match parsed {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        _ => Err("write it as seconds, more than 0".into()),
    }
}

/// Prints the verdict on one daemon or on all, and orphaned spools.
///
/// # Errors
/// When a daemon is not well, none has reported, or none can be asked.
pub async fn run(settings: Settings, args: Args, json: bool) -> Result<(), CliError> {
    if let Some(missing) = args.look_in.iter().find(|dir| !dir.is_dir()) {
        return Err(CliError::NegativeAnswer(format!("--look-in: there is no directory `{}`", missing.display())));
    }
    let Some(interval) = args.watch else {
        let snapshot = snapshot(&settings, &args).await?;
        show(&snapshot, &args, json)?;
        return outcome(snapshot);
    };
    loop {
        let snapshot = snapshot(&settings, &args).await?;
        if !json {
            output::redraw()?;
        }
        show(&snapshot, &args, json)?;
        // A daemon or server that is away may come back while it is watched.
        let is_silent = snapshot.statuses.as_ref().map_or(true, Vec::is_empty);
        match outcome(snapshot) {
            Err(error) if is_silent && json => terminal::print_notice(format_args!("{}", Chain(&error))),
            Err(error) if is_silent => output::line(&Chain(&error).to_string())?,
            _ => {}
        }
        output::flush()?;
        sleep(interval).await;
    }
}

async fn snapshot(settings: &Settings, args: &Args) -> Result<Snapshot, CliError> {
    if let Some(daemon) = args.target.daemon(settings)? {
        if !args.look_in.is_empty() {
            return Err(CliError::Usage("--look-in has no effect: a daemon is asked, maybe on another machine".into()));
        }
        return Ok(Snapshot { statuses: daemon_status(&daemon, args.daemon.as_deref()).await, orphans: None });
    }
    let dirs = orphan_search_dirs(settings, &args.look_in);
    let statuses = match statuses(settings, args.daemon.clone()).await {
        Err(error) => local_status(settings, args, &Chain(&error).to_string()).await.ok_or(error),
        Ok(found) if found.is_empty() => {
            let why = "no daemon has reported its status to Redis";
            local_status(settings, args, why).await.ok_or_else(|| none_reported(args))
        }
        found => found,
    };
    Ok(Snapshot { statuses, orphans: Some(spool::orphans(&dirs, &settings.spool.dir)) })
}

fn show(snapshot: &Snapshot, args: &Args, json: bool) -> Result<(), CliError> {
    let orphans = snapshot.orphans.as_deref().unwrap_or_default();
    if json {
        let with_verdict = |(instance, status): &(String, Value)| {
            let mut status = status.clone();
            if let Value::Object(fields) = &mut status {
                fields.insert("verdict".into(), json!(Verdict::of(&Value::Object(fields.clone()))));
            }
            (instance.clone(), status)
        };
        let mut all: serde_json::Map<_, _> = snapshot.statuses.iter().flatten().map(with_verdict).collect();
        if snapshot.orphans.is_some() {
            all.insert(ORPHANS.into(), orphans.iter().map(orphan).collect());
        }
        return output::json(&Value::Object(all));
    }
    for (instance, status) in snapshot.statuses.iter().flatten() {
        let verdict = Verdict::of(status);
        let name = output::cell(Some(&instance.as_str().into()));
        output::line(&format!("{name}: {} - {}", verdict.state, verdict.text))?;
        for remedy in &verdict.remedies {
            output::line(&format!("  remedy: {remedy}"))?;
        }
        if args.verbose {
            let mut fields = Vec::new();
            cells::flattened("", status, &mut fields);
            let shown: Vec<_> =
                fields.iter().map(|(name, value)| (table::escaped(name), cells::whole(value))).collect();
            output::fields(&shown)?;
        }
    }
    if orphans.is_empty() {
        return Ok(());
    }
    let row = |(dir, report): &(PathBuf, Report)| {
        let owner = report.owner.clone().unwrap_or_else(|| "-".into());
        vec![dir.display().to_string(), owner, report.pending.to_string(), report.bytes.to_string()]
    };
    output::table(&["ORPHANED SPOOL", "INSTANCE", "WAITING", "BYTES"], orphans.iter().map(row).collect())?;
    output::line("no daemon uses these: `cascor-ingest spool drain DIR` writes their records to the store")
}

/// Success if there are daemons and all are well.
fn outcome(snapshot: Snapshot) -> Result<(), CliError> {
    let statuses = snapshot.statuses?;
    let unwell: Vec<String> = statuses
        .iter()
        .filter(|(_, status)| !Verdict::of(status).ok)
        .map(|(instance, _)| output::cell(Some(&instance.as_str().into())))
        .collect();
    if unwell.is_empty() { Ok(()) } else { Err(CliError::NegativeAnswer(format!("not well: {}", unwell.join(", ")))) }
}

fn none_reported(args: &Args) -> CliError {
    let subject = args.daemon.as_ref().map_or_else(|| "no daemon".into(), |daemon| format!("no daemon `{daemon}`"));
    CliError::NegativeAnswer(format!(
        "{subject} has reported its status in the last seconds; start one with `cascor-ingest run`, or correct `redis.url`"
    ))
}

/// Age of a status that is late: a daemon writes one each second.
const LATE_AGE_SECONDS: f64 = 2.0;
/// How often a status that is late is read again.
const LATE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often a status is read for which a command waits.
const STATUS_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The key beside the names of instances.
const ORPHANS: &str = "orphaned_spools";

fn orphan_search_dirs(settings: &Settings, more: &[PathBuf]) -> Vec<PathBuf> {
    let mut dirs = settings.spool.orphan_search_dirs.clone();
    if dirs.is_empty() {
        dirs.extend(settings.state_dir.parent().map(Path::to_owned));
    }
    // A restore moves an old spool aside there.
    dirs.push(settings.state_dir.clone());
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

/// The status of the daemon that listens on this machine, where Redis does not answer or has none, for this reason; `None` without one.
async fn local_status(settings: &Settings, args: &Args, why: &str) -> Option<Vec<(String, Value)>> {
    let url = local_daemon::listening(settings).filter(|_| args.asks_local)?;
    let client = ClientConfig { url: url.clone(), ..settings.client.clone() };
    let daemon = args.target.daemon(&Settings { client, ..settings.clone() }).ok()??;
    let answer = daemon_status(&daemon, args.daemon.as_deref()).await;
    // `serve` listens there, too, and receives nothing.
    if answer.iter().flatten().any(|(_, status)| status["phase"] == "serving") {
        return None;
    }
    if args.watch.is_none() {
        match &answer {
            Ok(_) => terminal::print_notice(format_args!("{why}; the daemon at {url} was asked instead")),
            Err(error) => terminal::print_notice(format_args!("{url} was asked, too: {}", Chain(error))),
        }
    }
    answer.ok()
}

/// The status of the daemon behind `--url`.
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
        let status = status_with_age(&client, &key)
            .await
            .map_err(|error| failed(&settings.redis, "failed to read a status", Resource::Key(&key), error))?;
        found.extend(status.map(|status| (instance, status)));
    }
    if found.is_empty() && is_full(&client).await {
        let why =
            "this Redis is full, and takes no status: raise its `maxmemory`, or name the address of a daemon by --url";
        return Err(CliError::NegativeAnswer(why.into()));
    }
    Ok(found)
}

/// Whether the server has used up its memory; not, where this user may not ask.
async fn is_full(client: &Client) -> bool {
    let info: String = client.info(Some(InfoKind::Memory)).await.unwrap_or_default();
    let number = |name| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    let most = number("maxmemory:");
    most > 0 && number("used_memory:") >= most
}

/// The status in a key, and how old it is. One that is late may be that of a daemon that has ended: a new one is waited for until it is
/// so old that this is certain. `None`: the key has expired, or holds what no daemon wrote.
async fn status_with_age(client: &Client, key: &str) -> Result<Option<Value>, RedisError> {
    loop {
        let ValueLookup::Usable(text) = redis::read_value(client, key, STATUS_VALUE).await? else { return Ok(None) };
        let Ok(mut status) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        let Some(age) = age(client, key, &status).await else { return Ok(Some(status)) };
        if !(LATE_AGE_SECONDS..SILENT_AGE_SECONDS).contains(&age) {
            status["age_seconds"] = json!(age);
            return Ok(Some(status));
        }
        sleep(LATE_POLL_INTERVAL).await;
    }
}

/// Seconds since a status was written, by the clock of Redis alone: what it has used up of its lifetime, which it names itself.
async fn age(client: &Client, key: &str, status: &Value) -> Option<f64> {
    let lifetime = status["status_ttl_seconds"].as_f64()?;
    let left: i64 = client.pttl(key).await.ok()?;
    (left >= 0).then(|| (lifetime - left as f64 / 1e3).max(0.0))
}

/// Waits until the status that a daemon keeps in Redis is newer than the command of this receipt, so that `status` shows its effect;
/// at most until then.
pub async fn wait_for_newer(client: &Client, redis: &redis::Config, receipt: &Value, until: Instant) {
    let time = |value: &Value| value.as_str().and_then(|text| render::parse_time(text).ok());
    let took = receipt["took_ms"].as_i64().unwrap_or(0).saturating_add(1) * 1_000;
    let Some(done) = time(&receipt["received_at"]).map(|at| at + took) else { return };
    let key = format!("{}ingest:{}", redis.key_prefix, receipt["instance"].as_str().unwrap_or_default());
    while Instant::now() < until {
        let status = match redis::read_value(client, &key, STATUS_VALUE).await {
            Ok(ValueLookup::Usable(text)) => serde_json::from_str::<Value>(&text).unwrap_or_default(),
            _ => return,
        };
        if time(&status["at"]).is_none_or(|at| at > done) {
            return;
        }
        sleep(STATUS_POLL_INTERVAL).await;
    }
}

/// Names of all daemons that have a status.
pub async fn instances(client: &Client, redis: &redis::Config) -> Result<Vec<String>, CliError> {
    let failed = |error| failed(redis, "failed to look for daemons", Resource::None, error);
    let prefix = format!("{}ingest:", redis.key_prefix);
    let pattern = format!("{}*", escape_glob(&prefix));
    let keys = redis::scan(client, &pattern, None).await.map_err(failed)?;
    // The shared open runs, the counts of streams and the canaries of readiness have the same prefix.
    let is_daemon = |name: &&str| !["run:", "stream:", "canary:"].iter().any(|other| name.starts_with(other));
    let mut names: Vec<_> =
        keys.iter().filter_map(|key| key.strip_prefix(&prefix)).filter(is_daemon).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}
