//! The container's lifecycle: what each command does, from the state store to the cgroup's end.
//!
//! It owns the containers of one `--root` and every change of their state (runtime-spec, runtime.md "Lifecycle").
//! The command line and the shim call these functions; nothing here reads argv or prints. It promises that a command
//! that fails leaves the container as it was, or takes it away whole.

mod abilities;
mod delete;
mod events;
mod exec;
mod exec_process;
mod features;
mod foreground;
mod host;
mod identity;
mod image;
mod inherited;
mod joined_user;
mod kill;
mod launch;
mod learn;
mod listener;
mod made;
mod notify;
mod options;
mod pause;
mod plan;
mod process;
mod refused;
mod run;
mod serve;
mod sources;
mod stage;
mod start;
mod state;
mod store;
mod terminal;
mod update;
mod user;
mod view;

pub use delete::delete;
pub use events::{Event, events};
pub use exec::{exec, exec_here};
pub use features::Features;
pub use host::user_runtime_dir;
pub use identity::Identity;
pub use inherited::listen_fds;
pub use kill::{kill, pids};
pub use options::{
    CgroupsMode, CheckpointOptions, CreateOptions, EventsOptions, ExecOptions, ExecProcess, ExecUser,
    PageServer, RestoreOptions, RunOptions, Settings, Update,
};
pub use pause::{pause, resume};
pub use plan::{PlanView, plan};
pub use run::{Begun, create, create_here, run};
pub use start::start;
pub use store::Store;
pub use update::{resources_from_json, update};
pub use user::id_map_namespace;
pub use view::{ContainerView, list, state};

use crate::error::{Error, Kind, Result};

/// The cgroup of a container, to measure or to watch it.
pub fn cgroup(store: &Store, id: &str) -> Result<crate::cgroup::Cgroup> {
    state::Container::open(store, id)?.cgroup()
}

/// Checkpoints a container. Not done yet: refused.
pub fn checkpoint(_: &Store, _: &Settings, _: &str, _: &CheckpointOptions) -> Result<()> {
    Err(Error::new(Kind::Unsupported, "checkpoint is not supported yet"))
}

/// Restores a container from a checkpoint. Not done yet: refused.
pub fn restore(_: &Store, _: &Settings, _: &str, _: &RestoreOptions) -> Result<i32> {
    Err(Error::new(Kind::Unsupported, "restore is not supported yet"))
}
