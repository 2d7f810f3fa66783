//! The socket between the two sides of a clone.
//!
//! It keeps message boundaries (`SOCK_SEQPACKET`), so a frame is a letter and what belongs to it. The end of
//! the stream has a meaning of its own: the program was executed (every descriptor of ours is close-on-exec),
//! or the other side died; which of the two, the caller finds out from the process.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::host_mounts::HostMount;
use crate::error::{Doing, Error, Kind, Result};

/// The longest frame: an error's text.
const LONGEST: usize = 32 * 1024;

/// How much of each text of an error is told where all would be too long, in bytes. There are three, and of a byte JSON may
/// make six.
const LONGEST_PART: usize = LONGEST / (3 * 6) - 64;

/// What one side tells the other.
#[derive(Debug)]
pub enum Frame {
    /// Container side: run the prestart and createRuntime hooks now.
    RuntimeHooks,
    /// Container side: the pseudoterminal's master, as the attached descriptor.
    Console(OwnedFd),
    /// Container side: send so many descriptors of the rootfs and the sources of bind mounts.
    Sources(usize),
    /// Host side: the next of them, as a detached mount; after the rootfs comes the directory that it is attached to.
    Tree(OwnedFd),
    /// Container side: map the ids of this detached mount, the next in the order of the steps.
    MapIds(OwnedFd),
    /// Container side: a mount that is about to stand in the host's tree.
    HostMount(HostMount),
    /// Host side: the container's first process, cloned by another: its id, and its pidfd attached.
    Born(i32, OwnedFd),
    /// Container side: how long each step took, a line for each.
    Times(String),
    /// Container side: everything is made.
    Ready,
    /// Host side: go on.
    Go,
    /// Container side: a seccomp listener, as the attached descriptor.
    Listener(OwnedFd),
    /// Either side: this failed.
    Failed(Error),
}

/// One end of the socket.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends, close-on-exec.
    pub fn pair() -> Result<(Self, Self)> {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map(|(a, b)| (Self(a), Self(b)))
            .doing(|| "make the socket between the runtime and the container's first process")
    }

    /// Takes a connected `SOCK_SEQPACKET` socket as a channel.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// The same end of the socket once more, close-on-exec.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends a frame. A peer that is gone is an error, not a signal.
    pub fn send(&self, frame: &Frame) -> Result<(), Errno> {
        match frame {
            Frame::RuntimeHooks => self.send_bytes(b"H", None),
            Frame::Sources(count) => self.send_bytes(format!("S{count}").as_bytes(), None),
            Frame::Tree(tree) => self.send_bytes(b"T", Some(tree.as_fd())),
            Frame::MapIds(mount) => self.send_bytes(b"M", Some(mount.as_fd())),
            Frame::HostMount(mount) => {
                let json = serde_json::to_string(mount).map_err(|_| Errno::ILSEQ)?;
                self.send_bytes(format!("P{json}").as_bytes(), None)
            }
            Frame::Born(pid, pidfd) => self.send_bytes(format!("B{pid}").as_bytes(), Some(pidfd.as_fd())),
            Frame::Times(lines) => {
                let mut bytes = format!("D{lines}").into_bytes();
                bytes.truncate(LONGEST);
                self.send_bytes(&bytes, None)
            }
            Frame::Ready => self.send_bytes(b"R", None),
            Frame::Go => self.send_bytes(b"G", None),
            Frame::Listener(listener) => self.send_bytes(b"L", Some(listener.as_fd())),
            Frame::Console(master) => self.send_bytes(b"C", Some(master.as_fd())),
            Frame::Failed(error) => {
                // An error is plain data, so that this can't fail; an empty text would still say "failed".
                let mut text = serde_json::to_vec(error).unwrap_or_default();
                if text.len() >= LONGEST {
                    text = serde_json::to_vec(&error.shortened(LONGEST_PART)).unwrap_or_default();
                }
                self.send_bytes(&[b"E", text.as_slice()].concat(), None)
            }
        }
    }

    /// Receives the next frame; nothing when the other side closed its end.
    pub fn receive(&self) -> Result<Option<Frame>> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => break message.bytes,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => break 0,
                Err(errno) => return Err(Error::os(errno, "receive from the other side of the clone")),
            }
        };
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match (bytes.get(..length).and_then(<[u8]>::split_first), descriptor) {
            (None, _) => Ok(None),
            (Some((b'H', _)), _) => Ok(Some(Frame::RuntimeHooks)),
            (Some((b'S', number)), _) => Ok(Some(Frame::Sources(parse_number(number)?))),
            (Some((b'T', _)), Some(tree)) => Ok(Some(Frame::Tree(tree))),
            (Some((b'M', _)), Some(mount)) => Ok(Some(Frame::MapIds(mount))),
            (Some((b'P', json)), _) => serde_json::from_slice(json)
                .map(|mount| Some(Frame::HostMount(mount)))
                .map_err(|_| Error::new(Kind::System, "a mount on the runtime's own socket is garbled")),
            (Some((b'B', number)), Some(pidfd)) => Ok(Some(Frame::Born(parse_number(number)?, pidfd))),
            (Some((b'D', lines)), _) => Ok(Some(Frame::Times(String::from_utf8_lossy(lines).into_owned()))),
            (Some((b'R', _)), _) => Ok(Some(Frame::Ready)),
            (Some((b'G', _)), _) => Ok(Some(Frame::Go)),
            (Some((b'C', _)), Some(master)) => Ok(Some(Frame::Console(master))),
            (Some((b'L', _)), Some(listener)) => Ok(Some(Frame::Listener(listener))),
            (Some((b'E', text)), _) => Ok(Some(Frame::Failed(
                serde_json::from_slice(text)
                    .unwrap_or_else(|_| Error::new(Kind::System, String::from_utf8_lossy(text))),
            ))),
            (Some((letter, _)), _) => Err(Error::new(
                Kind::System,
                format!("unknown frame {letter:#04x} on the runtime's own socket"),
            )),
        }
    }

    fn send_bytes(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        send_with_descriptor(self.0.as_fd(), bytes, descriptor)
    }
}

fn parse_number<T: FromStr>(text: &[u8]) -> Result<T> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::new(Kind::System, "a number on the runtime's own socket is garbled"))
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends bytes, and a descriptor with them, on a connected Unix socket.
pub fn send_with_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_crosses_the_channel_with_its_place_and_errno() {
        let (here, there) = Channel::pair().unwrap();
        let error = Error::os(Errno::NOSPC, "mount tmpfs on /dev/shm").at("mounts[2]");
        there.send(&Frame::Failed(error.clone())).unwrap();
        drop(there);
        match here.receive().unwrap() {
            Some(Frame::Failed(received)) => assert_eq!(received.to_string(), error.to_string()),
            other => panic!("{other:?}"),
        }
        assert!(here.receive().unwrap().is_none());
    }

    #[test]
    fn a_failure_with_a_long_text_keeps_its_place_and_errno() {
        let (here, there) = Channel::pair().unwrap();
        let long = "\u{1}".repeat(LONGEST);
        let error =
            Error::os(Errno::NOSPC, long.as_str()).at(format!("mounts[2].{long}")).hint(long.as_str());
        there.send(&Frame::Failed(error)).unwrap();
        match here.receive().unwrap() {
            Some(Frame::Failed(received)) => {
                assert_eq!(received.errno(), Some(Errno::NOSPC));
                assert!(received.place().unwrap().starts_with("mounts[2]."));
                assert!(received.to_string().starts_with("\u{1}\u{1}"));
            }
            other => panic!("{other:?}"),
        }
    }
}
