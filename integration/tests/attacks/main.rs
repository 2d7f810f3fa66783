//! Attacks that were thought of, beside those that have happened (`security.rs`, `hostile_rootfs.rs`): hostile root filesystems, containers that
//! work against later commands, damaged state.

mod arguments;
mod cgroups;
mod host;
mod racing;
mod state;
mod together;

use std::process::ExitCode;

fn main() -> ExitCode {
    let topics = [
        racing::tests(),
        cgroups::tests(),
        state::tests(),
        together::tests(),
        host::tests(),
        arguments::tests(),
    ];
    coracle_integration::run_tests(topics.into_iter().flatten().collect())
}
