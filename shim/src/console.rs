//! A console socket: where another runtime sends a terminal's master (`--console-socket`).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use coracle::error::{Doing, Error, Kind, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, openat, unlinkat};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, listen, recvmsg, socket_with,
};

/// A socket in the bundle that waits for one master.
pub struct ConsoleSocket {
    bundle: OwnedFd,
    name: String,
    path: PathBuf,
    socket: OwnedFd,
}

impl ConsoleSocket {
    /// Makes the socket. The path of a bundle is often too long for a socket's address, so it is named through a
    /// descriptor of this process.
    pub fn bind(bundle: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let doing = || format!("make a console socket in {}", bundle.display());
        let name = format!("console-{}.sock", COUNT.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let bundle = openat(CWD, bundle, flags, Mode::empty()).doing(doing)?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}/{name}", std::process::id(), bundle.as_raw_fd()));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).doing(doing)?;
        let address = SocketAddrUnix::new(&path).doing(doing)?;
        // The name gets this mode at its birth: nobody else may send.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).doing(doing)?;
        net::bind(&socket, &address).doing(doing)?;
        let made = Self { bundle, name, path, socket };
        listen(&made.socket, 1).doing(doing)?;
        Ok(made)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The master, which a runtime that has ended has sent.
    pub fn receive(self) -> Result<OwnedFd> {
        let doing = || "receive the terminal from the runtime";
        let peer = accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).doing(doing)?;
        let mut name = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&peer, &mut [IoSliceMut::new(&mut name)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .doing(doing)?;
        let master = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        master.ok_or_else(|| Error::new(Kind::System, format!("{}: it sent no descriptor", doing())))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // It goes with the bundle at the latest.
        let _ = unlinkat(&self.bundle, &self.name, AtFlags::empty());
    }
}
