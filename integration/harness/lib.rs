//! The harness behind Coracle's behaviour tests.
//!
//! A test drives a real OCI runtime from outside, by its command line, and looks at what the container sees and at
//! what the host is left with. The runtime under test is `$CORACLE_BIN`, or the release build of this workspace;
//! any runtime with runc's command line will do, and a test that fails with runc where Coracle does not claim to be
//! better is a wrong test.
//!
//! What the harness promises:
//!
//! * The whole test program lives in a mount namespace of its own with private propagation, so that no mount leaks.
//! * Every test gets a [`Runtime`] with a private `--root` and scratch directory. When the test ends, also by
//!   failure, its containers are deleted by force, and a cgroup, mount, process or state directory that is left makes
//!   the test fail.
//! * No command is waited for without a limit, and no container holds a pipe that the harness waits on.

// A demand such as `ok()` is made for its panic; what it gives back may be left alone.
#![allow(clippy::return_self_not_must_use)]
// Every demand of a test panics when it is not met; saying so at each would say nothing.
#![allow(clippy::missing_panics_doc)]
// `Duration::from_mins` is newer than the oldest compiler that this workspace promises to build with.
#![allow(clippy::duration_suboptimal_units)]

pub mod beside;
pub mod bundle;
pub mod command;
pub mod console;
pub mod engine;
pub mod host;
pub mod hostile;
pub mod leftovers;
pub mod mounts;
pub mod place;
pub mod resctrl;
pub mod rootfs;
pub mod runtime;
pub mod seccomp;
mod trial;

pub use bundle::Bundle;
pub use command::Finished;
pub use runtime::{Container, Kind, Runtime};
pub use trial::{Checked, Skip, Verdict, run_tests, skip, trial, trial_without_runtime};

/// Makes the list of tests out of functions that take a [`Runtime`]; the function's name is the test's name.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { vec![$($crate::trial(stringify!($name), $name)),*] };
}
