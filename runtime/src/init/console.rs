//! The container's pseudoterminal (runtime-spec, config.md "process.terminal").
//!
//! It is allocated from the container's own devpts. The master goes to whoever asked for it by descriptor; the
//! slave is got from the master itself (`TIOCGPTPEER`), never by a name that the container could have swapped
//! (CVE-2025-52565).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, major, minor, mknodat, openat, statat,
};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::mounts::{attach, clone_tree};
use super::root::Root;
use crate::error::{Doing, Error, Kind, Result};

/// `/dev/ptmx` is 5:2, wherever it stands.
const PTMX: (u32, u32) = (5, 2);
/// `statfs(2)` of a devpts.
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// A pseudoterminal: the master, and the slave as the container has it.
pub struct Terminal {
    /// The engine's end.
    pub master: OwnedFd,
    /// The container's end.
    pub slave: OwnedFd,
}

/// Allocates a pseudoterminal from the devpts at `/dev/pts` of the root.
pub fn allocate(root: &Root, size: Option<(u16, u16)>) -> Result<Terminal> {
    let master = open_multiplexer(root)?;
    unlockpt(&master).doing(|| "unlock the pseudoterminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).doing(|| "open the pseudoterminal's slave")?;
    if let Some((rows, columns)) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).doing(|| "set the terminal's size")?;
    }
    Ok(Terminal { master, slave })
}

fn open_multiplexer(root: &Root) -> Result<OwnedFd> {
    let path = Path::new("/dev/pts/ptmx");
    let found = root
        .open_with(path, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS)
        .doing(|| "open /dev/pts/ptmx in the container");
    let found = found.map_err(|error| error.hint("process.terminal needs a devpts mounted on /dev/pts"))?;
    let stat = fstat(&found).doing(|| "look at /dev/pts/ptmx")?;
    let is_multiplexer = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == PTMX
        && rustix::fs::fstatfs(&found).doing(|| "look at the filesystem of /dev/pts")?.f_type as u64
            == DEVPTS_SUPER_MAGIC;
    if !is_multiplexer {
        return Err(Error::new(
            Kind::Config,
            "/dev/pts/ptmx in the container is not the multiplexer of a devpts",
        )
        .hint("process.terminal needs a devpts mounted on /dev/pts"));
    }
    // An O_PATH descriptor can't be used to read; the node is opened anew, below the same verified directory.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let master = root.open_with(path, flags, ResolveFlags::NO_SYMLINKS).doing(|| "open /dev/pts/ptmx")?;
    super::devices::expect_device(master.as_fd(), PTMX.0, PTMX.1)?;
    master.as_fd().try_clone_to_owned().doing(|| "duplicate the terminal's master")
}

/// Puts the slave on `/dev/console` of the root.
pub fn mount(terminal: &Terminal, root: &Root) -> Result<()> {
    let (dev, name) = root.parent(Path::new("/dev/console")).doing(|| "open /dev in the container")?;
    match mknodat(&dev, name, FileType::RegularFile, Mode::from_raw_mode(0o600), 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::os(errno, "make /dev/console in the container")),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(&dev, name, flags, Mode::empty()).doing(|| "open /dev/console in the container")?;
    let kind = FileType::from_raw_mode(
        statat(&target, "", AtFlags::EMPTY_PATH).doing(|| "look at /dev/console in the container")?.st_mode,
    );
    if !matches!(kind, FileType::RegularFile | FileType::CharacterDevice) {
        return Err(Error::new(Kind::Config, "/dev/console in the container is neither a file nor a device")
            .hint("the image may have been tampered with: nothing is mounted over a link or a directory"));
    }
    let tree = clone_tree(&terminal.slave, false).doing(|| "bind the terminal")?;
    attach(&tree, &target).map_err(|error| error.while_doing("mount the terminal on /dev/console"))
}

/// Lets new lines through as they are: whoever reads what the runtime passes on gets what the program wrote, as with runc,
/// and the caller's own terminal makes carriage returns of them.
pub fn leave_new_lines(terminal: &Terminal) -> Result<()> {
    let mut modes = tcgetattr(&terminal.slave).doing(|| "read the terminal's mode")?;
    modes.output_modes.remove(OutputModes::ONLCR);
    tcsetattr(&terminal.slave, OptionalActions::Now, &modes).doing(|| "set the terminal's mode")
}

/// Makes the slave this session's terminal and its standard streams.
pub fn take(terminal: &Terminal) -> Result<()> {
    rustix::process::ioctl_tiocsctty(&terminal.slave).doing(|| "take the controlling terminal")?;
    crate::sys::process::become_stdio(terminal.slave.as_fd())
        .doing(|| "put the terminal on the standard streams")
}
