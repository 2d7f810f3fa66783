//! Paths inside the rootfs.
//!
//! The rootfs is the container's, so nothing in it can be trusted: any part of a path may be a symbolic link,
//! may be swapped by a sibling that shares a volume, may be a procfs magic link. Every path is therefore
//! resolved once, by the kernel, inside the root (`openat2` with `RESOLVE_IN_ROOT`), to an `O_PATH` descriptor,
//! and what follows acts on the descriptor.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat, openat2, readlinkat,
};
use rustix::io::Errno;

use super::fd::Fd;

/// How many symbolic links a path may have before it counts as a loop: path_resolution(7).
const MOST_LINKS: u32 = 40;

/// What to make where a path ends and nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// A directory, mode 0755.
    Directory,
    /// An empty file, mode 0755 as runc makes it.
    File,
}

/// The container's root directory.
#[derive(Debug)]
pub struct Root {
    fd: Fd,
    on_host: bool,
    /// Its device and inode, once somebody asked.
    identity: OnceCell<Option<(u64, u64)>>,
}

impl Root {
    /// Takes an `O_PATH` descriptor of the root.
    pub fn new(fd: impl Into<Fd>) -> Self {
        Self { fd: fd.into(), on_host: false, identity: OnceCell::new() }
    }

    /// Takes an `O_PATH` descriptor of a root that stands in the host's own tree of mounts.
    pub fn on_host(fd: impl Into<Fd>) -> Self {
        Self { fd: fd.into(), on_host: true, identity: OnceCell::new() }
    }

    /// Whether what is mounted below it is mounted in the host's tree.
    pub fn is_on_host(&self) -> bool {
        self.on_host
    }

    /// Whether a descriptor is of the root itself.
    pub fn is(&self, fd: impl AsFd) -> bool {
        let own = self.identity.get_or_init(|| identity(&self.fd));
        own.is_some() && *own == identity(fd)
    }

    /// Resolves a path inside the root.
    pub fn open(&self, path: &Path) -> Result<Fd, Errno> {
        self.open_with(path, OFlags::PATH, ResolveFlags::empty())
    }

    /// Resolves a path that has no symbolic link in it.
    pub fn open_without_links(&self, path: &Path) -> Result<Fd, Errno> {
        self.open_with(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens a path inside the root with flags of the caller's.
    pub fn open_with(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<Fd, Errno> {
        open_in(self.fd.as_fd(), path, flags, resolve)
    }

    /// Resolves a path inside the root; what is missing of it is made.
    pub fn open_or_make(&self, path: &Path, make: Make) -> Result<Fd, Errno> {
        match self.open(path) {
            Err(Errno::NOENT) => self.make_last(path, make),
            found => found,
        }
    }

    /// Resolves a path that has no symbolic link in it; the directories that are missing of it are made.
    pub fn open_or_make_without_links(&self, path: &Path) -> Result<Fd, Errno> {
        match self.open_without_links(path) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let mut reached: Option<Fd> = None;
        for name in names(path) {
            let here = reached.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            let name = OsStr::from_bytes(&name);
            make_name(here, name, Make::Directory)?;
            // Somebody may have put a link there meanwhile.
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            reached = Some(open_in(here, Path::new(name), flags, ResolveFlags::NO_SYMLINKS)?);
        }
        reached.ok_or(Errno::NOENT)
    }

    /// Mostly only the last name is missing, and what stands before it has no dangling link.
    fn make_last(&self, path: &Path, make: Make) -> Result<Fd, Errno> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.make(path, make);
        };
        let Ok(directory) = self.open(parent) else { return self.make(path, make) };
        let made = match make {
            Make::Directory => mkdirat(&directory, name, Mode::from_raw_mode(0o755)),
            Make::File => mknodat(&directory, name, FileType::RegularFile, Mode::from_raw_mode(0o755), 0),
        };
        match made {
            Ok(()) => open_name(directory.as_fd(), name),
            // A dangling link stands there.
            Err(Errno::EXIST) => self.make(path, make),
            Err(errno) => Err(errno),
        }
    }

    /// Resolves the directory that holds `path`, making it when it is missing, and the last name of `path`.
    pub fn parent<'p>(&self, path: &'p Path) -> Result<(Fd, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.open_or_make(parent, Make::Directory)?, name))
    }

    /// Walks the path one name at a time and makes what is missing. A symbolic link, a dangling one too, is
    /// followed inside the root, by hand: each step starts from a descriptor that was reached from the root.
    fn make(&self, path: &Path, make: Make) -> Result<Fd, Errno> {
        let mut left: VecDeque<Vec<u8>> = names(path);
        let mut reached: Vec<Fd> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == b".." {
                reached.pop();
                continue;
            }
            let here = reached.last().map_or(self.fd.as_fd(), AsFd::as_fd);
            let name = OsStr::from_bytes(&name);
            let next = match open_name(here, name) {
                Err(Errno::NOENT) => {
                    let kind = if left.is_empty() { make } else { Make::Directory };
                    make_name(here, name, kind)?;
                    open_name(here, name)?
                }
                found => found?,
            };
            if FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(&next, "", Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    reached.clear();
                }
                for name in names(Path::new(OsStr::from_bytes(&target))).into_iter().rev() {
                    left.push_front(name);
                }
                continue;
            }
            reached.push(next);
        }
        match reached.pop() {
            Some(fd) => Ok(fd),
            None => self.open(Path::new("/")),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens `path` as if `root` were the root directory.
pub fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<Fd, Errno> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel asks for another try when a rename elsewhere made a ".." uncertain: openat2(2).
            Err(Errno::AGAIN) => {}
            result => return result.map(Fd::from),
        }
    }
}

