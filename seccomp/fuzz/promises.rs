// SPDX-License-Identifier: Apache-2.0
//! What holds for any bytes: the fuzz targets ask for it with a fuzzer's, `tests/any_bytes.rs` with those of the corpus.

use coracle_seccomp::{
    Arch, Endian, Profile, Query, SeccompData, Simulator, check, compile, disassemble, from_raw, interp,
    to_raw,
};

/// Any bytes as a profile: reading, compiling, checking and simulating must not panic, every program must pass the
/// kernel's checks, and the program must answer what the rules say (`Simulator` asserts that in debug builds).
pub fn of_a_profile(data: &[u8]) {
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
}

/// Any bytes as a program: checking, running and printing must not panic, and a program that passes the kernel's
/// checks must come to an end without a fault.
pub fn of_a_program(data: &[u8]) {
    for endian in [Endian::Little, Endian::Big] {
        let Ok(program) = from_raw(data, endian) else { return };
        assert_eq!(to_raw(&program, endian), data);
        let call =
            SeccompData { nr: 1, arch: Arch::X86_64.audit_token(), instruction_pointer: 3, args: [5; 6] };
        let outcome = interp::run(&program, &call, endian);
        assert!(interp::verify(&program).is_err() || outcome.is_ok());
        let _ = interp::is_constant_allow(&program, call.arch, call.nr);
        let _ = disassemble(&program, Arch::X86_64);
    }
}
