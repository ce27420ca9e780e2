//! Finds a run by its id, its name, or the beginning of either.

use serde_json::Value;
use uuid::Uuid;

use super::{CliError, ask::QueryClient};
use crate::event::run_id_from_text;

/// How many of the newest runs are searched for a shortened id or name.
const NEWEST_RUNS: usize = 1_000;

/// The run that `text` names, as `/api/runs` shows it. A name may begin or end with blanks: the text is tried as it is, then
/// trimmed.
///
/// # Errors
/// When there is none, when there are several (the message lists some), or when the query fails.
pub async fn find_run(client: &QueryClient, text: &str) -> Result<Value, CliError> {
    // The whole id or the whole name: found by key, however old the run is.
    for reading in candidates(text) {
        match client.json(&format!("/api/runs/{}?limit=0&count=none", run_id_from_text(reading))).await {
            Ok(mut answer) => return Ok(answer["run"].take()),
            Err(CliError::NegativeAnswer(_)) => {}
            Err(other) => return Err(other),
        }
    }
    if text.is_empty() || Uuid::try_parse(text.trim()).is_ok() {
        return Err(CliError::NegativeAnswer(format!("there is no run `{text}`")));
    }
    let (mut runs, mut path) = (Vec::new(), format!("/api/runs?limit={NEWEST_RUNS}"));
    while runs.len() < NEWEST_RUNS {
        let mut answer = client.json(&path).await?;
        runs.append(answer["runs"].as_array_mut().unwrap_or(&mut Vec::new()));
        // A page is shorter where runs are large.
        let Some(next) = answer["next"].as_str() else { break };
        path = format!("/api/runs?limit={NEWEST_RUNS}&before={next}");
    }
    choose_run(&runs, text)
}

/// The readings of a text, the likeliest first.
fn candidates(text: &str) -> impl Iterator<Item = &str> {
    let trimmed = Some(text.trim()).filter(|trimmed| *trimmed != text);
    [Some(text), trimmed].into_iter().flatten().filter(|reading| !reading.is_empty())
}

/// The id of a run.
pub fn id(run: &Value) -> &str {
    run["run_id"].as_str().unwrap_or_default()
}

fn choose_run(runs: &[Value], text: &str) -> Result<Value, CliError> {
    let name = |run: &Value| run["run_name"].as_str().map(str::to_owned);
    let named =
        |reading: &str| -> Vec<&Value> { runs.iter().filter(|run| name(run).as_deref() == Some(reading)).collect() };
    let begins = |reading: &str| -> Vec<&Value> {
        let prefix = reading.to_ascii_lowercase();
        let fits =
            |run: &&Value| id(run).starts_with(&prefix) || name(run).is_some_and(|name| name.starts_with(reading));
        runs.iter().filter(fits).collect()
    };
    let mut found = candidates(text).map(named).chain(candidates(text).map(begins));
    let found = found.find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [run] => Ok((*run).clone()),
        [] => Err(CliError::NegativeAnswer(format!(
            "no run `{text}` among the newest {NEWEST_RUNS}; give the whole id of an older one"
        ))),
        several => {
            let some: Vec<&str> = several.iter().take(5).map(|run| id(run)).collect();
            Err(CliError::NegativeAnswer(format!("`{text}` means {} runs: {}", several.len(), some.join(", "))))
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
            ("spiral", Some(0)),
            ("spiral-", Some(1)),
            (" spiral\n", Some(0)),
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
