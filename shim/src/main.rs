//! The shim's binary: argv to one invocation, and its exit status. It begins where the C library does, as the runtime's
//! own (see there).
#![no_main]

use std::ffi::{c_char, c_int};

/// The C library's entry. The arguments are read through `std::env`, which the C library fills in before.
// SAFETY: no other symbol of this program is called main, and this one has the C library's signature.
#[unsafe(no_mangle)]
pub extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    coracle_shim::invocation::main(std::env::args_os())
}
