//! Finds a run by its id, a name, or the beginning of any of them.

use serde_json::Value;
use uuid::Uuid;

use super::{
    CliError,
    ask::{QueryClient, escape},
    run_list,
};
use crate::{logging::Untrusted, store::run_list::WORDS_MAX};

/// Maximum runs with its words among which a shortened id or name is searched.
const NEWEST_RUNS: usize = 1_000;
/// Runs that an ambiguous text lists.
const LISTED_RUNS: usize = 10;

/// The run that `text` names, as `/api/runs` shows it: by its id, the name that its producer published, the name that people gave
/// it, or the beginning of any of them. A name may begin or end with blanks: the text is tried as it is, then trimmed.
///
/// # Errors
/// When there is none, when there are several (the message lists some), or when the query fails.
pub async fn find_run(client: &QueryClient, text: &str) -> Result<Value, CliError> {
    let none = || CliError::NegativeAnswer(format!("there is no run `{text}`"));
    if text.is_empty() {
        return Err(none());
    }
    // A whole id or name: found however old the run is.
    if let Some(mut answer) = client.find(&format!("/api/runs/{}?limit=0&count=none", escape(text))).await? {
        return Ok(answer["run"].take());
    }
    if Uuid::try_parse(text.trim()).is_ok() {
        return Err(none());
    }
    // Every word of a name's beginning occurs in the run, but `key=value` may be cut within its value.
    let words: Vec<_> = text.split_whitespace().filter(|word| !word.contains('=')).take(WORDS_MAX).collect();
    choose_run(&run_list::search(client, &words.join(" "), NEWEST_RUNS).await?, text)
}

/// The readings of a text, the likeliest first.
fn candidates(text: &str) -> impl Iterator<Item = &str> {
    let trimmed = Some(text.trim()).filter(|trimmed| *trimmed != text);
    [Some(text), trimmed].into_iter().flatten().filter(|reading| !reading.is_empty())
}

/// The name to show: that which people gave the run, else that of its producer.
pub fn name(run: &Value) -> Option<&str> {
    run["display_name"].as_str().or(run["run_name"].as_str())
}

/// The name and the id of a run, for a terminal.
pub fn described(run: &Value) -> String {
    match name(run) {
        // Any client of Redis may have published it: control characters must not reach the terminal.
        Some(name) => format!("{} ({})", Untrusted(name.as_bytes()), id(run)),
        None => id(run).to_owned(),
    }
}

/// The id of a run.
pub fn id(run: &Value) -> &str {
    run["run_id"].as_str().unwrap_or_default()
}

/// The run that a shortened id or name means.
fn choose_run(runs: &[Value], text: &str) -> Result<Value, CliError> {
    let begins = |reading: &str| -> Vec<&Value> {
        let prefix = reading.to_ascii_lowercase();
        let named = |run: &Value, field: &str| run[field].as_str().is_some_and(|name| name.starts_with(reading));
        let fits = |run: &&Value| id(run).starts_with(&prefix) || named(run, "display_name") || named(run, "run_name");
        runs.iter().filter(fits).collect()
    };
    let found = candidates(text).map(begins).find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [run] => Ok((*run).clone()),
        [] if runs.len() < NEWEST_RUNS => Err(CliError::NegativeAnswer(format!("there is no run `{text}`"))),
        [] => Err(CliError::NegativeAnswer(format!(
            "no run `{text}` among the newest {NEWEST_RUNS} with these words; give the whole id or name of an older one"
        ))),
        several => {
            let mut some: Vec<String> = several.iter().take(LISTED_RUNS).map(|run| described(run)).collect();
            let more = several.len().saturating_sub(LISTED_RUNS);
            some.extend((more > 0).then(|| format!("and {more} more")));
            let (count, some) = (several.len(), some.join("\n  "));
            Err(CliError::NegativeAnswer(format!("`{text}` means {count} runs; name one of them:\n  {some}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_found_by_what_is_unambiguous() {
        let run = |id: u128, name: &str| json!({"run_id": Uuid::from_u128(id << 64), "run_name": name});
        let runs = [
            run(0x1234_0000_0000_0000, "spiral"),
            run(0x1235_0000_0000_0000, "spiral-2"),
            run(0xffff << 48, "x"),
            run(0xa1 << 56, " lead"),
            run(0xa2 << 56, "lead"),
            run(0xa3 << 56, "  "),
            run(0xa4 << 56, "tail "),
        ];
        for (text, found) in [
            ("1234", Some(0)),
            ("123", None),
            ("spiral-", Some(1)),
            (" spiral- ", Some(1)),
            ("spi", None),
            ("FFFF", Some(2)),
            ("nothing", None),
            (" lead", Some(3)),
            ("lead", Some(4)),
            ("lead ", Some(4)),
            ("  lead", Some(4)),
            (" le", Some(3)),
            ("le", Some(4)),
            ("  ", Some(5)),
            ("\t", None),
            ("tail ", Some(6)),
            ("tail", Some(6)),
            ("", None),
        ] {
            let expected = found.map(|n: usize| runs[n].clone());
            assert_eq!(choose_run(&runs, text).ok(), expected, "{text:?}");
        }
    }
}
