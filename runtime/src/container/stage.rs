//! A process of its own that enters namespaces, and clones the container's process from there.
//!
//! Into a user namespace a process gets by setns(2) only once, and not back; and the root of one gets
//! into a container's pid namespace, but not back either. Where the container's process is to be born
//! inside one, or inside namespaces that a new one would have no power over, a process in between enters them and makes
//! the container's a child of the runtime (`CLONE_PARENT`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use super::process::hide_from_debuggers;
use super::user::set_from_outside;
use crate::error::{Doing, Error, Kind, Result};
use crate::init::channel::{Channel, Frame};
use crate::init::drop_groups;
use crate::plan::namespaces::Namespaces;
use crate::plan::user::Outside;
use crate::sys::clone::{Clone3, Forked};
use crate::sys::process::exit_now;

/// What is entered first.
pub enum Entry<'a> {
    /// The namespaces that are given by path, opened.
    Paths(&'a Namespaces, &'a [OwnedFd]),
    /// Namespaces of a container's init.
    Container(BorrowedFd<'a>, ThreadNameSpaceType),
    /// A pid namespace.
    Pids(OwnedFd),
}

/// Enters the namespaces in a process of its own, and makes the container's process from there. Returns in both, as
/// [`Clone3::spawn`] does.
pub fn spawn(entry: &Entry<'_>, outside: &Outside, proc: &OwnedFd, clone: &Clone3<'_>) -> Result<Forked> {
    let (here, there) = Channel::pair()?;
    match Clone3::default().spawn().doing(|| "make the process that enters the namespaces")? {
        Forked::Child => {
            drop(here);
            match enter(entry, outside, proc).and_then(|()| clone_from_here(clone)) {
                Ok(Forked::Child) => Ok(Forked::Child),
                Ok(Forked::Parent { pid, pidfd }) => {
                    let _ = there.send(&Frame::Born(pid, pidfd));
                    exit_now(0)
                }
                Err(error) => {
                    let _ = there.send(&Frame::Failed(error));
                    exit_now(1)
                }
            }
        }
        Forked::Parent { pidfd, .. } => {
            drop(there);
            let answer = here.receive();
            while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
            match answer? {
                Some(Frame::Born(pid, pidfd)) => Ok(Forked::Parent { pid, pidfd }),
                Some(Frame::Failed(error)) => Err(error),
                _ => Err(Error::new(
                    Kind::System,
                    "the process that enters the namespaces ended before its time",
                )),
            }
        }
    }
}

fn clone_from_here(clone: &Clone3<'_>) -> Result<Forked> {
    let sibling = Clone3 { namespaces: clone.namespaces, into_cgroup: clone.into_cgroup, sibling: true };
    sibling.spawn().doing(|| "make the container's process")
}

fn enter(entry: &Entry<'_>, outside: &Outside, proc: &OwnedFd) -> Result<()> {
    set_from_outside(outside, proc, None)?;
    // Inside, others may have power over this process: nobody may look into it (CVE-2016-9962).
    hide_from_debuggers()?;
    let joins_user = match entry {
        Entry::Paths(namespaces, _) => namespaces.joins_user(),
        Entry::Container(_, kinds) => kinds.contains(ThreadNameSpaceType::USER),
        Entry::Pids(_) => false,
    };
    if joins_user {
        drop_groups()?;
    }
    match entry {
        Entry::Paths(namespaces, opened) => enter_paths(namespaces, opened),
        Entry::Container(pidfd, kinds) => {
            move_into_thread_name_spaces(*pidfd, *kinds).doing(|| "enter the container's namespaces")
        }
        Entry::Pids(namespace) => {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ProcessID))
                .doing(|| "enter the pid namespace")
                .map_err(|error| error.at("linux.namespaces"))
        }
    }
}

/// First what the host's power reaches, then the user namespace, then what belongs to that.
fn enter_paths(namespaces: &Namespaces, opened: &[OwnedFd]) -> Result<()> {
    let user = libc::CLONE_NEWUSER as u64;
    let mut later = Vec::new();
    let set = |fd: &OwnedFd| move_into_link_name_space(fd.as_fd(), None);
    let given = || namespaces.join.iter().zip(opened);
    let tell = |errno, (place, namespace): &(String, crate::plan::step::Namespace)| {
        Error::os(errno, format!("join the {} namespace {}", namespace.kind, namespace.path.display()))
            .at(place.clone())
    };
    for (wanted, fd) in given().filter(|((_, namespace), _)| namespace.flag != user) {
        match set(fd) {
            Err(Errno::PERM) if namespaces.joins_user() => later.push((wanted, fd)),
            entered => entered.map_err(|errno| tell(errno, wanted))?,
        }
    }
    for (wanted, fd) in given().filter(|((_, namespace), _)| namespace.flag == user).chain(later) {
        set(fd).map_err(|errno| tell(errno, wanted)).map_err(|error| match error.errno() {
            Some(Errno::PERM) => error.hint(
                "the namespace must belong to the user namespace that is joined, or to the runtime's own",
            ),
            _ => error,
        })?;
    }
    Ok(())
}
