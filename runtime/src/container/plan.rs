//! `plan`: what a bundle would do on this host.

use std::path::Path;

use super::host;
use super::inherited::listen_fds;
use super::options::Settings;
use crate::bundle::Bundle;
use crate::cgroup::Layout;
use crate::error::{Error, Kind, Result};
use crate::plan::process::Streams;
use crate::plan::{self, Options, Plan};

/// A plan as it is shown.
#[derive(Debug, Clone)]
pub struct PlanView {
    /// For programs.
    pub json: serde_json::Value,
    /// For people.
    pub text: String,
}

/// Plans the bundle in a directory and shows the plan.
pub fn plan(bundle: &Path, config: &str, settings: &Settings) -> Result<PlanView> {
    let bundle = Bundle::load(bundle, config)?;
    let id = bundle.dir.file_name().and_then(|name| name.to_str()).unwrap_or("container").to_owned();
    let options = Options {
        no_pivot: false,
        no_new_keyring: false,
        keep: 3,
        listen_fds: listen_fds(),
        notify: None,
        gate: true,
        streams: Streams::Handed,
        manager: settings.manager,
        rootless: settings.is_rootless(),
        device_rules: settings.has_device_rules(),
        user_systemd: settings.has_user_systemd(),
        learn: None,
    };
    let plan = plan::create(&id, &bundle, &Layout::detect()?, &host::bundle_facts(&bundle)?, &options)?;
    let json = serde_json::to_value(&plan)
        .map_err(|error| Error::new(Kind::System, format!("write the plan: {error}")))?;
    Ok(PlanView { json, text: text(&plan) })
}

fn text(plan: &Plan) -> String {
    let mut lines = vec![format!("container {}", plan.id), String::new()];
    for warning in &plan.warnings {
        lines.push(format!("warning: {warning}"));
    }
    lines.push("on the host".to_owned());
    for directory in &plan.cgroup.directories {
        lines.push(format!("  make the cgroup {}", directory.path.display()));
        for write in &directory.writes {
            lines.push(line(&format!("  write {:?} to {}", write.value, write.file), &write.place));
        }
    }
    let namespaces = &plan.namespaces;
    if let Some(path) = &namespaces.pid_path {
        lines.push(format!("  enter the pid namespace {}", path.display()));
    }
    if let Some(offsets) = &namespaces.time_offsets {
        lines.push(line(
            &format!("  make a time namespace with the offsets {offsets:?}"),
            "linux.timeOffsets",
        ));
    }
    if let Some(rdt) = &plan.rdt {
        let class = rdt.class.as_deref().unwrap_or("/");
        lines.push(line(&format!("  use the class of service {class}"), "linux.intelRdt"));
        for setting in rdt.settings() {
            lines.push(line(&format!("  set {} in it", setting.text), &setting.place));
        }
    }
    for device in &plan.net_devices {
        let what = format!("  move the network device {} in as {}", device.on_host, device.inside);
        lines.push(line(&what, &device.place));
    }
    lines.push(line(
        &format!("  clone with new namespaces: {}", namespaces.new.join(", ")),
        "linux.namespaces",
    ));
    lines.push(String::new());
    lines.push("in the container's first process".to_owned());
    for step in &plan.steps {
        lines.push(line(&format!("  {step}"), &step.place));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What is done, and behind it the place in config.json that asks for it.
fn line(what: &str, place: &str) -> String {
    const COLUMN: usize = 72;
    if place.is_empty() { what.to_owned() } else { format!("{what:<COLUMN$}  {place}") }
}
