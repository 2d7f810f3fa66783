//! The place where the benchmark plays, and its removal.
//!
//! It is a private mount namespace (in which the hybrid cgroup2's controllers are hidden, or crun refuses to
//! work), a folder for bundles, and a folder for state on a tmpfs, as `/run` is on most hosts. All containers
//! have the same prefix in their names. That is how [`Scene::sweep`] finds what is left of them, whatever
//! happened: it is the one way in which this program cleans up, after success, failure and Ctrl-C alike.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_bench::sys;

const CGROUP: &str = "/sys/fs/cgroup";

/// The folders and names of one benchmark.
pub struct Scene {
    /// Bundles and copies of programs.
    pub folder: PathBuf,
    /// Each contestant's `--root` is made here.
    pub state: PathBuf,
    /// How the name of each container begins.
    pub prefix: String,
}

impl Scene {
    /// Enters the mount namespace and makes the folders, below `base` and `/run`.
    pub fn set(base: &Path) -> Result<Self, String> {
        let name = format!("coracle-bench-{}", std::process::id());
        let scene = Self {
            folder: base.join(&name),
            state: Path::new("/run").join(&name),
            prefix: format!("{name}-"),
        };
        sys::private_mounts().map_err(|e| format!("enter a private mount namespace: {e} (run as root)"))?;
        let hybrid = Path::new(CGROUP).join("unified/cgroup.controllers");
        if hybrid.exists() {
            sys::bind(Path::new("/dev/null"), &hybrid)
                .map_err(|e| format!("hide {}: {e}", hybrid.display()))?;
        }
        let made = fs::create_dir(&scene.folder)
            .map_err(|e| format!("make {}: {e}", scene.folder.display()))
            .and_then(|()| {
                fs::create_dir(&scene.state).map_err(|e| format!("make {}: {e}", scene.state.display()))
            })
            .and_then(|()| {
                sys::tmpfs(&scene.state)
                    .map_err(|e| format!("mount a tmpfs on {}: {e}", scene.state.display()))
            });
        if let Err(error) = made {
            scene.remove_folders()?;
            return Err(error);
        }
        Ok(scene)
    }

    /// Puts a copy of `program` where the filesystem keeps it from being written: immutable if that works here,
    /// otherwise on a filesystem that is read-only. Gives its path and which of both it is.
    pub fn protected_copy(&self, program: &Path) -> Result<(PathBuf, &'static str), String> {
        let folder = self.folder.join("installed");
        let told = |e: io::Error| format!("make a protected copy of {}: {e}", program.display());
        fs::create_dir_all(&folder).map_err(told)?;
        let copy = folder.join(program.file_name().unwrap_or_default());
        fs::copy(program, &copy).map_err(told)?;
        let file = File::open(&copy).map_err(told)?;
        if sys::set_immutable(&file, true).is_ok() {
            return Ok((copy, "immutable"));
        }
        drop(file);
        sys::tmpfs(&folder).map_err(told)?;
        fs::copy(program, &copy).map_err(told)?;
        sys::tmpfs_read_only(&folder).map_err(told)?;
        Ok((copy, "on a read-only filesystem"))
    }

    /// Which of our containers still have a cgroup.
    pub fn containers_left(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .cgroups_left()
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn cgroups_left(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from(CGROUP)];
        while let Some(folder) = open.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                    continue;
                }
                // systemd's units have the manager's prefix before the container's name.
                if entry.file_name().to_string_lossy().contains(&self.prefix) {
                    found.push(entry.path());
                }
                open.push(entry.path());
            }
        }
        // The deepest first: a cgroup with children can't be removed.
        found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        found
    }

    /// Kills the processes of all our containers that are left, and removes their cgroups.
    pub fn sweep_containers(&self) -> Result<(), String> {
        let mut failure = None;
        for _ in 0..100 {
            let left = self.cgroups_left();
            if left.is_empty() {
                return Ok(());
            }
            for cgroup in left {
                thaw(&cgroup);
                for pid in fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
                    if let Ok(pid) = pid.parse::<i32>()
                        && pid > 1
                    {
                        // Whoever sits in a cgroup of ours was put there by a command of ours.
                        let _ = sys::kill(pid, libc::SIGKILL);
                    }
                }
                sys::reap();
                if let Err(error) = fs::remove_dir(&cgroup)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    failure = Some(format!("remove {}: {error}", cgroup.display()));
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(failure.unwrap_or_else(|| "containers keep coming back".to_owned()))
    }

    /// Ends every process that descends from this one and remains, and removes all that was made.
    pub fn sweep(&self) -> Result<(), String> {
        for _ in 0..100 {
            for pid in children() {
                let _ = sys::kill(pid, libc::SIGKILL);
            }
            if !sys::reap() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let containers = self.sweep_containers();
        containers.and(self.remove_folders())
    }

    fn remove_folders(&self) -> Result<(), String> {
        // Only ours, in our own mount namespace; what is mounted there must go before what is below.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut points: Vec<PathBuf> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
            .filter(|point| point.starts_with(&self.folder) || point.starts_with(&self.state))
            .collect();
        points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
        for point in points {
            sys::unmount(&point).map_err(|e| format!("unmount {}: {e}", point.display()))?;
        }
        for entry in fs::read_dir(self.folder.join("installed")).into_iter().flatten().flatten() {
            if let Ok(file) = File::open(entry.path()) {
                // On a filesystem without the flag there is nothing to clear.
                let _ = sys::set_immutable(&file, false);
            }
        }
        for folder in [&self.folder, &self.state] {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!("remove {}: {error}", folder.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A frozen process does not die.
fn thaw(cgroup: &Path) {
    let state = cgroup.join("freezer.state");
    if state.exists() {
        let _ = fs::write(state, "THAWED");
    }
}

fn children() -> Vec<i32> {
    fs::read_to_string("/proc/thread-self/children")
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
