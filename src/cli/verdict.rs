//! The verdict on a daemon, from its status object: whether it is well, why not, and what mends it.

use serde::Serialize;
use serde_json::Value;

use super::output::cell;

/// Share of its capacity from which a spool that does not write to disk counts as full, in per cent.
const FULL_PERCENT: u64 = 95;
/// Share of its capacity from which the verdict mentions the spool, in per cent.
const FILLING_PERCENT: u64 = 50;

/// Lag from which a store that has never answered counts as away.
const SILENT_SECONDS: f64 = 5.0;
/// Age of a status from which its daemon counts as gone: it writes one each second.
pub const SILENT_AGE_SECONDS: f64 = 5.0;
/// Entries of streams that no daemon has read yet, from which the verdict mentions them.
const UNREAD_ENTRIES: u64 = 1_000;

/// The verdict on one daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether it receives and stores.
    pub ok: bool,
    /// `OK`, or the worst problem: `PAUSED`, `HELD`, ...
    pub state: &'static str,
    /// The problems, then the figures.
    pub text: String,
    /// What mends each problem.
    pub remedies: Vec<String>,
}

/// One problem and its remedy.
struct Finding {
    state: &'static str,
    text: String,
    remedy: String,
}

impl Verdict {
    /// The verdict on the daemon with this status.
    pub fn of(status: &Value) -> Self {
        if status["phase"].as_str().is_none() || !status["ready"].is_boolean() {
            let finding = finding("UNKNOWN", "its status is not that of a daemon", "which program wrote that key?");
            return Self::new(vec![finding], Vec::new());
        }
        if let Some(silent) = silent(status) {
            return Self::new(vec![silent], Vec::new());
        }
        let findings = [
            stopping(status),
            spool(status),
            subscription(status),
            streams(status),
            store(status),
            paused(status),
            http(status),
        ];
        let mut findings: Vec<Finding> = findings.into_iter().flatten().collect();
        if findings.is_empty() && status["ready"] == false {
            let missing: Vec<_> =
                status["missing"].as_array().into_iter().flatten().map(|why| cell(Some(why))).collect();
            findings.push(finding("NOT READY", &missing.join("; "), "see its log"));
        }
        Self::new(findings, figures(status))
    }

    fn new(findings: Vec<Finding>, figures: Vec<String>) -> Self {
        let (ok, state) = findings.first().map_or((true, "OK"), |worst| (false, worst.state));
        let figures = Some(figures.join(", ")).filter(|figures| !figures.is_empty());
        let texts: Vec<String> = findings.iter().map(|finding| finding.text.clone()).chain(figures).collect();
        let remedies = findings.into_iter().map(|finding| finding.remedy).collect();
        Self { ok, state, text: texts.join("; "), remedies }
    }
}

fn finding(state: &'static str, text: &str, remedy: &str) -> Finding {
    Finding { state, text: text.to_owned(), remedy: remedy.to_owned() }
}

/// What an old status says of the daemon is not true any more.
fn silent(status: &Value) -> Option<Finding> {
    let age = status["age_seconds"].as_f64().filter(|age| *age >= SILENT_AGE_SECONDS)?;
    let remedy = "start it again if it has ended; its log and its machine say why it is silent";
    Some(finding("NO ANSWER", &format!("last sign of life {} ago", seconds(age)), remedy))
}

fn stopping(status: &Value) -> Option<Finding> {
    (status["phase"] == "stopping").then(|| finding("STOPPING", "the daemon is about to end", "start it again"))
}

fn spool(status: &Value) -> Option<Finding> {
    if status["spool"]["healthy"] != false {
        return None;
    }
    let memory = bytes(status["spool"]["memory_bytes"].as_u64().unwrap_or(0));
    let used = used_percent(status);
    Some(if used.is_some_and(|used| used >= FULL_PERCENT) {
        let capacity = bytes(status["spool"]["capacity_bytes"].as_u64().unwrap_or(0));
        let text = format!("the spool is full ({capacity}), {memory} are in memory only and are lost with the process");
        finding("FULL", &text, "mend the store so that the spool drains, or raise `spool.capacity`")
    } else {
        let text = format!("the spool cannot write to disk, {memory} are in memory only and are lost with the process");
        finding("FAILING", &text, "free or repair the disk of `spool.dir`; its log has the error")
    })
}

