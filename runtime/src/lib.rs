//! Coracle: a low-level OCI container runtime, as a library.
//!
//! A container goes through these rooms: the [`bundle`] is read and checked, the [`plan`] says what it means on this
//! host, the [`container`] room executes its host side, [`init`] its container side. [`cgroup`], [`rdt`],
//! [`network`] and [`sys`] serve them, [`cli`] is the command line. `docs/design.md` tells the whole story.

pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod clock;
pub mod container;
pub mod error;
pub mod hooks;
pub mod init;
pub mod interrupt;
mod mountinfo;
pub mod network;
pub mod plan;
pub mod rdt;
pub mod seal;
pub mod sys;
pub mod version;
