//! Values of arguments.

/// A number of rows: at least one.
///
/// # Errors
/// When it is no number, or zero.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("at least 1".into()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

/// A key and its value, as `--set` takes them.
///
/// # Errors
/// When there is no `=`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it like KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
