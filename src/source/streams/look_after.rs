//! Asks for what is to be looked after in the group: its lag, what was trimmed, the entries of dead consumers, consumers that are gone.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    commands::{Commands, Trouble},
    reply::{Entry, Snapshot},
    trimmed::{Missing, missing},
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

/// What is known of trimmed entries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Trimmed {
    /// The snapshot does not tell.
    #[default]
    Unknown,
    /// So many have to be reported by this daemon.
    Report(Missing),
    /// So many were trimmed by now; the daemons cannot agree which of them reports that.
    Alone(Missing),
}

/// Compares with what the daemons of the group have reported.
pub(super) async fn trimmed_of(commands: &Commands, snapshot: &Snapshot) -> Trimmed {
    let Some(found) = missing(snapshot) else { return Trimmed::Unknown };
    match commands.report(found.entries).await {
        Ok(entries) => Trimmed::Report(Missing { entries, ..found }),
        Err(Trouble::Refused(_)) => Trimmed::Alone(Missing { exact: false, ..found }),
        // The next look tells.
        Err(_) => Trimmed::Unknown,
    }
}

/// What was found.
#[derive(Default)]
pub(super) struct Upkeep {
    pub(super) snapshot: Option<Snapshot>,
    pub(super) trimmed: Trimmed,
    pub(super) claimed: Vec<Entry>,
    /// Where the claiming goes on; absent: everything was looked at.
    pub(super) next: Option<EntryId>,
    /// Pending entries that are no longer there.
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

/// Asks for the state of the stream, and claims what is due.
pub(super) async fn look_after(commands: Commands, due: Option<Due>) -> Result<Upkeep, Trouble> {
    let mut found = Upkeep::default();
    match find(&commands, due, &mut found).await {
        // Reading goes on without it.
        Err(Trouble::Refused(refusal)) => found.refused = Some(refusal.to_string()),
        Err(Trouble::Answer(words)) => found.refused = Some(words),
        Err(trouble) => return Err(trouble),
        Ok(()) => {}
    }
    Ok(found)
}

async fn find(commands: &Commands, due: Option<Due>, found: &mut Upkeep) -> Result<(), Trouble> {
    found.snapshot = commands.look().await?;
    if let Some(snapshot) = &found.snapshot {
        found.trimmed = trimmed_of(commands, snapshot).await;
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
