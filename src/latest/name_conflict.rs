//! Whether a daemon has its name for itself. Two of one name would overwrite each other's status, answer for each other, and
//! merge their gaps into the same rows; neither would notice from within.

use serde::Deserialize;
use tracing::warn;

use crate::logging::Untrusted;

/// The fields of a status that identify its process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Owner {
    process: String,
    started_at: String,
}

impl Owner {
    fn of(status: &str) -> Option<Self> {
        serde_json::from_str(status).ok()
    }
}

/// Checks the status key before it is overwritten. Pure: the caller brings both texts.
#[derive(Debug, Default)]
pub(super) struct NameConflict {
    /// Another's text, as it was found last.
    other_status: Option<String>,
    warned: Option<Owner>,
}

impl NameConflict {
    /// Another process that keeps writing the same key, the first time it is seen. A status that does not change is only what an ended
    /// process has left there.
    fn other_owner(&mut self, ours: &str, found: &str) -> Option<Owner> {
        let owner = Owner::of(found).filter(|owner| Owner::of(ours).is_some_and(|us| us != *owner))?;
        let before = self.other_status.replace(found.to_owned());
        let changes = before.is_some_and(|before| before != found) && self.warned.as_ref() != Some(&owner);
        changes.then(|| self.warned.insert(owner).clone())
    }

    /// Warns of another daemon of the same name, once.
    pub(super) fn check(&mut self, instance: &str, ours: &str, found: &str) {
        if let Some(owner) = self.other_owner(ours, found) {
            warn!(
                instance,
                other = %Untrusted(owner.process.as_bytes()),
                other_started_at = %Untrusted(owner.started_at.as_bytes()),
                "another daemon runs under the same name, and both overwrite each other's status and gaps: set `instance` to a \
                 name of its own in one of them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(process: &str, at: u64) -> String {
        format!("{{\"process\":\"{process}\",\"started_at\":\"x\",\"at\":{at}}}")
    }

    #[test]
    fn only_another_process_that_keeps_writing_is_a_conflict() {
        let ours = status("h:1", 0);
        for (name, found, rivals) in [
            ("ourselves", vec![status("h:1", 1), status("h:1", 2)], 0),
            ("left behind by one that ended", vec![status("h:0", 1), status("h:0", 1), status("h:1", 2)], 0),
            ("two that take turns", vec![status("h:2", 1), status("h:2", 2), status("h:2", 3)], 1),
            ("with us in between", vec![status("h:2", 1), status("h:1", 2), status("h:2", 3)], 1),
            ("one after the other", vec![status("h:2", 1), status("h:2", 2), status("h:3", 3), status("h:3", 4)], 2),
            ("no status of ours", vec!["1".into(), "{}".into(), String::new()], 0),
        ] {
            let mut conflict = NameConflict::default();
            let told = found.iter().filter(|found| conflict.other_owner(&ours, found).is_some()).count();
            assert_eq!(told, rivals, "{name}");
        }
    }
}
