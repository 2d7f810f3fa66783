// SPDX-License-Identifier: Apache-2.0
//! Any bytes as a profile: reading, compiling, checking and simulating must not panic, every program must pass the
//! kernel's checks, and the program must answer what the rules say (`Simulator` asserts that in debug builds).
#![no_main]

use coracle_seccomp::{Arch, Profile, Query, Simulator, check, compile, disassemble, interp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(profile) = Profile::from_json(text) else { return };
    for native in [Arch::X86_64, Arch::Aarch64, Arch::S390x, Arch::Mipsel64, Arch::Parisc] {
        let Ok(program) = compile(&profile, native) else { continue };
        assert_eq!(interp::verify(&program.instructions), Ok(()));
        assert!(!disassemble(&program.instructions, native).is_empty());
        assert!(check(&profile, native).is_ok());
        let simulator = Simulator::new(&profile, native).expect("it compiled");
        for arch in Arch::ALL.into_iter().filter(|arch| arch.shares_kernel_with(native)) {
            for name in profile.syscalls.iter().flat_map(|rule| &rule.names) {
                for arg in [0, 1, u64::MAX, 1 << 32] {
                    if let Ok(query) = Query::new(arch, name, &[arg; 6]) {
                        assert!(simulator.ask(&query).is_ok());
                    }
                }
            }
        }
    }
});
