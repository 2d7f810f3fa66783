//! A shim's own command line, called as containerd calls it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::bench::{Bench, Id};
use super::containerd::SHIM;
use super::shim::{Shim, service_version};
use super::task::{Any, OPTIONS, Options, Tasks};
use crate::command::{Finished, Running, eventually};
use crate::place::Scratch;
use crate::{bundle, leftovers};

/// A bundle and the command line of a shim, without a daemon that knows of them.
pub struct ByHand<'b> {
    /// The daemon in whose name the shim is called, and the shim's kind.
    pub bench: &'b Bench,
    /// The container's.
    pub id: Id,
    /// Where the shim sends its events; the daemon's address unless it is changed.
    pub events: OsString,
    /// What runs the shim's program, such as prlimit(1) with its options; nothing unless it is changed.
    pub wrapper: Vec<String>,
    scratch: Scratch,
    // The reader of the log, which a shim needs.
    _log: File,
}

impl<'b> ByHand<'b> {
    /// Makes the bundle.
    pub fn new(bench: &'b Bench) -> Self {
        let scratch = Scratch::new().expect("a scratch directory");
        let id = bench.id();
        let directory = scratch.path().join(&*id);
        fs::create_dir_all(directory.join("rootfs")).expect("making a bundle");
        let config = bundle::default_config(&["sleep", "1000"]);
        fs::write(directory.join("config.json"), config.to_string()).expect("writing config.json");
        let log = directory.join("log");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        let log = OpenOptions::new().read(true).write(true).open(log).expect("opening the log");
        let events = bench.engine.path("sock.ttrpc").into_os_string();
        Self { bench, id, events, wrapper: Vec::new(), scratch, _log: log }
    }

    /// The bundle's directory.
    pub fn bundle(&self) -> PathBuf {
        self.scratch.path().join(&*self.id)
    }

    /// A path that nothing has yet.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The shim's program, as the daemon finds it.
    #[track_caller]
    pub fn program(&self) -> PathBuf {
        let name = if self.bench.runtime.is_ours() { SHIM } else { "containerd-shim-runc-v2" };
        self.bench.engine.program(name)
    }

    /// The command line, as of containerd.
    pub fn command(&self, words: &[&str]) -> Command {
        let engine = self.bench.engine;
        let mut words_before = self.wrapper.iter().map(OsString::from).chain([self.program().into()]);
        let mut command = Command::new(words_before.next().expect("there is at least the program"));
        command
            .args(words_before)
            .arg("-namespace")
            .arg(engine.namespace())
            .arg("-address")
            .arg(engine.path("sock"));
        command.args(["-publish-binary", "/usr/bin/containerd", "-id", &self.id]).args(words);
        command.current_dir(self.bundle()).env("PATH", engine.search_path());
        command.env("TTRPC_ADDRESS", &self.events).env("GRPC_ADDRESS", engine.path("sock"));
        command.env("NAMESPACE", engine.namespace()).env("MAX_SHIM_VERSION", "2").env("GOMAXPROCS", "2");
        command.env(leftovers::MARK, engine.namespace());
        command
    }

    /// Calls the shim with these bytes on its standard input.
    #[track_caller]
    pub fn call(&self, words: &[&str], input: &[u8]) -> Finished {
        let mut command = self.command(words);
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(input).and_then(|()| file.rewind()).expect("writing a temporary file");
        command.stdin(file);
        Running::start(command).finish()
    }

    /// The same, for an answer that is not text; the call must succeed.
    #[track_caller]
    pub fn bytes(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        let (given, taken) = (self.path("in"), self.path("out"));
        fs::write(&given, input).expect("writing the input");
        let _ = fs::remove_file(&taken);
        let options = || OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = |path: &Path| options().open(path).expect("a file");
        let mut command = self.command(words);
        command.stdin(file(&given));
        let errors = tempfile::tempfile().expect("a temporary file");
        Running::start_into(command, file(&taken), errors).finish().ok();
        fs::read(taken).expect("reading the output")
    }

    /// Starts the shim; gives its address.
    #[track_caller]
    pub fn start(&self, input: &[u8]) -> String {
        let started = self.call(&["start"], input).ok();
        assert_eq!(started.stderr, "", "containerd reads both outputs as the answer");
        address(started.out())
    }

    /// The Task service at an address.
    #[track_caller]
    pub fn tasks(&self, address: &str) -> Tasks {
        Tasks::connect(address, service_version(self.bench.engine.version()))
    }

    /// Makes and starts a container in the bundle, with the root filesystem of another shim's; gives its pid.
    #[track_caller]
    pub fn run(&self, tasks: &Tasks, like: &Shim, args: &[&str]) -> i32 {
        self.run_with(tasks, like, args, &Options::default())
    }

    /// The same, with options.
    #[track_caller]
    pub fn run_with(&self, tasks: &Tasks, like: &Shim, args: &[&str], options: &Options) -> i32 {
        let mut config = bundle::default_config(args);
        config["linux"]["cgroupsPath"] = format!("/{}/{}", self.bench.engine.namespace(), &*self.id).into();
        fs::write(self.bundle().join("config.json"), config.to_string()).expect("writing config.json");
        let mut request = like.sleeping_container().request.clone();
        (request.id, request.bundle) = (self.id.to_string(), self.bundle().display().to_string());
        request.options = Some(Any::of(OPTIONS, options));
        let pid = tasks.create(&request).expect("Create");
        tasks.start(&self.id, "").expect("Start");
        pid.cast_signed()
    }

    /// What `delete` answers; it must succeed.
    #[track_caller]
    pub fn delete(&self) -> Vec<u8> {
        let bundle = self.bundle().display().to_string();
        self.bytes(&["-bundle", &bundle, "delete"], &[])
    }

    /// The shims that serve this id.
    pub fn shims(&self) -> Vec<(i32, String)> {
        let all = leftovers::processes(self.bench.engine.namespace());
        all.into_iter().filter(|(_, line)| line.split(' ').any(|word| word == &*self.id)).collect()
    }

    /// Kills the shim.
    #[track_caller]
    pub fn kill_shim(&self) {
        for (pid, _) in self.shims() {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
        assert!(eventually(|| self.shims().is_empty()), "{:?}", self.shims());
    }
}

impl Drop for ByHand<'_> {
    fn drop(&mut self) {
        for (pid, _) in self.shims() {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
        let bundle = self.bundle().display().to_string();
        let _ = self.call(&["-bundle", &bundle, "delete"], &[]);
    }
}

/// The address in an answer of `start`, which is JSON or the address alone.
#[track_caller]
fn address(answer: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(answer).ok();
    parsed.map_or_else(|| answer.to_owned(), |json| json["address"].as_str().expect("an address").to_owned())
}
