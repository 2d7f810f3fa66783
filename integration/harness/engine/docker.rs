//! Docker with a containerd of its own, both unpacked by `integration/peers/fetch-docker`. Each daemon is private in its
//! data, state, socket and `/run`, has a network namespace of its own, and puts its containers below a cgroup of its own.
//!
//! A daemon has one default runtime, so that what can't name a runtime (a swarm's services, the steps of a build) runs on
//! it too.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::command::{Finished, Running, command, eventually, run};
use crate::place::Scratch;
use crate::{leftovers, place, rootfs};

/// The image that is loaded at the start. Its name has a registry that answers at once that it is not there, so that a
/// swarm, which always asks first, need not wait for a name server.
pub const IMAGE: &str = "localhost:5/busybox:test";

/// The folder of the unpacked programs; an error when they are not on this machine.
pub fn programs() -> Result<PathBuf, String> {
    super::unpacked("docker", "fetch-docker")
}

/// The address of the machine in the network of a daemon.
pub const ADDRESS: &str = "192.0.2.2";

/// The runtime that a daemon gives its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program with runc's command line, which the daemon knows by `--add-runtime` and containerd's runc shim calls.
    Program(PathBuf),
    /// A shim, which containerd finds by the runtime's type.
    Shim {
        /// The type, such as `io.containerd.coracle.v2`.
        name: &'static str,
        /// The shim's program.
        program: PathBuf,
    },
}

/// A Docker daemon of our own with a busybox image.
#[derive(Debug)]
pub struct Docker {
    daemon: Mutex<Option<Running>>,
    kind: Kind,
    programs: PathBuf,
    mark: String,
    options: Vec<String>,
    scratch: Scratch,
}

impl Docker {
    /// Starts a daemon with a default runtime and loads the image.
    pub fn start(kind: Kind) -> Self {
        Self::with(kind, &[])
    }

    /// The same, with more of the daemon's options.
    pub fn with(kind: Kind, options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        super::private_run();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let this = Self {
            daemon: Mutex::new(None),
            kind,
            programs: programs().unwrap_or_else(|why| panic!("{why}")),
            mark: format!("{}-d{count}x", leftovers::mark_of_this_program()),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            scratch: Scratch::new().expect("a scratch directory"),
        };
        this.make_network();
        this.write_files();
        this.start_daemon();
        let archive = this.path("busybox.tar");
        rootfs::docker_archive(&archive, IMAGE);
        this.call(&["load", "--quiet", "--input", &archive.to_string_lossy()]).ok();
        fs::remove_file(archive).expect("removing the image's archive");
        this
    }

    /// A file or directory of this daemon.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// What its containers are run by.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// A program with runc's command line: the one under test, or, beside a shim, runc.
    pub fn program(&self) -> PathBuf {
        match &self.kind {
            Kind::Program(program) => program.clone(),
            Kind::Shim { .. } => self.programs.join("bin/runc"),
        }
    }

    /// The cgroup below which its containers are, in every hierarchy.
    pub fn cgroup_parent(&self) -> String {
        format!("/{}", self.mark)
    }

    /// A network namespace with an address and a default route, at whose other side is nobody.
    fn make_network(&self) {
        let ip = |words: &str| run(command("ip", &words.split(' ').collect::<Vec<_>>())).ok();
        let name = &self.mark;
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link add up0 type veth peer name up1"));
        ip(&format!("-n {name} addr add {ADDRESS}/24 dev up0"));
        ip(&format!("-n {name} link set up0 up"));
        ip(&format!("-n {name} link set up1 up"));
        ip(&format!("-n {name} route add default via 192.0.2.1 dev up0"));
    }

    /// The client's configuration, and the directory that is the first in the daemon's PATH: the shim under test, and
    /// under the name `runc`, by which BuildKit knows its runtime, a script that notes how it is called and executes the
    /// program under test.
    fn write_files(&self) {
        fs::create_dir_all(self.path("bin")).expect("making a directory");
        fs::create_dir_all(self.path("client")).expect("making a directory");
        let plugins = self.programs.join("cli-plugins");
        let client = serde_json::json!({ "cliPluginsExtraDirs": [plugins] });
        fs::write(self.path("client/config.json"), client.to_string()).expect("writing config.json");
        match &self.kind {
            Kind::Program(program) => {
                symlink("wrapped", self.path("bin/runc")).expect("linking the runtime");
                write_wrapper(&self.path("bin/wrapped"), &self.path("wrapped.log"), program);
            }
            Kind::Shim { program, .. } => {
                let name = program.file_name().expect("a shim has a name");
                symlink(program, self.path("bin").join(name)).expect("linking the shim");
            }
        }
    }

