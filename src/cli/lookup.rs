//! Which run a person means: its id, its name, or the beginning of either.

use serde_json::Value;
use uuid::Uuid;

use super::{CliError, ask::Asker};
use crate::event::run_id_from_text;

/// Among how many of the newest runs a shortened id or a name is looked for.
const NEWEST: usize = 1_000;

/// The run that `text` names, as `/api/runs` shows it.
///
/// # Errors
/// When there is none, when there are several (the message lists some), or when nobody answers.
pub async fn find_run(asker: &Asker, text: &str) -> Result<Value, CliError> {
    let text = text.trim();
    // The whole id or the whole name: found by key, however old the run is.
    match asker.json(&format!("/api/runs/{}?limit=0&count=none", run_id_from_text(text))).await {
        Ok(mut answer) => return Ok(answer["run"].take()),
        Err(CliError::No(_)) => {}
        Err(other) => return Err(other),
    }
    if text.is_empty() || Uuid::try_parse(text).is_ok() {
        return Err(CliError::No(format!("there is no run `{text}`")));
    }
    let (mut runs, mut path) = (Vec::new(), format!("/api/runs?limit={NEWEST}"));
    while runs.len() < NEWEST {
        let mut answer = asker.json(&path).await?;
        runs.append(answer["runs"].as_array_mut().unwrap_or(&mut Vec::new()));
        // It has fewer than there are where they are large.
        let Some(next) = answer["next"].as_str() else { break };
        path = format!("/api/runs?limit={NEWEST}&before={next}");
    }
    choose(&runs, text)
}

/// The id of a run.
pub fn id(run: &Value) -> &str {
    run["run_id"].as_str().unwrap_or_default()
}

fn choose(runs: &[Value], text: &str) -> Result<Value, CliError> {
    let prefix = text.to_ascii_lowercase();
    let name = |run: &'_ Value| run["run_name"].as_str().map(str::to_owned);
    let begins = |run: &&Value| id(run).starts_with(&prefix) || name(run).is_some_and(|name| name.starts_with(text));
    let exact: Vec<&Value> = runs.iter().filter(|run| name(run).as_deref() == Some(text)).collect();
    let found = if exact.is_empty() { runs.iter().filter(begins).collect() } else { exact };
    match found.as_slice() {
        [run] => Ok((*run).clone()),
        [] => {
            Err(CliError::No(format!("no run `{text}` among the newest {NEWEST}; give the whole id of an older one")))
        }
        several => {
            let some: Vec<&str> = several.iter().take(5).map(|run| id(run)).collect();
            Err(CliError::No(format!("`{text}` means {} runs: {}", several.len(), some.join(", "))))
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
        let runs =
            [run(0x1234_0000_0000_0000, "spiral"), run(0x1235_0000_0000_0000, "spiral-2"), run(0xffff << 48, "x")];
        for (text, found) in [
            ("1234", Some(0)),
            ("123", None),
            ("spiral", Some(0)),
            ("spiral-", Some(1)),
            ("spi", None),
            ("FFFF", Some(2)),
            ("nothing", None),
        ] {
            let expected = found.map(|n: usize| runs[n].clone());
            assert_eq!(choose(&runs, text).ok(), expected, "{text}");
        }
    }
}
