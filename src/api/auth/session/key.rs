//! The key that sessions are signed with. It is in a file, never in Redis, so that access to Redis does not suffice to forge a
//! session.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use tracing::{error, warn};

use crate::{
    files,
    secret::Secret,
    tls::{hex, hmac_sha256, random, sha256},
};

/// Minimum length; a shorter key could be guessed.
const KEY_LENGTH_MIN: usize = 32;
/// Its name in the state directory.
const FILE_NAME: &str = "session.key";

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum KeyError {
    #[error("`{}` cannot be read: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("`{}` holds fewer than {KEY_LENGTH_MIN} characters; make a key with `openssl rand -hex 32`", .path.display())]
    Short { path: PathBuf },
}

/// The key; its `Debug` text hides it.
pub struct SessionKey([u8; 32]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl SessionKey {
    /// The key in a file, without the blanks and line ends around it.
    ///
    /// # Errors
    /// When the file cannot be read, or holds less than a key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = Secret::read(path).map_err(|error| KeyError::Read { path: path.to_owned(), error })?;
        if text.expose().len() < KEY_LENGTH_MIN {
            return Err(KeyError::Short { path: path.to_owned() });
        }
        Ok(Self(sha256(text.expose().as_bytes())))
    }

    /// The key of `http.session_key_file`, else that of the state directory, which is created at the first start. If neither can be
    /// used, a key of this process alone, with which its sessions end.
    pub fn load_or_create(file: Option<&Path>, state_dir: &Path) -> Self {
        let own = || {
            let path = state_dir.join(FILE_NAME);
            create(&path).map_err(|error| KeyError::Read { path: path.clone(), error })?;
            Self::read(&path)
        };
        file.map_or_else(own, Self::read).unwrap_or_else(|problem| {
            if file.is_some() {
                error!(%problem, "the session key cannot be used: sessions are of this process alone");
            } else {
                warn!(%problem, "no session key can be kept: sessions end with this process");
            }
            Self::ephemeral()
        })
    }

    /// A random key.
    pub fn ephemeral() -> Self {
        Self(random())
    }

    /// The signature of these parts for a purpose. The same bytes divided otherwise, or for another purpose, have another
    /// signature.
    pub fn sign(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut bytes = Vec::new();
        for part in [purpose.as_bytes()].iter().chain(parts) {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        hmac_sha256(&self.0, &bytes)
    }
}

/// Creates the file with a new key unless it exists. The file appears complete: if two processes create it at once, both read the
/// winner's.
fn create(path: &Path) -> io::Result<()> {
    if fs::exists(path)? {
        return Ok(());
    }
    let new = write_new(path, format!("{}\n", hex(&random())).as_bytes())?;
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Writes a new file beside `path`, readable by this user alone, under a random name, which cannot have been prepared.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let new = path.with_extension(format!("{}.new", &hex(&random())[..16]));
    let mut file = files::create_new(&new, 0o600)?;
    if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_all()) {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_of_the_state_directory_is_created_once_and_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (SessionKey::load_or_create(None, dir.path()), SessionKey::load_or_create(None, dir.path()));
        assert_eq!(one.sign("a", &[b"b"]), other.sign("a", &[b"b"]));
        let file = dir.path().join(FILE_NAME);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
        let elsewhere = tempfile::tempdir().unwrap();
        assert_ne!(SessionKey::load_or_create(None, elsewhere.path()).0, one.0);
        assert_eq!(SessionKey::load_or_create(Some(&file), elsewhere.path()).0, one.0, "a file that two share");
        assert!(!format!("{one:?}").contains(&hex(&one.0)[..8]));
    }

    #[test]
    fn an_unusable_key_is_replaced_by_a_random_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        for text in ["", " \n", "0123456789abcdef0123456789abcde\n"] {
            fs::write(&file, text).unwrap();
            assert!(matches!(SessionKey::read(&file), Err(KeyError::Short { .. })), "{text:?}");
            let (one, other) = (
                SessionKey::load_or_create(Some(&file), dir.path()),
                SessionKey::load_or_create(Some(&file), dir.path()),
            );
            assert_ne!(one.0, other.0);
        }
        fs::write(&file, " 0123456789abcdef0123456789abcdef\n\n").unwrap();
        assert_eq!(SessionKey::read(&file).unwrap().0, sha256(b"0123456789abcdef0123456789abcdef"));
        let missing = SessionKey::read(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
    }

    #[test]
    fn parts_divided_otherwise_or_for_another_purpose_are_signed_otherwise() {
        let key = SessionKey::ephemeral();
        let signed = key.sign("session", &[b"ab", b"c"]);
        assert_ne!(signed, key.sign("session", &[b"a", b"bc"]));
        assert_ne!(signed, key.sign("session", &[b"abc"]));
        assert_ne!(signed, key.sign("token", &[b"ab", b"c"]));
        assert_eq!(signed, key.sign("session", &[b"ab", b"c"]));
    }
}
