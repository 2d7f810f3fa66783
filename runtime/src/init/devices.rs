//! Device nodes and the links of /dev (runtime-spec, config-linux.md "Devices", "Default Devices").

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, major, makedev, minor, mknodat, openat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::fd::Fd;
use super::mounts::{attach, change, clone_tree};
use super::root::{Make, Root};
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::step::Device;
use crate::sys::mount::Attributes;
use crate::sys::process::in_user_namespace;

/// The directory in which the last device was made: mostly the next one stands there too.
#[derive(Default)]
pub struct Directory {
    last: Option<(PathBuf, Fd)>,
}

impl Directory {
    /// Opens the directory of `path`, making it where it is missing, and gives the last name of `path` with it.
    fn of<'p>(&mut self, path: &'p Path, root: &Root) -> Result<(&Fd, &'p OsStr)> {
        let doing = || format!("open the directory of {}", path.display());
        let parent = path.parent().unwrap_or(Path::new("/"));
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            let directory = root.open_or_make(parent, Make::Directory).doing(doing)?;
            self.last = Some((parent.to_owned(), directory));
        }
        match (&self.last, path.file_name()) {
            (Some((_, directory)), Some(name)) => Ok((directory, name)),
            _ => Err(Error::os(Errno::INVAL, doing())),
        }
    }

    /// Makes a device node. One of the same name that is there already stays, if it is the same device.
    pub fn make(&mut self, device: &Device, root: &Root) -> Result<()> {
        let (directory, name) = self.of(&device.path, root)?;
        let kind = FileType::from_raw_mode(device.mode);
        let number = makedev(device.major, device.minor);
        match mknodat(directory, name, kind, Mode::from_raw_mode(device.mode), number) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat =
                    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).doing(|| "look at what is there")?;
                let same = kind == FileType::Fifo || stat.st_rdev == number;
                if is_placeholder(&stat) && in_user_namespace() {
                    return bind_from_host(device, directory, name);
                }
                if FileType::from_raw_mode(stat.st_mode) != kind || !same {
                    return Err(Error::new(
                        Kind::Config,
                        format!("make the device {}: something else is there already", device.path.display()),
                    )
                    .hint("remove it from the image, or mount a tmpfs on /dev"));
                }
            }
            // A user namespace makes no devices: it gets the host's.
            Err(Errno::PERM) => return bind_from_host(device, directory, name),
            Err(errno) => return Err(Error::os(errno, format!("make the device {}", device.path.display()))),
        }
        if (device.uid, device.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .doing(|| format!("give the device to {}:{}", device.uid, device.gid))?;
        }
        Ok(())
    }

    /// Makes a symbolic link; what is there already stays, unless it is to be replaced.
    pub fn link(&mut self, path: &Path, target: &str, replace: bool, root: &Root) -> Result<()> {
        let (directory, name) = self.of(path, root)?;
        match symlinkat(target, directory, name) {
            Err(Errno::EXIST) if replace => {
                unlinkat(directory, name, AtFlags::empty()).doing(|| format!("remove {}", path.display()))?;
                symlinkat(target, directory, name).doing(|| format!("make the link {}", path.display()))
            }
            Err(Errno::EXIST) => Ok(()),
            made => made.doing(|| format!("make the link {}", path.display())),
        }
    }
}

/// Whether it is what a device was bound onto in an earlier run.
fn is_placeholder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0
}

/// Binds the host's node of the same path, which is proven to be the device, onto an empty file.
fn bind_from_host(device: &Device, directory: &Fd, name: &OsStr) -> Result<()> {
    let path = device.path.display();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node =
        openat(CWD, &device.path, flags, Mode::empty()).doing(|| format!("open the host's {path}")).map_err(
            |error| error.hint("mknod(2) is refused here, so the host must have the device at the same path"),
        )?;
    let stat = rustix::fs::fstat(&node).doing(|| format!("look at the host's {path}"))?;
    let kind = FileType::from_raw_mode(device.mode);
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != kind || number != (device.major, device.minor) {
        return Err(Error::new(
            Kind::Config,
            format!("the host's {path} is not the device {}:{}", device.major, device.minor),
        )
        .hint("mknod(2) is refused here, so the host must have the device at the same path"));
    }
    match mknodat(directory, name, FileType::RegularFile, Mode::from_raw_mode(0o666), 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::os(errno, format!("make the file {path} to bind the device on"))),
    }
    let target = openat(directory, name, flags, Mode::empty()).doing(|| format!("open {path}"))?;
    if FileType::from_raw_mode(rustix::fs::fstat(&target).doing(|| format!("look at {path}"))?.st_mode)
        != FileType::RegularFile
    {
        return Err(Error::new(
            Kind::Config,
            format!("{path} in the rootfs is not a file to bind the device on"),
        )
        .hint("remove it from the image, or mount a tmpfs on /dev"));
    }
    let tree = clone_tree(&node, false).doing(|| format!("bind the host's {path}"))?;
    let set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    change(&tree, Attributes { set, ..Attributes::default() }, false)?;
    attach(&tree, &target)
}

/// Refuses a descriptor that is not the character device `expected_major:expected_minor`.
pub fn expect_device(fd: BorrowedFd<'_>, expected_major: u32, expected_minor: u32) -> Result<()> {
    let stat = rustix::fs::fstat(fd).doing(|| "look at the device")?;
    let is = (FileType::from_raw_mode(stat.st_mode), major(stat.st_rdev), minor(stat.st_rdev));
    if is == (FileType::CharacterDevice, expected_major, expected_minor) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Config,
        format!(
            "it is not the character device {expected_major}:{expected_minor}; the rootfs may have been tampered with"
        ),
    ))
}
