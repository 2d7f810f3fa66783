//! The invocation `start`: answers where the shim of a container is, and starts it when there is none.
//!
//! A container that is grouped with others gets the group's shim. The daemon begins on a socket that listens already, so
//! that containerd may connect at once; it begins from an image that nobody can write (`coracle::seal`), once for its
//! whole life.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use coracle::error::{Doing, Error, Kind, Result};
use coracle::init::channel::{Channel, Frame};
use coracle::seal;
use coracle::sys::clone::{Clone3, Forked};
use coracle::sys::exec::{CStringArray, fexecve};
use coracle::sys::process::{become_stdio, exit_now, keep_on_exec, keep_only};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::bootstrap::Bootstrap;
use crate::invocation::{Invocation, NAME};
use crate::{citizen, daemon, info, socket, spec, sys};

/// Starts the shim, or finds it, and prints the answer.
pub fn start(invocation: &Invocation) -> Result<()> {
    let bundle = invocation.bundle()?;
    let bootstrap = Bootstrap::read(invocation)?;
    let group = spec::group(&bundle)?.unwrap_or_else(|| invocation.id.clone());
    let path =
        socket::path(bootstrap.socket_dir.as_deref(), &invocation.address, &invocation.namespace, &group);
    socket::check(&path)?;
    let address = socket::address(&path);
    if let Some(listener) = socket::claim(&path)? {
        spawn(invocation, &bootstrap, &listener).inspect_err(|_| socket::remove(&path))?;
    }
    if let Some(directory) = &bootstrap.socket_dir {
        link_sockets(&bundle, directory)?;
    }
    let file = bundle.join("address");
    spec::write(&file, address.as_bytes())?;
    info::print(&bootstrap.answer(&address)?)
}

/// Notes in the bundle where sockets are, where that isn't the usual place: as containerd's own shim does.
fn link_sockets(bundle: &Path, directory: &str) -> Result<()> {
    let link = bundle.join("s");
    match std::os::unix::fs::symlink(directory, &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).doing(|| format!("make the link {}", link.display()))
        }
        _ => Ok(()),
    }
}

/// Executes the daemon in a new process, and returns when it is ready.
fn spawn(invocation: &Invocation, bootstrap: &Bootstrap, listener: &OwnedFd) -> Result<()> {
    let image = seal::image()?;
    let arguments = arguments(invocation, bootstrap)?;
    let environment = environment(bootstrap)?;
    let (ours, theirs) = Channel::pair()?;
    match Clone3::default().spawn().doing(|| "fork the shim")? {
        Forked::Parent { .. } => {
            drop(theirs);
            match ours.receive()? {
                Some(Frame::Ready) => Ok(()),
                Some(Frame::Failed(error)) => Err(error),
                _ => Err(Error::new(Kind::System, "the shim ended before it was ready")
                    .hint("containerd's log has what it said, if it said anything")),
            }
        }
        Forked::Child => become_daemon(listener, &image, bootstrap, &arguments, &environment, &theirs),
    }
}

/// Executes the daemon, which says over the channel that it is ready, or why it can't be.
fn become_daemon(
    listener: &OwnedFd,
    image: &OwnedFd,
    bootstrap: &Bootstrap,
    arguments: &CStringArray,
    environment: &CStringArray,
    channel: &Channel,
) -> ! {
    let prepare = || {
        rustix::process::setpgid(None, None).doing(|| "make a process group for the shim")?;
        citizen::set_core_group()?;
        citizen::adjust_oom_score()?;
        if let Some(cgroup) = &bootstrap.options.shim_cgroup {
            citizen::join_cgroup(cgroup)?;
        }
        let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "open /dev/null")?;
        become_stdio(null.as_fd()).doing(|| "set the shim's standard streams")?;
        drop(null);
        let needed = [listener.as_fd(), channel.as_fd(), image.as_fd()];
        keep_only(sys::LISTENER as u32, &needed).doing(|| "close what the shim must not inherit")
    };
    match prepare().map(<[OwnedFd; 3]>::try_from) {
        Ok(Ok([_listener, channel, image])) => {
            let channel = Channel::from_socket(channel);
            let errno = match keep_on_exec(sys::LISTENER).and_then(|()| keep_on_exec(sys::STARTER)) {
                Ok(()) => fexecve(&image, arguments, environment),
                Err(errno) => errno,
            };
            fail(&channel, Error::os(errno, "execute the shim's image"))
        }
        Ok(Err(_)) => exit_now(1),
        Err(error) => fail(channel, error),
    }
}

fn fail(channel: &Channel, error: Error) -> ! {
    // The parent waits for it; when it doesn't any more, nobody does.
    let _ = channel.send(&Frame::Failed(error));
    exit_now(1)
}

fn arguments(invocation: &Invocation, bootstrap: &Bootstrap) -> Result<CStringArray> {
    let program = std::env::args_os().next().unwrap_or_else(|| NAME.into());
    let mut words = vec![program];
    for (flag, value) in
        [("-namespace", &invocation.namespace), ("-id", &invocation.id), ("-address", &invocation.address)]
    {
        words.extend([flag.into(), value.into()]);
    }
    if bootstrap.debug {
        words.push("-debug".into());
    }
    c_strings(words)
}

/// The environment of `start`, with the address of events that containerd told.
fn environment(bootstrap: &Bootstrap) -> Result<CStringArray> {
    let told = bootstrap.ttrpc_address.as_ref();
    let inherited = citizen::environment().filter(|(name, _)| told.is_none() || name != daemon::EVENTS);
    let mut entries: Vec<OsString> = inherited
        .map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            entry
        })
        .collect();
    entries.extend(told.map(|address| format!("{}={address}", daemon::EVENTS).into()));
    c_strings(entries)
}

fn c_strings(words: Vec<OsString>) -> Result<CStringArray> {
    let words: std::result::Result<_, _> =
        words.into_iter().map(|word| CString::new(word.into_vec())).collect();
    words.map(CStringArray::new).map_err(|error| {
        Error::new(Kind::Config, format!("an argument of the shim has a NUL byte in it: {error}"))
    })
}
