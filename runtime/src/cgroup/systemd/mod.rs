//! Containers as transient units of systemd.
//!
//! It owns the unit's name and properties, and its life: one `StartTransientUnit` around the
//! container's first process, one `StopUnit` at the end, both awaited by systemd's own signal. What
//! systemd has no property for is written to the files of the unit's cgroup, which is delegated.
//! Source: org.freedesktop.systemd1(5), "Control Group APIs and Delegation" of systemd.

mod annotation;
mod bus;
pub mod properties;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use zvariant::Value;

use super::devices;
use super::file::{self, CgroupDir};
use super::layout::{self, Layout, LayoutKind};
use super::plan::{Plan, Request};
use super::{Cgroup, Member, Record};
use crate::error::{Error, Kind, Result};
use bus::{Bus, Refusal};
use properties::{Property, PropertyValue};

const PLACE: &str = "linux.cgroupsPath";
/// Stands before a container's id in the name of a unit that nobody named.
const PREFIX: &str = "coracle";

/// A unit to be started.
#[derive(Debug, Clone, Serialize)]
pub struct UnitPlan {
    /// The unit's name: `coracle-<id>.scope`.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// Whether it is a unit of the user's manager.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
    /// The cgroup that it will have, below the mount point, as far as it is known before.
    #[serde(skip)]
    cgroup: String,
    /// Its properties, without the process.
    pub properties: Vec<Property>,
}

/// A unit that was started: kept in `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The unit's name.
    pub name: String,
    /// Whether it is a unit of the user's manager.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
}

/// A unit that waits for the container's process.
#[derive(Debug)]
pub struct PendingUnit {
    plan: Plan,
    unit: UnitPlan,
}

/// Plans the unit. `linux.cgroupsPath` is `slice:prefix:name`, as with runc.
pub fn plan(layout: &Layout, request: &Request<'_>) -> Result<UnitPlan> {
    let user = request.user_systemd;
    let (slice, name) = names(request.cgroups_path.filter(|path| !path.is_empty()), request.id, user)?;
    let mut properties = vec![
        Property::new("Description", PropertyValue::Text(format!("Coracle container {}", request.id))),
        Property::new("Slice", PropertyValue::Text(slice.clone())),
        Property::new("Delegate", PropertyValue::Bool(true)),
        Property::new("DefaultDependencies", PropertyValue::Bool(false)),
    ];
    properties.extend(properties::accounting(layout.kind()));
    if let Some(resources) = request.resources {
        properties.extend(properties::of_resources(resources, layout.kind())?);
        properties.extend(properties::of_oom_group(resources).filter(|_| layout.kind() == LayoutKind::V2));
    }
    if request.device_rules {
        let mut rules = devices::spec_rules(request.resources)?;
        rules.extend_from_slice(request.devices);
        properties.extend(properties::of_devices(&rules));
    }
    let mut annotations: Vec<_> = request.annotations.into_iter().flatten().collect();
    annotations.sort();
    for (key, text) in annotations {
        if let Some(property) = annotation::property(key, text)? {
            properties.retain(|planned| planned.name != property.name);
            properties.push(property);
        }
    }
    let manager = if user { user_manager(layout) } else { String::new() };
    let cgroup = format!("{manager}{}/{name}", expand(&slice));
    Ok(UnitPlan { name, slice, user, cgroup, properties })
}

/// Whether systemd refused a property, or a value of it, that older versions do not have. The limit is written to the
/// cgroup's file all the same.
fn is_too_new(property: &str, value: &Value<'_>, refusal: &Refusal) -> bool {
    // Since systemd 242, 244, 244, 253 and 253.
    const NEWER: [&str; 5] =
        ["CPUQuotaPeriodUSec", "AllowedCPUs", "AllowedMemoryNodes", "OOMPolicy", "MemoryZSwapMax"];
    let names_it = refusal.text.split([' ', ',', '=']).any(|word| word == property);
    // To be idle is a weight of 0 since systemd 252, and out of range before.
    let is_idle = property == "CPUWeight" && *value == Value::U64(0);
    match refusal.name.as_str() {
        "org.freedesktop.DBus.Error.PropertyReadOnly" => NEWER.contains(&property) && names_it,
        "org.freedesktop.DBus.Error.InvalidArgs" => is_idle && names_it,
        _ => false,
    }
}

