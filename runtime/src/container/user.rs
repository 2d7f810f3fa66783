//! The host's side of user namespaces: writing maps (user_namespaces(7)), and namespaces that hold nothing but a map,
//! for id-mapped mounts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use oci_spec::runtime::Linux;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Rlimit, getrlimit, prlimit};

use super::host;
use super::process::kill_and_reap;
use super::refused;
use crate::error::{Doing, Error, Kind, Result};
use crate::init::channel::Channel;
use crate::init::{self, procfs};
use crate::plan::step::{Action, Step, What};
use crate::plan::user::{HardLimit, IdMaps, IdRange, Outside, Writer, map_text, outside};
use crate::sys::clone::{Clone3, Forked};

/// The kernel takes a map in one write, which must be shorter than a page: user_namespaces(7).
const LONGEST_MAP: usize = 4096;

/// Writes the maps of the user namespace that process `pid` was born in.
pub fn write_maps(proc: &OwnedFd, pid: i32, maps: &IdMaps) -> Result<()> {
    let direct = |file: &str, ranges: &[IdRange], place: &str| {
        let text = map_text(ranges);
        if text.len() >= LONGEST_MAP {
            let told = format!(
                "the text of the map has {} bytes; the kernel takes less than {LONGEST_MAP}",
                text.len()
            );
            return Err(Error::config(place, told).hint("join ranges that follow each other"));
        }
        procfs::open(proc, Path::new(&format!("{pid}/{file}")), OFlags::WRONLY)
            .and_then(|file| rustix::io::write(&file, text.as_bytes()))
            .map(drop)
            .doing(|| format!("write the {} ranges of {file}", ranges.len()))
            .map_err(|error| explain(error.at(place)))
    };
    match maps.writer {
        Writer::Helpers => {
            helper("newuidmap", pid, &maps.uids, "linux.uidMappings", "/etc/subuid")?;
            helper("newgidmap", pid, &maps.gids, "linux.gidMappings", "/etc/subgid")
        }
        writer => {
            if writer == Writer::Itself {
                // Without this the kernel takes no map of groups from a user: CVE-2014-8989.
                procfs::write(proc, &format!("{pid}/setgroups"), "deny")?;
            }
            direct("uid_map", &maps.uids, "linux.uidMappings")?;
            direct("gid_map", &maps.gids, "linux.gidMappings")
        }
    }
}

fn explain(error: Error) -> Error {
    match error.errno() {
        Some(Errno::PERM) => error.hint(
            "the host's ids must be mapped in the runtime's own user namespace, and the runtime needs CAP_SETUID and CAP_SETGID there",
        ),
        Some(Errno::INVAL) => error.hint("the ranges must not overlap"),
        _ => error,
    }
}

/// Devices are the host's in a user namespace: says which of them aren't as the bundle wants them. An owner of 0 is what
/// engines write for any.
pub fn warn_of_devices(linux: Option<&Linux>, maps: Option<&IdMaps>) {
    let devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    for (index, device) in devices.iter().enumerate() {
        let Ok(node) = rustix::fs::stat(device.path()) else { continue };
        let is_owner = |wanted: Option<u32>, ranges: Option<&[IdRange]>, has: u32| {
            wanted.is_none_or(|id| id == 0 || ranges.and_then(|ranges| outside(ranges, id)) == Some(has))
        };
        let is_as_wanted = device.file_mode().is_none_or(|mode| mode & 0o7777 == node.st_mode & 0o7777)
            && is_owner(device.uid(), maps.map(|maps| maps.uids.as_slice()), node.st_uid)
            && is_owner(device.gid(), maps.map(|maps| maps.gids.as_slice()), node.st_gid);
        if !is_as_wanted {
            log::warn!(
                "linux.devices[{index}]: in a user namespace {} is the host's node, with its mode {:04o} and owner {}:{}",
                device.path().display(),
                node.st_mode & 0o7777,
                node.st_uid,
                node.st_gid
            );
        }
    }
}

/// Runs newuidmap(1) or newgidmap(1), which may map what the file of subordinate ids gives to the user.
fn helper(program: &str, pid: i32, ranges: &[IdRange], place: &str, file: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for range in ranges {
        command.args([range.inside, range.outside, range.size].map(|number| number.to_string()));
    }
    let output = command.output().map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let told = Error::new(Kind::System, format!("run {program}: {error}")).at(place);
        if missing {
            told.hint(format!(
                "install it (package uidmap), or map only your own user: `coracle spec --rootless`; ranges come from {file}"
            ))
        } else {
            told
        }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(Kind::System, format!("{program} refused the map: {}", said.trim())).at(place).hint(format!(
        "{file} must give every range to this user (name:first:count), and {program} must be setuid root or have its capability"
    )))
}

