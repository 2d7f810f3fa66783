//! The service manager's notification socket (sd_notify(3)), passed through to the container.
//!
//! The container gets a socket of its own in a directory that is bound to /run/notify. What it says there is passed
//! on to the service manager by `start` or `run`, which then also tells it the container's main process, and waits
//! until that was heard (`BARRIER=1`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, chmodat, mkdirat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect, recv, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};

use super::host::with_address;
use super::state::State;
use super::store::{Home, NOTIFY};
use crate::error::{Doing, Error, Result};
use crate::init::channel::send_with_descriptor;
use crate::interrupt::Interrupt;

/// The socket's name in its directory.
const SOCKET: &str = "notify.sock";
/// How long the service manager may take to acknowledge, in seconds.
const PATIENCE: i64 = 30;
/// The longest datagram that counts.
const LONGEST: usize = 64 * 1024;

/// Makes the directory that the container sees as /run/notify.
pub fn prepare(home: &Home) -> Result<()> {
    mkdirat(home.as_fd(), NOTIFY, Mode::from_raw_mode(0o755))
        .doing(|| "make the directory of the notification socket")
}

/// The service manager's socket that this process was told of.
pub fn manager() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The socket in the container, and the service manager's.
pub struct Proxy {
    inside: OwnedFd,
    manager: OwnedFd,
    pid: i32,
    done: bool,
}

impl Proxy {
    /// Makes the container's socket and connects to the service manager's.
    pub fn open(home: &Home, state: &State, manager_path: &Path) -> Result<Self> {
        let path = home.path().join(NOTIFY).join(SOCKET);
        let doing = || format!("make the notification socket {}", path.display());
        let inside = datagram_socket().doing(doing)?;
        // One that an earlier `start` left, which was killed.
        let _ = rustix::fs::unlinkat(CWD, &path, rustix::fs::AtFlags::empty());
        with_address(&path, |address| bind(&inside, address)).doing(doing)?;
        // Any user of the container may notify.
        chmodat(CWD, &path, Mode::from_raw_mode(0o777), rustix::fs::AtFlags::empty()).doing(doing)?;
        let manager = datagram_socket().doing(doing)?;
        connect_to_manager(&manager, manager_path)?;
        Ok(Self { inside, manager, pid: state.init.map_or(0, |init| init.pid), done: false })
    }

    /// The descriptor to wait on, until the container has said that it is ready.
    pub fn readable(&self) -> Option<BorrowedFd<'_>> {
        (!self.done).then(|| self.inside.as_fd())
    }

    /// Passes on one message of the container's. Says whether it was the one that says "ready".
    pub fn pass_on(&mut self) -> Result<bool> {
        let mut message = vec![0; LONGEST];
        let length = recv(&self.inside, &mut *message, RecvFlags::DONTWAIT)
            .doing(|| "read the notification socket")?
            .0;
        let message = message.get(..length).unwrap_or_default();
        let ready = message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
        if ready {
            self.send(b"READY=1\n")?;
            self.send(format!("MAINPID={}\n", self.pid).as_bytes())?;
            self.barrier()?;
            self.done = true;
        }
        Ok(ready)
    }

    /// Waits until the container has said that it is ready, or has ended. A service manager that has gone is waited for no
    /// longer: the program runs. An interrupt is an error.
    pub fn wait_until_ready(mut self, pidfd: &OwnedFd, interrupt: Option<&Interrupt>) -> Result<()> {
        loop {
            let mut wait = vec![
                PollFd::from_borrowed_fd(self.inside.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            ];
            wait.extend(interrupt.map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
            match poll(&mut wait, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::os(errno, "wait for the container's notification")),
            }
            let ready = |index: usize| wait.get(index).is_some_and(|fd| !fd.revents().is_empty());
            let (said, ended) = (ready(0), ready(1));
            drop(wait);
            if let Some(interrupt) = interrupt {
                interrupt
                    .check()
                    .map_err(|error| error.while_doing("wait for the container's notification"))?;
            }
            if said {
                match self.pass_on() {
                    Ok(false) => continue,
                    Ok(true) => {}
                    Err(error) => log::warn!("{error}"),
                }
                return Ok(());
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        send_with_descriptor(self.manager.as_fd(), message, None).doing(|| "notify the service manager")
    }

    /// The service manager closes the descriptor that comes with the message once it has handled all before it.
    fn barrier(&self) -> Result<()> {
        let doing = || "wait for the service manager";
        let (wait, gone) = pipe_with(PipeFlags::CLOEXEC).doing(doing)?;
        send_with_descriptor(self.manager.as_fd(), b"BARRIER=1", Some(gone.as_fd())).doing(doing)?;
        drop(gone);
        let limit = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
        loop {
            match poll(&mut [PollFd::from_borrowed_fd(wait.as_fd(), PollFlags::HUP)], Some(&limit)) {
                Ok(0) => {
                    log::warn!("the service manager didn't acknowledge within {PATIENCE} s");
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::os(errno, doing())),
            }
        }
    }
}

fn datagram_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// The manager's socket is a path, or, with a leading `@`, an abstract name: sd_notify(3).
fn connect_to_manager(socket: &OwnedFd, path: &Path) -> Result<()> {
    let doing = || format!("connect to the service manager at {}", path.display());
    match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => rustix::net::SocketAddrUnix::new_abstract_name(name.as_bytes())
            .and_then(|address| connect(socket, &address))
            .doing(doing),
        None => with_address(path, |address| connect(socket, address)).doing(doing),
    }
}
