//! Words that say how a run ended, and the status that each means.

use crate::event::status;

const COMPLETED: [&str; 12] = [
    "completed",
    "complete",
    "success",
    "succeeded",
    "successful",
    "finished",
    "finish",
    "done",
    "ok",
    "converged",
    "earlystopping",
    "earlystopped",
];
const FAILED: [&str; 12] = [
    "failed",
    "fail",
    "failure",
    "error",
    "errored",
    "crashed",
    "crash",
    "exception",
    "diverged",
    "oom",
    "outofmemory",
    "nodefail",
];
const STOPPED: [&str; 11] = [
    "stopped",
    "stop",
    "cancelled",
    "canceled",
    "aborted",
    "interrupted",
    "killed",
    "terminated",
    "preempted",
    "timeout",
    "timedout",
];

/// The status that a word of the table means; `word` is written as [`normalised`] writes it.
pub(super) fn lookup(word: &str) -> Option<&'static str> {
    match word {
        "true" => return Some(status::COMPLETED),
        "false" | "nan" | "nodefailure" => return Some(status::FAILED),
        _ => {}
    }
    [(&COMPLETED[..], status::COMPLETED), (&FAILED, status::FAILED), (&STOPPED, status::STOPPED)]
        .into_iter()
        .find_map(|(words, status)| words.contains(&word).then_some(status))
}

/// Lower case, without `_`, `-` and blanks.
pub(super) fn normalised(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '_' | '-') && !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}

/// Words that mean something else within a longer text.
pub(super) fn is_ambiguous(word: &str) -> bool {
    matches!(word, "true" | "false" | "nan" | "ok")
}

/// The status that a type such as `training_failed` or `run_timeout` names.
pub(super) fn named_by_type(name: &str) -> Option<&'static str> {
    let word = name.strip_prefix("training_").or_else(|| name.strip_prefix("run_"))?;
    let word = normalised(word);
    lookup(&word).filter(|_| !is_ambiguous(&word))
}

/// The words of a text in lower case; a number with a fraction is one.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '.')
        .flat_map(|piece| {
            let piece = piece.trim_matches('.');
            let separator = if piece.parse::<f64>().is_ok() { ' ' } else { '.' };
            piece.split(separator)
        })
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}
