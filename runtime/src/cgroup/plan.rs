//! The plan for a container's cgroups: which directories are made and what is written to them.
//!
//! Pure: built from the host's [`Layout`] and a [`Request`] without a system call, so that it can be
//! printed before anything happens. Every write carries the place in `config.json` that asked for it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::devices::{self, DeviceRule, Policy};
use super::layout::{Hierarchy, Layout, LayoutKind};
use super::systemd::{self, UnitPlan};
use super::{file, path, v1, v2};
use crate::error::{Error, Kind, Result};

/// Who makes and owns the container's cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManagerChoice {
    /// The runtime itself, in the cgroup filesystem.
    Cgroupfs,
    /// systemd, as a transient scope.
    Systemd,
    /// Nobody: the container stays in the runtime's cgroup.
    Disabled,
}

/// What a container asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The container's id.
    pub id: &'a str,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a str>,
    /// `linux.resources`.
    pub resources: Option<&'a LinuxResources>,
    /// The runtime's own device rules, applied after those of `linux.resources.devices`:
    /// [`devices::default_rules`] but for tests.
    pub devices: &'a [DeviceRule],
    /// `annotations`; `org.systemd.property.*` become properties of the unit.
    pub annotations: Option<&'a HashMap<String, String>>,
    /// Who makes the cgroups.
    pub manager: ManagerChoice,
    /// Whether the runtime runs without the host's privileges: hierarchies that this user may not write are passed over when
    /// no path was asked for.
    pub rootless: bool,
    /// Whether device rules are set; left out for whom the kernel doesn't let.
    pub device_rules: bool,
    /// Whether systemd means the user's own, not the system's.
    pub user_systemd: bool,
    /// The user that a version 2 cgroup is given to (delegation), as the container knows it.
    pub owner: Option<u32>,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Write {
    /// The controller that has the file.
    #[serde(skip)]
    pub controller: String,
    /// The file's name in the cgroup's directory.
    pub file: String,
    /// What is written, in one write.
    pub value: String,
    /// The file (and value) to use where the kernel does not have `file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<(String, String)>,
    /// Whether a kernel without the file is passed over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Whether a new cgroup has this value already, so that only one that existed is written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_if_existing: bool,
    /// The place in `config.json` that asked for it; empty for the runtime's own.
    #[serde(rename = "from", skip_serializing_if = "String::is_empty")]
    pub place: String,
}

impl Write {
    /// A write that must succeed.
    pub fn new(
        controller: impl Into<String>,
        file: impl Into<String>,
        value: impl Into<String>,
        place: impl Into<String>,
    ) -> Write {
        let (file, value) = (file.into(), value.into());
        let only_if_existing = is_initial(&file, &value);
        Write {
            controller: controller.into(),
            file,
            value,
            otherwise: None,
            optional: false,
            only_if_existing,
            place: place.into(),
        }
    }

    /// The same, passed over where the kernel does not have the file.
    #[must_use]
    pub fn optional(self) -> Write {
        Write { optional: true, ..self }
    }

    /// The same value to another file where the kernel does not have the first.
    #[must_use]
    pub fn or(self, file: &str) -> Write {
        let value = self.value.clone();
        self.or_value(file, value)
    }

    /// Another value to another file where the kernel does not have the first.
    #[must_use]
    pub fn or_value(self, file: &str, value: String) -> Write {
        Write { otherwise: Some((file.to_owned(), value)), ..self }
    }
}

/// What a new cgroup has without being told.
fn is_initial(file: &str, value: &str) -> bool {
    let initial = match file {
        "memory.limit_in_bytes"
        | "memory.memsw.limit_in_bytes"
        | "memory.soft_limit_in_bytes"
        | "cpu.cfs_quota_us" => "-1",
        "memory.max" | "memory.swap.max" | "memory.high" | "pids.max" | "cpu.max" => "max",
        "memory.low" | "memory.min" | "cpu.idle" | "cpu.cfs_burst_us" | "cpu.max.burst"
        | "memory.oom_control" => "0",
        "cpu.shares" => "1024",
        "cpu.weight" => "100",
        _ => return false,
    };
    value == initial
}

