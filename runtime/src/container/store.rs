//! Where containers are remembered: a directory for each below `--root`.
//!
//! A container's directory is its claim on the id: mkdir(2) succeeds for one of two creators only. Inside, every
//! file is written beside its place and renamed into it, so that a reader never sees half of one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, renameat,
    statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Doing, Error, Kind, Result};

/// runtime state: see [`super::state`].
pub const STATE_FILE: &str = "state.json";
/// The configuration as it was at creation.
pub const CONFIG_FILE: &str = "config.json";
/// Tells a creator that is still at work that its container is being deleted.
pub const DELETED: &str = "deleted";
/// The socket on which a created container waits for `start`; gone once it was started.
pub const GATE: &str = "start.sock";
/// The directory with the notification socket.
pub const NOTIFY: &str = "notify";

/// The longest id: it becomes a name in several filesystems.
const LONGEST_ID: usize = 255;

/// The directory of all containers.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

fn explain(error: Error) -> Error {
    match error.errno() {
        Some(Errno::ACCESS | Errno::ROFS) => {
            error.hint("give a directory of your own with --root, or set XDG_RUNTIME_DIR to one")
        }
        _ => error,
    }
}

impl Store {
    /// The store at `root`, which is made when the first container is.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where the directory of container `id` is or would be.
    pub fn path_of(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Makes the directory of a new container.
    pub fn claim(&self, id: &str) -> Result<Home> {
        check_id(id)?;
        let path = self.root.join(id);
        let mode = Mode::from_raw_mode(0o711);
        let made = match mkdirat(CWD, &path, mode) {
            Err(Errno::NOENT) => {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.root)
                    .doing(|| format!("make the state directory {}", self.root.display()))
                    .map_err(explain)?;
                mkdirat(CWD, &path, mode)
            }
            made => made,
        };
        match made {
            Ok(()) => Home::open(path, id).map_err(|error| match error.kind() {
                Kind::NotFound => {
                    Error::new(Kind::State, format!("container {id} was deleted while it was being created"))
                }
                _ => error,
            }),
            Err(Errno::EXIST) => Err(Error::new(Kind::Exists, "container with given ID already exists")
                .hint(format!("`coracle delete --force {id}` removes it"))),
            Err(errno) => {
                Err(explain(Error::os(errno, format!("make the state directory {}", path.display()))))
            }
        }
    }

    /// Opens the directory of a container.
    pub fn open(&self, id: &str) -> Result<Home> {
        check_id(id)?;
        Home::open(self.root.join(id), id)
    }

    /// The ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let directory = match rustix::fs::open(
            &self.root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            opened => opened.doing(|| format!("open the state directory {}", self.root.display()))?,
        };
        let mut ids = Vec::new();
        for entry in Dir::read_from(&directory).doing(|| "read the state directory")? {
            let entry = entry.doing(|| "read the state directory")?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if check_id(name).is_ok() && entry.file_type() == FileType::Directory {
                ids.push(name.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// runc's rule: letters, digits, `_`, `+`, `-` and `.`, and neither `.` nor `..`.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() || !id.bytes().all(allowed) || matches!(id, "." | "..") {
        return Err(Error::new(Kind::Config, format!("invalid container ID format: {id:?}"))
            .hint("an id is made of letters, digits, '_', '+', '-' and '.'"));
    }
    if id.len() > LONGEST_ID {
        return Err(Error::new(
            Kind::Config,
            format!("invalid container ID format: it is longer than {LONGEST_ID} bytes"),
        ));
    }
    Ok(())
}

/// The directory of one container.
#[derive(Debug)]
pub struct Home {
    directory: OwnedFd,
    path: PathBuf,
    id: String,
}

impl Home {
    fn open(path: PathBuf, id: &str) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, &path, flags, Mode::empty()) {
            Ok(directory) => Ok(Self { directory, path, id: id.to_owned() }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::new(Kind::NotFound, "container does not exist")),
            Err(errno) => Err(Error::os(errno, format!("open the state directory {}", path.display()))),
        }
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Reads a file of the container; nothing when it isn't there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let doing = || format!("read {}", self.path.join(name).display());
        let file = match openat(
            &self.directory,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.doing(doing)?,
        };
        let mut bytes = Vec::with_capacity(16 * 1024);
        File::from(file).read_to_end(&mut bytes).doing(doing)?;
        Ok(Some(bytes))
    }

    /// Writes a file of the container, at once for all readers.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.prepare(name, bytes)?.commit()
    }

    /// Writes a file beside its place; `commit` puts it there.
    pub fn prepare<'home>(&'home self, name: &'home str, bytes: &[u8]) -> Result<Prepared<'home>> {
        write_beside(self.directory.as_fd(), name, bytes)
            .doing(|| format!("write {}", self.path.join(name).display()))?;
        Ok(Prepared { home: self, name })
    }

    /// Reads a file that was prepared but never put into its place; nothing when there is none.
    pub fn read_unfinished(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.read(&beside(name))
    }

    /// Whether a name is there.
    pub fn has(&self, name: &str) -> bool {
        statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes a name, if it is there.
    pub fn unlink(&self, name: &str) -> Result<()> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::os(errno, format!("remove {}", self.path.join(name).display()))),
        }
    }

    /// Whether somebody deletes, or has deleted, the container, whose state stood in its place already if it is `known`.
    pub fn is_deleted(&self, known: bool) -> bool {
        self.has(DELETED) || (known && !self.has(STATE_FILE)) || self.is_gone()
    }

    /// Whether somebody has removed the directory. Its path may be another container's now.
    pub fn is_gone(&self) -> bool {
        fstat(&self.directory).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Waits until nobody else takes the container away, and keeps others from it until what this gives is dropped. The
    /// one who comes second finds that it [`Home::is_gone`], and that its names may be another container's.
    ///
    /// A filesystem without locks does without.
    pub fn lock(&self) -> Lock<'_> {
        let directory = self.directory.as_fd();
        let _ = retry_on_intr(|| flock(directory, FlockOperation::LockExclusive));
        Lock(directory)
    }

    /// Removes the directory with all that is in it. The state goes late, so that an interrupted removal can be
    /// done again, and the word to the creator after it: there is no moment without either.
    pub fn remove(&self) -> Result<()> {
        if self.is_gone() {
            return Ok(());
        }
        let doing = || format!("remove {}", self.path.display());
        for name in [CONFIG_FILE, GATE, STATE_FILE, DELETED] {
            self.unlink(name)?;
        }
        match unlinkat(CWD, &self.path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Somebody else was faster, and it is another container's already.
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.is_gone() => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
        std::fs::remove_dir_all(&self.path).doing(doing)
    }
}