/// Slice and unit of a path, or of none.
fn names(path: Option<&str>, id: &str, user: bool) -> Result<(String, String)> {
    let default_slice = if user { "user.slice" } else { "system.slice" };
    let Some(path) = path else {
        return Ok((default_slice.to_owned(), format!("{PREFIX}-{id}.scope")));
    };
    let mut parts = path.split(':');
    let (Some(slice), Some(prefix), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::config(
            PLACE,
            format!("with systemd a path has the form \"slice:prefix:name\"; this is {path:?}"),
        ));
    };
    let slice = if slice.is_empty() { default_slice } else { slice };
    check_slice(slice)?;
    if name.strip_suffix(".slice").is_some() {
        return Err(Error::config(PLACE, format!("{name:?}: a container is a scope, and cannot be a slice")));
    }
    let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if name.is_empty() || unit.len() > 255 || !unit.bytes().all(allowed) {
        return Err(Error::config(
            PLACE,
            format!("{unit:?} is not the name of a unit: letters, digits and :-_.\\@ only, 255 at most"),
        ));
    }
    Ok((slice.to_owned(), unit))
}

fn check_slice(slice: &str) -> Result<()> {
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\".contains(&byte);
    let wrong = stem.is_empty()
        || !stem.bytes().all(allowed)
        || (stem != "-" && (stem.starts_with('-') || stem.ends_with('-') || stem.contains("--")));
    if wrong {
        return Err(Error::config(
            PLACE,
            format!("{slice:?} is not a slice; one looks like machine.slice or a-b.slice"),
        ));
    }
    Ok(())
}

/// The cgroup of a slice: `a-b.slice` lies in `a.slice`.
fn expand(slice: &str) -> String {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if stem == "-" {
        return String::new();
    }
    let mut path = String::new();
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push('/');
        path.push_str(stem.get(..end).unwrap_or(stem));
        path.push_str(".slice");
    }
    path
}

/// The cgroup of the user's manager, as far as our own tells it.
fn user_manager(layout: &Layout) -> String {
    let own = layout.unified().map_or("/", |hierarchy| hierarchy.own.as_str());
    let mut path = String::new();
    for part in own.split('/').filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(part);
        if part.starts_with("user@") {
            return path;
        }
    }
    String::new()
}

impl UnitPlan {
    /// The cgroup that the unit will have, below the mount point.
    pub fn inner_path(&self) -> &str {
        &self.cgroup
    }

    /// What is kept of it.
    pub fn record(&self) -> UnitRecord {
        UnitRecord { name: self.name.clone(), user: self.user }
    }
}

impl PendingUnit {
    /// A unit to be started by [`PendingUnit::start`].
    pub fn new(unit: UnitPlan, plan: Plan) -> PendingUnit {
        PendingUnit { plan, unit }
    }

    /// Starts the unit around `pid`, and writes what systemd has no property for. On failure the
    /// unit is stopped again, and `pid` with it.
    pub fn start(self, pid: i32) -> Result<Cgroup> {
        let record = self.unit.record();
        self.start_unit(pid)?;
        let result = self.settle(pid, record.clone());
        if result.is_err() {
            // The first error is the one to tell.
            let _ = record.stop();
        }
        result
    }

