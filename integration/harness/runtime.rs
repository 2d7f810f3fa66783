//! A runtime under test, and the containers that a test makes with it.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::bundle::{Bundle, default_config};
use crate::command::{self, Finished, Running, eventually};
use crate::place::Scratch;
use crate::{Checked, host, leftovers, rootfs, skip};

/// Which runtime a binary is, by the first word of its `--version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Coracle,
    /// A yardstick, or anything else.
    Other,
}

/// A binary with runc's command line, a `--root` of its own, and a scratch directory.
#[derive(Debug)]
pub struct Runtime {
    binary: PathBuf,
    kind: Kind,
    mark: String,
    ids: RefCell<Vec<String>>,
    bundles: Cell<u32>,
    finished: Cell<bool>,
    scratch: Scratch,
}

impl Runtime {
    /// The binary under test: `$CORACLE_BIN`, or the newest release build of this workspace.
    pub fn binary_under_test() -> PathBuf {
        if let Some(binary) = std::env::var_os("CORACLE_BIN") {
            return PathBuf::from(binary);
        }
        let target = std::env::var_os("CARGO_TARGET_DIR");
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let target = target.map_or(built, PathBuf::from);
        // Where cargo puts it depends on whether a target is named.
        let host = format!("{}-unknown-linux-gnu/release/coracle", std::env::consts::ARCH);
        let places = ["release/coracle", &host].map(|place| target.join(place));
        let age = |place: &PathBuf| fs::metadata(place).and_then(|found| found.modified()).ok();
        places.into_iter().max_by_key(age).unwrap_or_default()
    }

    /// An error unless there is a runtime to test.
    pub fn check_the_one_under_test() -> Result<(), String> {
        let binary = Self::binary_under_test();
        if binary.is_file() {
            return Ok(());
        }
        Err(format!(
            "no runtime at {}: build it with cargo build --release, or set CORACLE_BIN",
            binary.display()
        ))
    }

    /// A handle on the runtime under test.
    pub fn under_test() -> Self {
        static KIND: OnceLock<Kind> = OnceLock::new();
        let binary = Self::binary_under_test();
        let kind = *KIND.get_or_init(|| kind_of(&binary));
        Self::with(binary, kind)
    }

    /// The newest release of a peer (`runc`, `crun`), if `integration/peers/fetch` has brought it.
    pub fn peer(name: &str) -> Option<PathBuf> {
        let peers = std::env::var_os("CORACLE_PEERS")
            .map_or_else(|| host::cache_home().join("coracle-peers"), PathBuf::from);
        let binary = peers.join("bin").join(name);
        binary.is_file().then_some(binary)
    }

    /// A handle on another runtime, such as a yardstick.
    pub fn at(binary: PathBuf) -> Self {
        let kind = kind_of(&binary);
        Self::with(binary, kind)
    }

