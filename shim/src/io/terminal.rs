//! A process's terminal: its master, between the client's FIFOs.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use coracle::error::{Doing, Result};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::copy::{self, End};
use super::output::{Common, Output, Sink};
use crate::sys;

/// The terminal of a process, before and after it is there.
pub struct Terminal {
    name: String,
    waiting: Option<(Sink, Option<AsyncFd<OwnedFd>>)>,
    /// The copies own it: when both have ended it is closed, which hangs the terminal up.
    master: Weak<AsyncFd<OwnedFd>>,
    /// While somebody has the other side open, reading the master doesn't fail. The process may close its side and open
    /// it anew (login programs do), which isn't the end.
    slave: Option<OwnedFd>,
    size: Option<Winsize>,
}

/// Input for a terminal.
pub struct TerminalInput {
    from: AsyncFd<OwnedFd>,
    master: Arc<AsyncFd<OwnedFd>>,
}

impl Terminal {
    /// A terminal that is yet to come.
    pub fn new(name: String, sink: Sink, input: Option<AsyncFd<OwnedFd>>) -> Self {
        Self { name, waiting: Some((sink, input)), master: Weak::new(), slave: None, size: None }
    }

    /// Takes the master, and begins to copy what the terminal shows. Nothing the second time.
    pub fn attach(
        &mut self,
        master: OwnedFd,
        common: &Arc<Common>,
    ) -> Result<(Option<Output>, Option<TerminalInput>)> {
        rustix::io::ioctl_fionbio(&master, true).doing(|| "prepare the terminal")?;
        let Some((sink, input)) = self.waiting.take() else { return Ok((None, None)) };
        if let Some(size) = self.size {
            tcsetwinsize(&master, size).doing(|| "set the terminal's size")?;
        }
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        // Where this isn't possible, closing the other side is the end.
        self.slave = ioctl_tiocgptpeer(&master, flags).ok();
        let master =
            sys::watch(master, Interest::READABLE | Interest::WRITABLE).doing(|| "wait for the terminal")?;
        let master = Arc::new(master);
        self.master = Arc::downgrade(&master);
        let input = input.map(|from| TerminalInput { from, master: master.clone() });
        Ok((Some(Output::of_terminal(self.name.clone(), master, sink, common)), input))
    }

    /// Sets the size, in characters.
    pub fn resize(&mut self, width: u16, height: u16) -> Result<()> {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        self.size = Some(size);
        match self.master.upgrade() {
            Some(master) => tcsetwinsize(master.get_ref(), size).doing(|| "set the terminal's size"),
            None => Ok(()),
        }
    }

    /// Lets the other side go: what is left is the end's.
    pub fn process_ended(&mut self) {
        self.slave = None;
    }
}

impl TerminalInput {
    /// Copies into the terminal. When the input ends, after the client said so, the terminal is hung up, as containerd's
    /// own shim does.
    pub fn start(self, carried: Arc<AtomicU64>, common: &Arc<Common>) -> AbortHandle {
        let common = common.clone();
        let task = tokio::spawn(async move {
            let end = copy::carry(&self.from, &self.master, &carried, std::future::pending()).await;
            if end == End::Source {
                common.hangup.send_replace(true);
            }
        });
        task.abort_handle()
    }
}