    fn start_unit(&self, pid: i32) -> Result<()> {
        let process =
            u32::try_from(pid).map_err(|_| Error::new(Kind::System, format!("{pid} is no process id")))?;
        let mut properties: Vec<(&str, Value<'_>)> =
            self.unit.properties.iter().map(Property::encode).collect();
        properties.push(("PIDs", Value::from(vec![process])));
        let method = "StartTransientUnit";
        let mut bus = Bus::connect(self.unit.user)?;
        let mut reset = false;
        let answer = loop {
            let auxiliary: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
            let answer =
                bus.run_job(method, &(self.unit.name.as_str(), "replace", &properties, auxiliary))?;
            let Err(refusal) = &answer else { break answer };
            let before = properties.len();
            properties.retain(|(name, value)| !is_too_new(name, value, refusal));
            if properties.len() < before {
                continue;
            }
            if reset || refusal.name != "org.freedesktop.systemd1.UnitExists" {
                break answer;
            }
            // Perhaps one that failed and was not collected; a living one stays.
            let _ = bus.call("ResetFailedUnit", &(self.unit.name.as_str(),))?;
            reset = true;
        };
        let name = &self.unit.name;
        match answer {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                Err(Error::new(Kind::System, format!("systemd could not start the unit {name}: {result}"))
                    .hint(format!("systemctl status {name} and the journal may say why")))
            }
            Err(refusal) => {
                let error = bus.refused(method, &refusal).while_doing(format!("start the unit {name}"));
                Err(match refusal.name.as_str() {
                    "org.freedesktop.systemd1.UnitExists" => {
                        error.at(PLACE).hint("another container has that unit")
                    }
                    "org.freedesktop.DBus.Error.InvalidArgs"
                    | "org.freedesktop.DBus.Error.PropertyReadOnly" => error.hint(
                        "an org.systemd.property annotation may name a property that a scope does not have",
                    ),
                    _ => error,
                })
            }
        }
    }

    /// Finds the unit's cgroup and fills it.
    fn settle(&self, pid: i32, unit: UnitRecord) -> Result<Cgroup> {
        let mut plan = self.plan.clone();
        let text = file::read_path(&format!("/proc/{pid}/cgroup"))?;
        let inner = layout::cgroups_of(&text)
            .find(|(controllers, path)| {
                matches!(*controllers, "" | layout::NAMED_SYSTEMD)
                    && path.ends_with(&format!("/{}", self.unit.name))
            })
            .map(|(_, path)| path.to_owned())
            .ok_or_else(|| {
                Error::new(
                    Kind::System,
                    format!("systemd did not put process {pid} into the unit {}", self.unit.name),
                )
            })?;
        let mut record =
            Record { manager: plan.manager, layout: plan.layout, members: Vec::new(), unit: Some(unit) };
        let mut unified = None;
        let mut late = Vec::new();
        for place in &mut plan.directories {
            place.path = file::below(&place.mount, &inner);
        }
        for place in &plan.directories {
            if plan.layout != LayoutKind::V2 {
                // systemd makes only the version 1 cgroups that it has a property for.
                file::make(&place.mount, &place.path).map_err(|(_, error)| error)?;
            }
            late.append(&mut plan.fill(place, true, &mut unified)?);
            if plan.layout != LayoutKind::V2 {
                CgroupDir::open(&place.path)?.write("cgroup.procs", &pid.to_string())?;
            }
            record.members.push(Member::from(place));
        }
        let mut cgroup = Cgroup::new(record, unified);
        cgroup.late = late;
        Ok(cgroup)
    }
}

impl UnitRecord {
    /// Stops the unit and waits until it is gone; a unit that is gone already is no error.
    pub fn stop(&self) -> Result<()> {
        let mut bus = Bus::connect(self.user)?;
        let method = "StopUnit";
        let answer = bus.run_job(method, &(self.name.as_str(), "replace"))?;
        // One that failed is kept for somebody to look at, until now. One that did not is no failed unit, and gone.
        let _ = bus.call("ResetFailedUnit", &(self.name.as_str(),))?;
        match answer {
            Ok(result) if matches!(result.as_str(), "done" | "skipped" | "canceled" | "collected") => Ok(()),
            Ok(result) => Err(Error::new(
                Kind::System,
                format!("systemd could not stop the unit {}: {result}", self.name),
            )),
            Err(refusal) if refusal.name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
            Err(refusal) => {
                Err(bus.refused(method, &refusal).while_doing(format!("stop the unit {}", self.name)))
            }
        }
    }

