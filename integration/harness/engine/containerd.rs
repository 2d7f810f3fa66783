//! containerd of several versions, private in root, state, sockets and `/run`, and the runtimes that its containers are
//! run with.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::process::Signal;

use super::events::Events;
use crate::command::{Finished, Running, eventually, run};
use crate::place::Scratch;
use crate::{Runtime, host, leftovers, place, rootfs};

/// The image that is imported at the start.
pub const IMAGE: &str = "docker.io/library/busybox:test";

/// A containerd that the tests run: the host's own, and newer ones that `integration/peers/fetch-containerd` brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.6, of Debian bookworm.
    V1_6,
    /// 1.7, of Debian trixie.
    V1_7,
    /// 2.1, of Debian sid.
    V2_1,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 3] = [Self::V1_6, Self::V1_7, Self::V2_1];

    /// Its number, as names of tests have it.
    pub fn number(self) -> &'static str {
        match self {
            Self::V1_6 => "1.6",
            Self::V1_7 => "1.7",
            Self::V2_1 => "2.1",
        }
    }

    /// The folder that holds its programs; an error when it is not on this machine.
    pub fn programs(self) -> Result<PathBuf, String> {
        let release = match self {
            Self::V1_6 => {
                let daemon = host::program("containerd").ok_or("containerd is not installed")?;
                return Ok(daemon.parent().map(Path::to_owned).unwrap_or_default());
            }
            Self::V1_7 => "trixie",
            Self::V2_1 => "sid",
        };
        super::unpacked(&format!("containerd-{release}"), "fetch-containerd").map(|folder| folder.join("bin"))
    }
}

/// What a container is run with: the type of runtime that containerd starts a shim for, and the option `BinaryName`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimRuntime {
    /// The runtime type, such as `io.containerd.runc.v2`.
    pub kind: &'static str,
    /// The OCI runtime that the shim is to run, where it is not the shim's own choice.
    pub binary: Option<PathBuf>,
}

impl ShimRuntime {
    /// containerd's own shim, with the runc of its release: the yardstick.
    pub const RUNC: Self = Self { kind: "io.containerd.runc.v2", binary: None };
    /// Our shim.
    pub const CORACLE: Self = Self { kind: "io.containerd.coracle.v2", binary: None };

    /// True for our shim.
    pub fn is_ours(&self) -> bool {
        self.kind == Self::CORACLE.kind
    }

    /// The words that make `ctr run` use it.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["--runtime".to_owned(), self.kind.to_owned()];
        if let Some(binary) = &self.binary {
            // ctr has a word for the option of containerd's own shim only.
            let (word, value) = if self.is_ours() {
                ("--runtime-config-path", options_file(binary))
            } else {
                ("--runc-binary", binary.clone())
            };
            words.extend([word.to_owned(), value.display().to_string()]);
        }
        words
    }
}

/// A file with the option `BinaryName`, in the `/run` that is ours alone.
fn options_file(binary: &Path) -> PathBuf {
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    let file = PathBuf::from(format!("/run/coracle-options-{name}.toml"));
    // Whole at once: another check may read it.
    let new = file.with_extension(format!("{:?}", std::thread::current().id()));
    fs::write(&new, format!("BinaryName = {:?}\n", binary.display().to_string())).expect("writing options");
    fs::rename(new, &file).expect("renaming options");
    file
}

/// The name of our shim's program, by containerd's rule for the runtime type.
pub const SHIM: &str = "containerd-shim-coracle-v2";

/// Where our shim is: `$CORACLE_SHIM_BIN`, or beside the runtime under test; an error when it is at neither.
pub fn our_shim() -> Result<PathBuf, String> {
    let named = std::env::var_os("CORACLE_SHIM_BIN").map(PathBuf::from);
    let shim = named.unwrap_or_else(|| Runtime::binary_under_test().with_file_name(SHIM));
    shim.canonicalize().map_err(|error| format!("there is no shim to test at {}: {error}", shim.display()))
}

/// By number of the version.
static SHARED: [OnceLock<Containerd>; Version::ALL.len()] = [const { OnceLock::new() }; Version::ALL.len()];

/// A containerd of our own with a busybox image.
#[derive(Debug)]
pub struct Containerd {
    daemon: Mutex<Option<Running>>,
    version: Version,
    programs: PathBuf,
    namespace: String,
    events: OnceLock<Events>,
    scratch: Scratch,
}

impl Containerd {
    /// Starts a daemon of this version, which must be on this machine, and imports the image.
    pub fn of(version: Version) -> Self {
        Self::with(version, |_| String::new())
    }

