//! `tmpcopyup`: what a directory of the image holds is copied into the tmpfs that will hide it.
//!
//! Nothing is followed: a symbolic link is copied as a link, and every name is opened below the descriptor of
//! its directory.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fstat, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

use crate::error::{Doing, Result};

/// Copies what `from` holds into `to`, whose own mode and owner are for the mount's options to say.
pub fn copy_tree(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let to = to.as_fd();
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let from = openat(from, ".", directory, Mode::empty()).doing(|| "open the directory")?;
    for entry in Dir::read_from(&from).doing(|| "read the directory")? {
        let entry = entry.doing(|| "read the directory")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let shown = || name.to_string_lossy();
        let stat = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW).doing(|| format!("look at {}", shown()))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::from_raw_mode(0o700)).doing(|| format!("make {}", shown()))?;
                let from =
                    openat(&from, name, directory, Mode::empty()).doing(|| format!("open {}", shown()))?;
                let to = openat(to, name, directory, Mode::empty()).doing(|| format!("open {}", shown()))?;
                copy_tree(&from, &to)?;
            }
            FileType::RegularFile => {
                // Somebody may have put a FIFO there meanwhile, which would be waited for.
                let read =
                    OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut source = File::from(
                    openat(&from, name, read, Mode::empty()).doing(|| format!("open {}", shown()))?,
                );
                expect_file(&source).doing(|| format!("copy {}", shown()))?;
                let mut copy = File::from(
                    openat(to, name, write, Mode::from_raw_mode(0o600))
                        .doing(|| format!("make {}", shown()))?,
                );
                std::io::copy(&mut source, &mut copy).doing(|| format!("copy {}", shown()))?;
            }
            FileType::Symlink => {
                let target =
                    readlinkat(&from, name, Vec::new()).doing(|| format!("read the link {}", shown()))?;
                symlinkat(target, to, name).doing(|| format!("make the link {}", shown()))?;
            }
            _ => mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
                .doing(|| format!("make the special file {}", shown()))?,
        }
        copy_owner(to, name, &stat, kind).doing(|| format!("set the owner and mode of {}", shown()))?;
    }
    Ok(())
}

/// Refuses what isn't a regular file, and might have no end.
fn expect_file(file: &File) -> Result<(), Errno> {
    match FileType::from_raw_mode(fstat(file)?.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(Errno::AGAIN),
    }
}

fn copy_owner(directory: impl AsFd, name: &std::ffi::CStr, stat: &Stat, kind: FileType) -> Result<(), Errno> {
    let directory = directory.as_fd();
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind == FileType::Symlink {
        return Ok(());
    }
    chmodat(directory, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())
}