/// The user namespace of the container itself, for mounts that are to have its maps.
pub struct Own<'a> {
    /// The namespace.
    pub namespace: Rc<OwnedFd>,
    /// Its maps; none where it was joined.
    pub maps: Option<&'a IdMaps>,
}

/// Namespaces for the id-mapped mounts, each with its step, in the order of the steps. Mounts of the same maps share one.
pub fn id_map_namespaces<'a>(
    proc: &OwnedFd,
    steps: &'a [Step],
    own: Option<&Own<'_>>,
) -> Result<Vec<(Rc<OwnedFd>, &'a Step)>> {
    let mut made: Vec<(&IdMaps, Rc<OwnedFd>)> = Vec::new();
    let mut namespaces = Vec::new();
    for step in steps {
        let Action::Mount(mount) = &step.action else { continue };
        let Some(idmap) = &mount.idmap else { continue };
        let is_bind = matches!(mount.what, What::Bind { .. });
        let maps = match (&idmap.maps, own) {
            (Some(maps), _) => maps,
            // A filesystem that is made inside belongs to the container's namespace, whose maps the kernel takes for its
            // mounts only from another one.
            (None, Some(Own { maps: Some(maps), .. })) if !is_bind => maps,
            (None, Some(own)) => {
                namespaces.push((Rc::clone(&own.namespace), step));
                continue;
            }
            (None, None) => {
                let told = "there is no user namespace whose maps it could take";
                return Err(Error::new(Kind::Config, told).at(step.place.clone()));
            }
        };
        let namespace = match made.iter().find(|(known, _)| *known == maps) {
            Some((_, namespace)) => Rc::clone(namespace),
            None => {
                let namespace = namespace_of(proc, maps).map_err(|error| error.at(step.place.clone()))?;
                let namespace = Rc::new(namespace);
                made.push((maps, Rc::clone(&namespace)));
                namespace
            }
        };
        namespaces.push((namespace, step));
    }
    Ok(namespaces)
}

/// Makes a user namespace with these maps, for id-mapped mounts. The caller has one thread.
pub fn id_map_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    namespace_of(&procfs::open_host()?, maps)
}

/// Makes a user namespace with these maps. A process must be in it while they are written; the descriptor keeps it.
fn namespace_of(proc: &OwnedFd, maps: &IdMaps) -> Result<OwnedFd> {
    let (here, there) = Channel::pair()?;
    let user = Clone3 { namespaces: libc::CLONE_NEWUSER as u64, ..Clone3::default() };
    let spawned = user.spawn().doing(|| "make a user namespace for an id-mapped mount");
    match spawned.map_err(|error| refused::explain(error, user.namespaces))? {
        Forked::Child => {
            drop(here);
            // Until the host's side has what it wants, or is dead.
            let _ = there.receive();
            crate::sys::process::exit_now(0)
        }
        Forked::Parent { pid, pidfd } => {
            drop(there);
            let made = write_maps(proc, pid, maps).and_then(|()| host::namespace_of(pid, "user"));
            kill_and_reap(&pidfd);
            made
        }
    }
}

/// Sets what a process in a user namespace can't set for itself: of the process `pid`, or of the calling one, whose
/// children inherit it.
pub fn set_from_outside(outside: &Outside, proc: &OwnedFd, pid: Option<i32>) -> Result<()> {
    if let Some(value) = outside.oom_score_adj {
        let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        write_oom_score_adj(proc, &process, value)?;
    }
    let target = pid.and_then(Pid::from_raw);
    outside.hard_limits.iter().try_for_each(|limit| raise(limit, target))
}

/// Raises a hard limit that is above the runtime's own, which the process has by birth.
fn raise(limit: &HardLimit, target: Option<Pid>) -> Result<()> {
    let own = getrlimit(limit.resource);
    if own.maximum.is_none_or(|own| limit.hard <= own) {
        return Ok(());
    }
    let maximum = (limit.hard != u64::MAX).then_some(limit.hard);
    prlimit(target, limit.resource, Rlimit { current: own.current, maximum })
        .map(drop)
        .doing(|| format!("raise the hard limit of {}", limit.name))
        .map_err(|error| init::explain_limit(error.at(limit.place.clone())))
}

fn write_oom_score_adj(proc: &OwnedFd, pid: &str, value: i32) -> Result<()> {
    procfs::write(proc.as_fd(), &format!("{pid}/oom_score_adj"), &value.to_string()).map_err(|error| {
        let error = error.at("process.oomScoreAdj");
        match error.errno() {
            Some(Errno::ACCESS) => error.hint("a value below the runtime's own needs CAP_SYS_RESOURCE"),
            _ => error,
        }
    })
}
