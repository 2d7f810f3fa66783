//! Handing controllers down the version 2 tree.
//!
//! A cgroup has the files of a controller only when its parent lists it in `cgroup.subtree_control`,
//! and that parent's parent too. It owns finding out what is missing, enabling it from the top, and
//! saying why it cannot be (cgroups(7): "no internal processes", threaded cgroups).

use std::path::Path;

use rustix::io::Errno;

use super::file::CgroupDir;
use super::plan::Place;
use super::v2::CONTROLLERS;
use crate::error::{Error, Kind, Result};

/// Makes the controllers of `place.needs` available in `dir`; with `all` every other one that the
/// host has too, so that the container can be measured and updated later.
pub fn enable_controllers(dir: &CgroupDir, place: &Place, all: bool) -> Result<()> {
    let needs: Vec<&str> = place.needs.iter().map(String::as_str).collect();
    let lists = |list: &str, name: &str| list.split_whitespace().any(|other| other == name);
    let mut has = dir.read("cgroup.controllers")?;
    let root = CgroupDir::open(&place.mount)?.read("cgroup.controllers")?;
    let wanted = |name: &&str| CONTROLLERS.contains(name) && (all || needs.contains(name));
    let missing: Vec<&str> =
        root.split_whitespace().filter(wanted).filter(|name| !lists(&has, name)).collect();
    if !missing.is_empty() {
        let mut ancestors: Vec<&Path> =
            place.path.ancestors().skip(1).take_while(|path| path.starts_with(&place.mount)).collect();
        ancestors.reverse();
        for ancestor in ancestors {
            enable(&CgroupDir::open(ancestor)?, &missing, &needs)?;
        }
        refuse_threaded(dir, &needs)?;
        has = dir.read("cgroup.controllers")?;
    }
    match needs.iter().find(|need| CONTROLLERS.contains(*need) && !lists(&has, need)) {
        None => Ok(()),
        Some(need) => Err(not_there(place, need, lists(&root, need))),
    }
}

fn not_there(place: &Place, need: &str, on_host: bool) -> Error {
    let asked = place.writes.iter().find(|write| write.controller == need).map(|write| write.place.clone());
    let error = Error::new(
        Kind::System,
        format!("the {need} controller is not available in {}", place.path.display()),
    )
    .at(asked.unwrap_or_else(|| "linux.resources".to_owned()));
    if on_host {
        error.hint("a cgroup above it does not have the controller, or was not delegated with it")
    } else {
        error.hint(format!(
            "{}/cgroup.controllers does not list it: the kernel has it not, or a v1 hierarchy holds it",
            place.mount.display()
        ))
    }
}

/// Enables what can be for the children of `dir`: all in one write, or, when one of them is refused,
/// one by one.
///
/// A cgroup that has processes is left alone: there the kernel takes the controllers of threads
/// (cpu, cpuset, pids) but turns it into a threaded cgroup by that, for its present processes too.
fn enable(dir: &CgroupDir, missing: &[&str], needs: &[&str]) -> Result<()> {
    let (given, enabled) = (dir.read("cgroup.controllers")?, dir.read("cgroup.subtree_control")?);
    let lists = |list: &str, name: &str| list.split_whitespace().any(|other| other == name);
    let missing: Vec<&str> =
        missing.iter().copied().filter(|name| lists(&given, name) && !lists(&enabled, name)).collect();
    let Some(first) = missing.iter().find(|name| needs.contains(name)).or(missing.first()) else {
        return Ok(());
    };
    let all: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
    let Err(error) = dir.write("cgroup.subtree_control", &all.join(" ")) else { return Ok(()) };
    if error.errno() == Some(Errno::BUSY) {
        return if needs.contains(first) { Err(explain(dir, first, error)) } else { Ok(()) };
    }
    for name in missing {
        match dir.write("cgroup.subtree_control", &format!("+{name}")) {
            Err(error) if needs.contains(&name) => return Err(explain(dir, name, error)),
            Err(error) if error.errno() == Some(Errno::BUSY) => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

fn explain(dir: &CgroupDir, name: &str, error: Error) -> Error {
    let error = error
        .while_doing(format!("enable the {name} controller below {}", dir.path().display()))
        .at("linux.resources");
    match error.errno() {
        Some(Errno::BUSY) => error.hint(
            "that cgroup has processes of its own, and then cannot give controllers to its children: \
             choose another linux.cgroupsPath, or move its processes to a child",
        ),
        Some(Errno::OPNOTSUPP) => {
            error.hint("that cgroup is threaded, and threads share such resources: choose another path")
        }
        _ => error,
    }
}

/// Below a threaded cgroup nothing but threads can live.
fn refuse_threaded(dir: &CgroupDir, needs: &[&str]) -> Result<()> {
    const THREADED_TOO: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];
    let kind = dir.read_if_there("cgroup.type")?.unwrap_or_default();
    let kind = kind.trim();
    if !matches!(kind, "domain invalid" | "threaded") {
        return Ok(());
    }
    let beyond = needs.iter().find(|need| !THREADED_TOO.contains(need));
    let reason = match beyond {
        Some(need) => format!("it cannot have the {need} controller"),
        None => "a container's process cannot be born there".to_owned(),
    };
    Err(Error::new(
        Kind::System,
        format!("the cgroup {} is \"{kind}\", below a threaded one: {reason}", dir.path().display()),
    )
    .at("linux.cgroupsPath")
    .hint("choose a path below a cgroup whose cgroup.type is \"domain\""))
}

/// Whether a cgroup holds threads instead of processes.
pub fn is_threaded(dir: &CgroupDir) -> Result<bool> {
    Ok(dir.read_if_there("cgroup.type")?.is_some_and(|kind| kind.trim() == "threaded"))
}
