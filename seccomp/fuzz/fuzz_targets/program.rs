// SPDX-License-Identifier: Apache-2.0
//! Any bytes as a program: checking, running and printing must not panic, and a program that passes the kernel's
//! checks must come to an end without a fault.
#![no_main]

use coracle_seccomp::{Arch, Endian, SeccompData, disassemble, from_raw, interp, to_raw};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for endian in [Endian::Little, Endian::Big] {
        let Ok(program) = from_raw(data, endian) else { return };
        assert_eq!(to_raw(&program, endian), data);
        let call = SeccompData { nr: 1, arch: Arch::X86_64.audit_token(), instruction_pointer: 3, args: [5; 6] };
        let outcome = interp::run(&program, &call, endian);
        assert!(interp::verify(&program).is_err() || outcome.is_ok());
        let _ = interp::is_constant_allow(&program, call.arch, call.nr);
        let _ = disassemble(&program, Arch::X86_64);
    }
});
