//! Work that blocks, or needs standard streams, a working directory or privileges of its own: a fork of the shim does
//! it and ends.
//!
//! The shim has one thread, so a fork is a whole copy of it: nothing is executed anew, nothing is serialised on the
//! way in. The result comes back over a socket pair, with a descriptor where there is one (a terminal's master). The
//! copy holds no descriptor of the shim's but the socket and the log; it ends with `_exit`, so that nothing of the
//! event loop that it is a copy of is ever run or undone there. When the shim dies, its workers are killed, and what
//! they were about to make is not made. A [`Helper`] is a copy that stays.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;

use coracle::error::{Doing, Error, Kind, Result};
use coracle::sys::clone::{Clone3, Forked};
use coracle::sys::process::{exit_now, keep_only};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::sync::oneshot;

use crate::reaper::{Exit, Reaper};
use crate::{citizen, logger, sys};

/// The longest result, in bytes: it must lie in the socket's buffer until the worker has ended. It is a list of pids at
/// the most, or an error's text.
const LONGEST: usize = 64 << 10;

/// What a worker has at 0, 1 and 2; `None` is /dev/null.
#[derive(Debug, Default)]
pub struct Streams {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// What comes back: a value, and a descriptor if there is one.
pub type Output<T> = (T, Option<OwnedFd>);

/// Does `job` in a copy of this process, and gives its result once the copy has ended: what it left behind are children
/// of the shim by then.
pub async fn run<T, J>(reaper: &Reaper, streams: Streams, job: J) -> Result<Output<T>>
where
    T: Serialize + DeserializeOwned,
    J: FnOnce() -> Result<Output<T>>,
{
    run_or_clean_up(reaper, streams, |_| job(), async |_| ()).await
}

/// Tells the shim, before a worker is done, what it has made so far.
pub struct SoFar<'socket>(&'socket OwnedFd);

impl SoFar<'_> {
    /// Tells it. The shim learns of it only where the worker doesn't come to its end.
    pub fn is<T: Serialize>(&self, made: &T) -> Result<()> {
        let text = serde_json::to_vec(made).map_err(|error| unwritable(&error))?;
        post(self.0, SO_FAR, &text, None)
    }
}

