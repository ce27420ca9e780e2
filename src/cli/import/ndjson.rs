//! Lines of messages: each as it is, with a run and a time in front where it has none.

use std::io::{self, BufRead, Read};

use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::{
    render,
    units::{self, Micros},
    wire::{self, Limits},
};

/// No message is longer.
const LINE_BYTES_MAX: usize = 32 << 20;

/// The next line, without white space around it; `None` at the end.
///
/// # Errors
/// When reading fails, or the line is longer than any message may be.
pub fn next_line(input: &mut dyn BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = input.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
    if read > LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 32 MiB"));
    }
    let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
    Ok((read > 0).then(|| text.to_vec()))
}

/// The message of a line, with the run and the time that it lacks.
///
/// # Errors
/// Why it is none.
pub fn message(line: Vec<u8>, run: Option<&str>, time: impl FnOnce() -> Option<Micros>) -> Result<String, String> {
    let text = String::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let decoded = wire::decode(text.as_bytes(), &Limits::NONE).map_err(|rejection| rejection.to_string())?;
    let mut head = String::new();
    if decoded.run_id().is_none() {
        let run = run.ok_or("it names no run; give --run")?;
        head = format!("\"run_id\":{},", serde_json::Value::from(run));
    }
    if !decoded.has_time_field()
        && let Some(time) = time()
    {
        head += &format!("\"timestamp\":\"{}\",", render::time(time));
    }
    drop(decoded);
    if head.is_empty() { Ok(text) } else { Ok(format!("{{{head}{}", &text[1..])) }
}

/// The run and the time of a message that names its run, and that can be sent again and stays one row.
///
/// # Errors
/// Why it cannot, or is none.
pub fn check(message: &str, zone: &TimeZone) -> Result<(Uuid, Micros), String> {
    let decoded = wire::decode(message.as_bytes(), &Limits::NONE).map_err(|rejection| rejection.to_string())?;
    let Some(run) = decoded.run_id() else {
        // It would join the run that is open on the channel. A field that the line has takes the place of `--run`.
        return Err("its run is null, blank or no text: correct it, or leave the field out and give --run".into());
    };
    let time = decoded.time(units::now(), zone);
    if !time.from_message {
        return Err("it has no usable time of its own, at most 10 years back and 5 minutes ahead".into());
    }
    Ok((run, time.event_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Micros = 1_763_633_700_000_001;

    fn read(line: &str, run: Option<&str>) -> Result<String, String> {
        message(line.as_bytes().to_vec(), run, || Some(TIME))
    }

    #[test]
    fn a_message_keeps_its_bytes_and_gets_what_it_lacks() {
        let at = "\"timestamp\":\"2025-11-20T10:15:00.000001Z\"";
        for (line, expected) in [
            (
                "{\"run_id\":\"a\", \"ts\":1763633700,\"loss\":NaN}",
                "{\"run_id\":\"a\", \"ts\":1763633700,\"loss\":NaN}".to_owned(),
            ),
            ("{\"run\":\"a\",\"loss\":1}", format!("{{{at},\"run\":\"a\",\"loss\":1}}")),
            ("{ \"loss\":1}", format!("{{\"run_id\":\"x \\\"y\\\"\",{at}, \"loss\":1}}")),
            (
                "{\"data\":{\"loss\":1,\"timestamp\":\"nonsense\"},\"run_id\":\"a\"}",
                "{\"data\":{\"loss\":1,\"timestamp\":\"nonsense\"},\"run_id\":\"a\"}".into(),
            ),
        ] {
            assert_eq!(read(line, Some("x \"y\"")), Ok(expected), "{line}");
        }
        for (line, why) in
            [("{\"loss\":1}", "--run"), ("nonsense", "not_an_object"), ("{\"a\":\"b\"}", "unknown_shape")]
        {
            assert!(read(line, None).unwrap_err().contains(why), "{line}");
        }
    }

    #[test]
    fn a_run_that_is_not_usable_is_refused() {
        for (run, usable) in [("null", false), ("\"\"", false), ("\" \"", false), ("\"a\"", true)] {
            let line = format!("{{\"run_id\":{run},\"loss\":1,\"timestamp\":1763633700}}");
            let checked = read(&line, Some("x")).and_then(|message| check(&message, &TimeZone::UTC));
            assert_eq!(checked.is_ok(), usable, "{run}: {checked:?}");
        }
    }

    #[test]
    fn a_time_that_is_not_usable_is_refused() {
        for (time, usable) in
            [("\"nonsense\"", false), ("946684800", false), ("4000000000", false), ("1763633700", true)]
        {
            let message = format!("{{\"run_id\":\"a\",\"loss\":1,\"timestamp\":{time}}}");
            assert_eq!(check(&message, &TimeZone::UTC).is_ok(), usable, "{time}");
        }
    }
}
