//! Text without upper and lower case.

/// The text without upper and lower case, in any script.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // Upper case first: several lower-case letters may share one (σ and ς, ß and ss). The dot of İ is dropped, because an i has one.
    let upper = text.chars().map(|c| if c == 'İ' { 'i' } else { c }).flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}
