//! Asks for what is to be looked after in the group: its lag, what was trimmed, the entries of dead consumers, consumers that are gone.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    commands::{Commands, Trouble},
    reply::{Entry, Snapshot},
    report::{Reporter, Trimmed},
};
use crate::event::EntryId;

/// A consumer without entries is removed after so many times `redis.claim_after`.
const REMOVE_TIMES: u32 = 10;
/// Dead consumers are looked for this often within `redis.claim_after`.
const LOOKS: u32 = 4;

/// When dead consumers are looked for, and where the claiming goes on.
pub(super) struct Claiming {
    after: Duration,
    next: Instant,
    from: EntryId,
}

/// What is to be claimed now.
pub(super) struct Due {
    after: Duration,
    from: EntryId,
    count: usize,
}

/// What was found.
#[derive(Default)]
pub(super) struct Upkeep {
    pub(super) snapshot: Option<Snapshot>,
    pub(super) trimmed: Trimmed,
    pub(super) claimed: Vec<Entry>,
    /// Where the claiming goes on; absent: everything was looked at.
    pub(super) next: Option<EntryId>,
    /// Pending entries that are no longer there, and are not counted in Redis.
    pub(super) gone: u64,
    pub(super) removed: Vec<String>,
    /// What could not be done.
    pub(super) refused: Option<String>,
}

impl Claiming {
    pub(super) fn new(after: Duration) -> Self {
        Self { after, next: Instant::now(), from: EntryId::default() }
    }

    /// What is due while there is room for so many entries.
    pub(super) fn due(&mut self, count: usize) -> Option<Due> {
        let now = Instant::now();
        if count == 0 || now < self.next {
            return None;
        }
        self.next = now + self.after / LOOKS;
        Some(Due { after: self.after, from: self.from, count })
    }

    /// Where it goes on; `None`: everything was looked at.
    pub(super) fn go_on(&mut self, next: Option<EntryId>) {
        self.from = next.unwrap_or_default();
        if next.is_some() {
            self.next = Instant::now();
        }
    }
}

/// What a look is to do.
pub(super) struct Task {
    pub(super) reporter: Reporter,
    /// Own pending entries that are no longer there.
    pub(super) gone: Vec<EntryId>,
    pub(super) due: Option<Due>,
}

/// Asks for the state of the stream, reports what was trimmed, and claims what is due.
pub(super) async fn look_after(commands: Commands, task: Task) -> Result<Upkeep, Trouble> {
    let mut found = Upkeep::default();
    match find(&commands, task, &mut found).await {
        // Reading goes on without it.
        Err(Trouble::Refused(refusal)) => found.refused = Some(refusal.to_string()),
        Err(Trouble::Answer(words)) => found.refused = Some(words),
        Err(trouble) => return Err(trouble),
        Ok(()) => {}
    }
    Ok(found)
}

async fn find(commands: &Commands, task: Task, found: &mut Upkeep) -> Result<(), Trouble> {
    let Task { reporter, gone, due } = task;
    reporter.let_go(commands, &gone).await?;
    found.snapshot = commands.look().await?;
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
        if other.pending == 0 && idle_for(other.idle_ms, REMOVE_TIMES) {
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
