//! Attacks that were thought of, beside those that have happened (`security.rs`): hostile root filesystems, containers that
//! work against later commands, damaged state.

mod racing;

use std::process::ExitCode;

fn main() -> ExitCode {
    coracle_integration::run_tests(racing::tests())
}
