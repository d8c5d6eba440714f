//! How figures are written, everywhere the same.

use crate::bench::types::{Place, Unit};

/// Three digits that matter, or all those before the point.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => grouped(value.round() as i64),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// As [`number`], without what follows the last digit that is not zero.
pub(super) fn axis(value: f64) -> String {
    let text = number(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// At most four characters, for labels on bars.
pub(super) fn short(value: f64) -> String {
    match value {
        v if v >= 9_999.5 => format!("{:.0}k", v / 1e3),
        v if v >= 9.95 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

/// With a comma between thousands.
pub(super) fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

/// A share of one in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A figure that may be missing.
pub(super) fn or_dash<T>(value: Option<T>, write: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), write)
}

/// A case in words; what is not known keeps its name.
pub(super) fn case(name: &str) -> &str {
    match name {
        "tcp-stream" => "TCP stream, 1 flow",
        "tcp-stream-8" => "TCP stream, 8 flows",
        "udp-small" => "UDP small packets",
        "tcp-rr" => "TCP request, response",
        "udp-rr" => "UDP request, response",
        "tcp-crr" => "TCP connect, request, response",
        other => other,
    }
}

/// A place in words.
pub(super) fn place(place: Place) -> &'static str {
    match place {
        Place::SameNode => "same node",
        Place::AcrossNodes => "across nodes",
    }
}

/// A setting of Services in words.
pub(super) fn services(count: u32) -> String {
    match count {
        0 => "no Services".to_owned(),
        count => format!("{} Services", grouped(count.into())),
    }
}

/// A unit as its symbol.
pub(super) fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::GigabitsPerSecond => "Gbit/s",
        Unit::PacketsPerSecond => "packets/s",
        Unit::TransactionsPerSecond => "transactions/s",
    }
}

/// A moment in UTC, from seconds since 1970.
pub(super) fn moment(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut left) = (1970, days);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    let (hour, minute) = (rest / 3600, rest / 60 % 60);
    format!(
        "{year}-{:02}-{:02} {hour:02}:{minute:02} UTC",
        month + 1,
        left + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        assert_eq!(number(1.234), "1.23");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(99.96), "100");
        assert_eq!(number(412_345.6), "412,346");
        assert_eq!(short(12_345.0), "12k");
        assert_eq!(short(1_234.0), "1234");
        assert_eq!(short(27.4), "27");
    }

    #[test]
    fn moments_know_leap_years() {
        assert_eq!(moment(0), "1970-01-01 00:00 UTC");
        assert_eq!(moment(1_709_210_096), "2024-02-29 12:34 UTC");
        assert_eq!(moment(1_767_225_600), "2026-01-01 00:00 UTC");
    }
}