fn subscription(status: &Value) -> Option<Finding> {
    let is_stream = |name: &Value| streams_of(status).any(|stream| stream["name"] == *name);
    let unproven = status["redis"]["unproven"].as_array()?.iter().filter(|name| !is_stream(name));
    let channels: Vec<String> = unproven.map(|channel| format!("`{}`", cell(Some(channel)))).collect();
    if channels.is_empty() {
        return None;
    }
    let connections = || status["redis"]["connections"].as_array().into_iter().flatten();
    let error = connections().find_map(|connection| connection["error"].as_str());
    let error = error.map_or_else(String::new, |error| format!(": {}", cell(Some(&error.into()))));
    let text = format!("does not receive {}{error}", channels.join(", "));
    let is_down = connections().any(|connection| connection["connected"] == false);
    let remedy = if is_down {
        "start Redis, or correct `redis.url`; the daemon connects by itself"
    } else {
        "permit these channels to the daemon's user in Redis (ACL)"
    };
    Some(finding("NOT SUBSCRIBED", &text, remedy))
}

fn streams_of(status: &Value) -> impl Iterator<Item = &Value> {
    status["redis"]["streams"].as_array().into_iter().flatten()
}

/// The stream that is not read, or else one that is read with fewer rights than are needed.
fn streams(status: &Value) -> Option<Finding> {
    let wrong = |reading: bool| {
        streams_of(status).find(|stream| stream["reading"] == reading && (stream["error"].is_string() || !reading))
    };
    let stream = wrong(false).or_else(|| wrong(true))?;
    let (name, error) = (cell(stream.get("name")), cell(stream.get("error")));
    let (state, text) = match stream["reading"] == true {
        true => ("RESTRICTED", format!("the stream `{name}` is read, but not looked after: {error}")),
        false => ("NOT READING", format!("does not read the stream `{name}`: {error}")),
    };
    let remedy = match error {
        refused if refused.contains("ACL SETUSER") => "run this `ACL SETUSER` in Redis, as a user who may",
        other if other.contains("is no stream") => "delete or rename that key, or correct `redis.streams`",
        other if other.starts_with("Redis answers") => {
            "correct what this error names; the daemon tries again by itself"
        }
        _ => "start Redis, or correct `redis.url`; the daemon connects by itself",
    };
    Some(finding(state, text.trim_end_matches(": "), remedy))
}

fn store(status: &Value) -> Option<Finding> {
    let problem = &status["store"]["problem"];
    if problem.is_null() {
        // Before its first row a daemon has not heard from its store yet.
        let is_late = status["lag_seconds"].as_f64().is_none_or(|lag| lag >= SILENT_SECONDS);
        let away = status["store"]["connected"] == false && is_late;
        let remedy = "start the store; it is tried again, and records wait in the spool";
        return away.then(|| finding("HELD", "the store does not answer", remedy));
    }
    let since = problem["since"].as_str().and_then(|since| since.get(..19)).unwrap_or_default().replace('T', " ");
    let what = if problem["needs_attention"] == true { "the store is misconfigured" } else { "the store is away" };
    let held = match problem["holds"].as_str() {
        // `serve` has no spool.
        Some("reads") => "nothing can be read".to_owned(),
        Some("store") | None => "rows wait in the spool".to_owned(),
        Some(_) => format!("{} wait in the spool", cell(problem.get("holds"))),
    };
    let text = format!("{what}, {held} since {since}: {}", cell(problem.get("reason")));
    let remedy = match cell(problem.get("remedy")) {
        none if none.is_empty() && problem["needs_attention"] == true => "mend what the reason names".to_owned(),
        none if none.is_empty() => "start the store; it is tried again, and records wait in the spool".to_owned(),
        remedy => remedy,
    };
    Some(finding("HELD", &text, &remedy))
}

fn paused(status: &Value) -> Option<Finding> {
    let name = cell(status.get("instance"));
    let remedy = format!("cascor-ingest control resume --target {name}");
    (status["paused"] == true).then(|| finding("PAUSED", "received and spooled, but not stored", &remedy))
}

fn http(status: &Value) -> Option<Finding> {
    let problem = status["http"]["problem"].as_str()?;
    let text = format!("HTTP does not listen: {}", cell(Some(&problem.into())));
    Some(finding("NO HTTP", &text, "end that process, or set `http.listen` to another port; it is tried again"))
}

