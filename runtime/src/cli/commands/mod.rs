//! The commands, a file each: its flags, and the way to the room that does it.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod plan;
mod ps;
mod restore;
mod resume;
mod run;
mod seccomp;
mod spec;
mod start;
mod state;
mod update;

use super::{Arguments, Entry, Subcommand};

/// What a container's id is called in help.
const ID: &str = "CONTAINER-ID";

/// Every command, in the order in which help lists them.
pub(super) static ALL: [Entry; 19] = [
    Entry::of::<create::Create>(),
    Entry::of::<start::Start>(),
    Entry::of::<run::Run>(),
    Entry::of::<exec::Exec>(),
    Entry::of::<state::State>(),
    Entry::of::<list::List>(),
    Entry::of::<ps::Ps>(),
    Entry::of::<kill::Kill>(),
    Entry::of::<delete::Delete>(),
    Entry::of::<pause::Pause>(),
    Entry::of::<resume::Resume>(),
    Entry::of::<update::Update>(),
    Entry::of::<events::Events>(),
    Entry::of::<checkpoint::Checkpoint>(),
    Entry::of::<restore::Restore>(),
    Entry::of::<spec::Spec>(),
    Entry::of::<plan::Plan>(),
    seccomp::GROUP,
    Entry::of::<features::Features>(),
];
