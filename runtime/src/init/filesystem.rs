//! New filesystem instances by fsopen(2), detached.

use std::os::fd::AsFd;

use rustix::fs::{PROC_SUPER_MAGIC, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::fd::Fd;
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::step::NewFilesystem;

/// The longest value that fsconfig(2) takes for an option, in bytes.
pub const LONGEST_VALUE: usize = 255;

/// Makes the filesystem and a detached mount of it.
pub fn make(new: &NewFilesystem) -> Result<Fd> {
    let context = Context::open(&new.fstype)?;
    context.configure(new)?;
    context.mount(new.attributes)
}

/// A filesystem that is being prepared: fsopen(2).
pub struct Context {
    fd: Fd,
    fstype: String,
}

impl Context {
    /// Begins to prepare one.
    pub fn open(fstype: &str) -> Result<Self> {
        let fd = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
            .map(Fd::from)
            .doing(|| format!("prepare the filesystem {fstype}"))
            .map_err(|error| match error.errno() {
                Some(Errno::NODEV) => {
                    error.hint("this kernel doesn't know that filesystem, or its module isn't loaded")
                }
                _ => error,
            })?;
        Ok(Self { fd, fstype: fstype.to_owned() })
    }

    /// Sets the source and all options.
    pub fn configure(&self, new: &NewFilesystem) -> Result<()> {
        if !new.source.is_empty() {
            fsconfig_set_string(&self.fd, "source", &new.source)
                .map_err(|errno| self.explain(errno, format!("set the source {}", new.source)))?;
        }
        new.options.iter().try_for_each(|(name, value)| self.set(name, value.as_deref()))
    }

    /// Sets an option to a text of at most [`LONGEST_VALUE`] bytes, or sets a flag.
    pub fn set(&self, name: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => fsconfig_set_string(&self.fd, name, value)
                .map_err(|errno| self.explain(errno, format!("set the option {name}={value}"))),
            None => fsconfig_set_flag(&self.fd, name)
                .map_err(|errno| self.explain(errno, format!("set the option {name}"))),
        }
    }

    /// Sets an option to what a descriptor is; `shown` is its name for messages.
    pub fn set_descriptor(&self, name: &str, fd: impl AsFd, shown: &str) -> Result<()> {
        fsconfig_set_fd(&self.fd, name, fd)
            .map_err(|errno| self.explain(errno, format!("set the option {name} to {shown}")))
    }

    /// Makes the filesystem, and a detached mount of it with these attributes (`MOUNT_ATTR_*`).
    pub fn mount(self, attributes: u64) -> Result<Fd> {
        fsconfig_create(&self.fd)
            .map_err(|errno| self.explain(errno, format!("make the filesystem {}", self.fstype)))?;
        let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map(Fd::from)
            .doing(|| format!("make a mount of {}", self.fstype))
    }

    /// Adds the kernel's own words, which it leaves in the context: fsopen(2) "e tmpfs: Bad value for 'size'".
    fn explain(&self, errno: Errno, doing: String) -> Error {
        let error = Error::os(errno, doing);
        let mut text = [0; 512];
        match rustix::io::read(&self.fd, &mut text) {
            Ok(length) => {
                let said = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
                error.hint(format!("the kernel says: {}", said.trim_start_matches(['e', 'w', 'i']).trim()))
            }
            Err(_) => error,
        }
    }
}

/// Whether a descriptor lies on procfs.
pub fn is_procfs(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(fstatfs(fd)?.f_type == PROC_SUPER_MAGIC)
}

/// The inode of a procfs's root: `PROC_ROOT_INO` of the kernel's include/linux/proc_ns.h.
const PROC_ROOT: u64 = 1;

/// Whether a descriptor is the root of a procfs, not a part of one.
pub fn is_proc_root(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(is_procfs(&fd)? && fstat(fd)?.st_ino == PROC_ROOT)
}

/// Refuses a descriptor that isn't on procfs: something else may be mounted over /proc.
pub fn expect_procfs(fd: impl AsFd) -> Result<()> {
    if is_procfs(fd).doing(|| "look at the filesystem of /proc")? {
        return Ok(());
    }
    Err(Error::new(Kind::System, "/proc is not a procfs").hint("mount one there: mount -t proc proc /proc"))
}