/// Says that nobody else takes a container away: see [`Home::lock`].
pub struct Lock<'home>(BorrowedFd<'home>);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

/// A file that is written but not in its place yet.
pub struct Prepared<'home> {
    home: &'home Home,
    name: &'home str,
}

impl Prepared<'_> {
    /// Puts the file into its place.
    pub fn commit(self) -> Result<()> {
        let directory = self.home.directory.as_fd();
        renameat(directory, beside(self.name), directory, self.name)
            .doing(|| format!("write {}", self.home.path.join(self.name).display()))
    }
}

fn beside(name: &str) -> String {
    format!(".{name}.new")
}

fn write_beside(directory: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, beside(name), flags, Mode::from_raw_mode(0o600))?;
    File::from(file).write_all(bytes)
}

/// Writes the pid file: digits only, at once for all readers.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let doing = || format!("write the pid file {}", path.display());
    let name = path.file_name().unwrap_or(OsStr::new("pid"));
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    let new = path.with_file_name(new);
    let file = create_anew(&new, Mode::from_raw_mode(0o644)).doing(doing)?;
    let written = File::from(file)
        .write_all(pid.to_string().as_bytes())
        .doing(doing)
        .and_then(|()| renameat(CWD, &new, CWD, path).doing(doing));
    if written.is_err() {
        let _ = unlinkat(CWD, &new, AtFlags::empty());
    }
    written
}

/// Takes back the pid file of a process that came to nothing: its number becomes another process's.
pub fn remove_pid_file(path: &Path) {
    let _ = unlinkat(CWD, path, AtFlags::empty());
}

/// How often a name that others put back is removed.
const TRIES: u32 = 16;

/// Makes a file of this name, in a directory that may be open to others: what stands there, be it a FIFO or a link to
/// somebody's file, is removed and never opened.
fn create_anew(path: &Path, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        match openat(CWD, path, flags, mode) {
            Err(Errno::EXIST) => match unlinkat(CWD, path, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            },
            opened => return opened,
        }
    }
    Err(Errno::EXIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_rule_of_runc() {
        for id in ["a", "A-b_c+d.e", "0", "..a"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../a", "a b", "ä", "a\0"] {
            assert!(check_id(id).is_err(), "{id}");
        }
        assert!(check_id(&"a".repeat(256)).is_err());
    }

    #[test]
    fn what_stands_at_the_pid_files_temporary_name_is_not_opened() {
        let directory = std::env::temp_dir().join(format!("coracle-pid-file-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let (path, new, other) = (directory.join("pid"), directory.join(".pid"), directory.join("other"));
        std::fs::write(&other, "of somebody else").unwrap();
        let plants: [&dyn Fn(); 3] = [
            &|| rustix::fs::mkfifoat(CWD, &new, Mode::RUSR | Mode::WUSR).unwrap(),
            &|| std::fs::hard_link(&other, &new).unwrap(),
            &|| std::os::unix::fs::symlink(&other, &new).unwrap(),
        ];
        for plant in plants {
            plant();
            write_pid_file(&path, 42).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "42");
            assert!(!new.exists());
        }
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "of somebody else");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
