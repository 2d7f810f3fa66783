//! The caller's terminal while a container's program runs in the foreground.

use std::collections::VecDeque;
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::{Doing, Result};
use crate::interrupt::{self, Interrupt, Waited};

/// How much is carried at once, in bytes: what a pipe takes without making the writer wait when poll(2) calls it
/// writable, `PIPE_BUF` of pipe(7).
const PORTION: usize = 4096;

/// How much a terminal holds, in bytes: `TTYB_DEFAULT_MEM_LIMIT` of the kernel's drivers/tty/tty_buffer.c.
const HELD: usize = 640 * 1024;

/// One of the streams that a bridge carries between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The container's terminal.
    Master,
    /// The caller's standard input.
    Input,
    /// The caller's standard output.
    Output,
}

/// The two ways between the caller's streams and the container's terminal. The caller's own terminal, if it is one, is
/// raw meanwhile: what is typed is the container's to interpret.
pub struct Bridge {
    master: OwnedFd,
    before: Option<Termios>,
    to_container: VecDeque<u8>,
    to_caller: VecDeque<u8>,
    input_ended: bool,
    output_ended: bool,
    caller_gone: bool,
}

impl Bridge {
    /// Takes the master, and the caller's terminal.
    pub fn new(master: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&master, true).doing(|| "prepare the terminal")?;
        let mut bridge = Self {
            master,
            before: None,
            to_container: VecDeque::new(),
            to_caller: VecDeque::new(),
            input_ended: false,
            output_ended: false,
            caller_gone: false,
        };
        if isatty(stdin()) {
            let before = tcgetattr(stdin()).doing(|| "read the terminal's mode")?;
            let mut raw = before.clone();
            raw.make_raw();
            // The container's terminal leaves new lines to it: see `init::console`.
            raw.output_modes.insert(OutputModes::OPOST);
            tcsetattr(stdin(), OptionalActions::Now, &raw).doing(|| "make the terminal raw")?;
            bridge.before = Some(before);
        }
        Ok(bridge)
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn copy_size(&self) {
        copy_size(self.master.as_fd());
    }

    /// What to wait for: input while there is room for it, output while there is some. A stream of which nothing is
    /// wanted is left out, since poll(2) tells of its end at once and each time, whatever was asked.
    pub fn poll_fds<'a>(
        &'a self,
        stdin: BorrowedFd<'a>,
        stdout: BorrowedFd<'a>,
    ) -> impl Iterator<Item = (Stream, PollFd<'a>)> {
        let wanted = |flags: PollFlags, is_wanted: bool| if is_wanted { flags } else { PollFlags::empty() };
        let master = wanted(PollFlags::IN, self.to_caller.is_empty() && !self.output_ended)
            | wanted(PollFlags::OUT, !self.to_container.is_empty());
        let input = wanted(PollFlags::IN, self.to_container.is_empty() && !self.input_ended);
        let output = wanted(PollFlags::OUT, !self.to_caller.is_empty());
        [
            (Stream::Master, self.master.as_fd(), master),
            (Stream::Input, stdin, input),
            (Stream::Output, stdout, output),
        ]
        .into_iter()
        .filter(|(.., events)| !events.is_empty())
        .map(|(stream, fd, events)| (stream, PollFd::from_borrowed_fd(fd, events)))
    }

    /// Carries what is ready at a stream, as poll(2) answered to [`Self::poll_fds`].
    pub fn carry(&mut self, stream: Stream, said: PollFlags) {
        if said.is_empty() {
            return;
        }
        match stream {
            Stream::Master => {
                if said.contains(PollFlags::OUT) && !drain(&mut self.to_container, self.master.as_fd()) {
                    self.end_input();
                }
                if said.intersects(PollFlags::HUP | PollFlags::ERR) {
                    // Nobody has the other side open.
                    self.end_input();
                }
                if self.to_caller.is_empty() && !self.output_ended {
                    self.output_ended = !fill(&mut self.to_caller, self.master.as_fd());
                }
                if self.caller_gone {
                    self.to_caller.clear();
                }
            }
            Stream::Input => {
                self.input_ended = !fill(&mut self.to_container, stdin().as_fd());
                if self.input_ended {
                    // The terminal's own end-of-file, as if it had been typed.
                    self.to_container.push_back(4);
                }
            }
            Stream::Output => {
                if !drain(&mut self.to_caller, stdout().as_fd()) {
                    // Nobody reads any more, but the program goes on, and must not wait for a reader.
                    self.to_caller.clear();
                    self.caller_gone = true;
                }
            }
        }
    }

    /// Passes on what the container wrote last: what its terminal holds when the program has ended, and no more, since a
    /// process that was left behind may write for ever. A caller who reads slowly is waited for, unless a signal asks to
    /// end, which is an error.
    pub fn finish(&mut self) -> Result<()> {
        let interrupt = Interrupt::watch()?;
        let mut left = HELD;
        loop {
            if !self.to_caller.is_empty() {
                interrupt::wait_until(stdout().as_fd(), PollFlags::OUT, Some(&interrupt), None)?;
                self.carry(Stream::Output, PollFlags::OUT);
                continue;
            }
            let over = self.output_ended || self.caller_gone || left == 0;
            if over || interrupt::wait(self.master.as_fd(), None, Some(Duration::ZERO))? == Waited::TimedOut {
                return Ok(());
            }
            self.carry(Stream::Master, PollFlags::IN);
            left = left.saturating_sub(self.to_caller.len());
        }
    }

    fn end_input(&mut self) {
        self.to_container.clear();
        self.input_ended = true;
    }
}

/// Gives a terminal the size of the caller's: of the first of its streams that is a terminal, or else of the one that
/// controls it. Without any the size stays as it is.
pub fn copy_size(master: BorrowedFd<'_>) {
    let size = tcgetwinsize(stderr()).or_else(|_| tcgetwinsize(stdout())).or_else(|_| tcgetwinsize(stdin()));
    let size = size.or_else(|_| {
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        tcgetwinsize(rustix::fs::open("/dev/tty", flags, Mode::empty())?)
    });
    if let Ok(size) = size {
        // The terminal may be closed already; then its size is of no interest.
        let _ = tcsetwinsize(master, size);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

/// Reads one portion; false at the end (a terminal whose other side is closed says EIO).
fn fill(buffer: &mut VecDeque<u8>, from: BorrowedFd<'_>) -> bool {
    let mut portion = [0; PORTION];
    match rustix::io::read(from, &mut portion) {
        Ok(0) => false,
        Ok(length) => {
            buffer.extend(portion.get(..length).unwrap_or_default());
            true
        }
        Err(Errno::AGAIN | Errno::INTR) => true,
        Err(_) => false,
    }
}

/// Writes what is taken at once; false when nobody reads any more.
fn drain(buffer: &mut VecDeque<u8>, to: BorrowedFd<'_>) -> bool {
    match rustix::io::write(to, buffer.as_slices().0) {
        Ok(length) => {
            buffer.drain(..length);
            true
        }
        Err(Errno::AGAIN | Errno::INTR) => true,
        Err(_) => false,
    }
}
