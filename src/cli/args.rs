//! Values of arguments.

use crate::{
    render,
    units::{self, Micros},
};

/// A number of rows: at least one.
///
/// # Errors
/// When it is no number, or zero.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(|| "it must be a whole number, at least 1".into())
}

/// A key and its value, as `--set` takes them.
///
/// # Errors
/// When there is no `=`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it like KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// A moment: a time in any form of a message, or how long ago it was, such as `1h`.
///
/// # Errors
/// When it is neither.
pub fn moment(text: &str) -> Result<Micros, String> {
    match units::parse_duration(text) {
        Ok(ago) => Ok(units::now() - Micros::try_from(ago.as_micros()).unwrap_or(Micros::MAX)),
        Err(_) => {
            render::parse_time(text).map_err(|error| format!("{error}, or how long ago it was, like 90s, 1h or 7d"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_rows_is_at_least_one() {
        assert_eq!(at_least_one("7"), Ok(7));
        for text in ["0", "-1", "many", "1.5", ""] {
            assert!(at_least_one(text).unwrap_err().contains("at least 1"), "{text}");
        }
    }

    #[test]
    fn a_moment_is_a_time_or_an_age() {
        for (text, seconds) in [("90s", 90), ("1h", 3_600), ("7d", 7 * 86_400), ("0s", 0)] {
            let ago = units::now() - moment(text).unwrap();
            assert!(((seconds - 1) * 1_000_000..(seconds + 1) * 1_000_000).contains(&ago), "{text}: {ago}");
        }
        assert_eq!(moment("2026-11-20T10:15:00Z"), render::parse_time("2026-11-20T10:15:00Z"));
        assert_eq!(moment("1763633700").unwrap(), 1_763_633_700_000_000);
        for text in ["", "yesterday", "1 hour", "-1h", "1h30m", "9999999999999999d"] {
            assert!(moment(text).is_err_and(|error| error.contains("1h")), "{text}");
        }
    }
}