    fn with(binary: PathBuf, kind: Kind) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", leftovers::mark_of_this_program(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = Scratch::new().expect("making a scratch directory");
        Self {
            binary,
            kind,
            mark,
            ids: RefCell::default(),
            bundles: Cell::new(0),
            finished: Cell::new(false),
            scratch,
        }
    }

    /// The binary's path.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Which runtime it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Skips the test for every runtime but Coracle, because the other one differs: `why`.
    pub fn coracle_only(&self, why: &str) -> Checked {
        if self.kind == Kind::Coracle { Ok(()) } else { skip(format!("for coracle only: {why}")) }
    }

    /// The mark in the environment of every process of this test.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The directory given as `--root`.
    pub fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// A path in this test's scratch directory.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A path in the directory below which the test itself may mount; mounts there are not taken for leftovers.
    pub fn own(&self, name: &str) -> PathBuf {
        let own = self.scratch(leftovers::OWN);
        fs::create_dir_all(&own).expect("making a directory");
        own.join(name)
    }

    /// A command of the runtime with its private root. Its environment is marked; nothing is on its input.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.root()).args(arguments);
        self.prepare(command)
    }

    /// A command of the runtime without any global option.
    pub fn bare<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments);
        self.prepare(command)
    }

    fn prepare(&self, mut command: Command) -> Command {
        command.env(leftovers::MARK, &self.mark).stdin(Stdio::null());
        command
    }

    /// Runs a command of the runtime with its private root.
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> Finished {
        command::run(self.command(arguments))
    }

    /// A new busybox bundle that runs `args`, with the default configuration.
    pub fn bundle(&self, args: &[&str]) -> Bundle {
        let path = self.bundle_path();
        rootfs::busybox(&path.join("rootfs"));
        let mut config = default_config(args);
        let mark = json!(format!("{}={}", leftovers::MARK, self.mark));
        crate::bundle::push(&mut config, "/process/env", mark);
        Bundle::new(path, config)
    }

    /// A path for a new bundle; nothing is there yet.
    pub fn bundle_path(&self) -> PathBuf {
        self.bundles.set(self.bundles.get() + 1);
        self.scratch(&format!("b{}", self.bundles.get()))
    }

    /// A new busybox bundle that runs a shell script.
    pub fn script(&self, script: &str) -> Bundle {
        self.bundle(&["sh", "-c", script])
    }

    /// A new busybox bundle whose process sleeps, and ends at once on SIGTERM.
    pub fn sleeper(&self) -> Bundle {
        self.script("trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
    }

    /// Runs a shell script in a new container with an edited default configuration, in the foreground.
    #[track_caller]
    pub fn sh(&self, script: &str, edit: impl FnOnce(&mut Value)) -> Finished {
        let bundle = self.script(script).edit(edit);
        self.container(&bundle).run()
    }

    /// A container of this bundle that does not exist yet.
    pub fn container<'r>(&'r self, bundle: &Bundle) -> Container<'r> {
        let id = format!("{}-{}", self.mark, self.ids.borrow().len());
        self.container_named(bundle, &id)
    }

    /// A container of this bundle with an id of the test's choice; it must hold the mark to be told from others'.
    pub fn container_named<'r>(&'r self, bundle: &Bundle, id: &str) -> Container<'r> {
        self.ids.borrow_mut().push(id.to_owned());
        Container { runtime: self, id: id.to_owned(), bundle: bundle.path().to_owned() }
    }

    /// The name of a cgroup for the test's own use, such as a parent of containers; removed after the test.
    pub fn own_cgroup(&self) -> String {
        format!("{}-own", self.mark)
    }

    /// What is left on the host of this runtime's containers, as sentences.
    pub fn leftovers(&self) -> Vec<String> {
        leftovers::find(&self.ids.borrow(), &self.mark, &self.root(), self.scratch.path())
    }

    /// Demands that nothing is left; a process may take a moment to go.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(eventually(|| self.leftovers().is_empty()), "left behind: {}", self.leftovers().join("; "));
    }

    /// Deletes what the test did not delete, then says what the runtime left behind.
    pub fn finish(&self) -> Result<(), String> {
        self.finished.set(true);
        let mut complaints = Vec::new();
        for id in self.ids.borrow().iter() {
            // With runtimes other than ours a container that is not there may be an error even by force.
            let deleted = self.root().join(id).exists().then(|| self.call(&["delete", "--force", id]));
            if let Some(deleted) = deleted.filter(|deleted| !deleted.status.success()) {
                complaints.push(format!("could not delete by force: {deleted}"));
            }
        }
        if !eventually(|| self.leftovers().is_empty()) {
            complaints.extend(self.leftovers().into_iter().map(|left| format!("left behind: {left}")));
        }
        let mut ids = self.ids.borrow().clone();
        ids.push(self.own_cgroup());
        leftovers::remove(&ids, &self.mark, self.scratch.path());
        if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.finished.get() {
            return;
        }
        // This may run while a failed test unwinds, when a second panic would end the whole program.
        match catch_unwind(AssertUnwindSafe(|| self.finish())) {
            Ok(Ok(())) => {}
            Ok(Err(complaints)) => eprintln!("after {}: {complaints}", self.mark),
            Err(_) => eprintln!("after {}: cleaning up failed", self.mark),
        }
    }
}

fn kind_of(binary: &Path) -> Kind {
    let version = command::run(command::command(binary, &["--version"]));
    if version.stdout.starts_with("coracle") { Kind::Coracle } else { Kind::Other }
}

/// A container of a test. The runtime deletes it by force when the test ends.
#[derive(Clone, Debug)]
pub struct Container<'r> {
    runtime: &'r Runtime,
    /// The container id.
    pub id: String,
    bundle: PathBuf,
}

