//! `run --seccomp-learn`: from the system calls that a container makes to a profile that allows them.
//!
//! The container's filter notifies a listener of every call (seccomp_unotify(2)). The listener is served by a thread
//! of its own, which records the call and lets it through: the runtime may wait for the container at any time, and
//! the container must not wait for the runtime meanwhile. The profile is written at once when the container has
//! ended, never in part.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use coracle_seccomp::{FLAG_NEW_LISTENER, FilterFlag, Profile, Syscall, profile_of_calls};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::error::{Doing, Error, Kind, Result};
use crate::plan::seccomp::{NOT_NOTIFIED, native};
use crate::sys::seccomp::{knows_flags, let_through, receive};

/// `AUDIT_ARCH_*` token and number of each call that was seen.
type Calls = BTreeSet<(u32, u32)>;

/// The flags for the filter. With `WAIT_KILLABLE_RECV` (Linux 5.19) a signal doesn't take back a call that was received,
/// which would otherwise be done again and again in a program with many signals.
pub fn filter_flags() -> u32 {
    let patient = FilterFlag::WaitKillableRecv.bits();
    let patient = if knows_flags(patient | FLAG_NEW_LISTENER) { patient } else { 0 };
    FilterFlag::SpecAllow.bits() | patient
}

/// How many names for an unfinished profile are tried.
const ATTEMPTS: u32 = 100;

/// A listener that is being served.
pub struct Lesson {
    thread: JoinHandle<Result<Calls, Errno>>,
    stop: OwnedFd,
}

impl Lesson {
    /// Serves a listener from now on. The thread is made after the container's process, so that no clone is made
    /// from a process with two threads.
    pub fn begin(listener: OwnedFd) -> Result<Self> {
        let doing = || "listen to the container's system calls";
        let stop = eventfd(0, EventfdFlags::CLOEXEC).doing(doing)?;
        let stopped = stop.try_clone().doing(doing)?;
        let thread = std::thread::Builder::new()
            .name("seccomp-learn".to_owned())
            .spawn(move || serve(&listener, &stopped))
            .doing(doing)?;
        Ok(Self { thread, stop })
    }

    /// Ends it, and makes the profile. A process that the container left behind gets ENOSYS for its calls from then on.
    pub fn end(self) -> Result<Profile> {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).doing(|| "stop listening")?;
        let calls = self
            .thread
            .join()
            .map_err(|_| Error::new(Kind::System, "the thread that records system calls panicked"))?
            .doing(|| "listen to the container's system calls")?;
        let native = native()?;
        let written = Syscall::by_name(NOT_NOTIFIED)
            .and_then(|call| call.number(native))
            .map(|number| (native.audit_token(), number));
        let (profile, unknown) = profile_of_calls(native, calls.into_iter().chain(written));
        for (arch, number) in unknown {
            log::warn!(
                "system call {number} of architecture {arch:#x} has no known name; the profile denies it"
            );
        }
        Ok(profile)
    }
}

/// Records each call and lets it through, until no process has the filter any more or `stop` is said.
fn serve(listener: &OwnedFd, stop: &OwnedFd) -> Result<Calls, Errno> {
    let mut calls = Calls::new();
    loop {
        let mut fds =
            [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let said = fds[0].revents();
        if said.contains(PollFlags::IN) {
            match receive(listener.as_fd()) {
                Ok(notified) => {
                    calls.insert((notified.arch, notified.number));
                    match let_through(listener.as_fd(), notified.id) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        } else if !said.is_empty() || !fds[1].revents().is_empty() {
            return Ok(calls);
        }
    }
}

/// The file that the profile goes to: its directory is opened before the container is made, so that a path that
/// can't be written is told before anything runs.
pub struct Output {
    directory: OwnedFd,
    name: PathBuf,
    path: PathBuf,
}

impl Output {
    /// Opens the directory of `path`, which must be absolute.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("write the learnt profile {}", path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::new(
                Kind::Config,
                format!("{}: {} is no file's path", doing(), path.display()),
            ));
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent, flags, Mode::empty()).doing(doing)?;
        match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).doing(doing),
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {}
            Ok(_) => {
                return Err(Error::new(
                    Kind::Config,
                    format!("{}: it is there, and no regular file", doing()),
                )
                .hint("--seccomp-learn replaces the file whole; name one that can be replaced"));
            }
        }
        rustix::fs::accessat(CWD, parent, rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).doing(doing)?;
        Ok(Self { directory, name: name.into(), path: path.to_owned() })
    }

    /// Writes the profile beside its place and renames it into it.
    pub fn write(&self, profile: &Profile) -> Result<()> {
        let doing = || format!("write the learnt profile {}", self.path.display());
        let mut text = serde_json::to_vec_pretty(profile)
            .map_err(|error| Error::new(Kind::System, format!("{}: {error}", doing())))?;
        text.push(b'\n');
        let (new, file) = self.beside().doing(doing)?;
        let written = File::from(file)
            .write_all(&text)
            .doing(doing)
            .and_then(|()| renameat(&self.directory, &new, &self.directory, &self.name).doing(doing));
        if written.is_err() {
            // What is half written is of no use; the error to tell is the first one.
            let _ = unlinkat(&self.directory, &new, AtFlags::empty());
        }
        written
    }

    /// A new file beside the profile's place: nobody else's, whatever has such a name already.
    fn beside(&self) -> Result<(OsString, OwnedFd), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pid = std::process::id();
        for attempt in 0..ATTEMPTS {
            let mut name = OsString::from(".");
            name.push(&self.name);
            name.push(format!(".{pid}-{attempt}.new"));
            match openat(&self.directory, &name, flags, Mode::from_raw_mode(0o644)) {
                Err(Errno::EXIST) => {}
                opened => return opened.map(|file| (name, file)),
            }
        }
        Err(Errno::EXIST)
    }
}
