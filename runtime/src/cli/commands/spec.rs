//! `coracle spec`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::{Arguments, Subcommand};
use crate::cli::globals::Context;
use crate::cli::options::{any_path, directory};
use crate::cli::output;
use crate::error::{Doing, Error, Kind, Result};
use crate::version::SPEC_VERSION;

/// The flags of `spec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Spec {
    /// The directory to write config.json in
    #[arg(long, short, value_name = "DIR", default_value = ".", value_parser = any_path())]
    bundle: PathBuf,

    /// Write one for a container that this user can run without being root
    #[arg(long)]
    rootless: bool,
}

impl Subcommand for Spec {
    const NAME: &'static str = "spec";
    const ABOUT: &'static str = "Write a config.json to start from";
    const DETAILS: &'static str = "It runs `sh` on the terminal, with the root filesystem in the folder `rootfs`; \
        edit it to taste. A file that is there already is left alone.";
    const ARGUMENTS: Arguments = Arguments::Exactly(0);

    fn run(self, _: &Context) -> Result<i32> {
        let owner =
            self.rootless.then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        let text = output::pretty(&Config::starter(owner, is_unified()), "\t")?;
        let path = directory(self.bundle).join("config.json");
        let doing = || format!("write {}", path.display());
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::new(Kind::Exists, "File config.json exists. Remove it first"));
            }
            other => other.doing(doing)?,
        };
        file.write_all(text.as_bytes()).doing(doing)?;
        Ok(0)
    }
}

/// Whether this host has cgroup v2 alone: a container then needs a cgroup namespace to see only its own.
fn is_unified() -> bool {
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.f_type == libc::CGROUP2_SUPER_MAGIC)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    oci_version: &'static str,
    process: Process,
    root: Root,
    hostname: &'static str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: User,
    args: [&'static str; 1],
    env: [&'static str; 2],
    cwd: &'static str,
    capabilities: Capabilities,
    rlimits: [Rlimit; 1],
    no_new_privileges: bool,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Serialize)]
struct Capabilities {
    bounding: [&'static str; 3],
    effective: [&'static str; 3],
    permitted: [&'static str; 3],
}

#[derive(Serialize)]
struct Rlimit {
    r#type: &'static str,
    hard: u64,
    soft: u64,
}

#[derive(Serialize)]
struct Root {
    path: &'static str,
    readonly: bool,
}

#[derive(Serialize)]
struct Mount {
    destination: &'static str,
    r#type: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    options: &'static [&'static str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    namespaces: Vec<Namespace>,
    masked_paths: &'static [&'static str],
    readonly_paths: &'static [&'static str],
}

#[derive(Serialize)]
struct IdMapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
    size: u32,
}

#[derive(Serialize)]
struct Resources {
    devices: [DeviceRule; 1],
}

#[derive(Serialize)]
struct DeviceRule {
    allow: bool,
    access: &'static str,
}

#[derive(Serialize)]
struct Namespace {
    r#type: &'static str,
}

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// What of procfs and sysfs tells of the host, or lets it be changed.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Config {
    /// A config like that of `runc spec`; for a user and group without privileges when `owner` names them.
    fn starter(owner: Option<(u32, u32)>, unified: bool) -> Self {
        Self {
            oci_version: SPEC_VERSION,
            process: Process {
                terminal: true,
                user: User { uid: 0, gid: 0 },
                args: ["sh"],
                env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
                cwd: "/",
                capabilities: Capabilities {
                    bounding: CAPABILITIES,
                    effective: CAPABILITIES,
                    permitted: CAPABILITIES,
                },
                rlimits: [Rlimit { r#type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
                no_new_privileges: true,
            },
            root: Root { path: "rootfs", readonly: true },
            hostname: "coracle",
            mounts: mounts(owner.is_some()),
            linux: linux(owner, unified),
        }
    }
}

fn mounts(rootless: bool) -> Vec<Mount> {
    let mount = |destination, r#type, source, options| Mount { destination, r#type, source, options };
    // Group 5 has no mapping where one user is mapped, and sysfs can be mounted only by who owns the network namespace.
    let (pts, sys): (&[_], _) = if rootless {
        (
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
        )
    } else {
        (
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        )
    };
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", pts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn linux(owner: Option<(u32, u32)>, unified: bool) -> Linux {
    let mapping = |host| IdMapping { container: 0, host, size: 1 };
    let mut namespaces = vec!["pid"];
    if owner.is_none() {
        namespaces.push("network");
    }
    namespaces.extend(["ipc", "uts", "mount"]);
    if unified {
        namespaces.push("cgroup");
    }
    if owner.is_some() {
        namespaces.push("user");
    }
    Linux {
        uid_mappings: owner.iter().map(|(uid, _)| mapping(*uid)).collect(),
        gid_mappings: owner.iter().map(|(_, gid)| mapping(*gid)).collect(),
        resources: owner
            .is_none()
            .then_some(Resources { devices: [DeviceRule { allow: false, access: "rwm" }] }),
        namespaces: namespaces.into_iter().map(|r#type| Namespace { r#type }).collect(),
        masked_paths: &MASKED,
        readonly_paths: &READONLY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(owner: Option<(u32, u32)>, unified: bool) -> oci_spec::runtime::Spec {
        let text = output::pretty(&Config::starter(owner, unified), "\t").unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn namespaces(spec: &oci_spec::runtime::Spec) -> Vec<String> {
        let json = serde_json::to_value(spec.linux()).unwrap();
        let namespaces = json["namespaces"].as_array().unwrap();
        namespaces.iter().map(|namespace| namespace["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_starter_is_a_valid_configuration_for_root() {
        let spec = spec(None, false);
        assert_eq!(spec.version(), SPEC_VERSION);
        assert_eq!(namespaces(&spec), ["pid", "network", "ipc", "uts", "mount"]);
        assert!(spec.linux().as_ref().unwrap().uid_mappings().is_none());
    }

    #[test]
    fn the_rootless_starter_maps_root_to_the_user() {
        let spec = spec(Some((1000, 100)), true);
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 1000);
        assert_eq!(linux.gid_mappings().as_ref().unwrap()[0].host_id(), 100);
        assert!(linux.resources().is_none());
        assert_eq!(namespaces(&spec), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
    }

    #[test]
    fn it_is_indented_with_tabs() {
        let text = output::pretty(&Config::starter(None, false), "\t").unwrap();
        assert!(
            text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,")
        );
        assert!(text.ends_with("\n\t}\n}"));
    }
}
