//! User namespaces, id-mapped mounts, and the runtime in the hands of an ordinary user.

mod common;
mod differential;
mod filesystem;
mod id_mapped;
mod namespaces;
mod process;
mod rootless;
mod told;

use std::process::ExitCode;

fn main() -> ExitCode {
    let topics = [
        process::tests(),
        namespaces::tests(),
        filesystem::tests(),
        id_mapped::tests(),
        rootless::tests(),
        told::tests(),
        differential::tests(),
    ];
    coracle_integration::run_tests(topics.into_iter().flatten().collect())
}