/// As [`run`]. Where the copy was killed at its work, `clean_up` takes away what it has left half made, and is given what
/// the copy told of that.
pub async fn run_or_clean_up<T, J>(
    reaper: &Reaper,
    streams: Streams,
    job: J,
    clean_up: impl AsyncFnOnce(Option<T>),
) -> Result<Output<T>>
where
    T: Serialize + DeserializeOwned,
    J: FnOnce(&SoFar<'_>) -> Result<Output<T>>,
{
    let (ours, theirs) = pair()?;
    let pid = match Clone3::default().spawn().doing(|| "fork a worker")? {
        Forked::Parent { pid, .. } => pid,
        Forked::Child => child(&theirs, &streams, job),
    };
    let ended = reaper.watch(pid);
    drop((theirs, streams));
    let exit = wait(ended).await?;
    let so_far = match receive(&ours)? {
        Some(Message::Done(result)) => return result,
        Some(Message::SoFar(made)) => match receive(&ours)? {
            Some(Message::Done(result)) => return result,
            _ => Some(made),
        },
        None => None,
    };
    clean_up(so_far).await;
    Err(Error::new(
        Kind::System,
        format!("the shim's worker ended with status {} before it was done", exit.status),
    ))
}

/// Executes a program in a copy of this process, and gives its exit status. `begin` executes it, and returns only when it
/// can't.
pub async fn execute(reaper: &Reaper, streams: Streams, begin: impl FnOnce() -> Error) -> Result<u32> {
    let (ours, theirs) = pair()?;
    let pid = match Clone3::default().spawn().doing(|| "fork a worker")? {
        Forked::Parent { pid, .. } => pid,
        // The socket is close-on-exec: a program that is executed says nothing on it.
        Forked::Child => child::<(), _>(&theirs, &streams, |_| Err(begin())),
    };
    let ended = reaper.watch(pid);
    drop((theirs, streams));
    let exit = wait(ended).await?;
    match receive::<()>(&ours)? {
        Some(Message::Done(Err(error))) => Err(error),
        _ => Ok(exit.status),
    }
}

/// A copy of this process that goes on beside it. It is not ended with the shim; it may read from its socket that the
/// shim is gone, or has let go of it.
pub struct Helper {
    /// The copy.
    pub pidfd: OwnedFd,
    /// What the copy says first comes from here: see [`first_word`].
    pub socket: OwnedFd,
}

/// Makes a copy of this process that first does `prepare`, says how that ended, and, where it was no failure, goes on with
/// what was prepared until it is done.
pub fn start<S>(
    streams: &Streams,
    prepare: impl FnOnce() -> Result<S>,
    go_on: impl FnOnce(OwnedFd, S),
) -> Result<Helper> {
    let (socket, theirs) = pair()?;
    match Clone3::default().spawn().doing(|| "fork a helper")? {
        Forked::Parent { pidfd, .. } => Ok(Helper { pidfd, socket }),
        Forked::Child => in_a_copy(|| {
            let socket = settle(&theirs, streams)?;
            let stay =
                || rustix::process::set_parent_process_death_signal(None).doing(|| "stay when the shim ends");
            match free().and_then(|()| stay()).and_then(|()| prepare()) {
                Ok(prepared) => {
                    send(&socket, &Ok(((), None)))?;
                    go_on(socket, prepared);
                    Ok(())
                }
                Err(error) => send::<()>(&socket, &Err(error)),
            }
        }),
    }
}

/// Waits until a helper has prepared itself. Gives the socket back: the helper is held as long as that is open.
pub async fn first_word(socket: OwnedFd) -> Result<OwnedFd> {
    let socket = sys::watch(socket, Interest::READABLE).doing(|| "wait for a helper")?;
    let _ready = socket.readable().await.doing(|| "wait for a helper")?;
    match receive::<()>(socket.get_ref())? {
        Some(Message::Done(prepared)) => prepared?,
        _ => return Err(Error::new(Kind::System, "the shim's helper ended before it was ready")),
    };
    Ok(socket.into_inner())
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .doing(|| "make a socket pair for a worker")
}

async fn wait(ended: oneshot::Receiver<Exit>) -> Result<Exit> {
    ended.await.map_err(|_| Error::new(Kind::System, "the shim stopped waiting for its worker"))
}

fn child<T, J>(socket: &OwnedFd, streams: &Streams, job: J) -> !
where
    T: Serialize,
    J: FnOnce(&SoFar<'_>) -> Result<Output<T>>,
{
    in_a_copy(|| {
        let socket = settle(socket, streams)?;
        let result = free().and_then(|()| job(&SoFar(&socket)));
        send(&socket, &result)
    })
}

/// Does `work`, and ends this process. A failure that could not be told otherwise is in the log.
fn in_a_copy(work: impl FnOnce() -> Result<()>) -> ! {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => exit_now(0),
        Ok(Err(error)) => log::error!("a worker of the shim: {error}"),
        Err(_) => log::error!("a worker of the shim panicked"),
    }
    exit_now(1)
}

/// Settles the copy, or tells over the socket why that isn't possible.
fn settle(socket: &OwnedFd, streams: &Streams) -> Result<OwnedFd> {
    become_own(socket, streams).inspect_err(|error| {
        // Where the descriptors weren't moved, the socket is still the one that it was; else the log has it.
        let _ = send::<()>(socket, &Err(error.clone()));
    })
}

/// Makes the copy a process of its own: with these standard streams, and without the shim's descriptors. Gives the
/// socket, which has another number now.
fn become_own(socket: &OwnedFd, streams: &Streams) -> Result<OwnedFd> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .doing(|| "ask to be ended with the shim")?;
    let null =
        openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).doing(|| "open /dev/null")?;
    let or_null = |stream: &Option<OwnedFd>| -> std::result::Result<OwnedFd, Errno> {
        stream
            .as_ref()
            .map_or_else(|| null.as_fd(), AsFd::as_fd)
            .try_clone_to_owned()
            .map_err(|_| Errno::MFILE)
    };
    let (stdin, stdout, stderr) =
        (or_null(&streams.stdin), or_null(&streams.stdout), or_null(&streams.stderr));
    stdin.and_then(rustix::stdio::dup2_stdin).doing(|| "set standard input")?;
    stdout.and_then(rustix::stdio::dup2_stdout).doing(|| "set standard output")?;
    stderr.and_then(rustix::stdio::dup2_stderr).doing(|| "set standard error")?;
    drop(null);
    let mut needed = vec![socket.as_fd()];
    needed.extend(logger::descriptor());
    let mut kept = keep_only(3, &needed).doing(|| "close the shim's descriptors")?.into_iter();
    let socket = kept.next().ok_or_else(|| Error::new(Kind::System, "the worker's socket is gone"))?;
    if let Some(log) = kept.next() {
        logger::hand_over(log);
    }
    Ok(socket)
}