/// The container's cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The controllers of the hierarchy, or `name=systemd`; empty for the unified hierarchy.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The container's directory.
    pub path: PathBuf,
    /// Unified hierarchy: the controllers that the fields need.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// What is written, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<Write>,
}

impl Place {
    /// Whether this is the container's cgroup in the version 2 hierarchy.
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// The whole plan. See the module's page.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The host's layout.
    pub layout: LayoutKind,
    /// Who makes the cgroups.
    pub manager: ManagerChoice,
    /// The directories, one for each hierarchy.
    pub directories: Vec<Place>,
    /// Version 2, and hybrid without the devices controller: the device rules that become a program, in order;
    /// `None` when devices stay unrestricted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_program: Option<Vec<DeviceRule>>,
    /// The transient unit, with systemd as the manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitPlan>,
    /// The user that the version 2 cgroup is given to, by [`super::Cgroup::give_to`]: as the container knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// Whether a hierarchy that this user may not write is passed over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tolerate_unwritable: bool,
    /// Fields that have no effect, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Makes the plan.
///
/// # Errors
/// A value out of range, a field that this layout does not have, a controller that is not mounted:
/// each names its place in `config.json`.
pub fn plan(layout: &Layout, request: &Request<'_>) -> Result<Plan> {
    let mut plan = Plan {
        layout: layout.kind(),
        manager: request.manager,
        directories: Vec::new(),
        device_program: None,
        unit: None,
        owner: request.owner,
        tolerate_unwritable: request.rootless && request.cgroups_path.is_none_or(str::is_empty),
        warnings: Vec::new(),
    };
    if request.manager == ManagerChoice::Disabled {
        refuse_limits_without_cgroup(request)?;
        return Ok(plan);
    }
    if request.manager == ManagerChoice::Systemd {
        plan.unit = Some(systemd::plan(layout, request)?);
    }
    for hierarchy in layout.v1().iter().chain(layout.unified()) {
        plan.directories.push(place(layout, request, hierarchy, plan.unit.as_ref())?);
    }
    let resources = request.resources.map(|resources| match plan.unit {
        Some(_) => systemd::properties::as_kept(resources),
        None => Cow::Borrowed(resources),
    });
    let writes = match (resources.as_deref(), layout.kind()) {
        (None, _) => Vec::new(),
        (Some(resources), LayoutKind::V2) => v2::writes(resources, &mut plan.warnings)?,
        (Some(resources), _) => v1::writes(resources, &mut plan.warnings)?,
    };
    let elsewhere = assign(&mut plan.directories, writes)?;
    if let (false, Some(resources)) = (elsewhere.is_empty(), request.resources) {
        plan.unified_writes(resources, &elsewhere)?;
    }
    if request.device_rules {
        plan.devices(request)?;
    }
    Ok(plan)
}

fn refuse_limits_without_cgroup(request: &Request<'_>) -> Result<()> {
    let Some(resources) = request.resources else { return Ok(()) };
    let mut limited = resources.clone();
    // The rules that every bundle carries are no wish for a limit of its own.
    limited.set_devices(None);
    if limited == LinuxResources::default() {
        return Ok(());
    }
    Err(Error::config("linux.resources", "limits need a cgroup, and --cgroup-manager=disabled makes none")
        .hint("drop the limits, or choose the cgroupfs or systemd manager"))
}

fn place(
    layout: &Layout,
    request: &Request<'_>,
    hierarchy: &Hierarchy,
    unit: Option<&UnitPlan>,
) -> Result<Place> {
    let inner = match unit {
        Some(unit) => unit.inner_path().to_owned(),
        None => path::inner(layout.kind(), hierarchy, request.cgroups_path, request.id)?,
    };
    Ok(Place {
        controllers: hierarchy.controllers.clone(),
        mount: hierarchy.mount.clone(),
        path: file::below(&hierarchy.mount, &inner),
        needs: Vec::new(),
        writes: Vec::new(),
    })
}

/// Gives each write to the hierarchy that has its controller. Gives back those whose controller is
/// in no version 1 hierarchy while there is a version 2 one beside them.
fn assign(directories: &mut [Place], writes: Vec<Write>) -> Result<Vec<String>> {
    let mut elsewhere = Vec::new();
    let pure_v2 = directories.iter().all(Place::is_unified);
    let has_unified = directories.iter().any(Place::is_unified);
    for write in writes {
        let holder = directories.iter_mut().find(|place| {
            if pure_v2 { place.is_unified() } else { place.controllers.contains(&write.controller) }
        });
        match holder {
            Some(place) => place.take(write),
            None if has_unified => elsewhere.push(write.controller),
            None => return Err(not_mounted(&write)),
        }
    }
    Ok(elsewhere)
}

fn not_mounted(write: &Write) -> Error {
    Error::new(
        Kind::System,
        format!(
            "cannot set {} to {:?}: the {} controller is not mounted",
            write.file, write.value, write.controller
        ),
    )
    .at(write.place.clone())
    .hint(format!(
        "mount it (mount -t cgroup -o {0} {0} /sys/fs/cgroup/{0}) if the kernel has it, or drop the field",
        write.controller
    ))
}

impl Place {
    fn take(&mut self, write: Write) {
        if self.is_unified() && !write.controller.is_empty() && !self.needs.contains(&write.controller) {
            self.needs.push(write.controller.clone());
        }
        self.writes.push(write);
    }
}

impl Plan {
    /// Hybrid: what no version 1 hierarchy can hold is asked of the unified one.
    fn unified_writes(&mut self, resources: &LinuxResources, controllers: &[String]) -> Result<()> {
        let Some(place) = self.directories.iter_mut().find(|place| place.is_unified()) else { return Ok(()) };
        for controller in controllers {
            if !v2::CONTROLLERS.contains(&controller.as_str()) {
                let write = v1::writes(resources, &mut Vec::new())?
                    .into_iter()
                    .find(|write| write.controller == *controller);
                return write.map_or(Ok(()), |write| Err(not_mounted(&write)));
            }
        }
        for write in v2::writes(resources, &mut Vec::new())? {
            if controllers.contains(&write.controller) {
                place.take(write);
            }
        }
        Ok(())
    }

