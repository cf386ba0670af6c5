//! Spans of time as Go writes them, which is how Calico's resources write them: `90s`, `1h30m0s`.

use std::fmt;
use std::str::FromStr;

use super::text::by_text;

/// A span of time, in nanoseconds; negative ones can be written and are refused where they make no
/// sense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub i64);

/// A text that is no span of time. Go's words (`time.ParseDuration`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration; write numbers with units, such as 90s, 1m30s or 500ms")]
pub struct DurationError(String);

by_text!(Duration);

const SECOND: i64 = 1_000_000_000;

/// Units and their nanoseconds, longest name first where one begins with another.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

impl Duration {
    /// So many seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds * SECOND)
    }

    /// Whole seconds; what is beyond them is cut off.
    pub const fn as_secs(self) -> i64 {
        self.0 / SECOND
    }

    /// Whether it is less than nothing.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse(text)
            .map(Self)
            .ok_or_else(|| DurationError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_length = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_length);
        let (name, unit) = UNITS.iter().find(|(name, _)| after.starts_with(name))?;
        // `m` also begins `ms`, which stands before it in the table.
        total = total.checked_add(scaled(number, *unit)?)?;
        rest = &after[name.len()..];
    }
    Some(sign * total)
}

/// A decimal number of units, in nanoseconds.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i64 = match whole {
        "" => 0,
        digits => digits.parse().ok()?,
    };
    let mut total = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(i64::from(digit - b'0') * place)?;
    }
    Some(total)
}

/// As Go prints it: `1h1m1.5s`, `500ms`, `0s`.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let (unit, name) = match nanoseconds {
            0 => return f.write_str("0s"),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (SECOND.unsigned_abs(), "s"),
        };
        if name != "s" {
            return write!(f, "{}{name}", Decimal(nanoseconds, unit));
        }
        let seconds = nanoseconds / unit;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if seconds >= 60 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", Decimal(nanoseconds % (60 * unit), unit))
    }
}

/// A number of units with no more places after the point than it needs.
struct Decimal(u64, u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 / self.1)?;
        let (mut rest, mut place) = (self.0 % self.1, self.1);
        if rest > 0 {
            f.write_str(".")?;
        }
        while rest > 0 {
            place /= 10;
            write!(f, "{}", rest / place)?;
            rest %= place;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts and what Go's `time.ParseDuration` followed by `String` makes of them.
    #[test]
    fn durations_are_gos() {
        for (text, printed, nanoseconds) in [
            ("0", "0s", 0),
            ("0s", "0s", 0),
            ("90s", "1m30s", 90 * SECOND),
            ("1h", "1h0m0s", 3600 * SECOND),
            ("1.5h", "1h30m0s", 5400 * SECOND),
            ("86400s", "24h0m0s", 86400 * SECOND),
            ("100ms", "100ms", 100_000_000),
            ("1m0.25s", "1m0.25s", 60 * SECOND + 250_000_000),
            (".5s", "500ms", 500_000_000),
            ("5.s", "5s", 5 * SECOND),
            ("1500us", "1.5ms", 1_500_000),
            ("1µs", "1µs", 1_000),
            ("3ns", "3ns", 3),
            ("-10s", "-10s", -10 * SECOND),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(
                (duration.0, duration.to_string().as_str()),
                (nanoseconds, printed)
            );
            assert_eq!(duration.to_string().parse(), Ok(duration));
        }
        for bad in [
            "", "-", "90", "1 s", "s", ".s", "1d", "1..5s", "1s1", "9999999h",
        ] {
            assert!(bad.parse::<Duration>().is_err(), "{bad}");
        }
    }
}
