//! Tokens: who may read, who may change. They come from a file, are kept as digests, and compared in constant time.
//!
//! A line of the file is `name scope token`: a name for people, `read` or `admin`, and the secret. Empty lines and what follows
//! a `#` at the start of a line are passed over. An error names the line and never what it holds.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use super::{Scope, error::ApiError, session::Sessions};
use crate::tls::{hex, sha256};

/// A secret that is shorter could be guessed.
const LENGTH_MIN: usize = 16;
/// Wrong tokens at the sign-in within [`WINDOW`], before it is closed for the rest of it.
const WRONG_MAX: u32 = 20;
/// See [`WRONG_MAX`].
const WINDOW: Duration = Duration::from_secs(60);

/// A digest of a secret.
pub type Digest = [u8; 32];

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// For people: in the log, on the dashboard.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// Of the secret.
    pub digest: Digest,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TokensError {
    #[error("`{}` cannot be read: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("`{}`, line {line}: {what}", .path.display())]
    Line { path: PathBuf, line: usize, what: &'static str },
}

/// The tokens of a file.
///
/// # Errors
/// When it cannot be read, or a line is none of a token.
pub fn read(path: &Path) -> Result<Vec<Token>, TokensError> {
    let text = fs::read_to_string(path).map_err(|error| TokensError::Read { path: path.to_owned(), error })?;
    let (mut tokens, mut names) = (Vec::new(), BTreeSet::new());
    for (n, line) in text.lines().enumerate() {
        let wrong = |what| TokensError::Line { path: path.to_owned(), line: n + 1, what };
        let words: Vec<_> = line.split_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let &[name, scope, secret] = words.as_slice() else {
            return Err(wrong("write it like `name scope token`, without spaces in any of them"));
        };
        let scope = match scope {
            "read" => Scope::Read,
            "admin" => Scope::Admin,
            _ => return Err(wrong("the second word must be `read` or `admin`")),
        };
        if secret.len() < LENGTH_MIN {
            return Err(wrong("the token is shorter than 16 characters"));
        }
        if !names.insert(name) {
            return Err(wrong("its name is there twice"));
        }
        tokens.push(Token { name: name.to_owned(), scope, digest: sha256(secret.as_bytes()) });
    }
    Ok(tokens)
}

/// Equal or not, in the same time either way.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differing) == 0
}

/// Everybody who may come in, and those who have.
#[derive(Debug, Default)]
pub struct Keyring {
    tokens: RwLock<Arc<Vec<Token>>>,
    sessions: Option<Sessions>,
    wrong: Mutex<Option<(Instant, u32)>>,
}

impl Keyring {
    /// Without a token so far.
    pub fn new(sessions: Sessions) -> Self {
        Self { sessions: Some(sessions), ..Self::default() }
    }

    /// Takes the tokens of a file in place of those before; no file: there are none. Returns how many.
    ///
    /// # Errors
    /// As [`read`]; those before stay.
    pub fn load(&self, path: Option<&Path>) -> Result<usize, TokensError> {
        let tokens = path.map(read).transpose()?.unwrap_or_default();
        let count = tokens.len();
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
        Ok(count)
    }

    fn tokens(&self) -> Arc<Vec<Token>> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there are tokens at all.
    pub fn is_used(&self) -> bool {
        !self.tokens().is_empty()
    }

    /// The token with this digest. Looks at all of them, whichever it is.
    pub fn with_digest(&self, digest: &[u8]) -> Option<Token> {
        self.tokens()
            .iter()
            .fold(None, |found, token| if same(&token.digest, digest) { Some(token.clone()) } else { found })
    }

    /// The same for a digest in hexadecimal digits.
    pub fn with_hex(&self, digest: &str) -> Option<Token> {
        self.tokens().iter().find(|token| same(hex(&token.digest).as_bytes(), digest.as_bytes())).cloned()
    }

    /// The token of this secret.
    pub fn with_secret(&self, secret: &str) -> Option<Token> {
        self.with_digest(&sha256(secret.as_bytes()))
    }

    /// The token that a request carries.
    ///
    /// # Errors
    /// 401 when it carries one that is none.
    pub fn bearer(&self, headers: &HeaderMap) -> Result<Option<Token>, ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let words = value.to_str().ok().and_then(|text| text.split_once(' '));
        let secret = words.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer")).map(|(_, secret)| secret.trim());
        let wrong = || ApiError::new(StatusCode::UNAUTHORIZED, "the token is not one of `http.tokens_file`");
        secret.and_then(|secret| self.with_secret(secret)).map(Some).ok_or_else(wrong)
    }

    /// Where sessions are.
    ///
    /// # Errors
    /// 503 in a process without Redis.
    pub fn sessions(&self) -> Result<&Sessions, ApiError> {
        self.sessions.as_ref().ok_or_else(|| ApiError::unavailable("there are no sessions without Redis"))
    }

    /// The token of a secret given at the sign-in.
    ///
    /// # Errors
    /// 401 for a wrong one, 429 after too many of them.
    pub fn admit(&self, secret: &str) -> Result<Token, ApiError> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, times) = wrong.filter(|(since, _)| since.elapsed() < WINDOW).unwrap_or((Instant::now(), 0));
        if times >= WRONG_MAX {
            let detail = "too many wrong tokens; try again in a minute";
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail));
        }
        self.with_secret(secret).ok_or_else(|| {
            *wrong = Some((since, times + 1));
            ApiError::new(StatusCode::UNAUTHORIZED, "the token is not one of `http.tokens_file`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_line_is_a_name_a_scope_and_a_secret() {
        let (_dir, path) = file("# ours\n\nann admin 0123456789abcdef\n bob\tread   fedcba9876543210 \n");
        let keys = Keyring::default();
        assert!(!keys.is_used());
        assert_eq!(keys.load(Some(&path)).unwrap(), 2);
        let of = |secret: &str| keys.with_secret(secret).map(|token| (token.name, token.scope));
        assert_eq!(of("0123456789abcdef"), Some(("ann".into(), Scope::Admin)));
        assert_eq!(of("fedcba9876543210"), Some(("bob".into(), Scope::Read)));
        assert_eq!((of("0123456789abcde"), of("")), (None, None));
        assert!(!format!("{keys:?}").contains("0123456789abcdef"));
        keys.load(None).unwrap();
        assert!(!keys.is_used());
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_never_shown() {
        for (text, line) in [
            ("ann admin 0123456789abcdef extra", 1),
            ("\nann root 0123456789abcdef", 2),
            ("ann read short", 1),
            ("ann read 0123456789abcdef\nann read fedcba9876543210", 2),
            ("0123456789abcdef", 1),
        ] {
            let (_dir, path) = file(text);
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}:")) && !error.contains("0123456789"), "{error}");
        }
        assert!(read(Path::new("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_the_tokens_as_they_are() {
        let (_dir, path) = file("ann admin 0123456789abcdef");
        let keys = Keyring::default();
        keys.load(Some(&path)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(keys.load(Some(&path)).is_err());
        assert!(keys.with_secret("0123456789abcdef").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_ends_after_some_tries() {
        let (_dir, path) = file("ann admin 0123456789abcdef");
        let keys = Keyring::default();
        keys.load(Some(&path)).unwrap();
        (0..WRONG_MAX).for_each(|_| assert!(keys.admit("wrong").is_err()));
        assert!(keys.admit("0123456789abcdef").is_err());
        tokio::time::advance(WINDOW).await;
        assert!(keys.admit("0123456789abcdef").is_ok());
    }
}
