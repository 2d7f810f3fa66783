//! Terminals: the socket on which a runtime sends the master of a container's pseudo-terminal, and pseudo-terminals
//! that stand in for a user's.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::command::Running;

/// A listening socket for `--console-socket` or `--pidfd-socket`.
#[derive(Debug)]
pub struct DescriptorSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl DescriptorSocket {
    /// Listens at a path that does not exist yet.
    pub fn new(path: PathBuf) -> Self {
        let listener =
            UnixListener::bind(&path).unwrap_or_else(|error| panic!("bind {}: {error}", path.display()));
        Self { listener, path }
    }

    /// Where it listens.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("scratch paths are ASCII")
    }

    /// Whether somebody has connected already, and wasn't taken yet.
    pub fn is_called(&self) -> bool {
        readable(&self.listener, Duration::ZERO)
    }

    /// Takes the next connection and the one descriptor that comes over it, with the message's text.
    #[track_caller]
    pub fn receive(&self) -> (OwnedFd, String) {
        assert!(readable(&self.listener, Duration::from_secs(30)), "nothing connected to {}", self.path());
        let (stream, _) = self.listener.accept().expect("accept");
        assert!(readable(&stream, Duration::from_secs(30)), "nothing was sent to {}", self.path());
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                .expect("recvmsg");
        let mut descriptors: Vec<OwnedFd> = ancillary
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(descriptors.len(), 1, "one descriptor was to come");
        let text = String::from_utf8_lossy(text.get(..received.bytes).unwrap_or_default()).into_owned();
        (descriptors.remove(0), text)
    }
}

/// The master side of a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    seen: String,
}

impl Terminal {
    /// Takes over a master that a runtime sent.
    pub fn from_master(master: OwnedFd) -> Self {
        Self { master: File::from(master), seen: String::new() }
    }

    /// A new pseudo-terminal, and its other side for a command's standard descriptors.
    pub fn new() -> (Self, File) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("openpt");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlocking a pseudo-terminal");
        let name = ptsname(&master, Vec::new()).expect("ptsname").into_string().expect("a name in ASCII");
        let slave =
            File::options().read(true).write(true).open(Path::new(&name)).expect("opening the other side");
        (Self::from_master(master), slave)
    }

    /// Starts a command in a new pseudo-terminal of 30 rows and 100 columns.
    pub fn around(command: Command) -> (Running, Self) {
        let (terminal, slave) = Self::new();
        terminal.resize(30, 100);
        (Running::start_on_terminal(command, &slave), terminal)
    }

    /// Starts a command that gives a shell in a container's terminal, types `line` there, waits for `answer`, and has the
    /// shell end with `status`, which is to be the command's.
    #[track_caller]
    pub fn converse(command: Command, line: &str, answer: &str, status: i32) {
        let (running, mut terminal) = Self::around(command);
        terminal.read_until("# ");
        terminal.await_size();
        terminal.type_in(&format!("{line}\n"));
        terminal.read_until(answer);
        terminal.type_in(&format!("exit {status}\n"));
        terminal.read_to_end();
        running.finish().exits(status);
    }

    /// Waits until the container's terminal, in which a shell reads, has the size of [`Terminal::around`]: engines send it
    /// a moment after the start.
    #[track_caller]
    pub fn await_size(&mut self) {
        self.type_in(
            "until test \"$(stty size 2>/dev/null)\" = '30 100'; do sleep 0.05; done; echo si\"\"zed\n",
        );
        self.read_until("sized");
    }

    /// Types text.
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("writing to a terminal");
    }

    /// Reads until `part` has appeared, and gives everything up to now.
    #[track_caller]
    pub fn read_until(&mut self, part: &str) -> String {
        let found = self.read_while(|seen| !seen.contains(part));
        assert!(found, "the terminal never showed {part:?} but: {}", self.seen);
        self.seen.clone()
    }

    /// Reads until the other side is closed, and gives everything.
    pub fn read_to_end(&mut self) -> String {
        self.read_while(|_| true);
        self.seen.clone()
    }

    /// Forgets what was read.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    fn read_while(&mut self, more: impl Fn(&str) -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(30);
        let mut buffer = [0; 4096];
        while more(&self.seen) {
            if Instant::now() > end || !readable(&self.master, Duration::from_secs(30)) {
                return false;
            }
            // The kernel answers EIO once nobody has the other side open.
            match self.master.read(&mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(count) => {
                    let text = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
                    self.seen.push_str(&text);
                }
            }
        }
        true
    }

    /// Sets the size in characters.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("TIOCSWINSZ");
    }

    /// The size in characters: rows and columns.
    pub fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(&self.master).expect("TIOCGWINSZ");
        (size.ws_row, size.ws_col)
    }
}

/// Waits until a descriptor has something to read, or its other side is gone.
fn readable(descriptor: &impl AsFd, limit: Duration) -> bool {
    let timeout = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    loop {
        match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
