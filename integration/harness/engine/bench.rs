//! A check on a bench: one daemon of one version, and one runtime. The same check is run on many benches, and each of
//! them is a test of its own, so that a difference between the runtimes is seen as one.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use libtest_mimic::Trial;
use rustix::process::Signal;

use super::containerd::{Containerd, ShimRuntime, Version, our_shim};
use crate::command::{Finished, eventually};
use crate::{Runtime, host, skip, trial_without_runtime};

/// Where a check works: a daemon, and what it runs containers with.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The daemon; all checks of a version share one.
    pub engine: &'static Containerd,
    /// The runtime.
    pub runtime: ShimRuntime,
}

/// Which bench, before its daemon is started.
#[derive(Clone, Debug)]
pub struct Place {
    version: Version,
    runtime: ShimRuntime,
}

impl Place {
    /// Our shim and containerd's own on every version of the daemon. What proves the checks is the newest of
    /// containerd's; the older ones are tested when `CORACLE_YARDSTICK` is `all`.
    pub fn of_shims() -> Vec<Self> {
        let all = std::env::var_os("CORACLE_YARDSTICK").is_some_and(|which| which == "all");
        let both =
            |version| [ShimRuntime::RUNC, ShimRuntime::CORACLE].map(|runtime| Self { version, runtime });
        let places = Version::ALL.into_iter().flat_map(both);
        places.filter(|place| all || place.runtime.is_ours() || place.version == Version::V2_1).collect()
    }

    /// Both shims, ours last, on the newest daemon.
    pub fn newest() -> Vec<Self> {
        Self::of_shims().into_iter().filter(|place| place.version == Version::V2_1).collect()
    }

    /// Our shim alone, on every version of the daemon.
    pub fn of_our_shim() -> Vec<Self> {
        Self::of_shims().into_iter().filter(|place| place.runtime.is_ours()).collect()
    }

    /// The runtime under test as the option `BinaryName` of containerd's own shim.
    pub fn of_binary_name() -> Vec<Self> {
        let binary = Runtime::binary_under_test();
        let binary = Some(binary.canonicalize().unwrap_or(binary));
        vec![Self { version: Version::V1_6, runtime: ShimRuntime { binary, ..ShimRuntime::RUNC } }]
    }

    /// Our shim with the option `BinaryName`: runc, and the newest crun.
    pub fn of_other_runtimes() -> Vec<Self> {
        let crun = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/crun-hybrid");
        let runc = host::program("runc").unwrap_or_else(|| "runc".into());
        let with = |binary| ShimRuntime { binary: Some(binary), ..ShimRuntime::CORACLE };
        [runc, crun].map(|binary| Self { version: Version::V1_6, runtime: with(binary) }).to_vec()
    }

    fn name(&self) -> String {
        let binary = self.runtime.binary.as_deref().and_then(Path::file_name).unwrap_or_default();
        let runtime = match (self.runtime.is_ours(), &self.runtime.binary) {
            (true, None) => "coracle".to_owned(),
            (true, Some(_)) => format!("coracle-shim-with-{}", binary.display()),
            (false, None) => "runc".to_owned(),
            (false, Some(_)) => "runc-shim-with-binary-name".to_owned(),
        };
        format!("{}::{runtime}", self.version.number())
    }

    /// Why there can be no such bench on this machine.
    fn obstacle(&self) -> Option<String> {
        let daemon = self.version.programs().err();
        let shim = || if self.runtime.is_ours() { our_shim().err() } else { None };
        let crun = || {
            let of_crun = self.runtime.binary.as_ref().is_some_and(|binary| binary.ends_with("crun-hybrid"));
            (of_crun && Runtime::peer("crun").is_none())
                .then(|| "integration/peers/fetch brings crun".to_owned())
        };
        daemon.or_else(shim).or_else(crun)
    }
}

/// A bench with a daemon of its own, which is ended with it.
#[derive(Debug)]
pub struct Own(Bench);

impl Own {
    /// The daemon's version and the runtime are those of another bench.
    pub fn like(bench: &Bench, make: Make) -> Self {
        // A bench's daemon is static for all others.
        let engine = Box::leak(Box::new(make(bench.engine.version())));
        Self(Bench { engine, runtime: bench.runtime.clone() })
    }
}

impl Deref for Own {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.engine.pid().is_none() {
            self.engine.start_again();
        }
        self.engine.stop();
    }
}

/// A function that panics when the runtime does not do what it is to do.
pub type Check = fn(&Bench);

/// A check in which containerd's own shim is known to fail, and how.
pub type KnownOfRunc = (&'static str, &'static str);

