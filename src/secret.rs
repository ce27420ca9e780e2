//! Text that must never be logged, printed or put into an error.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, Serializer};

/// Why the file that a key of the settings names gives no secret.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SecretFileError {
    #[error("`{key}`: `{}` cannot be read", .path.display())]
    Read {
        key: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("`{key}`: `{}` is empty", .path.display())]
    Empty { key: &'static str, path: PathBuf },
}

/// A password. Shows itself only through [`expose`](Self::expose).
///
/// Blanks and line ends around it are cut by every way of making one: a secret that was written with `echo` ends in a line end,
/// whether it comes from a file, a variable or a URL.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(text.as_ref().trim().to_owned())
    }

    /// Reads the file that holds a secret.
    ///
    /// # Errors
    /// When it cannot be read or is no UTF-8.
    pub fn read(path: &Path) -> io::Result<Self> {
        fs::read_to_string(path).map(Self::new)
    }

    /// The secret that a connection logs in with: that of the file, read now, so that one that was replaced counts from the next
    /// connection on; without a file the text of the settings.
    ///
    /// # Errors
    /// When the file cannot be read, is no UTF-8, or holds nothing.
    pub fn of(key: &'static str, file: Option<&Path>, text: Option<&Self>) -> Result<Option<Self>, SecretFileError> {
        let Some(path) = file else { return Ok(text.cloned()) };
        let secret = Self::read(path).map_err(|error| SecretFileError::Read { key, path: path.to_owned(), error })?;
        if secret.is_empty() {
            return Err(SecretFileError::Empty { key, path: path.to_owned() });
        }
        Ok(Some(secret))
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_line_ends_around_a_secret_are_cut_and_those_inside_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        for (text, secret) in [
            ("secret\n", "secret"),
            ("secret\r\n\r\n", "secret"),
            (" \tsecret \n", "secret"),
            ("open  sesame", "open  sesame"),
            ("\n \n", ""),
        ] {
            fs::write(&file, text).unwrap();
            let parsed: Secret = serde_json::from_value(text.into()).unwrap();
            for made in [Secret::new(text), Secret::read(&file).unwrap(), parsed] {
                assert_eq!((made.expose(), made.is_empty()), (secret, secret.is_empty()), "{text:?}");
            }
        }
    }
}
