//! Which process is meant: a pid alone may have been given to another process meanwhile.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Kind, Result};
use crate::init::procfs;

/// A process: its id, and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id in the runtime's pid namespace.
    pub pid: i32,
    /// Clock ticks from boot to its start: proc_pid_stat(5), field 22.
    pub start_time: u64,
}

impl Identity {
    /// The identity of a process that lives, or is a zombie of ours.
    pub fn of(pid: i32) -> Result<Self> {
        match read_stat(pid).doing(|| format!("read /proc/{pid}/stat"))? {
            Some(stat) => Ok(Self { pid, start_time: stat.start_time }),
            None => Err(Error::new(Kind::System, format!("process {pid} is gone"))),
        }
    }

    /// The identity of the calling process.
    pub fn own() -> Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// The pidfd of the process, if it still runs. The pidfd is opened first: whatever `stat` then says is said of
    /// the process that the pidfd holds on to, or of a later one with another start time.
    pub fn open(self) -> Result<Option<OwnedFd>> {
        // What was read from a damaged state is no id.
        let Some(pid) = (self.pid > 0).then(|| Pid::from_raw(self.pid)).flatten() else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            opened => opened.doing(|| format!("open the pidfd of {}", self.pid))?,
        };
        let stat = read_stat(self.pid).doing(|| format!("read /proc/{}/stat", self.pid))?;
        if stat.is_none() {
            // It is gone; or nothing can be told of it, which must not be taken for its end.
            procfs::open_host()?;
        }
        let runs = stat.is_some_and(|stat| stat.start_time == self.start_time && !stat.ended);
        Ok(runs.then_some(pidfd))
    }
}

struct Stat {
    ended: bool,
    start_time: u64,
}

fn read_stat(pid: i32) -> Result<Option<Stat>, Errno> {
    let file = match openat(CWD, format!("/proc/{pid}/stat"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    // The name, the only part of free length, has at most 64 bytes.
    let mut bytes = [0; 1024];
    match rustix::io::read(&file, &mut bytes) {
        Ok(length) => Ok(parse_stat(bytes.get(..length).unwrap_or_default())),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The name may hold spaces and parentheses, so the fields are counted from the last parenthesis: the state is field
/// 3, the start time field 22.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { ended: matches!(state, "Z" | "X" | "x"), start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = b"12 (a) b) (c) Z 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0 1\n";
        let stat = parse_stat(text).unwrap();
        assert!(stat.ended);
        assert_eq!(stat.start_time, 4242);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = Identity::own().unwrap();
        assert!(own.open().unwrap().is_some());
        assert!(Identity { start_time: own.start_time + 1, ..own }.open().unwrap().is_none());
    }
}
