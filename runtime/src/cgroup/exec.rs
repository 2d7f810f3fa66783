//! Which cgroups a further process of a container joins.
//!
//! Those of the record. On version 2 a container that nested cgroups of its own and enabled
//! controllers for them cannot take processes in its first one (EBUSY), and somebody may have moved
//! them all and removed it: then the one that the container's init is in. `--cgroup` names a cgroup
//! below, which must exist; it can never lead out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::file::{self, CgroupDir};
use super::{Cgroup, Member, layout};
use crate::error::{Doing, Error, Kind, Result};

/// One `--cgroup [CONTROLLER[,CONTROLLER…]:]PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubCgroup {
    /// The version 1 controllers that it is for; empty for all, and on version 2.
    pub controllers: Vec<String>,
    /// The path below the container's cgroup.
    pub path: String,
}

impl std::str::FromStr for SubCgroup {
    type Err = Error;

    /// Reads the option's value.
    fn from_str(text: &str) -> Result<SubCgroup> {
        let (controllers, path) = match text.split_once(':') {
            Some((controllers, path)) => (controllers.split(',').map(str::to_owned).collect(), path),
            None => (Vec::new(), text),
        };
        if controllers.iter().any(String::is_empty) || path.contains('\0') {
            return Err(wrong(text, "write it as PATH or CONTROLLER[,CONTROLLER]:PATH"));
        }
        if path.split('/').any(|part| part == "..") {
            return Err(outside(text));
        }
        Ok(SubCgroup { controllers, path: path.to_owned() })
    }
}

/// runc's words.
fn outside(path: &str) -> Error {
    Error::new(Kind::Config, format!("--cgroup: {path} is not a sub cgroup path"))
        .hint("it must stay below the container's own, without \"..\"")
}

fn wrong(text: &str, problem: &str) -> Error {
    Error::new(Kind::Config, format!("--cgroup {text:?}: {problem}"))
}

/// What a new process joins.
#[derive(Debug)]
pub struct ExecTarget {
    /// Open `tasks` files of version 1, or of version 2 a list of processes, to each of which the process writes `0`.
    pub join: Vec<OwnedFd>,
    /// Version 2 and hybrid: the directory for `CLONE_INTO_CGROUP`.
    pub clone_into: Option<CgroupHandle>,
}

/// An open directory of the unified hierarchy.
#[derive(Debug)]
pub struct CgroupHandle(CgroupDir);

impl CgroupHandle {
    /// That no process may be in it, in runc's words.
    pub fn taken_by_children(&self, errno: Errno) -> Error {
        let list = self.0.path().join("cgroup.procs");
        Error::os(errno, format!("adding pid of the process to cgroups: write to {}", list.display()))
            .hint("controllers are enabled for the cgroups below it, or it is threaded: name one of those")
    }

    /// The list of its processes, as one of [`ExecTarget::join`].
    pub fn list(&self) -> Result<OwnedFd> {
        let list = self.0.open_file("cgroup.procs", OFlags::WRONLY);
        list.doing(|| format!("open {}", self.0.path().join("cgroup.procs").display()))
    }
}

impl AsFd for CgroupHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Cgroup {
    /// What a process that joins the container whose init is `init_pid` must join itself.
    ///
    /// # Errors
    /// When a cgroup does not exist, or names a controller that the container is not in.
    pub fn exec_target(&self, init_pid: i32, sub: &[SubCgroup]) -> Result<ExecTarget> {
        let members = &self.record.members;
        let pure_v2 = members.iter().all(Member::is_unified);
        for wanted in sub.iter().flat_map(|sub| &sub.controllers) {
            if pure_v2 {
                return Err(wrong(
                    wanted,
                    "cgroup v2 has one hierarchy for all controllers; give a path alone",
                ));
            }
            if !members.iter().any(|member| member.has(wanted)) {
                return Err(Error::new(Kind::Config, format!("--cgroup: unknown controller {wanted}"))
                    .hint("the container is in no cgroup of it"));
            }
        }
        let mut target = ExecTarget { join: Vec::new(), clone_into: None };
        for member in members {
            let chosen = sub.iter().find(|sub| {
                sub.controllers.is_empty() || sub.controllers.iter().any(|wanted| member.has(wanted))
            });
            let path = match chosen {
                Some(sub) => below(&member.path, sub)?,
                None => member.path.clone(),
            };
            if !member.is_unified() {
                let list = if chosen.is_some() { "cgroup.procs" } else { "tasks" };
                let tasks = file::open_path(&path.join(list), OFlags::WRONLY);
                target.join.push(tasks.map_err(|error| explain(error, chosen))?);
                continue;
            }
            if chosen.is_none() {
                target.clone_into = match CgroupDir::open_if_there(&path)? {
                    Some(dir) => Some(CgroupHandle(dir)),
                    None => self.of_init(init_pid)?,
                };
            }
            if target.clone_into.is_none() {
                let missing = || {
                    let list = path.join("cgroup.procs");
                    explain(Error::os(Errno::NOENT, format!("open {}", list.display())), chosen)
                };
                let dir = CgroupDir::open_if_there(&path).map_err(|error| explain(error, chosen))?;
                target.clone_into = Some(CgroupHandle(dir.ok_or_else(missing)?));
            }
        }
        Ok(target)
    }

    /// The unified cgroup that the container's init is in, wherever that is: for a process that could not be born in
    /// the container's own. `None` when there is no such, or it is out of reach.
    pub fn of_init(&self, init_pid: i32) -> Result<Option<CgroupHandle>> {
        let Some(member) = self.record.members.iter().find(|member| member.is_unified()) else {
            return Ok(None);
        };
        let Some(path) = current(member, init_pid)? else { return Ok(None) };
        Ok(CgroupDir::open_if_there(&path)?.map(CgroupHandle))
    }
}

fn explain(error: Error, chosen: Option<&SubCgroup>) -> Error {
    match chosen {
        Some(sub) => error
            .while_doing(format_args!("--cgroup {:?}: adding pid of the process to cgroups", sub.path))
            .hint("the sub-cgroup must exist below the container's cgroup"),
        None => error,
    }
}

fn below(path: &Path, sub: &SubCgroup) -> Result<PathBuf> {
    let inner = sub.path.trim_matches('/');
    if inner.split('/').any(|part| part == "..") {
        return Err(outside(&sub.path));
    }
    Ok(if inner.is_empty() { path.to_owned() } else { path.join(inner) })
}

/// The unified cgroup that init is in now, when it can be reached from the runtime's cgroup namespace.
fn current(member: &Member, init_pid: i32) -> Result<Option<PathBuf>> {
    let text = match file::read_path(&format!("/proc/{init_pid}/cgroup")) {
        Ok(text) => text,
        // Init has ended: the caller finds that out when it joins the namespaces.
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let unified = layout::cgroups_of(&text).find(|(controllers, _)| controllers.is_empty());
    let reached = unified.filter(|(_, inner)| !inner.split('/').any(|part| part == ".."));
    Ok(reached.map(|(_, inner)| file::below(&member.mount, inner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_cgroup_is_a_path_with_or_without_controllers() {
        let parse = |text: &str| text.parse::<SubCgroup>();
        assert_eq!(parse("/a/b").unwrap(), SubCgroup { controllers: vec![], path: "/a/b".into() });
        assert_eq!(
            parse("cpu,memory:x").unwrap(),
            SubCgroup { controllers: vec!["cpu".into(), "memory".into()], path: "x".into() }
        );
        assert!(parse("../x").is_err());
        assert!(parse("a/../../x").is_err());
        assert!(parse(":x").is_err());
    }
}
