//! `pause` and `resume`, by the freezer.

use super::state::{Container, Status};
use super::store::Store;
use crate::error::{Error, Kind, Result};

/// Freezes all processes of a container, and waits until they are.
pub fn pause(store: &Store, id: &str) -> Result<()> {
    let container = Container::open(store, id)?;
    match container.status()? {
        Status::Running | Status::Created => container.cgroup()?.freeze(),
        Status::Paused => Err(Error::new(Kind::State, "container not running").hint("it is paused already")),
        _ => Err(Error::new(Kind::State, "container not running")),
    }
}

/// Thaws all processes of a paused container.
pub fn resume(store: &Store, id: &str) -> Result<()> {
    let container = Container::open(store, id)?;
    if container.status()? != Status::Paused {
        return Err(Error::new(Kind::State, "container not paused"));
    }
    container.cgroup()?.thaw()
}
