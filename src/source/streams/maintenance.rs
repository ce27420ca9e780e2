//! The maintenance of the group: asks for its lag and for what was trimmed, claims entries of dead consumers, removes consumers that are
//! gone.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    commands::{Commands, StreamError},
    deleted_entries::DeletedBatch,
    reply::{Entry, Snapshot},
    report::{Reporter, Trimmed},
};
use crate::event::EntryId;

/// A consumer without entries is removed after so many times `redis.claim_after`.
const REMOVE_AFTER_TIMES: u32 = 10;
/// Dead consumers are looked for this often within `redis.claim_after`.
const CLAIM_CHECKS: u32 = 4;

/// When dead consumers are looked for, and where claiming goes on.
pub(super) struct ClaimSchedule {
    after: Duration,
    next: Instant,
    from: EntryId,
}

/// What is to be claimed now.
pub(super) struct ClaimTask {
    after: Duration,
    from: EntryId,
    count: usize,
}

/// What was found.
#[derive(Default)]
pub(super) struct MaintenanceResult {
    pub(super) snapshot: Option<Snapshot>,
    pub(super) trimmed: Trimmed,
    pub(super) claimed: Vec<Entry>,
    /// Where claiming goes on; absent: everything was looked at.
    pub(super) next: Option<EntryId>,
    /// Pending entries of dead consumers that are no longer there, and are not counted in Redis.
    pub(super) gone: u64,
    /// Own pending entries that were acknowledged: they are no longer there, and on disk.
    pub(super) acknowledged: u64,
    /// The same that are neither on disk nor reported yet.
    pub(super) unreported: Vec<EntryId>,
    pub(super) removed: Vec<String>,
    /// What could not be done.
    pub(super) refused: Option<String>,
}

impl ClaimSchedule {
    pub(super) fn new(after: Duration) -> Self {
        Self { after, next: Instant::now(), from: EntryId::default() }
    }

    /// What is due while there is room for so many entries.
    pub(super) fn due(&mut self, count: usize) -> Option<ClaimTask> {
        let now = Instant::now();
        if count == 0 || now < self.next {
            return None;
        }
        self.next = now + self.after / CLAIM_CHECKS;
        Some(ClaimTask { after: self.after, from: self.from, count })
    }

    /// Where it goes on; `None`: everything was looked at.
    pub(super) fn go_on(&mut self, next: Option<EntryId>) {
        self.from = next.unwrap_or_default();
        if next.is_some() {
            self.next = Instant::now();
        }
    }
}

/// What one round of maintenance has to do.
pub(super) struct MaintenanceTask {
    pub(super) reporter: Reporter,
    /// Own pending entries that are no longer in the stream.
    pub(super) deleted: DeletedBatch,
    pub(super) due: Option<ClaimTask>,
}

/// Asks for the state of the stream, reports what was trimmed, and claims what is due.
pub(super) async fn maintain(commands: Commands, task: MaintenanceTask) -> Result<MaintenanceResult, StreamError> {
    let mut found = MaintenanceResult::default();
    match find(&commands, task, &mut found).await {
        // Reading goes on without it.
        Err(StreamError::Refused(refusal)) => found.refused = Some(refusal.to_string()),
        Err(StreamError::Answer(words)) => found.refused = Some(words),
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    Ok(found)
}

async fn find(commands: &Commands, task: MaintenanceTask, found: &mut MaintenanceResult) -> Result<(), StreamError> {
    let MaintenanceTask { reporter, deleted, due } = task;
    let reported = match reporter.acknowledge_deleted(commands, &deleted).await {
        Ok(reported) => reported,
        Err(error) => {
            found.unreported = [deleted.durable, deleted.lost].concat();
            return Err(error);
        }
    };
    found.acknowledged = deleted.durable.len() as u64;
    if !reported {
        found.unreported = deleted.lost;
    }
    found.snapshot = commands.snapshot().await?;
    if let Some(snapshot) = &found.snapshot {
        found.trimmed = reporter.report(commands, snapshot).await;
    }
    let (Some(due), Some(snapshot)) = (due, &found.snapshot) else { return Ok(()) };
    let idle_for = |idle_ms: u64, times: u32| Duration::from_millis(idle_ms) >= due.after * times;
    let consumers = commands.consumers().await?;
    let others = consumers.into_iter().filter(|other| other.name != commands.consumer);
    let (mut has_dead, mut gone) = (false, Vec::new());
    for other in others.filter(|other| idle_for(other.idle_ms, 1)) {
        has_dead |= other.pending > 0;
        if other.pending == 0 && idle_for(other.idle_ms, REMOVE_AFTER_TIMES) {
            gone.push(other.name);
        }
    }
    for name in gone {
        commands.remove_consumer(&name, snapshot).await?;
        found.removed.push(name);
    }
    if has_dead || due.from != EntryId::default() {
        let claimed = commands.claim(due.after, due.from, due.count).await?;
        found.next = Some(claimed.next).filter(|next| *next != EntryId::default());
        (found.claimed, found.gone) = (claimed.entries, claimed.deleted);
    }
    Ok(())
}
