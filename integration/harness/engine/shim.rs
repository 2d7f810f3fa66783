//! A shim that a daemon started, and containers that a test makes in it by calling its Task service directly.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::stat::Mode;
use rustix::process::Signal;
use serde_json::Value;

use super::bench::{Bench, Id};
use super::containerd::{Containerd, ShimRuntime, Version};
use super::task::{Any, Create, Exec, Mount, OPTIONS, Options, PROCESS, Tasks};
use crate::bundle::{Bundle, default_config};
use crate::command::eventually;
use crate::place::{self, Scratch};
use crate::{host, rootfs};

/// A shim, held alive by a container that the daemon knows of.
pub struct Shim {
    /// Its Task service.
    pub tasks: Tasks,
    /// Where it listens, such as `unix:///run/containerd/s/…`.
    pub address: String,
    /// The daemon that started it.
    pub engine: &'static Containerd,
    /// What it was started as.
    pub runtime: ShimRuntime,
    anchor: Id,
    scratch: Scratch,
}

/// Shims by daemon and runtime type.
type Shims = HashMap<(Version, &'static str), Arc<Shim>>;

/// The shims that checks share.
static SHARED: Mutex<Option<Shims>> = Mutex::new(None);

impl Shim {
    /// The shim that all checks on a bench share.
    #[track_caller]
    pub fn shared(bench: &Bench) -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (bench.engine.version(), bench.runtime.kind);
        let shims = shared.get_or_insert_default();
        if let Some(shim) = shims.get(&key)
            && Tasks::answers(&shim.address)
        {
            return Arc::clone(shim);
        }
        let shim = Arc::new(Self::own(bench));
        shims.insert(key, Arc::clone(&shim));
        shim
    }

    /// Lets go of the shims that were shared; to be called before the daemons end.
    pub fn end_shared() {
        *SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    /// A shim of one check alone.
    #[track_caller]
    pub fn own(bench: &Bench) -> Self {
        let anchor = bench.sleeping(&[]);
        Self::of(bench, anchor)
    }

    /// The shim of a container that runs.
    #[track_caller]
    pub fn of(bench: &Bench, anchor: Id) -> Self {
        let address = address_of(bench.engine, &anchor);
        let tasks = Tasks::connect(&address, service_version(bench.engine.version()));
        let scratch = Scratch::new().expect("a scratch directory");
        let (engine, runtime) = (bench.engine, bench.runtime.clone());
        rootfs::busybox(&scratch.path().join("busybox"));
        Self { tasks, address, engine, runtime, anchor, scratch }
    }

    /// The container that the daemon knows of.
    pub fn anchor(&self) -> &Id {
        &self.anchor
    }

    /// The shim's process.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.tasks.who(&self.anchor).expect("Connect").shim_pid.cast_signed()
    }

    /// A container that runs a program; it is not made yet.
    pub fn container(&self, args: &[&str]) -> Hand<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("ct-{}-h{number}x", std::process::id());
        let path = self.scratch.path().join(&id);
        fs::create_dir_all(path.join("rootfs")).expect("making a bundle");
        let bundle = Bundle::new(path.clone(), default_config(args)).edit(|config| {
            config["linux"]["cgroupsPath"] = format!("/{}/{id}", self.engine.namespace()).into();
        });
        let rootfs = Mount {
            kind: "bind".into(),
            source: self.busybox().display().to_string(),
            target: String::new(),
            options: vec!["rbind".into(), "ro".into()],
        };
        let output = format!("file://{}", path.join("out").display());
        let request = Create {
            id: id.clone(),
            bundle: path.display().to_string(),
            rootfs: vec![rootfs],
            stdout: output.clone(),
            stderr: output,
            ..Create::default()
        };
        Hand { shim: self, id, bundle, request, gone: AtomicBool::new(false) }
    }

    /// A container that runs a script; it is not made yet.
    pub fn script(&self, script: &str) -> Hand<'_> {
        self.container(&["sh", "-c", script])
    }

    /// A container that runs until it is killed; it is not made yet.
    pub fn sleeping_container(&self) -> Hand<'_> {
        self.container(&["sleep", "1000"])
    }

    /// A container that runs until it is killed, and runs now.
    #[track_caller]
    pub fn sleeping(&self) -> Hand<'_> {
        self.sleeping_container().up()
    }

    /// The root filesystem that all containers have, read-only.
    pub fn busybox(&self) -> PathBuf {
        self.scratch.path().join("busybox")
    }
}

/// The version of the Task service that containerd's own shim of this release serves.
pub fn service_version(version: Version) -> u32 {
    if version < Version::V2_1 { 2 } else { 3 }
}

/// Where the shim of a container listens, as the daemon has written it down.
#[track_caller]
pub fn address_of(engine: &Containerd, id: &str) -> String {
    let bundle = engine.bundle(id);
    if let Ok(text) = fs::read_to_string(bundle.join("bootstrap.json")) {
        let parsed: Value = serde_json::from_str(&text).expect("bootstrap.json is JSON");
        return parsed["address"].as_str().expect("bootstrap.json has an address").to_owned();
    }
    let address = bundle.join("address");
    fs::read_to_string(&address).unwrap_or_else(|error| panic!("{}: {error}", address.display()))
}

