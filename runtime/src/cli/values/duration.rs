//! Spans of time, as `events --interval` takes them.

use std::time::Duration;

/// Reads a span of time above zero in Go's notation: `5s`, `1m30s`, `1.5h`, `250ms`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let total = nanoseconds(text).ok_or_else(|| {
        format!("{text:?} is no duration; write a number with ns, us, ms, s, m or h, as in 500ms or 1m30s")
    })?;
    if total == 0 {
        return Err("duration interval must be greater than 0".to_owned());
    }
    Ok(Duration::from_nanos(total))
}

fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, tail) =
            tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 {
            return None;
        }
        let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
        let part = digits(fraction)?.checked_mul(scale)? / 10_u128.pow(fraction.len() as u32);
        total = total.checked_add(digits(whole)?.checked_mul(scale)?)?.checked_add(part)?;
        rest = tail;
    }
    if text.is_empty() { None } else { u64::try_from(total).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, milliseconds) in
            [("5s", 5_000), ("250ms", 250), ("1m30s", 90_000), ("1.5h", 5_400_000), (".5s", 500)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(parse("7us3ns"), Ok(Duration::from_nanos(7_003)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "5x", "-5s", "5 s", ".s", "1.2.3s", "99999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_interval_of_nothing_is_refused() {
        for text in ["0", "0s", "0.0ms"] {
            assert_eq!(parse(text).unwrap_err(), "duration interval must be greater than 0");
        }
    }
}