    /// Starts the daemon, and waits until it answers.
    pub fn start_daemon(&self) {
        let at = |name: &str| self.path(name).display().to_string();
        let mut daemon = self.in_network("dockerd", &[]);
        daemon.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        daemon.args(["--host", &format!("unix://{}", at("sock"))]);
        daemon.args(["--cgroup-parent", &self.cgroup_parent(), "--exec-opt", "native.cgroupdriver=cgroupfs"]);
        daemon.args(["--bip", "198.18.0.1/24"]);
        if !self.options.iter().any(|option| option == "--storage-driver") {
            daemon.args(["--storage-driver", "overlay2"]);
        }
        daemon.args(["--default-address-pool", "base=198.18.128.0/17,size=24"]);
        match &self.kind {
            Kind::Program(program) => {
                daemon.args(["--add-runtime", &format!("tested={}", program.display())]);
                daemon.args(["--add-runtime", &format!("wrapped={}", at("bin/wrapped"))]);
                daemon.args(["--default-runtime", "tested"]);
            }
            Kind::Shim { name, .. } => {
                daemon.args(["--default-runtime", name]);
            }
        }
        daemon.args(&self.options);
        // containerd and its shims inherit the mark, so that what stays is found.
        daemon.env(leftovers::MARK, &self.mark).stdin(Stdio::null());
        let daemon = Running::start(daemon);
        let up = eventually(|| self.call(&["version"]).status.success());
        assert!(up, "dockerd does not answer: {}", daemon.stderr());
        *self.daemon.lock().expect("no test holds it while it fails") = Some(daemon);
    }

    /// Ends the daemon: with `Signal::KILL`, as a crash would.
    pub fn end_daemon(&self, signal: Signal) {
        if let Some(daemon) = self.daemon.lock().expect("no test holds it while it fails").take() {
            daemon.signal(signal);
            let _ = daemon.finish_within(Duration::from_secs(40));
        }
    }

    /// A program in the network of the daemon, with the unpacked programs in its PATH.
    pub fn in_network(&self, program: &str, arguments: &[&str]) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net=/run/netns/{}", self.mark)).arg("--").arg(program).args(arguments);
        self.prepare(&mut inside);
        inside
    }

    /// The command line of `docker`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut docker = Command::new(self.programs.join("bin/docker"));
        docker.args(arguments).stdin(Stdio::null());
        self.prepare(&mut docker);
        docker
    }

    fn prepare(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let first = [self.path("bin"), self.programs.join("bin")];
        let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let all = first.into_iter().chain(std::env::split_paths(&path)).chain(usual);
        command.env("PATH", std::env::join_paths(all).expect("no colon in these paths"));
        command.env("DOCKER_CONFIG", self.path("client"));
        command.env("DOCKER_HOST", format!("unix://{}", self.path("sock").display()));
        command.env_remove("DOCKER_BUILDKIT").env_remove("DOCKER_CONTEXT");
    }

    /// `docker` to its end.
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> Finished {
        run(self.command(arguments))
    }

    /// The command line of `docker run OPTIONS IMAGE ARGS`, without a network unless the options say otherwise.
    pub fn run_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut words = vec!["run"];
        if !options.iter().any(|option| matches!(*option, "--network" | "--publish")) {
            words.extend(["--network", "none"]);
        }
        words.extend(options);
        words.push(IMAGE);
        words.extend(args);
        self.command(&words)
    }

    /// `docker run --rm` to its end.
    #[track_caller]
    pub fn run(&self, options: &[&str], args: &[&str]) -> Finished {
        let mut all = vec!["--rm"];
        all.extend(options);
        run(self.run_command(&all, args))
    }

    /// `docker run --rm` of a shell's script.
    #[track_caller]
    pub fn sh(&self, options: &[&str], script: &str) -> Finished {
        self.run(options, &["sh", "-c", script])
    }

    /// A name for a container that is removed when it is dropped.
    pub fn container(&self) -> Container<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Container { docker: self, name: format!("box{}x", COUNT.fetch_add(1, Ordering::Relaxed)) }
    }

    /// A detached container that runs a script.
    #[track_caller]
    pub fn up(&self, options: &[&str], script: &str) -> Container<'_> {
        let this = self.container();
        let mut all = vec!["--detach", "--name", &this.name];
        all.extend(options);
        run(self.run_command(&all, &["sh", "-c", script])).ok();
        this
    }

    /// Ends everything, and says what the containers had left behind when their daemon had removed them.
    pub fn stop(&self) -> Vec<String> {
        let mut left = Vec::new();
        let ids = self.call(&["ps", "--all", "--quiet"]);
        if !ids.out().is_empty() {
            let mut words = vec!["rm", "--force", "--volumes"];
            words.extend(ids.lines());
            self.call(&words);
        }
        let containers = || -> Vec<PathBuf> {
            let all = leftovers::cgroups(&self.mark).into_iter();
            all.flat_map(|parent| directories(&parent)).filter(|path| is_a_containers(path)).collect()
        };
        eventually(|| containers().is_empty());
        left.extend(containers().iter().map(|path| format!("a cgroup: {}", path.display())));
        self.end_daemon(Signal::TERM);
        eventually(|| leftovers::processes(&self.mark).is_empty());
        left.extend(
            leftovers::processes(&self.mark).iter().map(|(pid, line)| format!("a process: {pid} {line}")),
        );
        self.clean();
        left
    }

    /// Removes what is on the machine, whatever state it is in.
    fn clean(&self) {
        leftovers::remove(std::slice::from_ref(&self.mark), &self.mark, self.scratch.path());
        run(command("ip", &["netns", "delete", &self.mark]));
        // A static may hold this, and is never dropped.
        if let Err(error) = place::remove_tree(self.scratch.path()) {
            eprintln!("could not remove {}: {error}", self.scratch.path().display());
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.daemon.lock().is_ok_and(|daemon| daemon.is_some()) {
            self.stop();
        }
    }
}

