//! Cgroup directories and the files in them.
//!
//! It owns every open, read and write of this room. A directory is resolved once, without following
//! links, checked to be on a cgroup filesystem, and all its files are reached from its descriptor.
//! Every error names the file and, for a write, the value.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Doing, Error, Kind, Result};

/// `f_type` of a version 1 hierarchy, statfs(2).
pub const CGROUP_MAGIC: u64 = 0x0027_e0eb;
/// `f_type` of the version 2 hierarchy, statfs(2).
pub const CGROUP2_MAGIC: u64 = 0x6367_7270;

const NO_LINKS: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS);

/// What tells directories apart, whatever their names: device and inode.
pub type Identity = (u64, u64);

/// An open cgroup directory.
#[derive(Debug)]
pub struct CgroupDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl CgroupDir {
    /// Opens the cgroup at `path`, which must be on a cgroup filesystem.
    pub fn open(path: &Path) -> Result<CgroupDir> {
        Self::open_if_there(path)?.ok_or_else(|| {
            Error::os(Errno::NOENT, format!("open the cgroup {}", path.display()))
                .hint("the cgroup was removed by somebody else")
        })
    }

    /// As [`CgroupDir::open`]; `None` when there is no such directory.
    pub fn open_if_there(path: &Path) -> Result<Option<CgroupDir>> {
        let doing = || format!("open the cgroup {}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat2(CWD, path, flags, Mode::empty(), NO_LINKS) {
            Ok(fd) => fd,
            // ENODEV: the cgroup is being removed.
            Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
            Err(errno) => return Err(Error::os(errno, doing())),
        };
        let magic = rustix::fs::fstatfs(&fd).doing(doing)?.f_type as u64;
        if magic != CGROUP_MAGIC && magic != CGROUP2_MAGIC {
            return Err(Error::new(
                Kind::System,
                format!("{} is not on a cgroup filesystem", path.display()),
            ));
        }
        Ok(Some(CgroupDir { fd, path: path.to_owned() }))
    }

