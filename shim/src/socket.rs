//! The shim's socket: its address, and who may have it.
//!
//! Its name is a hash of what identifies the group, so that a second container of the group finds the shim of the first.
//! It is a path, never an abstract name (CVE-2020-15257), with mode 0600 in a directory of mode 0700.

use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use coracle::error::{Doing, Error, Kind, Result};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, fchmod, flock, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use sha2::{Digest, Sha256};

/// Where sockets are, unless containerd names another directory.
const DIRECTORY: &str = "/run/containerd/s";

/// What precedes the path in an address.
const SCHEME: &str = "unix://";

/// How many connections wait to be accepted.
const BACKLOG: i32 = 128;

/// The path of the socket of a group: as containerd's own shims have it.
pub fn path(directory: Option<&str>, address: &str, namespace: &str, group: &str) -> PathBuf {
    let name = Path::new(address).join(namespace).join(group);
    let mut text = String::new();
    for byte in Sha256::digest(name.as_os_str().as_encoded_bytes()) {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    Path::new(directory.filter(|directory| !directory.is_empty()).unwrap_or(DIRECTORY)).join(text)
}

/// The address of a path.
pub fn address(path: &Path) -> String {
    format!("{SCHEME}{}", path.display())
}

/// The path of an address.
pub fn path_of(address: &str) -> &Path {
    Path::new(address.trim().strip_prefix(SCHEME).unwrap_or(address.trim()))
}

/// Makes the listening socket; nothing when a shim listens there already.
pub fn claim(path: &Path) -> Result<Option<OwnedFd>> {
    let doing = || format!("make the socket {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .doing(|| format!("make the directory {}", directory.display()))?;
    let name = SocketAddrUnix::new(path)
        .doing(doing)
        .map_err(|error| error.hint("a socket's path has at most 107 bytes"))?;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).doing(doing)?;
    // Two who find the same dead socket must not both replace it. The lock goes with the descriptor.
    let lock = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open the directory {}", directory.display()))?;
    flock(&lock, FlockOperation::LockExclusive)
        .doing(|| format!("lock the directory {}", directory.display()))?;
    if directory == Path::new(DIRECTORY) {
        // Another shim may have made it, with another mode.
        fchmod(&lock, Mode::RWXU)
            .doing(|| format!("close the directory {} to others", directory.display()))?;
    }
    let take = || bind(&socket, &name).and_then(|()| listen(&socket, BACKLOG));
    // Between its making and a change of its mode anybody could connect.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let taken = match take() {
        Err(Errno::ADDRINUSE) => match is_alive(&name) {
            Ok(true) => Ok(false),
            Ok(false) => {
                remove(path);
                take().map(|()| true)
            }
            Err(errno) => Err(errno),
        },
        taken => taken.map(|()| true),
    };
    rustix::process::umask(before);
    Ok(taken.doing(doing)?.then_some(socket))
}

/// Whether somebody listens there. A Unix socket answers at once, or its queue is full, and then somebody has it too.
fn is_alive(name: &SocketAddrUnix) -> Result<bool, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, name) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes the socket, if it is there.
pub fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log::warn!("remove the socket {}: {error}", path.display());
        }
        _ => {}
    }
}

/// Removes the socket of a shim that is gone.
pub fn remove_dead(path: &Path) {
    if let Ok(name) = SocketAddrUnix::new(path)
        && matches!(is_alive(&name), Ok(false))
    {
        remove(path);
    }
}

/// Refuses an address that isn't a path's.
pub fn check(path: &Path) -> Result<()> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("the socket's directory must be absolute: {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_hash_that_containerd_makes() {
        // printf %s /run/containerd/containerd.sock/default/x | sha256sum
        let got = path(None, "/run/containerd/containerd.sock", "default", "x");
        let hash = got.file_name().unwrap().to_str().unwrap();
        assert_eq!(got.parent(), Some(Path::new("/run/containerd/s")));
        assert_eq!(hash, "5e250b13f984a15f73216d143af1bf3c64171aa56c781ba9d4040c75b2c1eee2");
        assert_eq!(path_of(&address(&got)), got);
    }
}
