//! Words that say how a run ended, and the status that each means.

use crate::event::status;

/// The fields of a run end that decide its outcome where there is no `status`.
pub(super) const DECIDING_NAMES: [&str; 5] = ["success", "error", "exception", "exit_code", "reason"];

/// The status that a word of the table means; `word` is written as [`normalised`] writes it.
pub(super) fn lookup(word: &str) -> Option<&'static str> {
    match word {
        "completed" | "complete" | "success" | "succeeded" | "successful" | "finished" | "finish" | "done" | "ok"
        | "converged" | "earlystopping" | "earlystopped" | "true" => Some(status::COMPLETED),
        "failed" | "fail" | "failure" | "error" | "errored" | "crashed" | "crash" | "exception" | "diverged"
        | "oom" | "outofmemory" | "nodefail" | "nodefailure" | "false" | "nan" => Some(status::FAILED),
        "stopped" | "stop" | "cancelled" | "canceled" | "aborted" | "interrupted" | "killed" | "terminated"
        | "preempted" | "timeout" | "timedout" => Some(status::STOPPED),
        _ => None,
    }
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
