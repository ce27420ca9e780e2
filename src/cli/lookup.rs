//! Which run a person means: its id, its name, or the beginning of either.

use uuid::Uuid;

use super::CliError;
use crate::{
    event::{RunRow, run_id_from_text},
    store::{RunsQuery, Store},
    units::Micros,
};

/// Among how many of the newest runs a shortened id or a name is looked for.
const NEWEST: usize = 1_000;

/// A running run that is silent for longer is shown as stale.
pub const STALE_AFTER: Micros = 5 * 60 * 1_000_000;

/// The run that `text` names.
///
/// # Errors
/// When there is none, when there are several (the message lists some), or when the store does not answer.
pub async fn find_run(store: &dyn Store, text: &str) -> Result<RunRow, CliError> {
    let text = text.trim();
    // The whole id or the whole name: found by key, however old the run is.
    if let Some(run) = store.read_run(run_id_from_text(text)).await.map_err(unreadable)? {
        return Ok(run);
    }
    if text.is_empty() || Uuid::try_parse(text).is_ok() {
        return Err(CliError::No(format!("there is no run `{text}`")));
    }
    let newest = RunsQuery { limit: NEWEST, ..RunsQuery::default() };
    choose(store.runs(&newest).await.map_err(unreadable)?, text)
}

/// A failed read, for the person at the terminal.
pub fn unreadable(error: crate::store::StoreError) -> CliError {
    CliError::failed("failed to read the store", error)
}

fn choose(runs: Vec<RunRow>, text: &str) -> Result<RunRow, CliError> {
    let named = |run: &RunRow| run.run_name.as_deref() == Some(text);
    let prefix = text.to_ascii_lowercase();
    let begins = |run: &RunRow| {
        run.run_id.to_string().starts_with(&prefix)
            || run.run_name.as_deref().is_some_and(|name| name.starts_with(text))
    };
    let exact: Vec<&RunRow> = runs.iter().filter(|run| named(run)).collect();
    let found = if exact.is_empty() { runs.iter().filter(|run| begins(run)).collect() } else { exact };
    match found.as_slice() {
        [run] => Ok((*run).clone()),
        [] => {
            Err(CliError::No(format!("no run `{text}` among the newest {NEWEST}; give the whole id of an older one")))
        }
        several => {
            let some: Vec<String> = several.iter().take(5).map(|run| run.run_id.to_string()).collect();
            Err(CliError::No(format!("`{text}` means {} runs: {}", several.len(), some.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_by_what_is_unambiguous() {
        let run = |id: u128, name: &str| RunRow {
            run_id: Uuid::from_u128(id << 64),
            run_name: Some(name.into()),
            ..RunRow::default()
        };
        let runs =
            vec![run(0x1234_0000_0000_0000, "spiral"), run(0x1235_0000_0000_0000, "spiral-2"), run(0xffff << 48, "x")];
        for (text, found) in [
            ("1234", Some(0)),
            ("123", None),
            ("spiral", Some(0)),
            ("spiral-", Some(1)),
            ("spi", None),
            ("FFFF", Some(2)),
            ("nothing", None),
        ] {
            let expected = found.map(|n: usize| runs[n].run_id);
            assert_eq!(choose(runs.clone(), text).ok().map(|run| run.run_id), expected, "{text}");
        }
    }
}
