//! What attacks on a runtime's way through paths are made of: a place that must stay as it is, and somebody who exchanges
//! names meanwhile.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{Runtime, host};

/// A directory on the host that nobody may touch, with a file in it.
#[derive(Debug)]
pub struct Outside {
    /// Where it is.
    pub path: PathBuf,
}

impl Outside {
    /// Makes it.
    pub fn new(rt: &Runtime) -> Self {
        let path = rt.own("outside");
        fs::create_dir(&path).expect("making a directory");
        fs::write(path.join("secret"), "of the host\n").expect("writing a file");
        Self { path }
    }

    /// Demands that it has what it had and nothing else, and that nothing is mounted there.
    #[track_caller]
    pub fn is_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.path).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["secret"], "the runtime made something outside the root filesystem");
        assert_eq!(fs::read_to_string(self.path.join("secret")).expect("it is there"), "of the host\n");
        assert!(host::mounts_below(&self.path).is_empty());
    }
}

/// Exchanges two names again and again until it is dropped.
#[derive(Debug)]
pub struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    /// Begins.
    pub fn start(one: PathBuf, two: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A name that the runtime is just using may be busy; the next turn will do.
                let _ = renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE);
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the exchanging thread does not panic");
        }
    }
}
