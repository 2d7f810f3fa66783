//! Where the tests live: a mount namespace of their own, and scratch directories that are removed with care.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::{host, leftovers};

/// Moves this process into a mount namespace of its own in which nothing propagates to the host. To be called
/// before there are threads: each thread could otherwise stay where it was.
pub fn enter() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("they drive containers as root; run them as root".into());
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("unshare(CLONE_NEWNS): {error}"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|error| format!("making all mounts private: {error}"))
}

/// A directory for one test's files. Removed when dropped: mounts below it first, and never across a file system.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty directory with mode 0711, so that a container's user can reach what is below. Its path is
    /// short, because socket addresses end at 107 bytes.
    pub fn new() -> io::Result<Self> {
        hold_if_stopping();
        let path = tempfile::Builder::new()
            .prefix(&scratch_prefix())
            .rand_bytes(5)
            .make(|path| fs::DirBuilder::new().mode(0o711).create(path))?;
        // tempfile would remove it across file systems, so it must not be the one that does.
        let path = path.into_temp_path().keep().map_err(|error| error.error)?;
        Ok(Self { path })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = remove_tree(&self.path)
        {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

fn scratch_prefix() -> String {
    format!("cor.{}.", std::process::id())
}

static STOPPING: AtomicBool = AtomicBool::new(false);

/// Keeps a test from starting anything once the program was told to stop; never comes back then.
pub fn hold_if_stopping() {
    while STOPPING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Starts something with no signal blocked, as a shell does: a command inherits the mask of the thread that starts it.
pub fn with_no_signal_blocked<T>(start: impl FnOnce() -> T) -> T {
    let before = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK).expect("unblocking signals");
    let started = start();
    before.thread_set_mask().expect("blocking signals again");
    started
}

/// Cleans up when the test program is interrupted or terminated, and ends it. Blocks the signals in this thread and
/// those that it makes later; commands start with no signal blocked all the same: [`with_no_signal_blocked`].
pub fn clean_up_on_signals() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().expect("blocking signals of our own");
    std::thread::spawn(move || {
        let signal = signals.wait().expect("waiting for signals of our own");
        STOPPING.store(true, Ordering::SeqCst);
        let all = leftovers::mark_of_this_program();
        // Again, for what a test was just starting.
        for _ in 0..2 {
            leftovers::remove(std::slice::from_ref(&all), &all, Path::new("/nowhere"));
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&scratch_prefix()) {
                let _ = remove_tree(&entry.path());
            }
        }
        std::process::exit(128 + signal as i32);
    });
}

/// Detaches every mount below `path` in this mount namespace, the newest first.
pub fn unmount_below(path: &Path) {
    for mount in host::mounts_below(path).iter().rev() {
        // One that is gone already went with its parent.
        let _ = umount2(mount, MntFlags::MNT_DETACH);
    }
}

/// Removes a tree after unmounting what is mounted in it. A directory on another file system is an error.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    unmount_below(path);
    let device = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.dev(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    remove_on_device(path, device)
}

fn remove_on_device(path: &Path, device: u64) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    if metadata.dev() != device {
        return Err(io::Error::other(format!("{} is on another file system, left alone", path.display())));
    }
    for entry in fs::read_dir(path)? {
        remove_on_device(&entry?.path(), device)?;
    }
    fs::remove_dir(path)
}
