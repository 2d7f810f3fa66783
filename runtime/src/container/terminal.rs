//! The caller's terminal while a container's program runs in the foreground.

use std::collections::VecDeque;
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::{Doing, Result};

/// How much is carried at once, in bytes.
const PORTION: usize = 16 * 1024;

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
            bridge.copy_size();
        }
        Ok(bridge)
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn copy_size(&self) {
        if let Ok(size) = tcgetwinsize(stdin()) {
            // The terminal may be closed already; then its size is of no interest.
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// Whether the container's side is closed and all it wrote is passed on.
    pub fn is_done(&self) -> bool {
        self.output_ended && self.to_caller.is_empty()
    }

    /// What to wait for: input while there is room for it, output while there is some.
    pub fn poll_fds<'a>(&'a self, stdin: BorrowedFd<'a>, stdout: BorrowedFd<'a>) -> [PollFd<'a>; 3] {
        let mut master = PollFlags::empty();
        if self.to_caller.is_empty() && !self.output_ended {
            master |= PollFlags::IN;
        }
        if !self.to_container.is_empty() {
            master |= PollFlags::OUT;
        }
        let input = if self.to_container.is_empty() && !self.input_ended {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let output = if self.to_caller.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let master = if self.output_ended && master.is_empty() {
            PollFd::from_borrowed_fd(stdout, PollFlags::empty())
        } else {
            PollFd::from_borrowed_fd(self.master.as_fd(), master)
        };
        [master, PollFd::from_borrowed_fd(stdin, input), PollFd::from_borrowed_fd(stdout, output)]
    }

    /// Carries what is ready, as [`Self::poll_fds`] was answered.
    pub fn carry(&mut self, master: PollFlags, input: PollFlags, output: PollFlags) {
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        if self.to_caller.is_empty() && master.intersects(readable) && !self.output_ended {
            self.output_ended = !fill(&mut self.to_caller, self.master.as_fd());
            if self.caller_gone {
                self.to_caller.clear();
            }
        }
        if !self.input_ended && self.to_container.is_empty() && input.intersects(readable) {
            self.input_ended = !fill(&mut self.to_container, stdin().as_fd());
            if self.input_ended {
                // The terminal's own end-of-file, as if it had been typed.
                self.to_container.push_back(4);
            }
        }
        if master.contains(PollFlags::OUT) && !drain(&mut self.to_container, self.master.as_fd()) {
            self.to_container.clear();
            self.input_ended = true;
        }
        if output.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP)
            && !drain(&mut self.to_caller, stdout().as_fd())
        {
            // Nobody reads any more, but the program goes on, and must not wait for a reader.
            self.to_caller.clear();
            self.caller_gone = true;
        }
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

/// Writes what it can; false when nobody reads any more.
fn drain(buffer: &mut VecDeque<u8>, to: BorrowedFd<'_>) -> bool {
    while !buffer.is_empty() {
        match rustix::io::write(to, buffer.as_slices().0) {
            Ok(length) => {
                buffer.drain(..length);
            }
            Err(Errno::AGAIN) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
