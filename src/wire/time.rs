//! When an event happened: RFC 3339, ISO 8601 without a zone, what logs and HTTP write, or a number whose size tells its unit.

use jiff::{civil, fmt::rfc2822, tz::TimeZone};

use super::value::Value;
use crate::units::Micros;

/// How far ahead of its receipt an event may claim to be.
const MAX_FUTURE_SKEW: Micros = 5 * 60 * 1_000_000;
/// How far back: ten years.
const MAX_AGE: Micros = 3_653 * 86_400 * 1_000_000;
/// 2000-01-01 and 2100-01-01: what a field that may hold something else must lie between to be taken for a time.
const PLAUSIBLE_RANGE: std::ops::Range<Micros> = 946_684_800_000_000..4_102_444_800_000_000;

const EPOCH: civil::DateTime = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Whether an event at `time` may have been received at `received_at`.
pub(super) fn is_usable(time: Micros, received_at: Micros) -> bool {
    time <= received_at.saturating_add(MAX_FUTURE_SKEW) && time >= received_at.saturating_sub(MAX_AGE)
}

/// Whether a field such as `time` or `ts` is meant as a time, and not, say, as seconds spent.
pub(super) fn is_plausible(value: &Value<'_>) -> bool {
    read(value, &TimeZone::UTC).is_some_and(|time| PLAUSIBLE_RANGE.contains(&time))
}

/// A moment as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) micros: Micros,
    /// Whether it needs no zone from elsewhere.
    pub(super) absolute: bool,
}

impl Moment {
    fn absolute(micros: Micros) -> Self {
        Self { micros, absolute: true }
    }

    fn naive(micros: Micros) -> Self {
        Self { micros, absolute: false }
    }
}

/// The moment a value names; times without a zone are read in `zone`.
pub(super) fn read(value: &Value<'_>, zone: &TimeZone) -> Option<Micros> {
    read_moment(value, zone).map(|moment| moment.micros)
}

/// See [`read`]; also whether the value itself says which moment that is.
pub(super) fn read_moment(value: &Value<'_>, zone: &TimeZone) -> Option<Moment> {
    match value {
        Value::Time(micros) => Some(Moment::absolute(*micros)),
        Value::Int(n) => Some(Moment::absolute(from_integer(*n))),
        Value::Float(x) => from_double(*x).map(Moment::absolute),
        Value::Text(text) => read_text(text, zone),
        _ => None,
    }
}

/// The moment a text names, in any form of the contract.
fn read_text(text: &str, zone: &TimeZone) -> Option<Moment> {
    let text = text.trim();
    parse_iso8601(text, zone).or_else(|| parse_other_forms(text, zone)).or_else(|| match text.parse::<i64>() {
        Ok(n) => Some(Moment::absolute(from_integer(n))),
        Err(_) => from_double(text.parse().ok()?).map(Moment::absolute),
    })
}

/// Whether a value names a moment by itself, and a plausible one.
pub(super) fn is_absolute(value: &Value<'_>) -> bool {
    read_moment(value, &TimeZone::UTC).is_some_and(|moment| moment.absolute && PLAUSIBLE_RANGE.contains(&moment.micros))
}

fn from_integer(n: i64) -> Micros {
    match n.unsigned_abs() {
        0..100_000_000_000 => n * 1_000_000,
        100_000_000_000..100_000_000_000_000 => n * 1_000,
        100_000_000_000_000..100_000_000_000_000_000 => n,
        _ => n.saturating_add(500).div_euclid(1_000),
    }
}

fn from_double(x: f64) -> Option<Micros> {
    if !x.is_finite() {
        return None;
    }
    let micros = match x.abs() {
        size if size < 1e11 => x * 1e6,
        size if size < 1e14 => x * 1e3,
        size if size < 1e17 => x,
        _ => x / 1e3,
    };
    // The cast saturates; what is that far away is unusable anyway.
    Some(micros.round() as i64)
}

