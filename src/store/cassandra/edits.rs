//! `run_edits`: what people changed of a run.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use scylla::{
    statement::batch::{Batch, BatchStatement, BatchType},
    value::{CqlTimestamp, MaybeUnset},
};
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use super::{
    CassandraStore, errors, pages::collect, row_columns::Read, session::LiveSession, statements::EditStatements, time,
};
use crate::{
    event::RunEdit,
    store::{BoxFuture, EditStore, NAMED_RUNS_MAX, StoreError},
};

/// Edits of one request.
const READ_CHUNK: usize = 100;
/// How long a found name is remembered: finding it reads all edits.
const NAME_TTL: Duration = Duration::from_secs(2);
/// Maximum names that are remembered.
const NAMES_MAX: usize = 256;

/// Runs by the name that people gave them, as found last. One search at a time: it reads the whole table.
pub(super) type GivenNames = Mutex<HashMap<String, (Instant, Vec<Uuid>)>>;

/// Both statements are of one partition, so that the batch is one mutation: it is applied whole, with one time.
async fn write(live: &LiveSession, change: &RunEdit) -> Result<(), StoreError> {
    let EditStatements { change_columns, change_tags, .. } = &live.statements.edit;
    let statements = [change_columns, change_tags].map(|statement| BatchStatement::from(statement.clone()));
    let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements.to_vec());
    batch.set_is_idempotent(true);
    if let Some(consistency) = change_columns.get_consistency() {
        batch.set_consistency(consistency);
    }
    let text = |text| MaybeUnset::from_option(Option::as_deref(text));
    let (add, remove) = (tags(&change.add_tags), tags(&change.remove_tags));
    let edited_at: MaybeUnset<CqlTimestamp> = MaybeUnset::from_option(change.edited_at.map(time::cql));
    let columns = (
        text(&change.display_name),
        text(&change.notes),
        &add,
        &add,
        MaybeUnset::from_option(change.archived),
        edited_at,
        text(&change.edited_by),
        change.run_id,
    );
    let values = (columns, (&remove, &remove, change.run_id));
    live.session.batch(&batch, values).await.map(drop).map_err(errors::store_error)
}

fn tags(tags: &BTreeSet<String>) -> MaybeUnset<&BTreeSet<String>> {
    if tags.is_empty() { MaybeUnset::Unset } else { MaybeUnset::Set(tags) }
}

pub(super) async fn read(live: &LiveSession, runs: &[Uuid]) -> Result<Vec<RunEdit>, StoreError> {
    let mut all = Vec::new();
    for some in runs.chunks(READ_CHUNK) {
        let edits =
            collect(live, &live.statements.edit.read, (some,), usize::MAX, |Read(edit): Read<RunEdit>| edit).await?;
        all.extend(edits);
    }
    Ok(all)
}

impl EditStore for CassandraStore {
    fn write_edit<'a>(&'a self, change: &'a RunEdit) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async {
            let written = self.call("write_edit", async |live| write(live, change).await).await;
            self.given_names.lock().await.clear();
            written
        })
    }

    fn read_edits<'a>(&'a self, runs: &'a [Uuid]) -> BoxFuture<'a, Result<Vec<RunEdit>, StoreError>> {
        Box::pin(self.call("read_edits", async move |live| read(live, runs).await))
    }

    fn runs_named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Uuid>, StoreError>> {
        Box::pin(async move {
            let mut names = self.given_names.lock().await;
            names.retain(|_, (found_at, _)| found_at.elapsed() < NAME_TTL);
            if let Some((_, runs)) = names.get(name) {
                return Ok(runs.clone());
            }
            let values = (name, NAMED_RUNS_MAX as i32);
            let search = async |live: &LiveSession| {
                collect(live, &live.statements.edit.named, values, NAMED_RUNS_MAX, |(run_id,): (Uuid,)| run_id).await
            };
            let runs = self.call("runs_named", search).await?;
            if names.len() < NAMES_MAX {
                names.insert(name.to_owned(), (Instant::now(), runs.clone()));
            }
            Ok(runs)
        })
    }
}
