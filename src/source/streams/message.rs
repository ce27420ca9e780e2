//! The message in the fields of an entry. Pure.
//!
//! One field `data` or `payload` alone holds the message as it would be published. Otherwise each field is one of the message's keys:
//! `XADD key * epoch 5 loss 0.2`. Streams know only text, so a number is taken for one where it can be one.

use bytes::Bytes;
use serde_json::value::RawValue;

/// The fields that hold the whole message.
const WHOLE: [&[u8]; 2] = [b"data", b"payload"];
/// Keys whose value stays text, whatever it looks like.
const TEXT_KEYS: [&str; 29] = [
    "run_id",
    "training_run_id",
    "training_id",
    "runId",
    "run",
    "type",
    "event_type",
    "event",
    "phase",
    "cascade_phase",
    "training_phase",
    "status",
    "final_status",
    "outcome",
    "reason",
    "error",
    "exception",
    "dataset",
    "dataset_name",
    "dataset_id",
    "name",
    "notes",
    "description",
    "tags",
    "user",
    "created_by",
    "command",
    "id",
    "target",
];

/// The message of an entry, of its fields and their values in turn.
pub(super) fn message(fields: &[(&[u8], &[u8])]) -> Bytes {
    if let [(name, value)] = fields
        && WHOLE.contains(name)
    {
        // A copy: the value is a slice of the client's buffer, and would keep all of it.
        return Bytes::copy_from_slice(value);
    }
    match as_json(fields) {
        Some(json) => json.into(),
        None => as_pack(fields).into(),
    }
}

/// `None`: some of it is no text.
fn as_json(fields: &[(&[u8], &[u8])]) -> Option<String> {
    let mut json = String::from("{");
    for (at, (name, value)) in fields.iter().enumerate() {
        let (name, value) = (str::from_utf8(name).ok()?, str::from_utf8(value).ok()?);
        if at > 0 {
            json.push(',');
        }
        json.push_str(&quoted(name));
        json.push(':');
        match !TEXT_KEYS.contains(&name) && stands_for_itself(value) {
            true => json.push_str(value.trim()),
            false => json.push_str(&quoted(value)),
        }
    }
    json.push('}');
    Some(json)
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text always serialises")
}

/// Whether the text is a JSON value other than text: a number, a truth value, an object or a list.
fn stands_for_itself(value: &str) -> bool {
    let value = value.trim();
    if ["NaN", "Infinity", "-Infinity"].contains(&value) {
        return true;
    }
    let begins = value.as_bytes().first().is_some_and(|first| b"-0123456789{[tf".contains(first));
    begins && serde_json::from_str::<&RawValue>(value).is_ok()
}

/// A map of MessagePack, which can hold bytes that are no text.
fn as_pack(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut pack = Vec::new();
    let written = (|| {
        rmp::encode::write_map_len(&mut pack, u32::try_from(fields.len()).unwrap_or(u32::MAX))?;
        for part in fields.iter().flat_map(|(name, value)| [name, value]) {
            match str::from_utf8(part) {
                Ok(text) => rmp::encode::write_str(&mut pack, text)?,
                Err(_) => rmp::encode::write_bin(&mut pack, part)?,
            }
        }
        Ok::<_, rmp::encode::ValueWriteError>(())
    })();
    written.expect("writing to a vector cannot fail");
    pack
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)]) -> String {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        String::from_utf8(message(&fields).to_vec()).unwrap()
    }

    #[test]
    fn one_field_alone_is_the_message_and_several_are_its_keys() {
        for (fields, expected) in [
            (&[("data", r#"{"epoch": 5}"#)][..], r#"{"epoch": 5}"#),
            (&[("payload", "\u{0}x")], "\u{0}x"),
            (&[("message", "{}")], r#"{"message":{}}"#),
            (&[("epoch", "5"), ("loss", "0.2")], r#"{"epoch":5,"loss":0.2}"#),
            (&[("type", "metrics"), ("data", r#"{"epoch":5}"#)], r#"{"type":"metrics","data":{"epoch":5}}"#),
            (&[("run_id", "17"), ("phase", "1"), ("seq", "3")], r#"{"run_id":"17","phase":"1","seq":3}"#),
            (&[("loss", "NaN"), ("lr", "1e-3"), ("on", "true")], r#"{"loss":NaN,"lr":1e-3,"on":true}"#),
            (
                &[("a", "01"), ("b", "1 2"), ("c", "{x"), ("d", ""), ("e", "tea")],
                r#"{"a":"01","b":"1 2","c":"{x","d":"","e":"tea"}"#,
            ),
            (&[("a\"b", "x\ny")], r#"{"a\"b":"x\ny"}"#),
            (&[], "{}"),
        ] {
            assert_eq!(of(fields), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let packed = message(&[(b"epoch", b"5"), (b"blob", b"\xff\x00")]);
        assert_eq!(packed, &b"\x82\xa5epoch\xa15\xa4blob\xc4\x02\xff\x00"[..]);
    }
}