/// Makes the daemon of a version.
pub type Make = fn(Version) -> Containerd;

/// The tests of these checks on these benches. The yardstick must pass too, which proves the check; what it is known
/// to fail at is reported as skipped, with the reason.
pub fn trials(
    checks: &[(&'static str, Check)],
    places: &[Place],
    known: &'static [KnownOfRunc],
) -> Vec<Trial> {
    trials_on(Containerd::of, checks, places, known)
}

/// The same, on daemons that are made by `make`. All of one test program must be.
pub fn trials_on(
    make: Make,
    checks: &[(&'static str, Check)],
    places: &[Place],
    known: &'static [KnownOfRunc],
) -> Vec<Trial> {
    let of_place = |place: &Place| -> Vec<Trial> {
        checks.iter().map(|&(name, check)| trial(make, place.clone(), name, check, known)).collect()
    };
    places.iter().flat_map(of_place).collect()
}

fn trial(make: Make, place: Place, name: &'static str, check: Check, known: &'static [KnownOfRunc]) -> Trial {
    trial_without_runtime(format!("{}::{name}", place.name()), move || {
        if let Some(why) = place.obstacle() {
            return skip(why);
        }
        let bench = Bench { engine: Containerd::shared(place.version, make), runtime: place.runtime };
        let attempt = || catch_unwind(AssertUnwindSafe(|| check(&bench)));
        let mut result = attempt();
        if result.is_err() && !bench.runtime.is_ours() {
            // The yardstick's own races say nothing about the check: only what it fails twice does.
            result = attempt();
        }
        let Err(panic) = result else { return Ok(()) };
        let excuse = known.iter().find(|(known, _)| *known == name).filter(|_| !bench.runtime.is_ours());
        match excuse {
            Some((_, why)) => skip(format!("known of containerd's own shim: {why}")),
            None => resume_unwind(panic),
        }
    })
}

/// Makes pairs of name and function out of checks.
#[macro_export]
macro_rules! named {
    ($($name:ident),* $(,)?) => { vec![$((stringify!($name), $name as $crate::engine::bench::Check)),*] };
}

impl Bench {
    /// An id for a container of one check.
    pub fn id(&self) -> Id {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ct-{}-c{}x", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Id { name, engine: self.engine }
    }

    /// The command line of `ctr run OPTIONS IMAGE ID ARGS`.
    pub fn run_command(&self, options: &[&str], id: &str, args: &[&str]) -> Command {
        self.engine.run_command(&self.runtime, options, id, args)
    }

    /// `ctr run` to its end.
    #[track_caller]
    pub fn run(&self, options: &[&str], id: &str, args: &[&str]) -> Finished {
        self.engine.run(&self.runtime, options, id, args)
    }

    /// `ctr` to its end.
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Finished {
        self.engine.ctr(arguments)
    }

    /// A detached container that does nothing until it gets SIGTERM, and then ends with 0.
    #[track_caller]
    pub fn sleeping(&self, options: &[&str]) -> Id {
        let id = self.id();
        let mut all = vec!["--detach"];
        all.extend(options);
        self.run(&all, &id, &SLEEP).ok();
        self.engine.wait_for(&id, "RUNNING");
        // The kernel keeps SIGTERM from the first process of a pid namespace until it has a handler.
        let pid = self.engine.pid_of(&id);
        assert!(eventually(|| host::catches(pid, Signal::TERM)), "the shell of {} never set its trap", &*id);
        id
    }
}

/// The arguments of a process that does nothing until it gets SIGTERM, and then ends with 0.
pub const SLEEP: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];

/// A container id of one check, removed when the check ends.
#[derive(Debug)]
pub struct Id {
    name: String,
    engine: &'static Containerd,
}

impl Id {
    /// Kills the container, deletes it, and demands that nothing is left of it.
    #[track_caller]
    pub fn end(&self) {
        self.end_in_group();
        self.engine.assert_gone(self);
    }

    /// The same for a container whose shim has others, and may be named after this one.
    #[track_caller]
    pub fn end_in_group(&self) {
        self.engine.ctr(&["tasks", "kill", "--signal", "SIGKILL", self]).ok();
        self.engine.wait_for(self, "STOPPED");
        self.engine.ctr(&["tasks", "delete", self]);
        self.engine.ctr(&["containers", "delete", self]).ok();
        self.engine.assert_no_task(self);
    }
}

impl Id {
    /// Deletes the container in whatever state it is.
    pub fn remove(&self) {
        self.engine.remove(&self.name);
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        self.engine.remove(&self.name);
    }
}
