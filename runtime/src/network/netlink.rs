//! rtnetlink(7), as far as moving a network device needs it: messages made and taken apart, and a socket that asks the
//! kernel and waits for its answer.
//!
//! A message is a header, a fixed part that depends on its type, and attributes. What isn't understood is carried along
//! as bytes: an address keeps attributes that this program has never heard of.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use crate::error::{Doing, Error, Result};
use crate::sys::netlink::want_explanations;

/// Message types: netlink(7), rtnetlink(7).
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Change, or make, a device.
pub const RTM_NEWLINK: u16 = 16;
/// Tell of a device.
pub const RTM_GETLINK: u16 = 18;
/// Add an address.
pub const RTM_NEWADDR: u16 = 20;
/// Tell of addresses.
pub const RTM_GETADDR: u16 = 22;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
/// All there are, not one.
pub const NLM_F_DUMP: u16 = 0x300;
/// Make it when it isn't there.
pub const NLM_F_CREATE: u16 = 0x400;

/// The header of an error is followed by attributes: the kernel's words are among them.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

const HEADER: usize = 16;
const ALIGNMENT: usize = 4;

/// The largest answer of the kernel: it makes none over 32 KiB for a dump.
const LONGEST: usize = 64 * 1024;

/// A message to the kernel.
#[derive(Debug)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request with the fixed part of its type.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        Self { kind, flags, body: fixed.to_vec() }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        // No attribute here is longer than a name or a few addresses.
        let length = u16::try_from(ALIGNMENT + value.len()).unwrap_or(u16::MAX);
        pad(&mut self.body);
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self
    }

    /// Adds an attribute that is a text with its NUL.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    fn bytes(mut self) -> Vec<u8> {
        pad(&mut self.body);
        let is_dump = self.flags & NLM_F_DUMP == NLM_F_DUMP;
        let flags = self.flags | NLM_F_REQUEST | if is_dump { 0 } else { NLM_F_ACK };
        let mut bytes = Vec::with_capacity(HEADER + self.body.len());
        bytes.extend(((HEADER + self.body.len()) as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Sequence number and port: one question at a time is asked on a socket, and the kernel fills the port in.
        bytes.extend([0; 8]);
        bytes.append(&mut self.body);
        bytes
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// A message from the kernel, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its type.
    pub kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Answer {
    /// The fixed part, where the message is long enough to have one of this length.
    pub fn fixed<const N: usize>(&self) -> Option<[u8; N]> {
        self.body.get(..N)?.try_into().ok()
    }

    /// The attributes after a fixed part of this length: type and value.
    pub fn attributes(&self, fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.body.get(fixed..).unwrap_or_default())
    }
}

/// The attributes in some bytes; what is garbled ends the list.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Flags of an attribute's type: nested, and in network byte order.
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & !FLAGS;
        let value = bytes.get(ALIGNMENT..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The messages in what was received.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Answer> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?.to_vec();
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Answer { kind, flags, body })
    })
}

/// What an error message says: the errno, none for "done", and the kernel's words.
fn verdict(answer: &Answer) -> (Option<Errno>, Option<String>) {
    let code = answer.fixed::<4>().map_or(-libc::EIO, i32::from_ne_bytes);
    let words = (answer.flags & NLM_F_ACK_TLVS != 0).then(|| {
        // The code, and the header of the request; the request's body was asked to be left out.
        let mut told = answer.attributes(4 + HEADER);
        let words = told.find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?.1;
        Some(String::from_utf8_lossy(words).trim_end_matches('\0').to_owned())
    });
    ((code != 0).then(|| Errno::from_raw_os_error(-code)), words.flatten())
}

/// A socket to the kernel's side of the network namespace in which it was made.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// In the network namespace of the calling thread.
    pub fn new() -> Result<Self> {
        let doing = || "make a netlink socket";
        // The default protocol of the family is NETLINK_ROUTE.
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).doing(doing)?;
        // Nobody but the kernel is heard then.
        connect(&socket, &SocketAddrNetlink::new(0, 0)).doing(doing)?;
        want_explanations(&socket).doing(doing)?;
        Ok(Self(socket))
    }

    /// Asks, and waits for the whole answer. The kernel's own words on a refusal are the error's advice.
    pub fn ask(&self, request: Request, doing: impl Fn() -> String) -> Result<Vec<Answer>> {
        send(&self.0, &request.bytes(), SendFlags::empty()).doing(&doing)?;
        let mut bytes = vec![0; LONGEST];
        let mut answers = Vec::new();
        loop {
            let (received, length) = match recv(&self.0, &mut bytes[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                received => received.doing(&doing)?,
            };
            if length > received {
                return Err(Error::os(Errno::MSGSIZE, doing()));
            }
            for answer in messages(bytes.get(..received).unwrap_or_default()) {
                match answer.kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        return match verdict(&answer) {
                            (None, _) => Ok(answers),
                            (Some(errno), Some(words)) => {
                                Err(Error::os(errno, doing()).hint(format!("the kernel says: {words}")))
                            }
                            (Some(errno), None) => Err(Error::os(errno, doing())),
                        };
                    }
                    _ => answers.push(answer),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_request_is_found_in_it() {
        let bytes = Request::new(RTM_NEWLINK, NLM_F_CREATE, &[1; 16])
            .with_text(3, "eth0")
            .with(4, &1500_u32.to_ne_bytes())
            .bytes();
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let all: Vec<_> = messages(&bytes).collect();
        let [message] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((message.kind, message.fixed::<16>()), (RTM_NEWLINK, Some([1; 16])));
        let found: Vec<_> = message.attributes(16).collect();
        assert_eq!(found, [(3, &b"eth0\0"[..]), (4, &1500_u32.to_ne_bytes())]);
    }

    #[test]
    fn an_error_tells_its_errno_and_the_kernels_words() {
        let mut body = (-libc::EBUSY).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        let told = Request::new(NLMSG_ERROR, NLM_F_ACK_TLVS, &body).with_text(NLMSGERR_ATTR_MSG, "in use");
        let bytes = told.bytes();
        let answer = messages(&bytes).next().unwrap();
        assert_eq!(verdict(&answer), (Some(Errno::BUSY), Some("in use".to_owned())));
        let done = Answer { kind: NLMSG_ERROR, flags: 0, body: vec![0; 4 + HEADER] };
        assert_eq!(verdict(&done), (None, None));
    }

    #[test]
    fn garbled_bytes_end_a_list_and_nothing_else() {
        for length in [0_u16, 3, 200] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([1, 0, 0, 0, 0, 0]);
            assert!(attributes(&bytes).count() <= 1);
            assert_eq!(messages(&bytes).count(), 0);
        }
    }
}
