//! Environment variables of this program: `CASCOR_INGEST__SPOOL__CAPACITY` is `spool.capacity`.
//!
//! A variable that looks like one of them, but is none, is a problem. Any other name that begins like them has no effect, and is a
//! warning; the variables that Kubernetes makes for a service of the program's name are not even that.

use std::collections::BTreeMap;

use super::{layers::Layers, precedence::Precedence};

/// Prefix of the environment variables that set a key: `CASCOR_INGEST__SPOOL__CAPACITY` is `spool.capacity`.
pub const ENV_PREFIX: &str = "CASCOR_INGEST__";
/// What the names of all variables of the program begin with.
const PROGRAM: &str = "CASCOR_INGEST_";
/// Variables that set no key: the command line reads them, and the build (`COMMIT`).
const OTHERS: [&str; 5] = ["CONFIG", "URL", "TOKEN", "TOKEN_FILE", "COMMIT"];

/// Sets the keys that these variables name.
pub fn apply(env: &BTreeMap<String, String>, layers: &mut Layers) {
    for (name, text) in env {
        if let Some(key) = name.strip_prefix(ENV_PREFIX) {
            let key = key.to_ascii_lowercase().replace("__", ".");
            layers.set_text(&key, text, Precedence::Environment, &format!("environment variable {name}"));
        } else if let Some(rest) = name.strip_prefix(PROGRAM)
            && !OTHERS.contains(&rest)
        {
            let is_made = is_service_link(rest);
            match meant(rest, layers) {
                Some((distance, known)) if distance == 0 || !is_made => {
                    layers.problem(format!("environment variable {name} sets nothing; did you mean {known}?"));
                }
                _ if is_made => {}
                _ => layers.warn(format!(
                    "environment variable {name} sets nothing: a key like `spool.capacity` is set by {ENV_PREFIX}SPOOL__CAPACITY"
                )),
            }
        }
    }
}

/// The variable whose name this nearly is, dots and underscores aside, and how far from it this is.
fn meant(rest: &str, layers: &Layers) -> Option<(usize, String)> {
    let words = |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "");
    let others = OTHERS.iter().map(|name| (words(name), format!("{PROGRAM}{name}")));
    let keys = layers.keys().into_iter().map(|key| {
        let variable = key.replace('.', "__").to_ascii_uppercase();
        (words(&key), format!("{ENV_PREFIX}{variable}"))
    });
    let distance = |(known, variable): (String, String)| {
        let distance = strsim::damerau_levenshtein(&known, &words(rest));
        (distance <= (known.len() / 4).min(2)).then_some((distance, variable))
    };
    keys.chain(others).filter_map(distance).min()
}

/// Whether Kubernetes makes a variable of this name for a service whose name begins with that of the program.
fn is_service_link(rest: &str) -> bool {
    let ends = |name: &str| rest == name || rest.ends_with(&format!("_{name}"));
    let has = |name: &str| rest.starts_with(name) || rest.contains(&format!("_{name}"));
    ends("SERVICE_HOST") || has("SERVICE_PORT") || ends("PORT") || (has("PORT_") && (has("TCP") || has("UDP")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(name: &str) -> (Vec<String>, Vec<String>) {
        let mut layers = Layers::new();
        apply(&BTreeMap::from([(name.to_owned(), "1GiB".to_owned())]), &mut layers);
        let (_, problems, warnings) = layers.finish();
        (problems, warnings)
    }

    #[test]
    fn a_name_that_is_nearly_one_of_ours_is_a_problem() {
        for (name, meant) in [
            ("CASCOR_INGEST_SPOOL__CAPACITY", "CASCOR_INGEST__SPOOL__CAPACITY"),
            ("CASCOR_INGEST_SPOOL_CAPACITY", "CASCOR_INGEST__SPOOL__CAPACITY"),
            ("CASCOR_INGEST_SPOOL_CAPACTY", "CASCOR_INGEST__SPOOL__CAPACITY"),
            ("CASCOR_INGEST_STORE_CASSANDRA_PORT", "CASCOR_INGEST__STORE__CASSANDRA__PORT"),
            ("CASCOR_INGEST_STATE_DIR", "CASCOR_INGEST__STATE_DIR"),
            ("CASCOR_INGEST_REDIS_PASSWORD_FILE", "CASCOR_INGEST__REDIS__PASSWORD_FILE"),
            ("CASCOR_INGEST_TOKENFILE", "CASCOR_INGEST_TOKEN_FILE"),
        ] {
            let (problems, warnings) = applied(name);
            assert_eq!(problems, [format!("environment variable {name} sets nothing; did you mean {meant}?")]);
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }

    #[test]
    fn a_foreign_name_is_a_warning_unless_the_platform_makes_it() {
        let (problems, warnings) = applied("CASCOR_INGEST_IMAGE");
        assert!(problems.is_empty() && warnings.len() == 1, "{problems:?} {warnings:?}");
        assert!(warnings[0].contains("CASCOR_INGEST_IMAGE sets nothing"), "{warnings:?}");
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_8050_TCP",
            "PORT_8050_TCP_ADDR",
            "HEADLESS_SERVICE_HOST",
            "HTTP_PORT_8050_TCP_PROTO",
            "CONFIG",
            "URL",
            "TOKEN",
            "TOKEN_FILE",
        ] {
            assert_eq!(applied(&format!("CASCOR_INGEST_{name}")), (vec![], vec![]), "{name}");
        }
        assert_eq!(applied("CASCOR_INGEST__SPOOL__CAPACITY"), (vec![], vec![]));
    }
}