/// A container made by hand. It is killed and deleted when dropped.
pub struct Hand<'s> {
    shim: &'s Shim,
    /// The container's.
    pub id: String,
    /// Its bundle, without a root filesystem: that is mounted.
    pub bundle: Bundle,
    /// What [`Hand::create`] sends.
    pub request: Create,
    gone: AtomicBool,
}

impl<'s> Hand<'s> {
    /// Changes the configuration before the container is made.
    pub fn config(mut self, change: impl FnOnce(&mut Value)) -> Self {
        self.bundle = Bundle::open(self.bundle.path().to_owned()).edit(change);
        self
    }

    /// Changes the request before the container is made.
    pub fn request(mut self, change: impl FnOnce(&mut Create)) -> Self {
        change(&mut self.request);
        self
    }

    /// Adds options to the request.
    pub fn options(self, options: &Options) -> Self {
        self.request(|request| request.options = Some(Any::of(OPTIONS, options)))
    }

    /// Makes the container.
    #[track_caller]
    pub fn create(self) -> Self {
        self.tasks().create(&self.request).unwrap_or_else(|error| panic!("Create: {error:?}"));
        self
    }

    /// Makes and starts the container.
    #[track_caller]
    pub fn up(self) -> Self {
        let this = self.create();
        this.start();
        this
    }

    /// Starts the container; gives the pid.
    #[track_caller]
    pub fn start(&self) -> u32 {
        self.tasks().start(&self.id, "").unwrap_or_else(|error| panic!("Start: {error:?}"))
    }

    /// The service of its shim.
    pub fn tasks(&self) -> &'s Tasks {
        &self.shim.tasks
    }

    /// Waits for the end of its first process, and demands the exit status.
    #[track_caller]
    pub fn exits(&self, status: u32) {
        assert_eq!(self.tasks().wait(&self.id, "").map(|end| end.exit_status), Ok(status));
    }

    /// Deletes it, and demands that nothing is left of it.
    #[track_caller]
    pub fn delete(&self) {
        self.tasks().delete(&self.id, "").unwrap_or_else(|error| panic!("Delete: {error:?}"));
        self.gone.store(true, Ordering::Relaxed);
        self.assert_nothing_left();
    }

    /// Kills it, deletes it, and demands that nothing is left of it.
    #[track_caller]
    pub fn end(&self) {
        self.tasks()
            .kill(&self.id, "", Signal::KILL, false)
            .unwrap_or_else(|error| panic!("Kill: {error:?}"));
        self.exits(137);
        self.delete();
    }

    /// Demands that the container has no cgroup and no mount.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let cgroups = crate::leftovers::cgroups(&self.id);
        assert!(cgroups.is_empty(), "cgroups: {cgroups:?}");
        let mounts = host::mounts_below(self.bundle.path());
        assert!(mounts.is_empty(), "mounts: {mounts:?}");
    }

    /// A path in its bundle.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bundle.path().join(name)
    }

    /// What it has written, when its output is the file of [`Shim::container`].
    pub fn output(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    /// Waits until its output has this in it.
    #[track_caller]
    pub fn wait_for_output(&self, part: &str) {
        assert!(eventually(|| self.output().contains(part)), "no {part:?} in {:?}", self.output());
    }

    /// Makes a FIFO in its bundle.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("mkfifo");
        path
    }

    /// The request for another process, with its output in a file of the exec's name.
    pub fn exec_request(&self, exec: &str, args: &[&str]) -> Exec {
        let process = serde_json::json!({
            "args": args, "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "env": ["PATH=/bin:/usr/bin"],
        });
        let output = format!("file://{}", self.path(exec).display());
        Exec {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            stdout: output.clone(),
            stderr: output,
            spec: Some(Any::json(PROCESS, &process)),
            ..Exec::default()
        }
    }

    /// Adds and starts another process; gives its pid.
    #[track_caller]
    pub fn exec(&self, exec: &str, args: &[&str]) -> u32 {
        let request = self.exec_request(exec, args);
        self.tasks().exec(&request).unwrap_or_else(|error| panic!("Exec: {error:?}"));
        self.tasks().start(&self.id, exec).unwrap_or_else(|error| panic!("Start {exec}: {error:?}"))
    }

    /// Adds and starts another process, waits for its end, deletes it; gives its exit status and output.
    #[track_caller]
    pub fn exec_to_end(&self, exec: &str, args: &[&str]) -> (u32, String) {
        self.exec(exec, args);
        let status = self.tasks().wait(&self.id, exec).expect("Wait").exit_status;
        self.tasks().delete(&self.id, exec).expect("Delete");
        (status, fs::read_to_string(self.path(exec)).unwrap_or_default())
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        if self.gone.load(Ordering::Relaxed) || !Tasks::answers(&self.shim.address) {
            return;
        }
        let _ = self.tasks().kill(&self.id, "", Signal::KILL, true);
        let _ = self.tasks().wait(&self.id, "");
        let _ = self.tasks().delete(&self.id, "");
        place::unmount_below(self.bundle.path());
    }
}
