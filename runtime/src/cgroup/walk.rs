//! Going through a cgroup and all that a container made below it.
//!
//! A container decides how deep it nests. So this goes depth first without recursion and holds one directory open at a
//! time: the way up is `..`, proven to be the directory from which the way down went.

use std::ffi::{OsStr, OsString};

use super::file::{CgroupDir, Identity};
use crate::error::{Error, Kind, Result};

/// A directory on the way from the top to where the walk is.
struct Level {
    identity: Identity,
    /// The children that are still to be gone through.
    left: Vec<OsString>,
    /// Its name in the one above; the top's is not needed.
    name: OsString,
}

/// Goes through `top` and all below it: `enter` is called with every directory before those below it, `leave` after them
/// with the directory above and the name in it. The top is not left.
pub fn walk(
    top: &CgroupDir,
    mut enter: impl FnMut(&CgroupDir) -> Result<()>,
    mut leave: impl FnMut(&CgroupDir, &OsStr) -> Result<()>,
) -> Result<()> {
    enter(top)?;
    let mut levels = vec![Level::of(top, OsString::new())?];
    // Nothing: the top.
    let mut at: Option<CgroupDir> = None;
    while let Some(level) = levels.last_mut() {
        let here = at.as_ref().unwrap_or(top);
        if let Some(name) = level.left.pop() {
            if let Some(child) = here.child(&name)? {
                enter(&child)?;
                levels.push(Level::of(&child, name)?);
                at = Some(child);
            }
            continue;
        }
        let name = levels.pop().map(|level| level.name).unwrap_or_default();
        let Some(above) = levels.last() else { break };
        let up = here.above()?;
        if up.identity()? != above.identity {
            return Err(Error::new(
                Kind::System,
                format!("the cgroup {} was moved while the runtime went through it", here.path().display()),
            ));
        }
        leave(&up, &name)?;
        at = Some(up);
    }
    Ok(())
}

impl Level {
    fn of(dir: &CgroupDir, name: OsString) -> Result<Self> {
        Ok(Self { identity: dir.identity()?, left: dir.children()?, name })
    }
}
