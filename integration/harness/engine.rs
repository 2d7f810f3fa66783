//! Real clients of a runtime, each in a private place, and checks that run with the runtime under test and with runc
//! as the yardstick.

pub mod bench;
pub mod by_hand;
pub mod containerd;
pub mod cri;
pub mod docker;
pub mod event_sink;
pub mod events;
pub mod pod;
pub mod podman;
pub mod protobuf;
pub mod shim;
pub mod streams;
pub mod task;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};

use crate::{Checked, Runtime, host, skip, trial_without_runtime};

/// A check that an engine does its work with a runtime: a function that panics when it does not.
pub type Check = fn(&Path);

/// A test of one check. It fails when the check fails with the runtime under test and passes with runc; when both
/// fail, the machine or the engine is at fault, and the test is skipped.
pub fn trial_against_yardstick(name: &str, check: Check) -> Trial {
    trial_without_runtime(name, move || {
        let tested = Runtime::binary_under_test().canonicalize().expect("the runtime under test is there");
        let yardstick = host::program("runc").expect("runc is installed (install-test-needs)");
        let yardstick = yardstick.canonicalize().expect("runc is there");
        if tested == yardstick {
            // The yardstick proves the check itself, so here nothing is excused.
            check(&tested);
            return Ok(());
        }
        let with_yardstick = outcome(|| check(&yardstick));
        judge(&outcome(|| check(&tested)), || with_yardstick)
    })
}

/// The verdict on a check, by how it ended with the runtime under test and, when it failed, with the yardstick.
#[track_caller]
pub fn judge(tested: &Result<(), String>, yardstick: impl FnOnce() -> Result<(), String>) -> Checked {
    let Err(why) = tested else {
        return Ok(());
    };
    match yardstick() {
        Err(excuse) => skip(format!(
            "the yardstick fails as well: {}",
            excuse.lines().take(4).collect::<Vec<_>>().join("; ")
        )),
        Ok(()) => panic!("{why}"),
    }
}

/// How a check ended: the panic's message, where it panicked.
pub fn outcome(check: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(check)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
    })
}

/// Makes the list of tests out of checks; the function's name is the test's name.
#[macro_export]
macro_rules! checks {
    ($($name:ident),* $(,)?) => { vec![$($crate::engine::trial_against_yardstick(stringify!($name), $name)),*] };
}

/// The folder `name` of what the scripts in `integration/peers` have unpacked; an error when it is not complete.
pub fn unpacked(name: &str, script: &str) -> Result<PathBuf, String> {
    let engines = std::env::var_os("CORACLE_ENGINES")
        .map_or_else(|| host::cache_home().join("coracle-engines"), PathBuf::from);
    let folder = engines.join(name);
    if folder.join(".complete").is_file() {
        return Ok(folder);
    }
    Err(format!("{} is not there: integration/peers/{script} brings it", folder.display()))
}

/// Gives this process's mount namespace a `/run` of its own, where engines keep sockets and state at fixed paths.
fn private_run() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))
            .expect("a private /run");
    });
}
