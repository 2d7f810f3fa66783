//! `update`: new limits for a container that is there.

use super::options::Update;
use super::state::{Container, Status};
use super::store::{STATE_FILE, Store};
use crate::bundle::check_resources;
use crate::error::{Error, Kind, Result};
use crate::plan::rdt::{Line, lines, own};
use crate::rdt::Class;

/// Changes the limits that are named; the others stay as they are.
pub fn update(store: &Store, id: &str, update: &Update) -> Result<()> {
    let schemata = schemata(update)?;
    let container = Container::open(store, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::State, "container not running"));
    }
    for warning in check_resources(&update.resources)? {
        log::warn!("{warning}");
    }
    container.cgroup()?.update(&update.resources)?;
    if schemata.is_empty() { Ok(()) } else { update_class(container, schemata) }
}

/// The settings of the class of service that are named.
fn schemata(update: &Update) -> Result<Vec<Line>> {
    let bandwidth = update.mem_bw_schema.as_deref().unwrap_or_default();
    if !bandwidth.is_empty() && !bandwidth.starts_with("MB:") {
        return Err(Error::new(
            Kind::Config,
            format!("--mem-bw-schema {bandwidth:?} does not begin with \"MB:\""),
        ));
    }
    let cache = lines("", update.l3_cache_schema.as_deref().unwrap_or_default());
    Ok(cache.into_iter().chain(lines("", bandwidth)).collect())
}

/// Changes the container's class of service. A container without one gets its own, with all its processes.
fn update_class(mut container: Container, schemata: Vec<Line>) -> Result<()> {
    if let Some(rdt) = &container.state.intel_rdt {
        return rdt.change(&schemata);
    }
    let wanted = own(&container.state.id, schemata);
    let class = Class::look_for(&wanted)?;
    let record = container.state.intel_rdt.insert(class.record()).clone();
    // Before the class is made: whatever happens, `delete` removes it.
    container.home.write(STATE_FILE, &container.state.to_json()?)?;
    class.make()?;
    container.cgroup()?.pids()?.into_iter().try_for_each(|pid| record.add(pid))
}