fn figures(status: &Value) -> Vec<String> {
    if status["counters"].is_null() {
        // `serve` has no pipeline.
        return vec!["answers HTTP, receives nothing".into()];
    }
    let mut figures = Vec::new();
    if let Some(rate) = status["received_per_second"].as_f64() {
        let rate = if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") };
        figures.push(format!("receiving {rate}/s"));
    }
    if let Some(lag) = status["lag_seconds"].as_f64() {
        figures.push(format!("lag {}", seconds(lag)));
    }
    let count = |value: &Value, one: &str, many: &str| {
        let count = value.as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {}", if count == 1 { one } else { many }))
    };
    let is_late = status["lag_seconds"].as_f64().is_some_and(|lag| lag >= 1.0);
    let pending = count(&status["spool"]["pending_records"], "record waits", "records wait");
    figures.extend(pending.filter(|_| is_late));
    let unread: u64 = streams_of(status).filter_map(|stream| stream["lag"].as_u64()).sum();
    figures.extend((unread >= UNREAD_ENTRIES).then(|| format!("{unread} entries not read yet")));
    let used = used_percent(status).filter(|used| *used >= FILLING_PERCENT);
    figures.extend(used.map(|used| format!("spool {used} % full")));
    figures.extend(count(&status["counters"]["dead_letters"], "dead letter", "dead letters"));
    figures.extend(missed(status));
    if let Some(problem) = status["latest"]["problem"].as_str() {
        figures.push(format!("latest keys are not written: {}", cell(Some(&problem.into()))));
    }
    if let Some(problem) = status["access"]["problem"].as_str() {
        figures.push(format!("tokens are those of before: {}", cell(Some(&problem.into()))));
    }
    if let Some(problem) = status["access"]["certificate_problem"].as_str() {
        figures.push(format!("the certificate is that of before: {}", cell(Some(&problem.into()))));
    }
    figures
}

/// What was missed since the daemon started, on channels and of streams alike: with its number, and without.
fn missed(status: &Value) -> Vec<String> {
    let (mut lost, mut counted, mut uncounted) = (0, Vec::new(), Vec::new());
    for (reason, gap) in status["gaps"].as_object().into_iter().flatten() {
        let number = |name: &str| gap[name].as_u64().unwrap_or(0);
        let name = cell(Some(&reason.as_str().into()));
        match (number("lost"), number("gaps")) {
            // It tells once more, for each run, what the other reasons count.
            _ if reason == "sequence" => {}
            (0, 0) => {}
            (0, _) => uncounted.push(name),
            (count, _) => {
                lost += count;
                counted.push(name);
            }
        }
    }
    [&mut counted, &mut uncounted].into_iter().for_each(|names| names.sort());
    let at_most = if counted.iter().any(|name| name == "trimmed_at_most") { "at most " } else { "" };
    let messages = if lost == 1 { "message" } else { "messages" };
    let counted = (lost > 0).then(|| format!("{at_most}{lost} {messages} lost ({})", counted.join(" ")));
    let uncounted =
        (!uncounted.is_empty()).then(|| format!("an unknown number of messages missed ({})", uncounted.join(" ")));
    counted.into_iter().chain(uncounted).collect()
}

fn used_percent(status: &Value) -> Option<u64> {
    let capacity = status["spool"]["capacity_bytes"].as_u64().filter(|capacity| *capacity > 0)?;
    Some(status["spool"]["used_bytes"].as_u64()?.saturating_mul(100) / capacity)
}

/// A time as a person reads it.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

/// A size as a person reads it.
fn bytes(bytes: u64) -> String {
    let unit = [(30, "GiB"), (20, "MiB"), (10, "KiB")].into_iter().find(|(shift, _)| bytes >> shift > 0);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(shift, unit)| format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Statuses and what is said of them; the dashboard is held to the same (`base/verdict.js`).
    fn known() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/verdicts.json")).unwrap()
    }

    fn shown(change: &Value) -> Verdict {
        let mut status = known()["well"].clone();
        for (path, value) in change.as_object().unwrap() {
            *status.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value.clone();
        }
        Verdict::of(&status)
    }

    #[test]
    fn a_status_has_its_state_its_text_and_its_remedies_the_worst_first() {
        let known = known();
        let cases = known["cases"].as_array().unwrap();
        assert!(cases.len() > 15);
        for case in cases {
            let verdict = serde_json::to_value(shown(&case["change"])).unwrap();
            let ok = json!(case["state"] == "OK");
            for (name, expected) in
                [("state", &case["state"]), ("text", &case["text"]), ("remedies", &case["remedies"]), ("ok", &ok)]
            {
                assert_eq!(&verdict[name], expected, "{name} of {}", case["change"]);
            }
        }
        let reader =
            json!({"phase": "serving", "ready": true, "redis": {"unproven": []}, "store": {"connected": true}});
        assert_eq!(Verdict::of(&reader).text, "answers HTTP, receives nothing");
    }

    #[test]
    fn text_of_others_keeps_to_the_line() {
        let verdict = shown(&json!({"/paused": true, "/instance": "a\nforged", "/redis/unproven": ["x\u{1b}[31m\n"]}));
        let all = format!("{}{}", verdict.text, verdict.remedies.join(""));
        assert!(!all.contains(['\n', '\u{1b}']), "{all:?}");
        assert_eq!(Verdict::of(&json!("text")).state, "UNKNOWN");
    }
}
