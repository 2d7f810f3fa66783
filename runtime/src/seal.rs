//! The image that runs inside a container's namespaces is never the writable host binary (CVE-2019-5736).
//!
//! A process in a container can reach the runtime's executable through /proc/PID/exe, and a privileged one could
//! overwrite it, and with it every later run on the host. Commands that clone a process into a container therefore run
//! from an image that nobody can write. In the order in which they are tried, and of their cost:
//!
//! 1. the file itself, where the filesystem keeps it from writers: fs-verity, a read-only mount, or the immutable flag
//!    (`make install PROTECT=1`). Nothing is to be done. The flag is no obstacle to who may take it away, by a descriptor
//!    that is open for reading alone: it counts for [`Writers::Ordinary`] only.
//! 2. the file seen through an overlay filesystem without an upper layer, on a mount of its own that stands nowhere:
//!    such a filesystem can't be written nor made writable. The program begins anew from there.
//! 3. a copy in sealed memory, for users who may not mount. The program begins anew from there.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, StatxAttributes, StatxFlags,
    fcntl_add_seals, fcntl_get_seals, fstatvfs, memfd_create, openat, sendfile, statx,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{Doing, Error, Kind, Result};
use crate::sys::exec::{CStringArray, fexecve};

/// Who could try to write to the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Processes without CAP_LINUX_IMMUTABLE in the host's user namespace.
    Ordinary,
    /// Processes with any capability.
    All,
}

/// Makes sure that this program runs from an image that these writers can't write. Returns when it does already;
/// otherwise the program begins anew, from an image that nobody can write.
pub fn ensure(writers: Writers) -> Result<()> {
    let own = own_executable()?;
    if is_kept_from(writers, &own)? {
        return Ok(());
    }
    let image = protected(&own)?;
    let args = CStringArray::new(c_strings(std::env::args_os())?);
    let env = CStringArray::new(c_strings(std::env::vars_os().map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        entry
    }))?);
    Err(Error::os(fexecve(&image, &args, &env), "execute the protected image of the runtime")
        .hint("a memory file must be executable: see /proc/sys/vm/memfd_noexec; or put the installed file on a read-only mount"))
}

/// Whether this program runs from an image that nobody can write.
pub fn is_protected() -> Result<bool> {
    is_kept_from(Writers::All, &own_executable()?)
}

/// The image of this program to execute so that it [`is_protected`].
pub fn image() -> Result<OwnedFd> {
    let own = own_executable()?;
    if is_kept_from(Writers::All, &own)? { Ok(own) } else { protected(&own) }
}

fn own_executable() -> Result<OwnedFd> {
    rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open the runtime's own executable /proc/self/exe")
}

fn protected(own: &OwnedFd) -> Result<OwnedFd> {
    match behind_overlay() {
        Some(image) => Ok(image),
        None => sealed_copy(own),
    }
}

/// What a copy must have: no size or content of it can change, nor the seals.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Only memory files can have seals.
fn is_sealed(file: &OwnedFd) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

fn is_kept_from(writers: Writers, file: &OwnedFd) -> Result<bool> {
    if is_sealed(file) {
        return Ok(true);
    }
    let info = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
        .doing(|| "look at the runtime's own executable")?;
    let enough = match writers {
        Writers::Ordinary => StatxAttributes::IMMUTABLE | StatxAttributes::VERITY,
        Writers::All => StatxAttributes::VERITY,
    };
    if info.stx_attributes.intersects(enough) {
        return Ok(true);
    }
    let filesystem = fstatvfs(file).doing(|| "look at the filesystem of the runtime's own executable")?;
    Ok(filesystem.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Directories that can be the second layer, which an overlay without an upper one must have. Nothing of it is used; it
/// only must not hold, or lie in, the first.
const SECOND_LAYERS: [&str; 3] = ["/dev", "/tmp", "/run"];

/// The executable through an overlay; nothing where the kernel or our privileges don't allow it.
fn behind_overlay() -> Option<OwnedFd> {
    let path = std::fs::read_link("/proc/self/exe").ok()?;
    let (directory, name) = (path.parent()?, path.file_name()?);
    let second = SECOND_LAYERS.iter().map(Path::new).find(|other| {
        !directory.starts_with(other) && !other.starts_with(directory) && directory != Path::new("/")
    })?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    for layer in [directory, second] {
        fsconfig_set_string(&context, "lowerdir+", layer).ok()?;
    }
    fsconfig_create(&context).ok()?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).ok()?;
    openat(&mount, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn sealed_copy(own: &OwnedFd) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = memfd_create("coracle", flags | MemfdFlags::EXEC)
        // Linux before 6.3 doesn't know the flag, and makes every memory file executable.
        .or_else(|_| memfd_create("coracle", flags))
        .doing(|| "make a memory file for the sealed copy of the runtime")?;
    let size = File::from(own.try_clone().doing(|| "duplicate a descriptor")?)
        .metadata()
        .doing(|| "look at the runtime's own executable")?
        .len();
    let mut left = usize::try_from(size).unwrap_or(usize::MAX);
    while left > 0 {
        match sendfile(copy.as_fd(), own.as_fd(), None, left).doing(|| "copy the runtime into memory")? {
            0 => {
                return Err(Error::new(
                    Kind::System,
                    "the runtime's own executable became shorter while it was copied",
                ));
            }
            length => left -= length,
        }
    }
    fcntl_add_seals(&copy, SEALS).doing(|| "seal the copy of the runtime")?;
    Ok(copy)
}

fn c_strings(texts: impl Iterator<Item = OsString>) -> Result<Vec<CString>> {
    texts
        .map(|text| {
            let shown = String::from_utf8_lossy(text.as_bytes()).into_owned();
            CString::new(text.into_vec())
                .map_err(|_| Error::new(Kind::Config, format!("an argument has a NUL byte in it: {shown}")))
        })
        .collect()
}