    fn devices(&mut self, request: &Request<'_>) -> Result<()> {
        let mut rules = devices::spec_rules(request.resources)?;
        rules.extend_from_slice(request.devices);
        let has_controller =
            self.directories.iter().any(|place| place.controllers.iter().any(|c| c == "devices"));
        if !has_controller && self.directories.iter().any(Place::is_unified) {
            self.device_program = Some(rules);
            return Ok(());
        }
        let policy = Policy::of(&rules)?;
        let Some(place) =
            self.directories.iter_mut().find(|place| place.controllers.iter().any(|c| c == "devices"))
        else {
            return Err(Error::new(Kind::System, "the devices controller is not mounted")
                .at("linux.resources.devices")
                .hint(
                    "mount it (mount -t cgroup -o devices devices /sys/fs/cgroup/devices), or drop the rules",
                ));
        };
        if policy == Policy::allow_all() {
            let write = Write::new("devices", "devices.allow", "a", "linux.resources.devices");
            place.writes.push(Write { only_if_existing: true, ..write });
            return Ok(());
        }
        let writes = policy.v1_writes(policy.allow_by_default.then(Policy::allow_all).as_ref());
        for (file, value) in writes {
            place.writes.push(Write::new("devices", file, value, "linux.resources.devices"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(name: &str, own: &str) -> Hierarchy {
        let controllers = name.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mount = if name.is_empty() { "unified" } else { name };
        Hierarchy { controllers, mount: PathBuf::from("/sys/fs/cgroup").join(mount), own: own.to_owned() }
    }

    fn planned(layout: &Layout, resources: &str) -> Result<Plan> {
        let resources: LinuxResources = serde_json::from_str(resources).unwrap();
        plan(
            layout,
            &Request {
                id: "web",
                cgroups_path: None,
                resources: Some(&resources),
                devices: devices::default_rules(),
                annotations: None,
                manager: ManagerChoice::Cgroupfs,
                rootless: false,
                device_rules: true,
                user_systemd: false,
                owner: None,
            },
        )
    }

    #[test]
    fn each_hierarchy_has_its_own_directory_and_its_own_writes() {
        let layout = Layout::given(
            vec![hierarchy("cpu,cpuacct", "/"), hierarchy("memory", "/me"), hierarchy("devices", "/")],
            None,
        );
        let plan = planned(&layout, r#"{"memory":{"limit":4096},"cpu":{"shares":512}}"#).unwrap();
        assert_eq!(plan.directories[0].path, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/web"));
        assert_eq!(plan.directories[1].path, PathBuf::from("/sys/fs/cgroup/memory/me/web"));
        assert_eq!(plan.directories[0].writes[0].file, "cpu.shares");
        assert_eq!(plan.directories[1].writes[0].file, "memory.limit_in_bytes");
    }

    #[test]
    fn a_limit_of_a_controller_that_is_not_mounted_is_an_error_with_its_place() {
        let layout = Layout::given(vec![hierarchy("memory", "/")], None);
        let error = planned(&layout, r#"{"pids":{"limit":9}}"#).unwrap_err();
        assert_eq!(error.place(), Some("linux.resources.pids.limit"));
        let hybrid = Layout::given(vec![hierarchy("memory", "/")], Some(hierarchy("", "/")));
        let error = planned(&hybrid, r#"{"network":{"classID":9}}"#).unwrap_err();
        assert_eq!(error.place(), Some("linux.resources.network.classID"));
    }

    #[test]
    fn in_hybrid_a_controller_of_the_unified_hierarchy_is_used_there() {
        let hybrid = Layout::given(vec![hierarchy("memory,devices", "/")], Some(hierarchy("", "/")));
        let resources = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}],"memory":{"limit":4096}}"#;
        let plan = planned(&hybrid, resources).unwrap();
        assert!(plan.device_program.is_none());
        assert_eq!(plan.directories[1].needs, ["hugetlb"]);
        assert_eq!(plan.directories[1].writes[0].file, "hugetlb.2MB.max");
        assert_eq!(plan.directories[0].writes[0].file, "memory.limit_in_bytes");
    }

    #[test]
    fn without_the_devices_controller_the_unified_hierarchy_has_the_rules() {
        let hybrid = Layout::given(vec![hierarchy("memory", "/")], Some(hierarchy("", "/")));
        assert!(planned(&hybrid, "{}").unwrap().device_program.is_some());
        let v1 = Layout::given(vec![hierarchy("memory", "/")], None);
        assert_eq!(planned(&v1, "{}").unwrap_err().place(), Some("linux.resources.devices"));
    }

    #[test]
    fn limits_with_cgroups_disabled_are_refused() {
        let layout = Layout::given(Vec::new(), Some(hierarchy("", "/")));
        let resources: LinuxResources = serde_json::from_str(r#"{"memory":{"limit":4096}}"#).unwrap();
        let request = Request {
            id: "web",
            cgroups_path: None,
            resources: Some(&resources),
            devices: &[],
            annotations: None,
            manager: ManagerChoice::Disabled,
            rootless: false,
            device_rules: true,
            user_systemd: false,
            owner: None,
        };
        assert_eq!(plan(&layout, &request).unwrap_err().place(), Some("linux.resources"));
    }
}