/// `YYYY-MM-DDTHH:MM:SS`, a fraction or none, `Z`, an offset or none: what nearly every producer writes. Also with slashes, and
/// with a blank before the zone, as logs have it.
fn parse_iso8601(text: &str, zone: &TimeZone) -> Option<Moment> {
    let bytes = text.as_bytes();
    let number = |from: usize, digits: usize| {
        bytes
            .get(from..from + digits)?
            .iter()
            .try_fold(0_i16, |n, byte| byte.is_ascii_digit().then(|| n * 10 + i16::from(byte - b'0')))
    };
    let pair = |from: usize| number(from, 2).map(|n| n as i8);
    let has_separators = bytes.len() >= 19
        && matches!(bytes[4], b'-' | b'/')
        && bytes[7] == bytes[4]
        && matches!(bytes[10], b'T' | b't' | b' ')
        && bytes[13] == b':'
        && bytes[16] == b':';
    if !has_separators {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, pair(5)?, pair(8)?);
    let local = civil::DateTime::new(year, month, day, pair(11)?, pair(14)?, pair(17)?, 0).ok()?;
    let mut at = 19;
    let mut micros = 0;
    if matches!(bytes.get(at), Some(b'.' | b',')) {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 1..=6 {
            micros = micros * 10 + if place <= digits { i64::from(bytes[at + place] - b'0') } else { 0 };
        }
        // Rounded to the microsecond by the first digit behind it.
        micros += i64::from(digits > 6 && bytes[at + 7] >= b'5');
        at += 1 + digits;
    }
    let in_utc = || local.duration_since(EPOCH).as_micros() as Micros + micros;
    if matches!(bytes.get(at..), Some([b' ', _, ..])) {
        at += 1;
    }
    let offset = match bytes.get(at..)? {
        b"Z" | b"z" | b"UTC" | b"GMT" => 0,
        b"" if *zone == TimeZone::UTC => return Some(Moment::naive(in_utc())),
        b"" => return in_zone(local, zone).map(|whole| Moment::naive(whole + micros)),
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let from = at + 1;
            let (hours, minutes) = match rest {
                [_, _] => (pair(from)?, 0),
                [_, _, _, _] => (pair(from)?, pair(from + 2)?),
                [_, _, b':', _, _] => (pair(from)?, pair(from + 3)?),
                _ => return None,
            };
            if hours > 25 || minutes > 59 {
                return None;
            }
            let seconds = Micros::from(hours) * 3_600 + Micros::from(minutes) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    Some(Moment::absolute(in_utc() - offset * 1_000_000))
}

/// Longest text that RFC 2822 makes of a time, with room for a comment.
const RFC_2822_BYTES: usize = 64;

/// Everything else that ISO 8601 allows, and RFC 2822, which HTTP and mail use.
fn parse_other_forms(text: &str, zone: &TimeZone) -> Option<Moment> {
    if text.len() <= RFC_2822_BYTES && text.contains(':') && text.contains(' ') {
        let parser = rfc2822::DateTimeParser::new().relaxed_weekday(true);
        if let Ok(time) = parser.parse_timestamp(text) {
            return Some(Moment::absolute(time.as_microsecond()));
        }
    }
    // A bare number is no date, whatever a lenient reader makes of `20261120`.
    if !text.contains('-') && !text.contains(['T', 't']) {
        return None;
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return i64::try_from((time.as_nanosecond() + 500).div_euclid(1_000)).ok().map(Moment::absolute);
    }
    in_zone(text.parse::<civil::DateTime>().ok()?, zone).map(Moment::naive)
}

fn in_zone(time: civil::DateTime, zone: &TimeZone) -> Option<Micros> {
    let time = zone.to_ambiguous_timestamp(time).compatible().ok()?;
    i64::try_from((time.as_nanosecond() + 500).div_euclid(1_000)).ok()
}

/// The moment that the text of a parameter names, in any form that a message may use; times without a zone are read in `zone`.
/// `None` also for a number that no calendar has a date for.
pub fn parse(text: &str, zone: &TimeZone) -> Option<Micros> {
    read(&Value::Text(text.into()), zone).filter(|micros| jiff::Timestamp::from_microsecond(*micros).is_ok())
}