    /// The same, with more lines in its configuration, by the daemon's directory. CRI is only there when they speak of
    /// it.
    pub fn with(version: Version, more: impl FnOnce(&Path) -> String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        super::private_run();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{}-e{count}x", leftovers::mark_of_this_program());
        let programs = version.programs().unwrap_or_else(|why| panic!("{why}"));
        let scratch = Scratch::new().expect("a scratch directory");
        let (daemon, events) = (Mutex::new(None), OnceLock::new());
        let this = Self { daemon, version, programs, namespace, events, scratch };
        let more = more(this.scratch.path());
        fs::write(this.scratch.path().join("config.toml"), this.config(&more)).expect("writing config.toml");
        // Where the daemon finds our shim, when there is one.
        fs::create_dir(this.path("bin")).expect("making a directory");
        if let Ok(shim) = our_shim() {
            symlink(shim, this.path("bin").join(SHIM)).expect("linking the shim");
        }
        this.start_daemon();
        this.import(&this.namespace, "busybox:test", &["/bin/sh"]);
        this
    }

    /// Makes an image of busybox with this command, and imports it into a namespace.
    pub fn import(&self, namespace: &str, name: &str, command: &[&str]) {
        self.import_with(namespace, name, command, |_| ());
    }

    /// The same, with what `fill` puts into the image's root filesystem.
    pub fn import_with(&self, namespace: &str, name: &str, command: &[&str], fill: impl FnOnce(&Path)) {
        let archive = self.path("image.tar");
        rootfs::docker_archive_of(&archive, name, command, fill);
        self.ctr(&["--namespace", namespace, "images", "import", &archive.to_string_lossy()]).ok();
        fs::remove_file(archive).expect("removing the archive");
    }