    /// The cgroup `name` below this one; `None` when it is gone.
    pub fn child(&self, name: &OsStr) -> Result<Option<CgroupDir>> {
        let path = self.path.join(name);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(
            &self.fd,
            name.as_bytes(),
            flags,
            Mode::empty(),
            NO_LINKS | ResolveFlags::BENEATH,
        ) {
            Ok(fd) => Ok(Some(CgroupDir { fd, path })),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::os(errno, format!("open the cgroup {}", path.display()))),
        }
    }

    /// The directory above this one.
    pub fn above(&self) -> Result<CgroupDir> {
        let path = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.fd, "..", flags, Mode::empty(), NO_LINKS)
            .map(|fd| CgroupDir { fd, path })
            .doing(|| format!("open the cgroup above {}", self.path.display()))
    }

    /// Which directory it is.
    pub fn identity(&self) -> Result<Identity> {
        let stat = rustix::fs::fstat(&self.fd).doing(|| self.doing("look at", ""))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Whether there are cgroups directly below: the links of a directory count them.
    pub fn has_children(&self) -> Result<bool> {
        rustix::fs::fstat(&self.fd).map(|stat| stat.st_nlink > 2).doing(|| self.doing("look at", ""))
    }

    /// The directory's path, for messages and records.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens one of the cgroup's files.
    pub fn open_file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(
            &self.fd,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            NO_LINKS | ResolveFlags::BENEATH,
        )
    }

    /// Whether the cgroup has a file of that name. A container may give a cgroup below the name of a file that the kernel
    /// doesn't have.
    pub fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// The text of a file.
    pub fn read(&self, name: &str) -> Result<String> {
        self.read_if_there(name)?.ok_or_else(|| Error::os(Errno::NOENT, self.doing("read", name)))
    }

    /// The text of a file; `None` when the kernel does not have it, or the cgroup is gone, or, as
    /// files of controllers that are switched off do, it says EOPNOTSUPP.
    pub fn read_if_there(&self, name: &str) -> Result<Option<String>> {
        // EISDIR: a cgroup below has the name (see `has`).
        let absent = |errno| matches!(errno, Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP | Errno::ISDIR);
        let result = self.open_file(name, OFlags::RDONLY).and_then(|fd| read_all(fd.as_fd()));
        match result {
            Ok(text) => Ok(Some(text)),
            Err(errno) if absent(errno) => Ok(None),
            Err(errno) => Err(Error::os(errno, self.doing("read", name))),
        }
    }

    /// The first 4096 bytes of a file that holds one short value, without the line break: one read,
    /// without a second one to see the end.
    pub fn read_value(&self, name: &str) -> Result<String> {
        let fd = self.open_file(name, OFlags::RDONLY);
        fd.and_then(|fd| read_once(fd.as_fd())).doing(|| self.doing("read", name))
    }

    /// Writes `value` to a file in one write.
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        self.open_file(name, OFlags::WRONLY)
            .and_then(|fd| write_once(fd.as_fd(), value))
            .map_err(|errno| self.write_error(name, value, errno))
    }

    /// The error of a write that failed.
    pub fn write_error(&self, name: &str, value: &str, errno: Errno) -> Error {
        Error::os(errno, format!("write {:?} to {}", value, self.path.join(name).display()))
    }

    /// The names of the cgroups directly below.
    pub fn children(&self) -> Result<Vec<std::ffi::OsString>> {
        let doing = || format!("list the cgroup {}", self.path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match self.open_file(".", flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(Vec::new()),
            Err(errno) => return Err(Error::os(errno, doing())),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd).doing(doing)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT | Errno::NODEV) => break,
                Err(errno) => return Err(Error::os(errno, doing())),
            };
            let name = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    /// Removes the cgroup `name` below this one.
    pub fn remove_child(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.fd, name.as_bytes(), AtFlags::REMOVEDIR)
    }

    /// Gives the directory, or a file in it, to another user.
    pub fn chown(&self, name: &str, user: u32) -> Result<(), Errno> {
        rustix::fs::chownat(
            &self.fd,
            name,
            Some(rustix::fs::Uid::from_raw(user)),
            None,
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    fn doing(&self, verb: &str, name: &str) -> String {
        format!("{verb} {}", self.path.join(name).display())
    }
}

impl AsFd for CgroupDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes the cgroup `path` and those above it that are missing, never above `mount`. Gives the
/// directories it made, outermost first: none when the cgroup was there.
pub fn make(mount: &Path, path: &Path) -> Result<Vec<PathBuf>, (Vec<PathBuf>, Error)> {
    let mode = Mode::from_raw_mode(0o755 as RawMode);
    let mut missing = vec![path];
    let mut made = Vec::new();
    while let Some(&next) = missing.last() {
        match rustix::fs::mkdirat(CWD, next, mode) {
            Ok(()) => {
                made.push(next.to_owned());
                missing.pop();
            }
            // Made by another runtime since it was found missing.
            Err(Errno::EXIST) => {
                missing.pop();
            }
            Err(Errno::NOENT) => match next.parent() {
                Some(parent) if parent != mount && parent.starts_with(mount) && made.is_empty() => {
                    missing.push(parent);
                }
                _ => {
                    return Err((
                        made,
                        Error::os(Errno::NOENT, format!("make the cgroup {}", next.display())),
                    ));
                }
            },
            Err(errno) => return Err((made, make_error(next, errno))),
        }
    }
    Ok(made)
}

fn make_error(path: &Path, errno: Errno) -> Error {
    let error = Error::os(errno, format!("make the cgroup {}", path.display()));
    match errno {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => error.hint(
            "this user may not make cgroups here: delegate one, use --systemd-cgroup, or run with --cgroup-manager=disabled and without limits",
        ),
        Errno::AGAIN => error.hint("a limit on the number of cgroups (cgroup.max.descendants) is reached above it"),
        _ => error,
    }
}

/// Removes the directory `path`; `Ok(false)` when it was gone already.
pub fn remove(path: &Path) -> Result<bool, Errno> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NODEV) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether a cgroup hierarchy of either version is mounted at `path`.
pub fn is_cgroup_filesystem(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| matches!(found.f_type as u64, CGROUP_MAGIC | CGROUP2_MAGIC))
}

/// Opens the file of a cgroup by its full path, following no link.
pub fn open_path(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), NO_LINKS)
        .doing(|| format!("open {}", path.display()))
}

/// As [`CgroupDir::read_value`], by the file's full path: three system calls instead of six.
pub fn read_value_at(path: &Path) -> Result<String> {
    let fd = open_path(path, OFlags::RDONLY)?;
    read_once(fd.as_fd()).doing(|| format!("read {}", path.display()))
}

/// As [`CgroupDir::write`], by the file's full path.
pub fn write_value_at(path: &Path, value: &str) -> Result<()> {
    let fd = open_path(path, OFlags::WRONLY)?;
    write_once(fd.as_fd(), value).doing(|| format!("write {value:?} to {}", path.display()))
}

fn read_once(fd: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut buffer = [0; 4096];
    let length = rustix::io::read(fd, &mut buffer)?;
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    Ok(text.trim_end().to_owned())
}

/// `mount` with the absolute path `inner` below it.
pub fn below(mount: &Path, inner: &str) -> PathBuf {
    mount.join(inner.trim_start_matches('/'))
}

/// The text of a file of procfs.
pub fn read_path(path: &str) -> Result<String> {
    let doing = || format!("read {path}");
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(doing)?;
    read_all(fd.as_fd()).doing(doing)
}

/// Everything that a descriptor gives, as text.
pub fn read_all(fd: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len());
        }
        match rustix::io::read(fd, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes `value` in one system call, as cgroup files want it.
pub fn write_once(fd: BorrowedFd<'_>, value: &str) -> Result<(), Errno> {
    loop {
        match rustix::io::write(fd, value.as_bytes()) {
            Ok(written) if written == value.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
