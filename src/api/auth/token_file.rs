//! The file of tokens: its lines, and its permissions.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{scope::Scope, token::Token};
use crate::tls::sha256;

/// Minimum length of a secret; a shorter one could be guessed.
const TOKEN_LENGTH_MIN: usize = 16;
/// Maximum length of a name.
const NAME_MAX: usize = 64;
/// Scopes that a token may have.
const SCOPES: [Scope; 3] = [Scope::Read, Scope::Publish, Scope::Admin];

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TokensError {
    #[error("`{}` cannot be read: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("`{}`, line {line}: {what}", .path.display())]
    Line { path: PathBuf, line: usize, what: &'static str },
    #[error("`{}` holds no token; `cascor-ingest token new NAME admin` makes a line, and without the key there are none", .path.display())]
    Empty { path: PathBuf },
    #[error("`http.tokens_file` was `{}` and is not set any more; restart to run without tokens", .path.display())]
    Unset { path: PathBuf },
}

/// Whether this can be the name of a token: it becomes part of lines, of rows and of the log.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control();
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('#') && name.chars().all(plain)
}

/// A problem of the permissions of a file that holds a secret, if any.
///
/// A group other than root's may read a file of another owner, or of root: a Kubernetes Secret under `fsGroup` is
/// `root:<group> 0440`.
pub fn loose_permissions(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let is_shared_by_root = metadata.uid() == 0 && metadata.gid() != 0;
    let own = metadata.uid() == rustix::process::geteuid().as_raw() && !is_shared_by_root;
    let what = match metadata.mode() & 0o077 {
        mode if mode & 0o002 != 0 => "written by every user of this machine",
        mode if mode & 0o004 != 0 => "read by every user of this machine",
        mode if mode & 0o020 != 0 => "written by its group",
        mode if mode & 0o040 != 0 && own => "read by its group",
        _ => return None,
    };
    let mode = metadata.mode() & 0o7777;
    Some(format!("`{}` (mode {mode:04o}) can be {what}; `chmod 600` keeps it to its owner", path.display()))
}

/// The tokens of a file.
///
/// # Errors
/// When it cannot be read, or a line is invalid.
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
        if !is_name(name) {
            return Err(wrong("its name has more than 64 bytes, or control characters"));
        }
        let Some(scope) = SCOPES.into_iter().find(|known| known.name() == scope) else {
            return Err(wrong("the second word must be `read`, `publish` or `admin`"));
        };
        if secret.len() < TOKEN_LENGTH_MIN {
            return Err(wrong("the token is shorter than 16 characters"));
        }
        if !names.insert(name) {
            return Err(wrong("its name is used twice"));
        }
        tokens.push(Token { name: name.to_owned(), scope, digest: sha256(secret.as_bytes()) });
    }
    if tokens.is_empty() { Err(TokensError::Empty { path: path.to_owned() }) } else { Ok(tokens) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn an_error_names_the_line_and_never_its_content() {
        for (text, line) in [
            ("ann admin 0123456789abcdef extra", 1),
            ("\nann root 0123456789abcdef", 2),
            ("ann open 0123456789abcdef", 1),
            ("ann sign_in 0123456789abcdef", 1),
            ("a\u{7}nn admin 0123456789abcdef", 1),
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
    fn permissions_are_loose_for_others_and_for_the_group_of_an_own_file() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, path) = file("");
        for (mode, what) in [
            (0o600, None),
            (0o400, None),
            (0o640, Some("read by its group")),
            (0o660, Some("written by its group")),
            (0o604, Some("read by every user")),
            (0o622, Some("written by every user")),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let problem = loose_permissions(&path);
            assert_eq!(problem.is_some(), what.is_some(), "{mode:o}");
            let named = problem
                .is_none_or(|problem| problem.contains(what.unwrap()) && problem.contains(&format!("{mode:04o}")));
            assert!(named, "{mode:o}");
        }
    }
}
