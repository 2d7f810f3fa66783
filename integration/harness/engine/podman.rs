//! Podman with conmon, private in root, runroot and `/run`, and in a network namespace of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::statfs;

use crate::command::{Finished, command, run};
use crate::place::Scratch;
use crate::{leftovers, place, rootfs};

/// The image that is loaded at the start.
pub const IMAGE: &str = "localhost/busybox:test";

/// Moves this process into a network namespace of its own, with only the loopback device, so that Podman's bridge and
/// firewall rules are nobody else's. To be called before there are threads.
pub fn private_network() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("unshare(CLONE_NEWNET): {error}"))?;
    let up = run(command("ip", &["link", "set", "lo", "up"]));
    if up.status.success() { Ok(()) } else { Err(up.to_string()) }
}

/// A Podman of our own with a busybox image.
#[derive(Debug)]
pub struct Podman {
    mark: String,
    parent: String,
    scratch: Scratch,
}

impl Podman {
    /// Makes the storage and loads the image.
    pub fn start() -> Self {
        super::private_run();
        let mark = format!("{}-podman", leftovers::mark_of_this_program());
        let parent = format!("/{mark}");
        let this = Self { mark, parent, scratch: Scratch::new().expect("a scratch directory") };
        let archive = this.scratch.path().join("busybox.tar");
        rootfs::docker_archive(&archive, IMAGE);
        run(this.command(Path::new("runc"), &["load", "--quiet", "--input", &archive.to_string_lossy()]))
            .ok();
        this
    }

    /// The command line of `podman` with this runtime.
    pub fn command(&self, runtime: &Path, arguments: &[&str]) -> Command {
        let at = |name: &str| self.scratch.path().join(name);
        let mut podman = Command::new("podman");
        podman
            .arg("--root")
            .arg(at("root"))
            .arg("--runroot")
            .arg(at("runroot"))
            .arg("--tmpdir")
            .arg(at("tmp"));
        podman.arg("--network-config-dir").arg(at("networks")).arg("--volumepath").arg(at("volumes"));
        podman.args([
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "file",
            "--storage-driver",
            "overlay",
        ]);
        podman.arg("--runtime").arg(runtime).args(arguments);
        // conmon inherits the mark, so that one that stays is found.
        podman.env(leftovers::MARK, &self.mark).stdin(Stdio::null());
        podman
    }

    /// `podman` to its end.
    #[track_caller]
    pub fn call(&self, runtime: &Path, arguments: &[&str]) -> Finished {
        run(self.command(runtime, arguments))
    }

    /// The options that `podman run` and `podman create` need on this machine and for these checks.
    pub fn options(&self) -> Vec<&str> {
        // By default it raises limits, which needs CAP_SYS_RESOURCE.
        let mut options = vec!["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
        options.extend(["--cgroup-parent", &self.parent]);
        options
    }

    /// The command line of `podman run OPTIONS IMAGE ARGS`, without a network unless the options say otherwise.
    pub fn run_command(&self, runtime: &Path, options: &[&str], args: &[&str]) -> Command {
        let mut words = vec!["run"];
        words.extend(self.options());
        if !options.contains(&"--network") {
            words.extend(["--network", "none"]);
        }
        words.extend(options);
        words.push(IMAGE);
        words.extend(args);
        self.command(runtime, &words)
    }

    /// `podman run` to its end.
    #[track_caller]
    pub fn run(&self, runtime: &Path, options: &[&str], args: &[&str]) -> Finished {
        run(self.run_command(runtime, options, args))
    }

    /// The status of a container, as `podman inspect` shows it; empty when there is none.
    pub fn status(&self, runtime: &Path, name: &str) -> String {
        self.call(runtime, &["inspect", "--format", "{{.State.Status}}", name]).out().to_owned()
    }

    /// Deletes a container in whatever state it is.
    pub fn remove(&self, runtime: &Path, name: &str) {
        let _ = self.call(runtime, &["rm", "--force", "--time", "0", name]);
    }

    /// Ends everything that is left, and says what it was.
    pub fn stop(&self) -> Vec<String> {
        let left = leftovers::processes(&self.mark).iter().map(|(_, line)| line.clone()).collect();
        leftovers::remove(std::slice::from_ref(&self.mark), &self.mark, self.scratch.path());
        self.remove_plain_directories();
        // A static holds this, and is never dropped.
        if let Err(error) = place::remove_tree(self.scratch.path()) {
            eprintln!("could not remove {}: {error}", self.scratch.path().display());
        }
        left
    }

    /// conmon takes every controller of the kernel for mounted. Where one isn't, it makes plain directories and files in the
    /// tmpfs that the hierarchies of cgroup v1 are mounted in.
    fn remove_plain_directories(&self) {
        let places = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for place in places {
            let of_conmon = place.join(&self.mark);
            // TMPFS_MAGIC of statfs(2), whose type differs by architecture.
            if statfs(&of_conmon).is_ok_and(|filesystem| filesystem.f_type == 0x0102_1994) {
                let _ = fs::remove_dir_all(&of_conmon);
                // Somebody else's may be in it.
                let _ = fs::remove_dir(&place);
            }
        }
    }
}
