//! `update`: new limits for a container that is there.

use oci_spec::runtime::LinuxResources;

use super::exec::own_bundle;
use super::options::Update;
use super::state::{Container, Status};
use super::store::{STATE_FILE, Store};
use crate::bundle::{self, check_resources};
use crate::cgroup::devices;
use crate::error::{Error, Kind, Result};
use crate::plan::rdt::{Line, lines, own};
use crate::rdt::Class;

/// Reads limits that stand alone: the `linux.resources` object of `config.json`. Warns of what nobody knows.
///
/// # Errors
/// The text is no JSON, or a value has the wrong type.
pub fn resources_from_json(text: &[u8]) -> Result<LinuxResources> {
    let (resources, warnings) = bundle::resources_from_json(text)?;
    warn(warnings);
    Ok(resources)
}

/// Changes the limits that are named; the others stay as they are.
pub fn update(store: &Store, id: &str, update: &Update) -> Result<()> {
    let schemata = schemata(update)?;
    let mut container = Container::open(store, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(Kind::State, "container not running"));
    }
    update_limits(&mut container, update.resources.clone()).map_err(outside_config)?;
    if schemata.is_empty() { Ok(()) } else { update_class(container, schemata) }
}

fn update_limits(container: &mut Container, mut resources: LinuxResources) -> Result<()> {
    warn(check_resources(&resources)?);
    let before = limits_before(container, &mut resources)?;
    warn(container.cgroup()?.update(&resources, &before)?);
    if resources.devices().is_some() {
        container.state.devices.clone_from(resources.devices());
        container.home.write(STATE_FILE, &container.state.to_json()?)?;
    }
    Ok(())
}

/// The limits of the configuration, with the devices that hold now, where `resources` lean on them.
///
/// Engines repeat the whole of `linux.resources`. Devices that are the same are no change, and are left alone: others
/// may have been allowed from outside meanwhile, as for a graphics card.
fn limits_before(container: &Container, resources: &mut LinuxResources) -> Result<LinuxResources> {
    let names_devices = resources.devices().as_ref().is_some_and(|devices| !devices.is_empty());
    if !names_devices {
        resources.set_devices(None);
    }
    let mut before = LinuxResources::default();
    before.set_devices(None);
    if !names_devices && resources.memory().is_none() {
        return Ok(before);
    }
    let bundle = own_bundle(container)?;
    let configured = bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone());
    if let Some(configured) = configured {
        before = configured;
    }
    if let Some(devices) = &container.state.devices {
        before.set_devices(Some(devices.clone()));
    }
    if names_devices && devices::spec_rules(Some(resources))? == devices::spec_rules(Some(&before))? {
        resources.set_devices(None);
    }
    // It says how limits are changed, and isn't one.
    let check = before.memory().as_ref().and_then(oci_spec::runtime::LinuxMemory::check_before_update);
    if let Some(memory) = resources.memory_mut()
        && memory.check_before_update().is_none()
    {
        memory.set_check_before_update(check);
    }
    Ok(before)
}

/// The limits were not read from `config.json`, where the error would send its reader.
fn outside_config(error: Error) -> Error {
    if error.place().is_none() {
        return error;
    }
    let told = error.to_string();
    let told = told.strip_prefix("config.json: ").unwrap_or(&told).replace(" in config.json)", ")");
    Error::new(error.kind(), told)
}

fn warn(warnings: Vec<String>) {
    for warning in warnings {
        log::warn!("{warning}");
    }
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
