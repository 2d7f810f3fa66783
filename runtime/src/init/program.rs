//! The user's program: where it is, its home directory, its working directory, its execution.

use std::ffi::{CStr, CString, OsStr};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, accessat, fstat, openat2, statat,
};
use rustix::io::Errno;

use super::root::Make;
use super::rootfs;
use crate::error::{Doing, Error, Kind, Result, describe};

/// How much of /etc/passwd is read, in bytes: an image's file is not trusted to be small.
const LONGEST_PASSWD: u64 = 1 << 20;

/// Finds `name` as execvp(3) does, with the PATH of `env`, and makes sure that it can be executed. Without a PATH, or
/// with an empty one, nothing is found; and what stands in a relative directory of it is not executed, since anybody may
/// have put it there.
///
/// The rules and the texts are those of Go's `exec.LookPath`, which runc shows and engines match.
pub fn find(name: &CStr, env: &[CString]) -> Result<CString> {
    let shown = name.to_string_lossy();
    let fail = |reason: &str| Error::new(Kind::Config, format!("exec: {shown:?}: {reason}"));
    let not_found = || fail("executable file not found in $PATH").at("process.args[0]");
    if name.is_empty() {
        return Err(not_found());
    }
    if name.to_bytes().contains(&b'/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::ISDIR) => Err(fail("is a directory").at("process.args[0]")),
            Err(Errno::ACCESS) => Err(fail("permission denied").at("process.args[0]")),
            Err(errno) => Err(fail(&format!("stat {shown}: {}", describe(errno))).at("process.args[0]")),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Err(not_found().hint("process.env has no PATH: set one, or give the program's whole path"));
    };
    for directory in path.split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b".".as_slice() } else { directory };
        let candidate = [directory, b"/", name.to_bytes()].concat();
        let Ok(candidate) = CString::new(candidate) else { continue };
        if executable(&candidate).is_ok() {
            if directory.starts_with(b"/") {
                return Ok(candidate);
            }
            return Err(fail("cannot run executable found relative to current directory")
                .at("process.args[0]")
                .hint("PATH in process.env should have absolute directories only"));
        }
    }
    Err(not_found())
}

fn executable(path: &CStr) -> Result<(), Errno> {
    let stat = statat(CWD, path, AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    if stat.st_mode & 0o111 == 0 { Err(Errno::ACCESS) } else { Ok(()) }
}

/// The home directory that the container's /etc/passwd gives `uid`; `/` when it gives none.
pub fn home(uid: u32) -> CString {
    let home =
        passwd().and_then(|text| home_of(&text, uid).map(<[u8]>::to_vec)).unwrap_or_else(|| b"/".to_vec());
    CString::new(home).unwrap_or_else(|_| c"/".to_owned())
}

/// Reads /etc/passwd, if it is a plain file: an image could put a FIFO there to keep us waiting.
fn passwd() -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat2(CWD, "/etc/passwd", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).ok()?;
    if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    std::fs::File::from(file).take(LONGEST_PASSWD).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The sixth field of the first line whose third one is `uid`: passwd(5).
fn home_of(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let number = std::str::from_utf8(fields.nth(2)?).ok()?.parse::<u32>().ok()?;
        let home = fields.nth(2)?;
        (number == uid && !home.is_empty()).then_some(home)
    })
}

/// Changes to the working directory. `Ok(false)`: it isn't permitted now, but may be to the container's user.
pub fn change_directory(path: &Path, make: bool) -> Result<bool> {
    let changed = match rustix::process::chdir(path) {
        Err(Errno::NOENT) if make => rootfs::reopen()?
            .open_or_make(path, Make::Directory)
            .and_then(|directory| rustix::process::fchdir(&directory)),
        changed => changed,
    };
    match changed {
        Ok(()) => check_inside().map(|()| true),
        Err(Errno::ACCESS | Errno::PERM) => Ok(false),
        Err(errno) => {
            Err(Error::os(errno, format!("chdir to cwd ({path:?}) set in config.json failed"))
                .at("process.cwd"))
        }
    }
}

/// A working directory outside of the container's root, reached by a descriptor that something leaked, has no
/// path inside it: the kernel then says "(unreachable)" (CVE-2024-21626).
fn check_inside() -> Result<()> {
    let cwd = rustix::process::getcwd(Vec::new()).doing(|| "look at the working directory")?;
    if cwd.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Error::new(
        Kind::Config,
        format!("current working directory is outside of container mount namespace root -- possible container breakout detected: {:?}", OsStr::from_bytes(cwd.to_bytes())),
    )
    .at("process.cwd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_found_by_number_not_by_name() {
        let passwd = b"1000:x:0:0::/wrong:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\nbad line\n";
        assert_eq!(home_of(passwd, 1000), Some(b"/home/me".as_slice()));
        assert_eq!(home_of(passwd, 0), Some(b"/wrong".as_slice()));
        assert_eq!(home_of(passwd, 7), None);
    }

    #[test]
    fn a_program_that_is_not_in_the_path_is_told_as_runc_tells_it() {
        let error = find(c"no-such-program", &[c"PATH=/bin:/usr/bin".to_owned()]).unwrap_err();
        assert!(error.to_string().contains(r#"exec: "no-such-program": executable file not found in $PATH"#));
    }
}