/// Writes a script that notes its arguments in a file and executes a program with them.
pub fn write_wrapper(script: &Path, log: &Path, program: &Path) {
    let text = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", log.display(), program.display());
    fs::write(script, text).expect("writing a script");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("chmod");
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// True for the cgroup of a container: its name is an id of 64 digits.
fn is_a_containers(cgroup: &Path) -> bool {
    let name = cgroup.file_name().unwrap_or_default().to_string_lossy();
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A container of a daemon, removed when dropped.
#[derive(Debug)]
pub struct Container<'d> {
    /// The daemon that it belongs to.
    pub docker: &'d Docker,
    /// Its name.
    pub name: String,
}

impl Container<'_> {
    /// `docker VERB OPTIONS NAME AFTER`.
    pub fn command(&self, verb: &str, options: &[&str], after: &[&str]) -> Command {
        let mut words = vec![verb];
        words.extend(options);
        words.push(&self.name);
        words.extend(after);
        self.docker.command(&words)
    }

    /// The same, to its end.
    #[track_caller]
    pub fn call(&self, verb: &str, options: &[&str], after: &[&str]) -> Finished {
        run(self.command(verb, options, after))
    }

    /// `docker exec` to its end.
    #[track_caller]
    pub fn exec(&self, options: &[&str], args: &[&str]) -> Finished {
        self.call("exec", options, args)
    }

    /// A field by Go's template, such as `{{.State.Pid}}`.
    #[track_caller]
    pub fn inspect(&self, field: &str) -> String {
        self.call("inspect", &["--format", field], &[]).ok().out().to_owned()
    }

    /// The status, such as `running`; empty when there is no such container.
    pub fn status(&self) -> String {
        self.call("inspect", &["--format", "{{.State.Status}}"], &[]).out().to_owned()
    }

    /// Waits until the status is this.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        let reached = eventually(|| self.status() == status);
        assert!(reached, "{} never was {status:?}, but {:?}", self.name, self.status());
    }

    /// Waits until its output contains `part`.
    #[track_caller]
    pub fn wait_for_log(&self, part: &str) {
        let logs = || self.call("logs", &[], &[]);
        assert!(eventually(|| logs().stdout.contains(part)), "{part:?} never was in: {}", logs());
    }

    /// A file of the container's cgroup in the hierarchy of a v1 controller.
    #[track_caller]
    pub fn cgroup_file(&self, controller: &str, file: &str) -> String {
        let hierarchy = crate::host::v1_hierarchy(controller).expect("this host has the controller");
        let path = hierarchy.join(&self.docker.mark).join(self.inspect("{{.Id}}")).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.docker.call(&["rm", "--force", "--volumes", &self.name]);
    }
}
