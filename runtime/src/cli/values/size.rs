//! Amounts of memory, as `update --memory` takes them.

/// Reads an amount of memory in bytes: `-1` (no limit), or a number, perhaps with a fraction, and one of the
/// binary suffixes `b k m g t p` in any case, perhaps written as `kb` or `KiB`.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let end = text.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix);
    let shift = shift(suffix).ok_or_else(|| format!("invalid suffix: '{suffix}'; {FORM}"))?;
    bytes(number, shift).ok_or_else(|| format!("invalid size: '{text}'; {FORM}"))
}

const FORM: &str = "write bytes, or a number with k, m, g, t or p as in 512m, or -1 for no limit";

fn shift(suffix: &str) -> Option<u32> {
    let suffix = suffix.to_ascii_lowercase();
    let unit = match suffix.as_str() {
        "" | "b" => return Some(0),
        longer => longer.strip_suffix("ib").or_else(|| longer.strip_suffix('b')).unwrap_or(longer),
    };
    match unit {
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        "t" => Some(40),
        "p" => Some(50),
        _ => None,
    }
}

/// The fraction is worked out in whole numbers: a float would lose bytes of large sizes.
fn bytes(number: &str, shift: u32) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let whole = digits(whole)?.checked_mul(1 << shift)?;
    let part = (digits(fraction)? << shift) / 10_u128.pow(fraction.len() as u32);
    i64::try_from(whole.checked_add(part)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("512mb", 512 << 20),
            ("512MiB", 512 << 20),
            ("512 MB", 512 << 20),
            ("32b", 32),
            ("2k", 2048),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("3t", 3 << 40),
            ("4P", 4 << 50),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "m",
            "-2",
            "-1m",
            "1e3",
            "0x10",
            "512q",
            "1.2.3",
            "nan",
            "9223372036854775808",
            "9999999p",
            " 1",
            "1  k",
            "1kk",
            "1bb",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("invalid s"), "{text}: {error}");
        }
        assert!(parse("512q").unwrap_err().starts_with("invalid suffix: 'q'"));
    }
}
