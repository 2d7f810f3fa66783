//! What of the container's filesystem is kept from writing, or from being seen (runtime-spec, config-linux.md "Masked
//! Paths", "Readonly Paths").

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::fd::Fd;
use super::filesystem;
use super::mounts::{attach, change, clone_tree};
use super::null;
use super::root::{Root, is_directory};
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::step::NewFilesystem;
use crate::sys::mount::{Attributes, set_attributes};

/// Makes the mount of a path read-only.
pub fn remount_readonly(path: &Path, root: &Root) -> Result<()> {
    let fd = root.open(path).doing(|| format!("open {}", path.display()))?;
    set_attributes(&fd, Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() }, false)
        .doing(|| format!("make the mount {} read-only", path.display()))
}

/// Makes a path read-only, by a mount of itself. A path that isn't there needs none.
pub fn readonly_path(path: &Path, root: &Root) -> Result<()> {
    let fd = match root.open(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        found => found.doing(|| format!("open {}", path.display()))?,
    };
    let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    if root.is(&fd) {
        // A mount on top of the process's root is not what the process sees.
        return change(&fd, readonly, false);
    }
    let tree = clone_tree(&fd, true).doing(|| format!("bind {}", path.display()))?;
    change(&tree, readonly, true)?;
    attach(&tree, &fd)
}

/// Hides paths. All hidden directories share one empty filesystem.
#[derive(Default)]
pub struct Masks {
    empty: Option<Fd>,
    null: Option<Fd>,
}

impl Masks {
    /// Hides one path: a directory behind an empty one, anything else behind the container's `/dev/null`. A path
    /// that isn't there needs no hiding.
    pub fn hide(&mut self, path: &Path, root: &Root) -> Result<()> {
        let target = match root.open(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            found => found.doing(|| format!("open {}", path.display()))?,
        };
        if root.is(&target) {
            return Err(Error::new(
                Kind::Config,
                format!("{} is the root of the container, which can't be hidden from it", path.display()),
            )
            .hint("mask paths below it"));
        }
        let tree = if is_directory(&target).doing(|| format!("look at {}", path.display()))? {
            match &self.empty {
                Some(empty) => clone_tree(empty, false).doing(|| "copy the empty directory's mount")?,
                None => {
                    let empty = filesystem::make(&NewFilesystem {
                        fstype: "tmpfs".to_owned(),
                        source: "tmpfs".to_owned(),
                        options: empty_options(),
                        attributes: libc::MOUNT_ATTR_RDONLY,
                    })?;
                    attach(&empty, &target)?;
                    self.empty = Some(empty);
                    return Ok(());
                }
            }
        } else {
            let null = match &mut self.null {
                Some(null) => null,
                none => none.insert(
                    null::open(root, OFlags::PATH)
                        .map_err(|error| error.while_doing("hide a file behind /dev/null"))?,
                ),
            };
            clone_tree(null.as_fd(), false).doing(|| "copy /dev/null's mount")?
        };
        attach(&tree, &target)
    }
}

/// What holds nothing needs no room; and should somebody come by a writable mount of it, it still can't be filled.
fn empty_options() -> Vec<(String, Option<String>)> {
    let some = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    vec![("ro".to_owned(), None), some("mode", "755"), some("size", "4k"), some("nr_inodes", "1")]
}
