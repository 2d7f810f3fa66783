//! Signals by name or number, as `kill` takes them.

use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::error::{Error, Kind, Result};

/// Reads a signal: a number (0 probes, as kill(2) says), a name of signal(7) with or without `SIG` in any case,
/// or a realtime signal as `RTMIN`, `RTMIN+n`, `RTMAX` or `RTMAX-n`.
pub(crate) fn parse(text: &str) -> Result<i32> {
    number(text).or_else(|| name(text)).ok_or_else(|| {
        Error::new(Kind::Config, format!("unknown signal {text:?}")).hint(format!(
            "write a name such as KILL or SIGKILL, RTMIN+n, or a number from 0 to {}",
            libc::SIGRTMAX()
        ))
    })
}

fn number(text: &str) -> Option<i32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| (0..=libc::SIGRTMAX()).contains(number))
}

fn name(text: &str) -> Option<i32> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    match name {
        // Other names that signal(7) has for signals of the table.
        "CLD" => return Some(libc::SIGCHLD),
        "POLL" => return Some(libc::SIGPOLL),
        "IOT" => return Some(libc::SIGIOT),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return realtime(libc::SIGRTMIN(), rest, '+');
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return realtime(libc::SIGRTMAX(), rest, '-');
    }
    Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)
}

fn realtime(base: i32, rest: &str, sign: char) -> Option<i32> {
    if rest.is_empty() {
        return Some(base);
    }
    let digits = rest.strip_prefix(sign)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let distance: i32 = digits.parse().ok()?;
    let number = if sign == '+' { base.checked_add(distance)? } else { base.checked_sub(distance)? };
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_many_names() {
        for text in ["9", "09", "KILL", "SIGKILL", "sigkill", "Kill"] {
            assert_eq!(parse(text).unwrap(), 9, "{text}");
        }
        assert_eq!(parse("0").unwrap(), 0);
        assert_eq!(parse("STKFLT").unwrap(), libc::SIGSTKFLT);
        assert_eq!(parse("SIGPOLL").unwrap(), libc::SIGIO);
        assert_eq!(parse("CLD").unwrap(), libc::SIGCHLD);
    }

    #[test]
    fn realtime_signals_count_from_either_end() {
        assert_eq!(parse("SIGRTMIN").unwrap(), libc::SIGRTMIN());
        assert_eq!(parse("rtmin+3").unwrap(), libc::SIGRTMIN() + 3);
        assert_eq!(parse("RTMAX-1").unwrap(), libc::SIGRTMAX() - 1);
        assert_eq!(parse("64").unwrap(), 64);
    }

    #[test]
    fn what_is_no_signal_is_unknown() {
        for text in [
            "",
            "FOO",
            "SIG",
            "-9",
            "+9",
            "999",
            "99999999999999",
            "RTMIN-1",
            "RTMIN+99",
            "RTMIN+",
            "RTMAX+1",
            "KILL ",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown signal {text:?}; write a name")), "{error}");
        }
    }
}
