//! Stored rows as JSON, with the fields of their messages beside their columns, like the latest values in Redis.

use std::{fmt, io};

use serde::Serialize;
use serde_json::json;

use crate::{
    api::memory_budget::write_json,
    event::{EventKey, EventRow, Kind, Resolved, TopologyRow},
    memory::LARGE_VALUE,
    render::Json,
    wire::{self, Message},
};

/// Writes the row with the fields of its message beside its columns, like the value in Redis. In a large row `topology_json` is
/// empty if the fields contain it.
pub fn write_topology<W: fmt::Write + io::Write>(mut row: TopologyRow, out: &mut W) {
    let json = row.topology_json.clone();
    let message = wire::decode_accepted(json.as_bytes()).ok();
    if message.is_some() && json.len() >= LARGE_VALUE {
        row.topology_json = "".into();
    }
    let columns = [
        "run_id",
        "timestamp",
        "event_id",
        "epoch",
        "input_size",
        "output_size",
        "hidden_units",
        "total_parameters",
        "topology_json",
        "weights_summary",
        "input_units",
        "output_units",
    ];
    let sizes = format!(",\"input_units\":{},\"output_units\":{}", json!(row.input_size), json!(row.output_size));
    let more = message.as_ref().map(|message| Stored { message, key: &row.key, taken: &columns });
    write_row(&Json(&row), &sizes, more, out);
}

/// A stored message, and the names that its row has already.
struct Stored<'a> {
    message: &'a Message<'a>,
    key: &'a EventKey,
    taken: &'a [&'a str],
}

/// Writes a row as JSON with further members: `members` as text, and those of its message.
fn write_row<W: fmt::Write + io::Write>(row: &impl Serialize, members: &str, more: Option<Stored<'_>>, out: &mut W) {
    write_json(Unclosed { out: &mut *out, last: None }, row);
    let _ = fmt::Write::write_str(out, members);
    if let Some(Stored { message, key, taken }) = more {
        let (run_id, event_time) = (key.run_id, key.timestamp);
        let decided =
            Resolved { run_id, event_time, received_at: event_time, has_event_time: false, opened_run: false };
        wire::append_stored(message, &decided, taken, out);
    }
    let _ = fmt::Write::write_str(out, "}");
}

/// Writes all but the last byte: an object that is continued.
struct Unclosed<W> {
    out: W,
    last: Option<u8>,
}

impl<W: io::Write> io::Write for Unclosed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((last, before)) = bytes.split_last() else { return Ok(0) };
        self.out.write_all(self.last.replace(*last).as_slice())?;
        self.out.write_all(before)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn write_state<W: fmt::Write + io::Write>(row: &EventRow, out: &mut W) {
    let message = wire::decode_accepted(row.payload_json.as_bytes()).ok();
    let columns = ["run_id", "timestamp", "event_id", "type", "epoch", "payload_json"];
    let more = message.as_ref().map(|message| Stored { message, key: &row.key, taken: &columns });
    write_row(&Json(row), "", more, out);
}

/// Whether an event sets the state: its message is a state, a start or an end.
pub fn is_state(row: &EventRow) -> bool {
    let message = wire::decode_accepted(row.payload_json.as_bytes());
    message.is_ok_and(|message| matches!(message.kind(), Kind::State | Kind::RunStart | Kind::RunEnd))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;
    use crate::api::memory_budget::ChunkWriter;

    fn row(topology_json: &str) -> TopologyRow {
        TopologyRow {
            key: EventKey { run_id: Uuid::nil(), timestamp: 1, event_id: 2 },
            epoch: Some(7),
            input_size: Some(2),
            output_size: Some(1),
            hidden_units: None,
            total_parameters: None,
            topology_json: topology_json.into(),
            weights_summary: None,
        }
    }

    fn topology(row: TopologyRow) -> Vec<u8> {
        let (sender, mut chunks) = tokio::sync::mpsc::channel::<Bytes>(1_000);
        let mut out = ChunkWriter::new(sender);
        write_topology(row, &mut out);
        out.flush_blocking();
        drop(out);
        std::iter::from_fn(|| chunks.blocking_recv()).flatten().collect()
    }

    #[test]
    fn a_large_network_that_cannot_be_decoded_keeps_its_text() {
        let text = format!("[{}1]", "1,".repeat(LARGE_VALUE));
        let network: Value = serde_json::from_slice(&topology(row(&text))).unwrap();
        assert_eq!(network["topology_json"], text);
    }

    #[test]
    fn a_network_has_its_fields_and_a_large_one_has_them_once() {
        for (connections, twice) in [(3, true), (60_000, false)] {
            let links: Vec<_> = (0..connections).map(|n| json!({"from": n, "to": 0, "weight": 0.25})).collect();
            let message = json!({"type": "topology", "input_size": 2, "connections": links}).to_string();
            let text = topology(row(&message));
            assert!(twice || text.len() < message.len() + LARGE_VALUE / 4, "{connections} connections: {}", text.len());
            let network: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(network["topology_json"], if twice { message.as_str() } else { "" });
            assert_eq!(network["connections"].as_array().unwrap().len(), connections);
            let columns = (&network["epoch"], &network["input_size"], &network["output_units"]);
            assert_eq!(columns, (&json!(7), &json!(2), &json!(1)));
        }
    }
}