    /// Tells systemd of changed limits.
    pub fn update(&self, resources: &LinuxResources, layout: LayoutKind) -> Result<()> {
        let mut properties = properties::of_resources(resources, layout)?;
        if resources.devices().as_ref().is_some_and(|devices| !devices.is_empty()) && !self.user {
            let mut rules = devices::spec_rules(Some(resources))?;
            rules.extend_from_slice(devices::default_rules());
            // A list is added to what is there, unless it is emptied first.
            properties.push(Property::new("DeviceAllow", PropertyValue::Devices(Vec::new())));
            properties.extend(properties::of_devices(&rules));
        }
        if properties.is_empty() {
            return Ok(());
        }
        let mut encoded: Vec<(&str, Value<'_>)> = properties.iter().map(Property::encode).collect();
        let mut bus = Bus::connect(self.user)?;
        let method = "SetUnitProperties";
        while let Err(refusal) = bus.call(method, &(self.name.as_str(), true, &encoded))? {
            let before = encoded.len();
            encoded.retain(|(name, value)| !is_too_new(name, value, &refusal));
            if encoded.len() == before {
                return Err(bus
                    .refused(method, &refusal)
                    .while_doing(format!("update the unit {}", self.name)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_property_that_systemd_names_as_unknown_is_left_out() {
        let refusal = |text: &str| Refusal {
            name: "org.freedesktop.DBus.Error.PropertyReadOnly".to_owned(),
            text: text.to_owned(),
        };
        let unknown = |name: &str| refusal(&format!("Cannot set property {name}, or unknown property."));
        let some = Value::U64(1);
        assert!(is_too_new("AllowedCPUs", &some, &unknown("AllowedCPUs")));
        assert!(!is_too_new("OOMPolicy", &some, &unknown("AllowedCPUs")));
        assert!(!is_too_new("MemoryMax", &some, &unknown("MemoryMax")));
        let range = Refusal {
            name: "org.freedesktop.DBus.Error.InvalidArgs".to_owned(),
            text: "Value specified in CPUWeight is out of range".to_owned(),
        };
        assert!(is_too_new("CPUWeight", &Value::U64(0), &range));
        assert!(!is_too_new("CPUWeight", &Value::U64(20_000), &range));
    }

    #[test]
    fn a_path_names_slice_and_scope() {
        let named = |path, user| names(path, "web", user).unwrap();
        assert_eq!(named(None, false), ("system.slice".into(), "coracle-web.scope".into()));
        assert_eq!(named(None, true), ("user.slice".into(), "coracle-web.scope".into()));
        assert_eq!(named(Some("a-b.slice:cri:c1"), false), ("a-b.slice".into(), "cri-c1.scope".into()));
        assert_eq!(named(Some("::c1"), false), ("system.slice".into(), "c1.scope".into()));
        for path in [
            "/a/b",
            "a:b:c",
            "a.slice:b",
            "-a.slice:b:c",
            "a/b.slice:c:d",
            "a.slice:b:c.slice",
            "a.slice:b:c/d",
            "a.slice:b:",
        ] {
            assert_eq!(names(Some(path), "web", false).unwrap_err().place(), Some(PLACE), "{path}");
        }
    }

    #[test]
    fn slices_lie_in_the_slices_that_their_names_begin_with() {
        assert_eq!(expand("system.slice"), "/system.slice");
        assert_eq!(expand("a-b-c.slice"), "/a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(expand("-.slice"), "");
    }
}
