//! The ends of imported runs: a table of metrics does not say that its run is over, and without an end the run would be `stale`.
//!
//! An end has the time of the last row of its run, so that the same file gives the same end.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::{
    report::Report,
    upload::{Message, Uploader},
};
use crate::{
    cli::{CliError, ask::QueryClient},
    event::status,
    render,
    units::Micros,
};

/// The runs to end, each with the time of its last row.
#[derive(Debug, Default)]
pub struct Ends(BTreeMap<Uuid, Micros>);

impl Ends {
    /// Notes a row of a run.
    pub fn note(&mut self, run: Uuid, at: Micros) {
        let last = self.0.entry(run).or_insert(at);
        *last = at.max(*last);
    }

    /// Ends the runs with this status, and counts them. A run that has newer events than the files goes on, or has ended by itself.
    ///
    /// # Errors
    /// When the daemon does not answer, or has no room for too long.
    pub async fn send(&self, client: &QueryClient, status: &str, report: &mut Report) -> Result<(), CliError> {
        if status == status::RUNNING || report.accepted == 0 {
            return Ok(());
        }
        let (mut uploader, mut sent) = (Uploader::new(client), Report::default());
        for (run, at) in &self.0 {
            if last_event(client, *run).await.is_some_and(|newest| newest > *at) {
                continue;
            }
            let end =
                json!({ "type": "training_end", "run_id": run, "timestamp": render::time(*at), "status": status });
            uploader.push(Message { line: 0, json: end.to_string() }, &mut sent).await?;
        }
        uploader.flush(&mut sent).await?;
        report.ended = sent.accepted;
        report.end_status = status.to_owned();
        Ok(())
    }
}

/// The newest event of a run that the daemon has; a token that only publishes may not ask.
async fn last_event(client: &QueryClient, run: Uuid) -> Option<Micros> {
    let answer = client.json(&format!("/api/runs/{run}?limit=0&count=none")).await.ok()?;
    render::parse_time(answer["run"]["last_event_time"].as_str()?).ok()
}
