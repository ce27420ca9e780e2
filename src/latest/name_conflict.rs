//! Whether a daemon has its name for itself. Two of one name would overwrite each other's status, answer for each other, and
//! merge their gaps into the same rows; neither would notice from within.

use serde::Deserialize;
use tokio::time::{Duration, Instant};
use tracing::warn;

use crate::logging::Untrusted;

/// A conflict is over when the other daemon has not written for so long; both write every second.
const CONFLICT_TIMEOUT: Duration = Duration::from_secs(15);
/// Writes of the status for each of which the key is read once: reading it costs more than writing it.
const WRITES_PER_CHECK: u32 = 3;

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
    /// When another process was last found to have written.
    seen_at: Option<Instant>,
    warned: Option<Owner>,
    writes: u32,
}

impl NameConflict {
    /// Another process that keeps writing the same key. A status that does not change is only what an ended process has left there.
    fn other_owner(&mut self, ours: &str, found: &str) -> Option<Owner> {
        let owner = Owner::of(found).filter(|owner| Owner::of(ours).is_some_and(|us| us != *owner))?;
        let before = self.other_status.replace(found.to_owned());
        before.is_some_and(|before| before != found).then_some(owner)
    }

    /// Whether the key is to be read before this write.
    pub(super) fn is_due(&mut self) -> bool {
        self.writes = self.writes.wrapping_add(1);
        self.writes % WRITES_PER_CHECK == 1
    }

    /// Whether another daemon runs under the same name; warns of each, once.
    pub(super) fn check(&mut self, instance: &str, ours: &str, found: &str) -> bool {
        let now = Instant::now();
        if let Some(owner) = self.other_owner(ours, found) {
            self.seen_at = Some(now);
            self.warn_once(instance, owner);
        }
        self.seen_at.is_some_and(|at| now < at + CONFLICT_TIMEOUT)
    }

    fn warn_once(&mut self, instance: &str, owner: Owner) {
        if self.warned.as_ref() != Some(&owner) {
            warn!(
                instance,
                other = %Untrusted(owner.process.as_bytes()),
                other_started_at = %Untrusted(owner.started_at.as_bytes()),
                "another daemon runs under the same name, and both overwrite each other's status and gaps: set `instance` to a \
                 name of its own in one of them"
            );
            self.warned = Some(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(process: &str, at: u64) -> String {
        format!("{{\"process\":\"{process}\",\"started_at\":\"x\",\"at\":{at}}}")
    }

    #[tokio::test(start_paused = true)]
    async fn only_another_process_that_keeps_writing_is_a_conflict() {
        let ours = status("h:1", 0);
        for (name, found, conflict) in [
            ("ourselves", vec![status("h:1", 1), status("h:1", 2)], false),
            ("left behind by one that ended", vec![status("h:0", 1), status("h:0", 1), status("h:1", 2)], false),
            ("two that take turns", vec![status("h:2", 1), status("h:2", 2), status("h:2", 3)], true),
            ("with us in between", vec![status("h:2", 1), status("h:1", 2), status("h:2", 3)], true),
            ("one after the other", vec![status("h:2", 1), status("h:2", 2), status("h:3", 3)], true),
            ("no status of ours", vec!["1".into(), "{}".into(), String::new()], false),
        ] {
            let mut conflicts = NameConflict::default();
            let found = found.iter().filter(|found| conflicts.check("i", &ours, found)).count();
            assert_eq!(found > 0, conflict, "{name}");
            tokio::time::advance(CONFLICT_TIMEOUT).await;
            assert!(!conflicts.check("i", &ours, &ours), "{name}: it is over");
        }
    }
}
