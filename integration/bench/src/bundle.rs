//! The bundles that are measured: what `runc spec` writes, with changes, on a root filesystem that holds
//! Debian's static busybox.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_integration::seccomp::engines_default;
use serde_json::{Value, json};

use crate::target::{self, Targets};

/// A kind of bundle. To add one, add it to [`KINDS`].
pub struct Kind {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// What it changes in the configuration of `runc spec`; an error says what this machine lacks for it.
    pub edit: fn(&mut Value) -> Result<(), String>,
    /// The floor's options for the same work; nothing when the floor can't do it.
    pub floor: Option<&'static [&'static str]>,
    /// What is asked of the subject with it.
    pub targets: &'static Targets,
}

/// All kinds, the default one first.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "default",
        about: "runc spec, as it is on this host",
        edit: |_| Ok(()),
        floor: Some(&[]),
        targets: &target::PLAIN,
    },
    Kind {
        name: "docker-like",
        about: "as engines write it: their seccomp profile and capabilities, all namespaces, masks, limits",
        edit: docker_like,
        floor: None,
        targets: &target::OF_ENGINES,
    },
    Kind {
        name: "cgroup-namespace",
        about: "the same with a cgroup namespace, which runc spec adds on cgroup version 2",
        edit: |config| {
            if let Some(Value::Array(namespaces)) = config.pointer_mut("/linux/namespaces")
                && !namespaces.iter().any(|n| n["type"] == "cgroup")
            {
                namespaces.push(json!({"type": "cgroup"}));
            }
            Ok(())
        },
        floor: Some(&["--cgroup-namespace"]),
        targets: &target::NONE,
    },
    Kind {
        name: "userns",
        about: "the same with a user namespace: 65536 ids from 200000 on, and a bind mount",
        edit: user_namespace,
        floor: None,
        targets: &target::NONE,
    },
];

/// A user namespace, and a volume, whose source the runtime must open for it. The image is root's, as engines have it that
/// map the ids of its mount.
fn user_namespace(config: &mut Value) -> Result<(), String> {
    let lists = [
        ("/linux/namespaces", json!({ "type": "user" })),
        (
            "/mounts",
            json!({
                "destination": "/tmp", "type": "bind", "source": "rootfs/tmp", "options": ["rbind", "ro"]
            }),
        ),
    ];
    for (pointer, item) in lists {
        let list = config.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.ok_or_else(|| format!("the configuration has no list {pointer}"))?.push(item);
    }
    for list in ["uidMappings", "gidMappings"] {
        config["linux"][list] = json!([{ "containerID": 0, "hostID": 200_000, "size": 65_536 }]);
    }
    Ok(())
}

/// The capabilities that engines give by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What an engine adds for a container with usual limits.
fn docker_like(config: &mut Value) -> Result<(), String> {
    config["linux"]["seccomp"] = engines_default(&CAPABILITIES)?;
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(CAPABILITIES);
    }
    config["process"]["noNewPrivileges"] = json!(false);
    config["process"]["oomScoreAdj"] = json!(500);
    config["linux"]["namespaces"] = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
        .map(|kind| json!({ "type": kind }))
        .to_vec()
        .into();
    config["linux"]["maskedPaths"] = json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]);
    config["linux"]["readonlyPaths"] =
        json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    config["linux"]["resources"] = json!({
        "devices": [
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm" },
            { "allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm" },
        ],
        "memory": { "limit": 512 << 20, "swap": 1024 << 20 },
        "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 },
        "pids": { "limit": 512 },
    });
    Ok(())
}

/// The two bundles of a kind: one process ends at once, the other stays.
pub struct Bundles {
    /// Runs `true`.
    pub short: PathBuf,
    /// Runs `sleep`.
    pub long: PathBuf,
}

/// Makes both bundles of a kind below `folder`.
pub fn make(kind: &Kind, folder: &Path, runc: &Path, busybox: &Path) -> Result<Bundles, String> {
    let one = |name: &str, args: Value| -> Result<PathBuf, String> {
        let bundle = folder.join(kind.name).join(name);
        root_filesystem(&bundle.join("rootfs"), busybox)
            .map_err(|e| format!("make the root filesystem of {}: {e}", bundle.display()))?;
        let output = Command::new(runc)
            .args(["spec", "--bundle"])
            .arg(&bundle)
            .output()
            .map_err(|e| format!("start {}: {e}", runc.display()))?;
        if !output.status.success() {
            return Err(format!("{} spec: {}", runc.display(), String::from_utf8_lossy(&output.stderr)));
        }
        let path = bundle.join("config.json");
        let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let mut config: Value =
            serde_json::from_slice(&fs::read(&path).map_err(|e| told(&e))?).map_err(|e| told(&e))?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = args;
        (kind.edit)(&mut config).map_err(|e| format!("bundle {}: {e}", kind.name))?;
        let pretty = serde_json::to_vec_pretty(&config).map_err(|e| told(&e))?;
        fs::write(&path, pretty).map_err(|e| told(&e))?;
        Ok(bundle)
    };
    Ok(Bundles { short: one("short", json!(["true"]))?, long: one("long", json!(["sleep", "3600"]))? })
}

/// busybox with a few of its names, and the mount points, so that nobody has to make them.
fn root_filesystem(rootfs: &Path, busybox: &Path) -> std::io::Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(directory))?;
    }
    fs::copy(busybox, rootfs.join("bin/busybox"))?;
    fs::set_permissions(rootfs.join("bin/busybox"), fs::Permissions::from_mode(0o755))?;
    for name in ["sh", "true", "sleep", "cat"] {
        symlink("busybox", rootfs.join("bin").join(name))?;
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(rootfs.join("etc/group"), "root:x:0:\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_namespace_is_added_once() {
        let kind = KINDS.iter().find(|k| k.name == "cgroup-namespace").map(|k| k.edit);
        let mut config = json!({"linux": {"namespaces": [{"type": "pid"}]}});
        for _ in 0..2 {
            if let Some(edit) = kind {
                edit(&mut config).unwrap();
            }
        }
        assert_eq!(config["linux"]["namespaces"], json!([{"type": "pid"}, {"type": "cgroup"}]));
    }
}
