//! The credentials that systemd hands to a service: a directory of files, each under a name that a unit gives it.

use std::{collections::BTreeMap, path::Path};

use super::{layers::Layers, precedence::Precedence, secrets};

/// Credentials that are no password, and the keys that they set.
const FILES: [(&str, &str); 2] = [("http-tokens", "http.tokens_file"), ("http-session-key", "http.session_key_file")];

/// Sets the key of each credential that is there to its file.
pub fn apply(env: &BTreeMap<String, String>, layers: &mut Layers) {
    let Some(directory) = env.get("CREDENTIALS_DIRECTORY") else { return };
    let passwords = secrets::slots().map(|slot| (slot.credential, format!("{}_file", slot.key)));
    let files = FILES.map(|(name, key)| (name, key.to_owned()));
    for (name, key) in passwords.into_iter().chain(files) {
        let path = Path::new(directory).join(name);
        if path.exists() {
            layers.set_text(&key, &path.to_string_lossy(), Precedence::Credentials, "credential");
        }
    }
}
