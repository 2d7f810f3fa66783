//! The shim's log: containerd's fifo `log` in the bundle, in containerd's format.
//!
//! One record is one write of one line of logfmt, so that those of a worker and of the shim never mix. A reader that is
//! away or slow loses records; it never blocks the shim.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::SystemTime;

use coracle::clock;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::sys;

/// The descriptor that records go to; standard error before there is a log.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(2);

static LOGGER: Logger = Logger;

struct Logger;

/// Sends records to standard error, from `level` on: for invocations other than the daemon.
pub fn to_stderr(level: LevelFilter) {
    start(level);
}

/// Sends records to the fifo at `path`, from `level` on. Without it, to nowhere: the daemon's standard error is
/// /dev/null.
pub fn to_fifo(path: &Path, level: LevelFilter) {
    if let Ok(fifo) = open(path) {
        hand_over(fifo);
    }
    start(level);
}

fn start(level: LevelFilter) {
    // The first one stays; there is no second.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

/// Without a reader, opening for writing only would fail; with both, a reader may come later.
fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match openat(CWD, path, OFlags::WRONLY | flags, Mode::empty()) {
        Err(Errno::NXIO) => openat(CWD, path, OFlags::RDWR | flags, Mode::empty()),
        opened => opened,
    }
}

/// Sends records to this descriptor from now on. It stays open as long as the process lives.
pub fn hand_over(descriptor: OwnedFd) {
    DESCRIPTOR.store(descriptor.as_raw_fd(), Ordering::Relaxed);
    std::mem::forget(descriptor);
}

/// The descriptor of the log, if it is one of its own.
pub fn descriptor() -> Option<BorrowedFd<'static>> {
    let number = DESCRIPTOR.load(Ordering::Relaxed);
    (number > 2).then(|| sys::borrow_for_ever(number))
}

/// Has a panic told in the log.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

/// Tells a person, or containerd, what an invocation failed with.
pub fn tell(text: &str) {
    // Nothing better can be done when nobody hears it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries below have much to say that is of no use to an operator.
        let own = metadata.target().starts_with("coracle");
        metadata.level() <= if own { log::max_level() } else { Level::Warn.to_level_filter() }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let time = clock::rfc3339_nanos(SystemTime::now());
        let line = format!(
            "time=\"{time}\" level={level} msg={} runtime=io.containerd.coracle.v2\n",
            quoted(&record.args().to_string())
        );
        match descriptor() {
            // Nothing better can be done about a record that can't be written.
            Some(fifo) => drop(rustix::io::write(fifo.as_fd(), line.as_bytes())),
            None => drop(std::io::stderr().write_all(line.as_bytes())),
        }
    }

    fn flush(&self) {}
}

/// A text as a quoted value of logfmt.
fn quoted(text: &str) -> String {
    use std::fmt::Write;

    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            // Writing to a string can't fail.
            letter if letter.is_control() => drop(write!(quoted, "\\u{:04x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_one_line_whatever_its_text() {
        assert_eq!(quoted("a \"b\"\nc\\"), r#""a \"b\"\nc\\""#);
        assert_eq!(quoted("\u{7}"), "\"\\u0007\"");
    }
}
