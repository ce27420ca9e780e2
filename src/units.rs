//! Sizes and durations as people write them: `"64MiB"`, `"250ms"`.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// UTC microseconds since the Unix epoch: the one form of wall-clock time inside the program.
pub type Micros = i64;

/// The wall clock. A clock before 1970 reads as 1970.
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

/// A number of bytes; written `"64KiB"`, `"10GiB"`, `"1MB"` or as a plain number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` times 1,024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` times 1,048,576 bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` times 1,073,741,824 bytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The size as an in-memory length; saturates where `usize` is smaller.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, unit) = SIZE_UNITS
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim_end(), *unit)))
            .unwrap_or((text, 1));
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size; write it like \"64MiB\" or 4096"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = SIZE_UNITS[..4]
            .iter()
            .rev()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
            .unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(n) => Ok(Self(n)),
            NumberOrText::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, or text such as \"64MiB\" or \"250ms\"")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

const DURATION_UNITS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// Reads `"250ms"`, `"5s"`, `"4h"`, `"30d"`.
///
/// # Errors
/// Says what a duration looks like; a number without a unit is refused, because its unit is unknown.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is not a duration; write it like \"250ms\", \"5s\" or \"30d\"");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let (number, unit) = trimmed.split_at(digits);
    let unit = DURATION_UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(error)?.1;
    let micros = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(error)?;
    Ok(Duration::from_micros(micros))
}

/// The shortest exact way to write `duration`, down to microseconds.
pub fn format_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let (name, unit) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, unit)| micros >= *unit && micros.is_multiple_of(*unit))
        .unwrap_or(&("s", 1_000_000));
    format!("{}{name}", micros / unit)
}

/// `#[serde(with = "units::duration")]` for a `Duration` written as text with a unit.
pub mod duration {
    use super::{Deserialize, Deserializer, Duration, Serializer, de};

    /// Writes the duration with its unit.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*value))
    }

    /// Reads a duration with its unit.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(de::Error::custom)
    }
}

/// The name of a number that is not finite, which JSON cannot represent (nor, for NaN, SQLite).
pub fn non_finite_name(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// A time as RFC 3339 in UTC, with microseconds.
pub fn rfc3339(micros: Micros) -> String {
    let limit = if micros < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    format!("{:.6}", jiff::Timestamp::from_microsecond(micros).unwrap_or(limit))
}

/// Serialises a time as [`rfc3339`] writes it; for `serialize_with`.
///
/// # Errors
/// An error of the serializer.
pub fn serialize_time<S: Serializer>(micros: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    rfc3339(*micros).serialize(serializer)
}

/// The same for a span of time.
///
/// # Errors
/// An error of the serializer.
pub fn serialize_span<S: Serializer>(span: &Option<(Micros, Micros)>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|(first, last)| [rfc3339(first), rfc3339(last)]).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_two_times() {
        let of = |span: Option<(Micros, Micros)>| serialize_span(&span, serde_json::value::Serializer).unwrap();
        let times = ["1970-01-01T00:00:00.000001Z", "2025-11-20T10:15:00.120000Z"];
        assert_eq!(of(Some((1, 1_763_633_700_120_000))), serde_json::json!(times));
        assert_eq!(of(None), serde_json::Value::Null);
    }

    #[test]
    fn sizes_are_read_and_written_back() {
        for (text, bytes, back) in [
            ("64KiB", 65_536, "64KiB"),
            ("10GiB", 10 << 30, "10GiB"),
            ("1MB", 1_000_000, "1000000B"),
            ("512", 512, "512B"),
            ("0", 0, "0B"),
            (" 2 MiB ", 2 << 20, "2MiB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, back), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "99999999999TiB", "5 parsecs"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_written_back() {
        for (text, micros, back) in [
            ("250ms", 250_000, "250ms"),
            ("15s", 15_000_000, "15s"),
            ("60s", 60_000_000, "1m"),
            ("30d", 2_592_000_000_000, "30d"),
            ("0s", 0, "0s"),
            ("7us", 7, "7us"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_micros(micros), "{text}");
            assert_eq!(format_duration(duration), back, "{text}");
        }
        for text in ["", "5", "ms", "1.5s", "-1s", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
