// SPDX-License-Identifier: Apache-2.0
//! libseccomp in a process of its own, because it does not come to an end on some profiles: each line on stdin is
//! `[architecture, optimise, profile]` in JSON, each line on stdout the filter as `bpf_dbg` reads it, or `refused`.

use coracle_seccomp::{Arch, Profile, to_bpf_dbg};
use coracle_seccomp_differential::{Optimize, by_libseccomp};

fn main() {
    for line in std::io::stdin().lines() {
        let line = line.expect("reading a profile");
        let (native, tree, profile): (String, bool, Profile) =
            serde_json::from_str(&line).expect("a profile");
        let native: Arch = native.parse().expect("an architecture");
        let optimize = if tree { Optimize::Tree } else { Optimize::Chain };
        match by_libseccomp(&profile, native, optimize) {
            Ok(program) => println!("{}", to_bpf_dbg(&program)),
            Err(_) => println!("refused"),
        }
    }
}
