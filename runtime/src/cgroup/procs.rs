//! The processes of a cgroup and of all cgroups below it.

use std::collections::BTreeSet;

use super::file::CgroupDir;
use super::walk::walk;
use super::{Cgroup, enable};
use crate::error::Result;

impl Cgroup {
    /// Every process of the container, sub-cgroups included, in ascending order; none when the
    /// cgroup is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.require("list the container's processes")?;
        let Some(member) = self.process_member() else { return Ok(Vec::new()) };
        match CgroupDir::open_if_there(&member.path)? {
            Some(dir) => Ok(below(&dir)?.into_iter().collect()),
            None => member.expect_hierarchy().map(|()| Vec::new()),
        }
    }
}

/// The processes in `dir` and below.
pub fn below(dir: &CgroupDir) -> Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    walk(dir, |dir| collect(dir, &mut pids), |_, _| Ok(()))?;
    Ok(pids)
}

fn collect(dir: &CgroupDir, pids: &mut BTreeSet<i32>) -> Result<()> {
    let list = dir.read_if_there("cgroup.procs")?;
    let list = match list {
        // A threaded cgroup lists threads only; its processes are those of the domain above.
        None if enable::is_threaded(dir)? => dir.read_if_there("cgroup.threads")?,
        list => list,
    };
    // A process of another pid namespace is listed as 0.
    let listed = list.iter().flat_map(|list| list.lines()).filter_map(|line| line.parse::<i32>().ok());
    pids.extend(listed.filter(|&pid| pid > 0));
    Ok(())
}