fn open_name(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Fd, Errno> {
    openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map(Fd::from)
}

/// Makes a name; that somebody else made it meanwhile is as good.
fn make_name(directory: BorrowedFd<'_>, name: &OsStr, make: Make) -> Result<(), Errno> {
    let made = match make {
        Make::Directory => mkdirat(directory, name, Mode::from_raw_mode(0o755)),
        Make::File => mknodat(directory, name, FileType::RegularFile, Mode::from_raw_mode(0o755), 0),
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// The names of a path, `.` left out.
fn names(path: &Path) -> VecDeque<Vec<u8>> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            Component::ParentDir => Some(b"..".to_vec()),
            _ => None,
        })
        .collect()
}

/// The device and the inode, which tell a file from any other.
fn identity(fd: impl AsFd) -> Option<(u64, u64)> {
    fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Whether both are the same file or directory.
pub fn is_same(one: impl AsFd, other: impl AsFd) -> bool {
    let one = identity(one);
    one.is_some() && one == identity(other)
}

/// Whether the descriptor is a directory.
pub fn is_directory(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?.st_mode)
        == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(directory: &Path) -> Root {
        Root::new(rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap())
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("coracle-root-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("rootfs")).unwrap();
        directory
    }

    #[test]
    fn a_missing_path_is_made_through_a_dangling_link_inside_the_root() {
        let directory = scratch("dangling");
        let rootfs = directory.join("rootfs");
        symlink("/../../outside/deep", rootfs.join("link")).unwrap();
        root(&rootfs).open_or_make(Path::new("/link/here"), Make::File).unwrap();
        assert!(rootfs.join("outside/deep/here").is_file());
        assert!(!directory.join("outside").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn no_link_is_followed_where_none_may_be() {
        let directory = scratch("links");
        let rootfs = directory.join("rootfs");
        symlink("elsewhere", rootfs.join("link")).unwrap();
        let make = |path: &str| root(&rootfs).open_or_make_without_links(Path::new(path));
        assert_eq!(make("/link").unwrap_err(), Errno::LOOP);
        assert_eq!(make("/link/proc").unwrap_err(), Errno::LOOP);
        assert!(!rootfs.join("elsewhere").exists());
        make("/new/proc").unwrap();
        assert!(rootfs.join("new/proc").is_dir());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let directory = scratch("loop");
        let rootfs = directory.join("rootfs");
        symlink("b", rootfs.join("a")).unwrap();
        symlink("a", rootfs.join("b")).unwrap();
        assert_eq!(root(&rootfs).open_or_make(Path::new("/a/c"), Make::File).unwrap_err(), Errno::LOOP);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn dots_never_lead_out_of_the_root() {
        let directory = scratch("dots");
        let rootfs = directory.join("rootfs");
        root(&rootfs).open_or_make(Path::new("/x/../../../y/z"), Make::Directory).unwrap();
        assert!(rootfs.join("y/z").is_dir());
        fs::remove_dir_all(directory).unwrap();
    }
}
