//! `containerd-shim-coracle-v2`: containerd's Task service on the runtime as a library.
//!
//! One process with one thread serves the containers of a group (a pod), from Create to Delete. `docs/shim.md` tells the
//! whole story.
//!
//! ```text
//! invocation   argv to one of: start, delete, the daemon, -info, -v
//! start        binds the socket, starts the daemon, answers containerd
//! daemon       the event loop: signals, requests
//! rpc          the ttrpc server: from a connection to the service
//! service      what each RPC does, and the order of events
//! runtime      the library, or another runtime's command line
//! worker       forks of the shim, for what blocks
//! reaper       exit statuses
//! io           standard streams
//! ```

mod bootstrap;
mod citizen;
mod console;
mod daemon;
mod delete;
mod failure;
mod guests;
mod info;
pub mod invocation;
pub mod io;
mod logger;
pub mod metrics;
mod oom;
mod options;
pub mod proto;
pub mod publish;
mod reaper;
pub mod rootfs;
mod rpc;
mod runtime;
mod service;
mod socket;
mod spec;
mod start;
pub mod sys;
mod worker;
