// SPDX-License-Identifier: Apache-2.0
//! Any bytes as a program: see `promises.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../promises.rs"]
#[allow(dead_code, reason = "each target is about one of them")]
mod promises;

fuzz_target!(|data: &[u8]| promises::of_a_program(data));