impl Container<'_> {
    /// A file of this container's in the scratch directory.
    pub fn file(&self, kind: &str) -> PathBuf {
        self.runtime.scratch(&format!("{}.{kind}", self.id))
    }

    fn with_bundle(&self, verb: &str, options: &[&str]) -> Command {
        let mut command = self.runtime.command([verb]);
        command.args(options).arg("--bundle").arg(&self.bundle).arg(&self.id);
        command
    }

    /// The command line of `create`, for tests that change more of it.
    pub fn create_command(&self, options: &[&str]) -> Command {
        self.with_bundle("create", options)
    }

    /// The command line of `run`, for tests that change more of it.
    pub fn run_command(&self, options: &[&str]) -> Command {
        self.with_bundle("run", options)
    }

    /// Runs a command whose output the container keeps; [`Container::output`] reads it later.
    #[track_caller]
    pub fn detached(&self, command: Command) -> Finished {
        let open = |kind: &str| {
            let mut options = File::options();
            options
                .read(true)
                .append(true)
                .create(true)
                .open(self.file(kind))
                .expect("opening an output file")
        };
        Running::start_into(command, open("out"), open("err")).finish()
    }

    /// `create`.
    #[track_caller]
    pub fn create(&self) -> Finished {
        self.create_with(&[])
    }

    /// `create` with options.
    #[track_caller]
    pub fn create_with(&self, options: &[&str]) -> Finished {
        self.detached(self.create_command(options))
    }

    /// `start`.
    #[track_caller]
    pub fn start(&self) -> Finished {
        self.call("start", &[])
    }

    /// `create` and `start`, both of which must succeed.
    #[track_caller]
    pub fn up(&self) -> &Self {
        self.create().ok();
        self.start().ok();
        self
    }

    /// `run` in the foreground, to its end.
    #[track_caller]
    pub fn run(&self) -> Finished {
        self.run_with(&[])
    }

    /// `run` with options, in the foreground, to its end.
    #[track_caller]
    pub fn run_with(&self, options: &[&str]) -> Finished {
        command::run(self.run_command(options))
    }

    /// A command of the runtime on this container: `VERB OPTIONS ID`.
    #[track_caller]
    pub fn call(&self, verb: &str, options: &[&str]) -> Finished {
        let mut command = self.runtime.command([verb]);
        command.args(options).arg(&self.id);
        command::run(command)
    }

    /// The command line of `exec`, for tests that change more of it.
    pub fn exec_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.runtime.command(["exec"]);
        command.args(options).arg(&self.id).args(args);
        command
    }

    /// `exec`, to its end.
    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Finished {
        self.exec_with(&[], args)
    }

    /// `exec` with options, to its end.
    #[track_caller]
    pub fn exec_with(&self, options: &[&str], args: &[&str]) -> Finished {
        command::run(self.exec_command(options, args))
    }

    /// `kill` with a signal.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Finished {
        command::run(self.runtime.command(["kill", &self.id, signal]))
    }

    /// `delete`.
    #[track_caller]
    pub fn delete(&self) -> Finished {
        self.call("delete", &[])
    }

    /// What `state` prints.
    #[track_caller]
    pub fn state(&self) -> Value {
        let state = self.call("state", &[]).ok();
        serde_json::from_str(&state.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {state}"))
    }

    /// The status in the state: `created`, `running`, `paused` or `stopped`.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a state has a status").to_owned()
    }

    /// The container process's id on the host.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let state = self.state();
        state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a state has a pid")
    }

    /// Waits until the container has this status.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        let reached = eventually(|| self.status() == status);
        assert!(reached, "never became {status}: {}\nit wrote: {}", self.state(), self.output());
    }

    /// What the process of a created container wrote so far, errors after output.
    pub fn output(&self) -> String {
        let read = |kind| fs::read_to_string(self.file(kind)).unwrap_or_default();
        format!("{}{}", read("out"), read("err"))
    }

    /// Waits until the process of a created container wrote this.
    #[track_caller]
    pub fn wait_for_output(&self, part: &str) {
        assert!(eventually(|| self.output().contains(part)), "never wrote {part:?} but: {}", self.output());
    }

    /// A file of the container process's `/proc` directory on the host.
    #[track_caller]
    pub fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {path}: {error}"))
    }

    /// The mounts that the container process sees.
    #[track_caller]
    pub fn mounts(&self) -> Vec<host::Mount> {
        host::parse_mounts(&self.proc("mountinfo"))
    }
}