    /// The daemon of this version that all checks of a program share, made by `make` when the first asks for it.
    pub fn shared(version: Version, make: fn(Version) -> Self) -> &'static Self {
        SHARED[version as usize].get_or_init(|| make(version))
    }

    /// Ends the daemons that were shared.
    pub fn stop_shared() {
        for daemon in SHARED.iter().filter_map(OnceLock::get) {
            daemon.stop();
        }
    }

    /// Which one this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The namespace in which everything of this daemon is, and the mark of its processes.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A path in the daemon's own directory: `root`, `state`, `sock`, `sock.ttrpc`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The bundle that the daemon makes for a container.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.path("state").join("io.containerd.runtime.v2.task").join(&self.namespace).join(id)
    }

    fn config(&self, more: &str) -> String {
        let at = |name: &str| self.path(name).display().to_string();
        let mut disabled = vec!["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"];
        disabled.extend([
            "io.containerd.snapshotter.v1.aufs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.blockfile",
            "io.containerd.snapshotter.v1.erofs",
        ]);
        if !more.contains("cri") {
            disabled.extend([
                "io.containerd.grpc.v1.cri",
                "io.containerd.cri.v1.runtime",
                "io.containerd.cri.v1.images",
            ]);
        }
        let mut text = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = {disabled:?}\n\
             [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{}\"\n",
            at("root"),
            at("state"),
            at("sock"),
            at("sock.ttrpc"),
            at("opt"),
        );
        if self.version > Version::V1_6 {
            // Its socket has one place for all daemons.
            text.push_str("[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n");
        }
        text + more
    }

    /// PATH as the daemon has it: our shim, then the programs of its release.
    pub fn search_path(&self) -> OsString {
        let usual = std::env::var_os("PATH").unwrap_or_default();
        let first = [self.path("bin"), self.programs.clone()];
        let all = first.into_iter().chain(std::env::split_paths(&usual));
        // runc is an administrator's program.
        let all = all.chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
        std::env::join_paths(all).expect("no directory's name has a colon")
    }

    /// A program as the daemon finds it.
    #[track_caller]
    pub fn program(&self, name: &str) -> PathBuf {
        let places = self.search_path();
        let found = std::env::split_paths(&places).map(|place| place.join(name)).find(|path| path.is_file());
        found.unwrap_or_else(|| panic!("{name} is not in {}", places.display()))
    }

    fn start_daemon(&self) {
        let mut daemon = Command::new(self.programs.join("containerd"));
        daemon.arg("--config").arg(self.path("config.toml")).env("PATH", self.search_path());
        // The shims inherit the mark, so that one that stays is found.
        daemon.env(leftovers::MARK, &self.namespace).stdin(std::process::Stdio::null());
        let daemon = Running::start(daemon);
        let up = eventually(|| self.ctr(&["version"]).status.success());
        assert!(up, "containerd does not answer: {}", daemon.stderr());
        *self.daemon.lock().expect("no test holds it while it fails") = Some(daemon);
    }

    /// What the daemon has logged since it was started last.
    pub fn log(&self) -> String {
        let daemon = self.daemon.lock().expect("no test holds it while it fails");
        daemon.as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// The daemon's process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.daemon.lock().expect("no test holds it while it fails").as_ref().map(Running::pid)
    }

    /// The events of this daemon since this was called first; they end with the daemon's process.
    pub fn events(&self) -> &Events {
        self.events.get_or_init(|| Events::of(self))
    }

    /// Ends the daemon alone, politely or as a crash would. Containers are the shims' and live on.
    pub fn stop_daemon(&self, politely: bool) {
        let daemon = self.daemon.lock().expect("no test holds it while it fails").take();
        if let Some(daemon) = daemon
            && politely
        {
            daemon.signal(Signal::TERM);
            let _ = daemon.finish();
        }
    }

    /// Starts the daemon again, in the same directories.
    pub fn start_again(&self) {
        self.start_daemon();
    }

    /// Ends the daemon as a crash would, and starts it again. Containers are the shims' and live on.
    pub fn restart(&self) {
        self.stop_daemon(false);
        self.start_daemon();
    }

    /// The command line of `ctr`.
    pub fn ctr_command(&self, arguments: &[&str]) -> Command {
        let mut ctr = Command::new(self.programs.join("ctr"));
        ctr.arg("--address").arg(self.path("sock")).args(["--namespace", &self.namespace]);
        ctr.args(arguments).env(leftovers::MARK, &self.namespace);
        ctr
    }

    /// `ctr` to its end.
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Finished {
        run(self.ctr_command(arguments))
    }

    /// The command line of `ctr run OPTIONS IMAGE ID ARGS` with this runtime.
    pub fn run_command(&self, runtime: &ShimRuntime, options: &[&str], id: &str, args: &[&str]) -> Command {
        let runtime = runtime.words();
        let mut words = vec!["run"];
        words.extend(runtime.iter().map(String::as_str));
        words.extend(options);
        words.extend([IMAGE, id]);
        words.extend(args);
        self.ctr_command(&words)
    }

    /// `ctr run` to its end.
    #[track_caller]
    pub fn run(&self, runtime: &ShimRuntime, options: &[&str], id: &str, args: &[&str]) -> Finished {
        run(self.run_command(runtime, options, id, args))
    }

    /// The status of a task as `ctr tasks list` shows it; empty when there is none.
    pub fn status(&self, id: &str) -> String {
        self.listed(id).map(|(_, status)| status).unwrap_or_default()
    }

    /// The first process of a container that runs.
    #[track_caller]
    pub fn pid_of(&self, id: &str) -> i32 {
        self.listed(id).map_or_else(|| panic!("{id} has no task"), |(pid, _)| pid)
    }

    /// The pid and the status of a task, as `ctr tasks list` shows them.
    fn listed(&self, id: &str) -> Option<(i32, String)> {
        let tasks = self.ctr(&["tasks", "list"]);
        let line = tasks.stdout.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
    }

    /// Waits until the status of a task is this.
    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        assert!(eventually(|| self.status(id) == status), "{id} never was {status:?}: {}", self.status(id));
    }

    /// A file of the container's cgroup in the hierarchy of a v1 controller.
    #[track_caller]
    pub fn cgroup_file(&self, id: &str, controller: &str, file: &str) -> String {
        let hierarchy = host::v1_hierarchy(controller).expect("this host has the controller");
        let path = hierarchy.join(&self.namespace).join(id).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }

    /// Demands that a container is gone with its task and its cgroups.
    #[track_caller]
    pub fn assert_no_task(&self, id: &str) {
        assert_eq!(self.status(id), "", "the task is still there");
        assert!(eventually(|| leftovers::cgroups(id).is_empty()), "cgroups: {:?}", leftovers::cgroups(id));
    }

    /// Demands that a container is gone with its task, its cgroups and its shim.
    #[track_caller]
    pub fn assert_gone(&self, id: &str) {
        self.assert_no_task(id);
        let shims = || -> Vec<_> {
            let all = leftovers::processes(&self.namespace);
            all.into_iter().filter(|(_, line)| line.split(' ').any(|word| word == id)).collect()
        };
        assert!(eventually(|| shims().is_empty()), "processes: {:?}", shims());
    }

    /// Deletes a container in whatever state it is.
    pub fn remove(&self, id: &str) {
        let _ = self.ctr(&["tasks", "delete", "--force", id]);
        let _ = self.ctr(&["containers", "delete", id]);
    }

    /// Ends everything: containers, shims, daemon.
    pub fn stop(&self) {
        let containers = self.ctr(&["containers", "list", "--quiet"]);
        for id in containers.stdout.lines() {
            self.remove(id);
        }
        self.stop_daemon(true);
        leftovers::remove(std::slice::from_ref(&self.namespace), &self.namespace, self.scratch.path());
        // A static holds this, and is never dropped.
        if let Err(error) = place::remove_tree(self.scratch.path()) {
            eprintln!("could not remove {}: {error}", self.scratch.path().display());
        }
    }
}