/// Frees the copy of what is the shim's alone: it reads its signals from a descriptor, and has raised a limit. Here, and
/// in what is executed from here, signals are to act, and the limit is to be the one that the shim was given.
fn free() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|errno| Error::os(Errno::from_raw_os_error(errno as i32), "unblock signals"))?;
    citizen::restore_descriptor_limit().doing(|| "restore the limit of open descriptors")
}

/// The first bytes of messages: what was made so far, the result, and an error in its place.
const SO_FAR: u8 = b'S';
const RESULT: u8 = b'R';
const FAILURE: u8 = b'E';

fn unwritable(error: &serde_json::Error) -> Error {
    Error::new(Kind::System, format!("write the worker's result: {error}"))
}

fn send<T: Serialize>(socket: &OwnedFd, result: &Result<Output<T>>) -> Result<()> {
    match result {
        Ok((value, descriptor)) => {
            let text = serde_json::to_vec(value).map_err(|error| unwritable(&error))?;
            post(socket, RESULT, &text, descriptor.as_ref())
        }
        Err(error) => {
            post(socket, FAILURE, &serde_json::to_vec(error).map_err(|error| unwritable(&error))?, None)
        }
    }
}

/// Sends one message.
fn post(socket: &OwnedFd, letter: u8, text: &[u8], descriptor: Option<&OwnedFd>) -> Result<()> {
    if text.len() >= LONGEST {
        return Err(Error::new(Kind::System, format!("the worker's result has {} bytes", text.len())));
    }
    let descriptor: Vec<BorrowedFd<'_>> = descriptor.map(AsFd::as_fd).into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptor.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptor));
    }
    let letter = [letter];
    let parts = [IoSlice::new(&letter), IoSlice::new(text)];
    sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)
        .doing(|| "send the worker's result")
        .map(drop)
}

/// What a worker says.
enum Message<T> {
    /// What it has made so far.
    SoFar(T),
    /// How it ended.
    Done(Result<Output<T>>),
}

/// The next message; nothing when there is none.
fn receive<T: DeserializeOwned>(socket: &OwnedFd) -> Result<Option<Message<T>>> {
    // Its length, without taking it.
    let (_, length) = match recv(socket, &mut [0; 0], RecvFlags::PEEK | RecvFlags::TRUNC) {
        Err(Errno::CONNRESET | Errno::AGAIN) => return Ok(None),
        length => length.doing(|| "receive a worker's result")?,
    };
    let mut bytes = vec![0; length.min(LONGEST)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let length =
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => message.bytes,
            // A worker that was killed has said nothing.
            Err(Errno::CONNRESET | Errno::AGAIN) => 0,
            Err(errno) => return Err(Error::os(errno, "receive a worker's result")),
        };
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let garbled =
        |error: serde_json::Error| Error::new(Kind::System, format!("read a worker's result: {error}"));
    Ok(match bytes.get(..length).and_then(<[u8]>::split_first) {
        None => None,
        Some((&SO_FAR, text)) => Some(Message::SoFar(serde_json::from_slice(text).map_err(garbled)?)),
        Some((&RESULT, text)) => {
            let value = serde_json::from_slice(text).map_err(garbled)?;
            Some(Message::Done(Ok((value, descriptor))))
        }
        Some((_, text)) => Some(Message::Done(Err(serde_json::from_slice(text).map_err(garbled)?))),
    })
}
