//! Images of filesystems in files, behind loop devices: loop(4).

use std::os::fd::OwnedFd;

use coracle::error::{Doing, Error, Kind, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::sys;

/// How often a device may be taken by somebody else between finding it and taking it.
const TRIES: usize = 64;

/// A loop device over a file. It lives for as long as this or a mount holds it.
pub struct LoopDevice {
    /// Its path.
    pub path: String,
    _device: OwnedFd,
}

impl LoopDevice {
    /// Puts a file behind a free device.
    pub fn over(file: &str, read_only: bool, direct_io: bool) -> Result<Self> {
        let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR } | OFlags::CLOEXEC;
        let open = |path: &str, flags| openat(CWD, path, flags, Mode::empty());
        let image = open(file, access).doing(|| format!("open the image {file}"))?;
        let control = open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC)
            .doing(|| "open /dev/loop-control")
            .map_err(|error| error.hint("the kernel's module `loop` makes it"))?;
        for _ in 0..TRIES {
            let number = sys::free_loop_device(&control).doing(|| "find a free loop device")?;
            let path = format!("/dev/loop{number}");
            let device = open(&path, access).doing(|| format!("open {path}"))?;
            match sys::configure_loop_device(&device, &image, read_only, direct_io) {
                Ok(()) => return Ok(Self { path, _device: device }),
                // Somebody else was faster.
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(Error::os(errno, format!("put {file} behind {path}"))),
            }
        }
        Err(Error::new(Kind::System, format!("every free loop device was taken by others, {TRIES} times")))
    }
}
