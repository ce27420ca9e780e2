//! The outcome of a command: its row in `control_log`, and the answer on the ack channel.

use serde_json::{Value, json, value::RawValue};

use crate::{event::ControlRow, frame::Receipt, render, wire::ReceivedCommand};

pub(super) fn result_row(job: &ReceivedCommand, receipt: &Receipt) -> ControlRow {
    let row = job.command.row(&job.channel, &job.payload, job.received_at, &receipt.instance);
    ControlRow { outcome: Some(receipt.outcome.as_str().to_owned()), ..row }
}

/// The answer as published. `detail` is text, or an object where it is one (the answer to `status`).
pub(super) fn receipt_json(receipt: &Receipt) -> String {
    let object = receipt.detail.starts_with('{').then(|| RawValue::from_string(receipt.detail.clone()).ok()).flatten();
    let detail = match &object {
        Some(raw) => serde_json::from_str(raw.get()).unwrap_or(Value::Null),
        None => Value::String(receipt.detail.clone()),
    };
    json!({
        "id": receipt.id,
        "command": receipt.command,
        "target": receipt.target,
        "instance": receipt.instance,
        "outcome": receipt.outcome.as_str(),
        "detail": detail,
        "received_at": render::time(receipt.received_at),
        "took_ms": receipt.took_ms,
    })
    .to_string()
}
