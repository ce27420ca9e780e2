//! Requests that change something, as rows of `control_log`: which token paused the daemon, or created, completed or changed a run.
//!
//! The source of such a row is `http:` and the name of the token, or `http` alone without one. A published command is also recorded
//! under its channel by each daemon that receives it, with the same id.

use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::targets::SubmitTargets;
use crate::{
    api::{auth::Caller, error::ApiError},
    event::ControlRow,
    units,
    wire::Command,
};

/// The row of a command that is about to be published.
fn command_row(caller: &Caller, instance: &str, command: &Command) -> ControlRow {
    command.row(&caller.source(), command.payload_json.as_bytes(), units::now(), instance)
}

/// The row of a change to a run, which has been made; `what` is `create_run` and the like.
pub fn change_row(caller: &Caller, instance: &str, what: &str, run: &Value) -> ControlRow {
    let payload_json = json!({ "command": what, "run_id": run }).to_string();
    let made = Command { command: what.to_owned(), payload_json, ..Command::default() };
    ControlRow { outcome: Some("done".into()), ..command_row(caller, instance, &made) }
}

impl SubmitTargets {
    /// Records the caller of a command that is about to be published. Without a pipeline there is only the log.
    pub fn record_command(&self, caller: &Caller, command: &Command) -> Result<Option<ControlRow>, ApiError> {
        let Some(intake) = &self.intake else { return Ok(None) };
        let row = command_row(caller, &intake.instance, command);
        intake.record(row.clone())?;
        Ok(Some(row))
    }

    /// Adds the outcome.
    pub fn record_outcome(&self, row: Option<ControlRow>, outcome: &str) {
        if let (Some(row), Some(intake)) = (row, &self.intake)
            && intake.record(ControlRow { outcome: Some(outcome.to_owned()), ..row }).is_err()
        {
            warn!("the outcome of a command is not recorded with its caller: intake does not take the row");
        }
    }

    /// Records the caller of a change to a run.
    pub fn record_change(&self, caller: &Caller, what: &'static str, run: &Value) {
        info!(what, %run, token = caller.name(), "a run is changed by HTTP");
        if let Some(intake) = &self.intake
            && intake.record(change_row(caller, &intake.instance, what, run)).is_err()
        {
            error!(what, %run, token = caller.name(), "the caller of a change to a run is recorded in this log alone: intake does not take the row");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::auth::{Scope, token::Token};

    #[test]
    fn a_row_names_the_token_or_none() {
        let token = Token { name: "ann".into(), scope: Scope::Admin, digest: [0; 32] };
        let ann = Caller { token: Some(token), session: None };
        let row = change_row(&ann, "a", "create_run", &"r1".into());
        assert_eq!(
            (row.source.as_str(), row.command.as_str(), row.outcome.as_deref()),
            ("http:ann", "create_run", Some("done"))
        );
        assert_eq!(row.payload_json, r#"{"command":"create_run","run_id":"r1"}"#);
        let pause = Command { command: "pause".into(), id: Some("7".into()), ..Command::default() };
        let row = command_row(&Caller::default(), "a", &pause);
        assert_eq!((row.source.as_str(), row.command_id.as_deref(), row.outcome), ("http", Some("7"), None));
    }
}
