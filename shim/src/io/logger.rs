//! Loggers: programs that take a container's output (`binary://`, `binary-v2://`).
//!
//! A logger gets standard output at descriptor 3, standard error at 4, and says at 5 that it is ready. It is ended by
//! SIGTERM when the output has ended, and by SIGKILL twelve seconds later.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use coracle::error::{Doing, Error, Kind, Result, describe};
use coracle::sys::clone::{Clone3, Forked};
use coracle::sys::exec::{CStringArray, execve};
use coracle::sys::process::{become_stdio, close_on_exec_from, exit_now, keep_on_exec, keep_only};
use coracle::sys::signal;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::time::{Instant, timeout};

use super::taker::{self, Taker};
use super::uri::Program;
use crate::citizen;

/// How long a logger may take to say that it is ready. One that doesn't in this time hangs.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a logger may take to end of itself, once the output has ended and it hasn't read all of it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a logger may take to end after SIGTERM: as with containerd's own shim.
const TERM_LIMIT: Duration = Duration::from_secs(12);

/// A logger that runs.
pub struct Logger {
    taker: Taker,
}

/// The ends of a logger's pipes to write to.
pub struct Inputs {
    /// For standard output.
    pub stdout: OwnedFd,
    /// For standard error.
    pub stderr: OwnedFd,
}

impl Logger {
    /// Executes the program and waits until it is ready.
    pub async fn start(program: &Program, id: &str, namespace: &str) -> Result<(Self, Inputs)> {
        let name = program.path.display().to_string();
        let told = |error: Error| error.while_doing(format_args!("start the logger {name}"));
        let pipe = || pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe");
        let (stdout, stdout_in) = pipe().map_err(told)?;
        let (stderr, stderr_in) = pipe().map_err(told)?;
        let (ready, ready_in) = pipe().map_err(told)?;
        let (failure, failure_in) = pipe().map_err(told)?;
        let command = Command::new(program, id, namespace).map_err(told)?;
        let given = [stdout.as_fd(), stderr.as_fd(), ready_in.as_fd(), failure_in.as_fd()];
        let pidfd = match Clone3::default().spawn().doing(|| "make a process").map_err(told)? {
            Forked::Child => command.execute(&given),
            Forked::Parent { pidfd, .. } => pidfd,
        };
        drop((ready_in, failure_in));
        let logger = Self { taker: Taker::new(format!("the logger {name}"), pidfd, vec![stdout, stderr]) };
        let inputs = Inputs { stdout: stdout_in, stderr: stderr_in };
        if let Some(errno) = first_word(failure).await.map_err(told)? {
            let failed = Error::os(Errno::from_raw_os_error(i32::from_ne_bytes(errno)), "execute it");
            return Err(told(failed).hint("the URI must name an executable file on the host"));
        }
        let is_ready = match timeout(READY_LIMIT, first_word::<1>(ready)).await {
            Ok(word) => word.map_err(told)?.is_some() || !program.says_ready,
            Err(_) => {
                return Err(told(Error::new(Kind::System, "it isn't ready after a minute"))
                    .hint("a logger closes its descriptor 5 when it is ready"));
            }
        };
        if !is_ready {
            return Err(told(Error::new(
                Kind::System,
                "it ended, or closed its descriptor 5, without being ready",
            ))
            .hint("with binary-v2 a logger writes a byte to descriptor 5 when it is ready"));
        }
        Ok((logger, inputs))
    }

    /// One line about it.
    pub fn describe(&self) -> String {
        self.taker.describe()
    }

    /// Waits until the container's output has ended.
    pub async fn output_ended(&self) {
        self.taker.output_ended().await;
    }

    /// Ends it: by itself if it has something left to read, by SIGTERM, and at last by SIGKILL.
    pub async fn end(&mut self) {
        let mut process = self.taker.process();
        if self.taker.has_unread() {
            process.ended(Instant::now() + LAST_WORDS).await;
        }
        process.signal(libc::SIGTERM);
        process.end_by(Instant::now() + TERM_LIMIT).await;
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        if !self.taker.has_ended() {
            let process = self.taker.process();
            process.signal(libc::SIGTERM);
            process.end_beside(Instant::now() + TERM_LIMIT);
        }
    }
}

/// The first `N` bytes that come through a pipe; nothing if it ends before.
async fn first_word<const N: usize>(pipe: OwnedFd) -> Result<Option<[u8; N]>> {
    let pipe = taker::non_blocking(pipe).doing(|| "wait for it")?;
    let mut word = [0; N];
    loop {
        let mut readable = pipe.readable().await.doing(|| "wait for it")?;
        match readable.try_io(|pipe| Ok(rustix::io::read(pipe.get_ref(), &mut word)?)) {
            Ok(Ok(length)) => return Ok((length == N).then_some(word)),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error).doing(|| "read what it says"),
            Err(_would_block) => {}
        }
    }
}

/// What is executed, prepared before the process is made.
struct Command {
    path: CString,
    argv: CStringArray,
    envp: CStringArray,
}

impl Command {
    fn new(program: &Program, id: &str, namespace: &str) -> Result<Self> {
        let path = text(program.path.as_os_str())?;
        let arguments = program.arguments.iter().map(|argument| text(argument));
        let argv = [Ok(path.clone())].into_iter().chain(arguments).collect::<Result<_>>()?;
        let own = [("CONTAINER_ID", id), ("CONTAINER_NAMESPACE", namespace)];
        let kept = std::env::vars_os().filter(|(name, _)| own.iter().all(|(own, _)| name != own));
        let inherited = kept.map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&b'='));
        let own = own.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
        let envp =
            inherited.chain(own).map(|entry| text(OsStr::from_bytes(&entry))).collect::<Result<_>>()?;
        Ok(Self { path, argv: CStringArray::new(argv), envp: CStringArray::new(envp) })
    }

    /// Becomes the program, which gets the first three descriptors at 3, 4 and 5. The fourth hears why if it can't.
    fn execute(&self, given: &[BorrowedFd<'_>; 4]) -> ! {
        let prepare = || {
            let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            become_stdio(null.as_fd())?;
            let mut kept = keep_only(3, given)?;
            // Closed with the rest.
            std::mem::forget(null);
            let failure = kept.pop().ok_or(Errno::BADF)?;
            close_on_exec_from(3)?;
            (3..=5).try_for_each(keep_on_exec)?;
            std::mem::forget(kept);
            signal::reset_for_exec()?;
            citizen::restore_descriptor_limit()?;
            Ok::<_, Errno>(failure)
        };
        let say = |failure: BorrowedFd<'_>, errno: Errno| {
            let _ = rustix::io::write(failure, &errno.raw_os_error().to_ne_bytes());
        };
        match prepare() {
            Ok(failure) => say(failure.as_fd(), execve(&self.path, &self.argv, &self.envp)),
            Err(errno) => say(given[3], errno),
        }
        exit_now(127)
    }
}

fn text(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| {
        Error::new(Kind::Config, format!("{:?} has a NUL byte in it: {}", text, describe(Errno::INVAL)))
    })
}
