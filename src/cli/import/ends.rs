//! The ends of imported runs: a table of metrics does not say that its run is over, and without an end the run would be `stale`.
//!
//! An end has the time of the last row of its run, so that the same file gives the same end.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::time::{Duration, sleep, timeout};
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

/// How long the end of the last run is waited for: a daemon that is paused, or whose store is away, does not write it.
const ENDED_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked for.
const ENDED_POLL: Duration = Duration::from_millis(50);

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
        let (mut uploader, mut sent, mut last) = (Uploader::new(client), Report::default(), None);
        for (run, at) in &self.0 {
            if last_event(client, *run).await.is_some_and(|newest| newest > *at) {
                continue;
            }
            let end =
                json!({ "type": "training_end", "run_id": run, "timestamp": render::time(*at), "status": status });
            uploader.push(Message { line: 0, json: end.to_string() }, &mut sent).await?;
            last = Some(*run);
        }
        uploader.flush(&mut sent).await?;
        report.ended = sent.accepted;
        report.end_status = status.to_owned();
        if let Some(run) = last {
            wait_until_ended(client, run).await;
        }
        Ok(())
    }
}

/// Waits until the row of the run says that it has ended, so that `runs` shows it; for [`ENDED_WAIT`] at most.
async fn wait_until_ended(client: &QueryClient, run: Uuid) {
    let ended = async {
        loop {
            match client.json(&format!("/api/runs/{run}?limit=0&count=none")).await {
                Ok(answer) if !answer["run"]["end_time"].is_null() => return,
                // It is not listed yet.
                Ok(_) | Err(CliError::NegativeAnswer(_)) => sleep(ENDED_POLL).await,
                // A token that only publishes may not ask.
                Err(_) => return,
            }
        }
    };
    let _ = timeout(ENDED_WAIT, ended).await;
}

/// The newest event of a run that the daemon has; a token that only publishes may not ask.
async fn last_event(client: &QueryClient, run: Uuid) -> Option<Micros> {
    let answer = client.json(&format!("/api/runs/{run}?limit=0&count=none")).await.ok()?;
    render::parse_time(answer["run"]["last_event_time"].as_str()?).ok()
}
