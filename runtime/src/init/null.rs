//! The null device on a container's standard streams.
//!
//! Engines give a process without input their own `/dev/null`. Through the descriptor its root could change the mode or
//! the owner of the host's node, for all of the host, so such a stream is made the container's own null device.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, major, makedev, minor, mknodat, openat};
use rustix::io::Errno;

use super::devices::expect_device;
use super::fd::Fd;
use super::filesystem;
use super::root::Root;
use crate::error::{Doing, Result};
use crate::plan::step::NewFilesystem;
use crate::sys::process::{replace_inherited, with_inherited};

/// Where a container has it.
const PATH: &str = "/dev/null";
/// The device's numbers, wherever it stands: null(4).
const NUMBERS: (u32, u32) = (1, 3);

/// Makes every standard stream that is a null device the container's own.
pub fn own_streams(root: &Root) -> Result<()> {
    let mut own = None;
    for number in (0..=2).filter(|number| with_inherited(*number, is_null)) {
        let null = match own.take() {
            Some(null) => null,
            None => match open_own(root)? {
                Some(null) => null,
                None => return Ok(()),
            },
        };
        replace_inherited(number, null.as_fd()).doing(|| format!("make descriptor {number} /dev/null"))?;
        own = Some(null);
    }
    Ok(())
}

/// Opens the container's `/dev/null`, proven to be the null device: a link or a file that an image put there instead would
/// be used in its place (CVE-2025-31133).
pub fn open(root: &Root, flags: OFlags) -> Result<Fd> {
    let found = root
        .open_with(Path::new(PATH), flags | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS)
        .doing(|| "open the container's /dev/null")?;
    expect_device(found.as_fd(), NUMBERS.0, NUMBERS.1)
        .map_err(|error| error.while_doing("check the container's /dev/null"))?;
    Ok(found)
}

/// Whether a descriptor is the null device.
pub fn is_null(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (major(stat.st_rdev), minor(stat.st_rdev)) == NUMBERS
    })
}

/// The container's node, to read and to write. Where it has none, or took it away, one that stands nowhere; nothing where
/// a user namespace can't make one, and its root has no power over the host's.
fn open_own(root: &Root) -> Result<Option<Fd>> {
    // First without opening the device: what stands there may be one that acts when it is opened.
    if open(root, OFlags::PATH).is_ok()
        && let Ok(null) = open(root, OFlags::RDWR | OFlags::NOCTTY)
    {
        return Ok(Some(null));
    }
    let place = filesystem::make(&NewFilesystem {
        fstype: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: vec![("mode".to_owned(), Some("755".to_owned()))],
        attributes: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
    })?;
    let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
    match mknodat(&place, "null", kind, mode, makedev(NUMBERS.0, NUMBERS.1)) {
        Err(Errno::PERM) => return Ok(None),
        made => made.doing(|| "make a null device for the standard streams")?,
    }
    openat(&place, "null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map(|null| Some(null.into()))
        .doing(|| "open the null device of the standard streams")
}
