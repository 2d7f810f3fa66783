//! The shim, by the calls of its Task service and by its own command line, on containerd 1.6, 1.7 and 2.1. Each check
//! runs with containerd's own shim too, which is the yardstick.

mod events;
mod exec;
mod groups;
mod invocation;
mod lifecycle;
mod limits;
mod options;
mod stdio;

use std::process::ExitCode;

use coracle_integration::engine::bench::{Place, trials};
use coracle_integration::engine::containerd::Containerd;
use coracle_integration::engine::shim::Shim;

fn main() -> ExitCode {
    let checks = [
        lifecycle::checks(),
        exec::checks(),
        stdio::checks(),
        events::checks(),
        limits::checks(),
        groups::checks(),
        options::checks(),
        invocation::checks(),
    ]
    .concat();
    // What containerd's own shim doesn't do, or does by the help of other programs.
    let of_ours = [
        lifecycle::checks_of_ours(),
        stdio::checks_of_ours(),
        limits::checks_of_ours(),
        options::checks_of_ours(),
        invocation::checks_of_ours(),
    ]
    .concat();
    let mut tests = trials(&checks, &Place::of_shims(), KNOWN_OF_RUNC);
    tests.extend(trials(&of_ours, &Place::of_our_shim(), &[]));
    let code = coracle_integration::run_tests(tests);
    Shim::end_shared();
    Containerd::stop_shared();
    code
}

/// What containerd's own shim does otherwise, and why ours does not follow it.
const KNOWN_OF_RUNC: &[(&str, &str)] = &[
    (
        "the_first_process_is_the_last_to_end_without_a_pid_namespace",
        "1.6 tells the end of the first process before that of execs (containerd issue 10603)",
    ),
    ("an_oom_kill_is_told_before_the_exit", "now and then it misses an OOM kill (containerd issue 12260)"),
    ("output_is_appended_to_a_file", "now and then it loses a line of one of the two outputs"),
    ("io_uid_owns_the_pipes", "1.6 leaves the pipes root's"),
    ("delete_of_what_was_never_made_is_no_error", "1.x wants the file in which it keeps the runtime's name"),
];
