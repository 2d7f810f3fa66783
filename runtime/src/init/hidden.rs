//! What of the container's filesystem is kept from writing, or from being seen (runtime-spec, config-linux.md "Masked
//! Paths", "Readonly Paths").

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, OFlags, ResolveFlags, StatxFlags, statx};
use rustix::io::Errno;

use super::fd::Fd;
use super::filesystem;
use super::mounts::{attach, change, clone_tree};
use super::null;
use super::root::{Root, is_directory, open_in};
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::step::{Mount, NewFilesystem, What};
use crate::sys::mount::{Attributes, set_attributes};

/// Makes the mount of a path read-only.
pub fn remount_readonly(path: &Path, root: &Root) -> Result<()> {
    let fd = root.open(path).doing(|| format!("open {}", path.display()))?;
    set_attributes(&fd, Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() }, false)
        .doing(|| format!("make the mount {} read-only", path.display()))
}

/// The kernel's own filesystems, where what is to be kept from a container mostly lies.
const KERNEL_VIEWS: [&str; 2] = ["/proc", "/sys"];

/// What stands on one of [`KERNEL_VIEWS`].
struct View {
    place: &'static Path,
    mounted: Fd,
    /// It was seen to stand there when all mounts were made.
    stands: bool,
}

/// Keeps paths from being written to, or seen. All hidden directories share one empty filesystem.
///
/// A rename in the rootfs moves a mount that stands on what is renamed. Who can write to the rootfs while the container is
/// made could so take procfs away from `/proc`, and put a directory there to be masked in its place; so a path in procfs
/// is looked for in the very mount that was made.
#[derive(Default)]
pub struct Hidden {
    views: Vec<View>,
    empty: Option<Fd>,
    null: Option<Fd>,
}

impl Hidden {
    /// Remembers a mount that was made, if paths will be looked for in it.
    pub fn know(&mut self, mount: &Mount, mounted: Option<Fd>) {
        if matches!(mount.what, What::Remount { .. } | What::Attributes) {
            return;
        }
        self.views.retain(|view| !view.place.starts_with(&mount.target));
        let place = KERNEL_VIEWS.map(Path::new).into_iter().find(|place| mount.target == *place);
        if let (Some(place), Some(mounted)) = (place, mounted) {
            self.views.push(View { place, mounted, stands: false });
        }
    }

    /// Finds a path; nothing when it isn't there.
    fn find(&mut self, path: &Path, root: &Root) -> Result<Option<Fd>> {
        let doing = || format!("open {}", path.display());
        let found = match self.views.iter_mut().find(|view| path.starts_with(view.place)) {
            Some(view) => {
                view.expect_to_stand(root)?;
                let inside = path.strip_prefix(view.place).unwrap_or(path);
                open_in(view.mounted.as_fd(), inside, OFlags::PATH, ResolveFlags::empty())
            }
            None => root.open(path),
        };
        // Another mount will stand on it.
        self.views.retain(|view| view.place != path);
        match found {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            found => found.map(Some).doing(doing),
        }
    }

    /// Makes a path read-only, by a mount of itself. A path that isn't there needs none.
    pub fn make_readonly(&mut self, path: &Path, root: &Root) -> Result<()> {
        let Some(fd) = self.find(path, root)? else { return Ok(()) };
        let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        if root.is(&fd) {
            // A mount on top of the process's root is not what the process sees.
            return change(&fd, readonly, false);
        }
        let tree = clone_tree(&fd, true).doing(|| format!("bind {}", path.display()))?;
        change(&tree, readonly, true)?;
        attach(&tree, &fd)
    }

    /// Hides one path: a directory behind an empty one, anything else behind the container's `/dev/null`. A path
    /// that isn't there needs no hiding.
    pub fn mask(&mut self, path: &Path, root: &Root) -> Result<()> {
        let Some(target) = self.find(path, root)? else { return Ok(()) };
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

impl View {
    /// Refuses to go on where something else is seen in this mount's place.
    fn expect_to_stand(&mut self, root: &Root) -> Result<()> {
        if self.stands {
            return Ok(());
        }
        let doing = || format!("look at the mount on {}", self.place.display());
        let seen = match root.open(self.place) {
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            found => Some(found.and_then(identity).doing(doing)?),
        };
        self.stands = seen == Some(identity(&self.mounted).doing(doing)?);
        if self.stands {
            return Ok(());
        }
        Err(Error::new(
            Kind::Config,
            format!("what was mounted on {} doesn't stand there any more", self.place.display()),
        )
        .hint("another mount hides it, or somebody changes the rootfs while the container is made"))
    }
}

/// The mount that a descriptor lies on, and the inode.
fn identity(fd: impl AsFd) -> Result<(u64, u64), Errno> {
    let found = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | StatxFlags::INO)?;
    Ok((found.stx_mnt_id, found.stx_ino))
}

/// What holds nothing needs no room; and should somebody come by a writable mount of it, it still can't be filled.
fn empty_options() -> Vec<(String, Option<String>)> {
    let some = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    vec![("ro".to_owned(), None), some("mode", "755"), some("size", "4k"), some("nr_inodes", "1")]
}
