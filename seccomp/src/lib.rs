// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod arch;
pub mod bpf;
mod check;
mod compile;
mod disasm;
mod error;
mod features;
pub mod interp;
mod learn;
mod output;
mod profile;
mod resolve;
mod simulate;
mod tables;

pub use arch::{Arch, Endian, X32_BIT};
pub use bpf::{SeccompData, SockFilter};
pub use check::{Concern, Finding, check};
pub use compile::{FLAG_NEW_LISTENER, Listener, Program, compile};
pub use disasm::disassemble;
pub use error::{Error, Problem};
pub use features::{Features, features};
pub use learn::profile_of_calls;
pub use output::{RawError, from_raw, to_bpf_dbg, to_c_array, to_raw};
pub use profile::{
    Action, Condition, DEFAULT_ERRNO, FilterFlag, MAX_ERRNO, MAX_TRACE, Operator, Profile, Rule,
};
pub use simulate::{Query, QueryError, Reason, Simulation, Simulator, Verdict, simulate};
pub use tables::Syscall;
