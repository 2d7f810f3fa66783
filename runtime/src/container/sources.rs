//! The rootfs and the sources of bind mounts, opened by the host's side for a container with a user namespace.
//!
//! The root of the namespace may not reach them, and may not map their ids. They are opened with the host's power but in
//! the container's mount namespace, whose copies of the host's mounts carry locked flags: what is read-only on the host
//! can't be made writable from inside (mount_namespaces(7), "Restrictions on mount namespaces").

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{chroot, fchdir};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::{host, user};
use crate::error::{Doing, Error, Kind, Result};
use crate::init;
use crate::init::channel::{Channel, Frame};
use crate::init::rootfs::{Place, explain_link};
use crate::plan::Plan;
use crate::plan::step::{Action, MountIdMap, Step, What};

/// What the host's side does for the mounts of a container with a user namespace, while that is being made.
pub struct Sources<'a> {
    channel: &'a Channel,
    proc: &'a OwnedFd,
    plan: &'a Plan,
    pid: i32,
    pidfd: &'a OwnedFd,
    /// The steps that were not looked at yet.
    steps: std::slice::Iter<'a, Step>,
    /// Nothing was asked for yet.
    is_fresh: bool,
    /// The user namespaces of binds that are to be id-mapped, and the steps, in their order.
    binds: VecDeque<(Rc<OwnedFd>, &'a Step)>,
    /// Those of new filesystems.
    later: VecDeque<(Rc<OwnedFd>, &'a Step)>,
}

impl<'a> Sources<'a> {
    /// For the container whose first process this is.
    pub fn new(
        channel: &'a Channel,
        proc: &'a OwnedFd,
        plan: &'a Plan,
        pid: i32,
        pidfd: &'a OwnedFd,
    ) -> Self {
        Self {
            channel,
            proc,
            plan,
            pid,
            pidfd,
            steps: plan.steps.iter(),
            is_fresh: true,
            binds: VecDeque::new(),
            later: VecDeque::new(),
        }
    }

    /// Opens the next sources, in the order of the steps, and sends them to the container's side: so many descriptors, of
    /// which the rootfs has two.
    pub fn serve(&mut self, count: usize) -> Result<()> {
        if std::mem::take(&mut self.is_fresh) && self.plan.steps.iter().any(is_id_mapped) {
            let own = user::Own {
                namespace: Rc::new(host::namespace_of(self.pid, "user")?),
                maps: self.plan.namespaces.user.as_ref().and_then(|user| user.maps.as_ref()),
            };
            let maps = user::id_map_namespaces(self.proc, &self.plan.steps, Some(&own))?;
            (self.binds, self.later) = maps.into_iter().partition(|(_, step)| is_bind(step));
        }
        let place = Whereabouts::leave(self.pidfd)?;
        let trees = self.open_next(count);
        place.come_back()?;
        for tree in trees? {
            self.channel
                .send(&Frame::Tree(tree))
                .doing(|| "send a mount's source to the container's side")?;
        }
        Ok(())
    }

    fn open_next(&mut self, count: usize) -> Result<Vec<OwnedFd>> {
        let joined = &self.plan.namespaces.join;
        let is_foreign = joined.iter().any(|(_, namespace)| namespace.flag == libc::CLONE_NEWNS as u64);
        let mut trees = Vec::with_capacity(count);
        while trees.len() < count {
            let Some(step) = self.steps.next() else { break };
            let told = |error: Error| error.at(step.place.clone()).while_doing(step);
            match &step.action {
                Action::BindRoot { path, private_parent } => {
                    let place = Place::open(path, *private_parent, is_foreign).map_err(told)?;
                    trees.extend([place.tree, place.directory]);
                }
                Action::Mount(mount) => {
                    let What::Bind { source, recursive } = &mount.what else { continue };
                    let tree = open(source, *recursive, is_foreign).map_err(told)?;
                    if let Some(idmap) = &mount.idmap {
                        map(&tree, idmap, self.binds.pop_front()).map_err(told)?;
                    }
                    trees.push(tree);
                }
                _ => {}
            }
        }
        Ok(trees)
    }

    /// Maps the ids of a new filesystem's mount, the next of them.
    pub fn map_ids(&mut self, mount: &OwnedFd) -> Result<()> {
        let Some((namespace, step)) = self.later.pop_front() else {
            return Err(Error::new(
                Kind::System,
                "the container's side wants more id-mapped mounts than the plan has",
            ));
        };
        init::map_ids(mount, &namespace, false)
            .map_err(|error| error.at(step.place.clone()).while_doing(step))?;
        self.channel.send(&Frame::Go).doing(|| "let the container's first process go on")
    }
}

fn is_id_mapped(step: &Step) -> bool {
    matches!(&step.action, Action::Mount(mount) if mount.idmap.is_some())
}

fn is_bind(step: &Step) -> bool {
    matches!(&step.action, Action::Mount(mount) if matches!(mount.what, What::Bind { .. }))
}

/// Opens a tree. In a mount namespace that somebody else made, whose mounts may be hostile, no magic link of procfs is
/// followed: with the host's power it could lead anywhere on the host.
fn open(source: &Path, recursive: bool, is_foreign: bool) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags };
    let opened = if is_foreign {
        openat2(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
            .and_then(|found| open_tree(&found, "", flags | OpenTreeFlags::AT_EMPTY_PATH))
    } else {
        open_tree(CWD, source, flags)
    };
    opened.doing(|| format!("open the source {}", source.display())).map_err(|error| match error.errno() {
        Some(Errno::NOENT) => error.hint("the source of a bind mount must exist on the host"),
        Some(Errno::LOOP) => explain_link(error),
        Some(Errno::INVAL) => error.hint(
            "below the source are mounts, which a user namespace may not leave out: bind it with rbind",
        ),
        _ => error,
    })
}

fn map(tree: &OwnedFd, idmap: &MountIdMap, namespace: Option<(Rc<OwnedFd>, &Step)>) -> Result<()> {
    let (namespace, _) =
        namespace.ok_or_else(|| Error::os(Errno::INVAL, "find the mount's user namespace"))?;
    init::map_ids(tree, &namespace, idmap.recursive)
}

/// Where the runtime was before it entered another mount namespace, which changes the root and the working directory.
struct Whereabouts {
    namespace: OwnedFd,
    root: OwnedFd,
    directory: OwnedFd,
}

impl Whereabouts {
    /// Enters the mount namespace of a process.
    fn leave(pidfd: &OwnedFd) -> Result<Self> {
        let open = |path: &str| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .doing(|| format!("open the runtime's {path}"))
        };
        let place = Self { namespace: host::own_namespace("mnt")?, root: open("/")?, directory: open(".")? };
        rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::MOUNT)
            .doing(|| "enter the container's mount namespace")?;
        Ok(place)
    }

    /// Goes back.
    fn come_back(self) -> Result<()> {
        let doing = || "go back to the runtime's mount namespace";
        rustix::thread::move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .doing(doing)?;
        fchdir(&self.root).doing(doing)?;
        chroot(".").doing(doing)?;
        fchdir(&self.directory).doing(doing)
    }
}
