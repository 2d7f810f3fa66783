//! The `coracle` command: argv to one command, and its exit status.
//!
//! It begins where the C library does, not where Rust's start-up does, which looks at the standard streams, at the
//! stack's place in /proc/self/maps and sets up signal handlers: a third of the system calls of a command like `state`.
//! Without it, SIGPIPE ends a command whose reader has gone, as it does with other programs.
#![no_main]

use std::ffi::{c_char, c_int};

/// The C library's entry. The arguments are read through `std::env`, which the C library fills in before.
// SAFETY: no other symbol of this program is called main, and this one has the C library's signature.
#[unsafe(no_mangle)]
pub extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    coracle::cli::main(std::env::args_os())
}
