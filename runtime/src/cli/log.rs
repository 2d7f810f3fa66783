//! Log records: where they go, and how they look.
//!
//! It owns `--log`, `--log-format`, `--log-level` and `--debug`, and is the sink behind the `log` crate's macros,
//! which every room uses. The forms are those of runc, since containerd's go-runc, conmon and Docker read them:
//! logfmt lines, or JSON objects with `level`, `msg` and `time`, one a line. It promises that a failed command's
//! last record carries the error, that one record is one write, and that an error that goes to a log file also
//! goes to standard error. A JSON record of an error may carry `op`, `place`, `errno` and `hint` as well.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;

use crate::clock;
use crate::error::{Doing, Error, Result};

/// How records look in a file or a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `time="…" level=error msg="…"`
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

struct Logger {
    /// `None`: standard error.
    file: Option<File>,
    format: Format,
    started: Instant,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Sends records from now on to `file`, or to standard error, in `format`, when they are `level` or worse.
///
/// A file is made when missing (mode 0644) and appended to.
pub(super) fn start(file: Option<&Path>, format: Format, level: LevelFilter) -> Result<()> {
    let file = file.map(open).transpose()?;
    let logger = LOGGER.get_or_init(|| Logger { file, format, started: Instant::now() });
    // Set once a process; a second sink could only come from a second start, which keeps the first.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .doing(|| format!("open the log file {}", path.display()))
}

/// The number of the log file's descriptor, which no container may inherit.
pub(super) fn descriptor() -> Option<i32> {
    LOGGER.get()?.file.as_ref().map(AsRawFd::as_raw_fd)
}

/// Records the error that ends `operation`, told as `text`, and tells a person who doesn't see the log.
pub(super) fn failed(operation: &str, text: &str, error: &Error) {
    let fallback = Logger { file: None, format: Format::Text, started: Instant::now() };
    let logger = LOGGER.get().unwrap_or(&fallback);
    let facts = Facts {
        op: Some(operation).filter(|operation| !operation.is_empty()),
        place: error.place(),
        errno: error.errno().map(|errno| format!("{:?}", nix::errno::Errno::from_raw(errno.raw_os_error()))),
        hint: error.advice(),
    };
    logger.put(Level::Error, text, &facts);
    if logger.file.is_some() {
        to_stderr(format!("{}\n", printable(text)).as_bytes());
    }
}

/// What a JSON record of an error says beyond its text.
#[derive(Debug, Default, Serialize)]
struct Facts<'a> {
    /// The command that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'a str>,
    /// The place in `config.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a str>,
    /// The name of the errno, as in errno(3).
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.put(record.level(), &record.args().to_string(), &Facts::default());
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn put(&self, level: Level, text: &str, facts: &Facts<'_>) {
        let time = clock::rfc3339(SystemTime::now());
        let line = match (self.format, &self.file) {
            (Format::Json, _) => json_line(level, text, &time, facts),
            (Format::Text, None) if std::io::stderr().is_terminal() => {
                terminal_line(level, text, self.started.elapsed().as_secs())
            }
            (Format::Text, _) => text_line(level, text, &time),
        };
        let written = self.file.as_ref().is_some_and(|mut file| file.write_all(line.as_bytes()).is_ok());
        if !written {
            to_stderr(line.as_bytes());
        }
    }
}

/// Standard error is the last resort: where it fails, there is nobody left to tell.
fn to_stderr(line: &[u8]) {
    let _ = std::io::stderr().write_all(line);
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn json_line(level: Level, text: &str, time: &str, facts: &Facts<'_>) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        level: &'static str,
        msg: &'a str,
        time: &'a str,
        #[serde(flatten)]
        facts: &'a Facts<'a>,
    }
    // Only maps with keys that aren't texts can fail to become JSON, and there are none here.
    let mut line =
        serde_json::to_string(&Line { level: name(level), msg: text, time, facts }).unwrap_or_default();
    line.push('\n');
    line
}

fn text_line(level: Level, text: &str, time: &str) -> String {
    format!("time=\"{time}\" level={} msg={}\n", name(level), quoted(text))
}

/// What a person at a terminal sees: the level in colour, the seconds since the start, the text.
fn terminal_line(level: Level, text: &str, seconds: u64) -> String {
    let (colour, label) = match level {
        Level::Error => (31, "ERRO"),
        Level::Warn => (33, "WARN"),
        Level::Info => (36, "INFO"),
        Level::Debug => (37, "DEBU"),
        Level::Trace => (37, "TRAC"),
    };
    format!("\x1b[{colour}m{label}\x1b[0m[{seconds:04}] {}\n", printable(text))
}

/// A logfmt value: bare where it is one plain word, else in quotes with Go's escapes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("\"{}\"", escaped(text, true)) }
}

/// Control characters of a text could change what a terminal shows, and bidirectional ones what a person reads; they are
/// shown escaped instead.
pub(super) fn printable(text: &str) -> String {
    escaped(text, false)
}

fn escaped(text: &str, quotes: bool) -> String {
    use std::fmt::Write as _;

    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' if quotes => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() || changes_order(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Line separators, and what turns the direction of text: Unicode's Bidi_Control.
fn changes_order(c: char) -> bool {
    matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-22T10:00:00Z";

    #[test]
    fn a_text_record_is_logfmt() {
        assert_eq!(
            text_line(Level::Error, "open \"x\":\n\u{1b}[31m é \\", TIME),
            "time=\"2026-11-22T10:00:00Z\" level=error msg=\"open \\\"x\\\":\\n\\x1b[31m é \\\\\"\n"
        );
        assert_eq!(
            text_line(Level::Warn, "plain", TIME),
            "time=\"2026-11-22T10:00:00Z\" level=warning msg=plain\n"
        );
    }

    #[test]
    fn a_json_record_has_the_keys_that_go_runc_reads_in_runcs_order() {
        assert_eq!(
            json_line(Level::Error, "say \"no\"", TIME, &Facts::default()),
            "{\"level\":\"error\",\"msg\":\"say \\\"no\\\"\",\"time\":\"2026-11-22T10:00:00Z\"}\n"
        );
    }

    #[test]
    fn a_json_record_of_an_error_carries_its_facts() {
        let facts =
            Facts { op: Some("create"), place: Some("root.path"), errno: Some("ENOENT".into()), hint: None };
        assert_eq!(
            json_line(Level::Error, "no", TIME, &facts),
            "{\"level\":\"error\",\"msg\":\"no\",\"time\":\"2026-11-22T10:00:00Z\",\"op\":\"create\",\
             \"place\":\"root.path\",\"errno\":\"ENOENT\"}\n"
        );
    }

    #[test]
    fn a_terminal_sees_no_control_characters_but_ours() {
        assert_eq!(
            terminal_line(Level::Error, "a\u{1b}]0;x\u{7}", 3),
            "\u{1b}[31mERRO\u{1b}[0m[0003] a\\x1b]0;x\\x07\n"
        );
        assert_eq!(printable("a\u{2066}b\u{200f}c\u{61c}\u{9b}"), "a\\u2066b\\u200fc\\u061c\\u009b");
    }
}
