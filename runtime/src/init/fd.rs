//! Descriptors of the container's side.
//!
//! They are all closed at once by execve(2), so closing each by itself is a system call for nothing: a quarter of all
//! that the container's side makes. Only where there are so many that a limit could be met are they closed one by one.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Resource, getrlimit};

/// Descriptors below this number are left open until execve(2). Far below the usual limit of 1024; see [`heed_limit`] for
/// others.
static LEFT_OPEN: AtomicI32 = AtomicI32::new(160);

/// Leaves less open where the limit of open files is low.
pub fn heed_limit() {
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        LEFT_OPEN.fetch_min(i32::try_from(limit / 4).unwrap_or(i32::MAX), Ordering::Relaxed);
    }
}

/// A close-on-exec descriptor of the container's side.
#[derive(Debug)]
pub struct Fd(Option<OwnedFd>);

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Self {
        Self(Some(fd))
    }
}

impl Fd {
    /// The descriptor itself, for who closes it.
    pub fn into_owned(mut self) -> Option<OwnedFd> {
        self.0.take()
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // There is none only while it is dropped.
        self.0.as_ref().map_or(rustix::fs::CWD, AsFd::as_fd)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take()
            && fd.as_raw_fd() < LEFT_OPEN.load(Ordering::Relaxed)
        {
            std::mem::forget(fd);
        }
    }
}
