//! Bundles: a directory with a root filesystem and a `config.json` that a test edits.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A bundle on disk. It belongs to the scratch directory of the [`Runtime`](crate::Runtime) that made it.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    /// What `config.json` holds; [`Bundle::edit`] changes both.
    pub config: Value,
}

impl Bundle {
    /// Makes a bundle in `path`, which holds the root filesystem `rootfs` already.
    pub fn new(path: PathBuf, config: Value) -> Self {
        let bundle = Self { path, config };
        bundle.write();
        bundle
    }

    /// Takes over a bundle that another tool made.
    pub fn open(path: PathBuf) -> Self {
        let text = fs::read_to_string(path.join("config.json")).expect("the tool wrote a config.json");
        Self { path, config: serde_json::from_str(&text).expect("the tool wrote JSON") }
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root filesystem, or a file in it when `inside` is not empty.
    pub fn rootfs(&self, inside: &str) -> PathBuf {
        self.path.join("rootfs").join(inside.trim_start_matches('/'))
    }

    /// Changes the configuration and writes it.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self.write();
        self
    }

    /// Replaces `config.json` by this text.
    pub fn write_raw(&self, text: &str) {
        fs::write(self.path.join("config.json"), text).expect("writing config.json");
    }

    /// Writes a file into the root filesystem, with its parents.
    pub fn file(&self, inside: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.rootfs(inside);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("making a directory in the rootfs");
        }
        fs::write(&path, text).expect("writing into the rootfs");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod in the rootfs");
        path
    }

    fn write(&self) {
        self.write_raw(&serde_json::to_string_pretty(&self.config).expect("JSON values can be written"));
    }
}

/// The configuration that tests start from: what a fresh bundle of a runtime has, except that the root filesystem is
/// writable and there is no terminal.
pub fn default_config(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "container",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Adds one to a list in a configuration; a list that is missing is made.
pub fn push(config: &mut Value, pointer: &str, item: Value) {
    let list =
        pointer.trim_start_matches('/').split('/').fold(config, |at, key| match key.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            _ => &mut at[key],
        });
    match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

/// Adds a mount.
pub fn add_mount(config: &mut Value, destination: &str, kind: &str, source: &str, options: &[&str]) {
    let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
    push(config, "/mounts", mount);
}

/// Takes a namespace out of the configuration, so that the container shares the runtime's.
pub fn without_namespace(config: &mut Value, kind: &str) {
    if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
        list.retain(|namespace| namespace["type"] != kind);
    }
}

/// Sets the path of a namespace that the configuration lists, or lists it with the path.
pub fn join_namespace(config: &mut Value, kind: &str, path: &str) {
    without_namespace(config, kind);
    push(config, "/linux/namespaces", json!({ "type": kind, "path": path }));
}

/// Gives the process these capabilities in the sets named.
pub fn set_capabilities(config: &mut Value, sets: &[&str], capabilities: &[&str]) {
    for set in sets {
        config["process"]["capabilities"][*set] = json!(capabilities);
    }
}

/// Gives the process these capabilities in the bounding, effective and permitted sets.
pub fn grant(config: &mut Value, capabilities: &[&str]) {
    set_capabilities(config, &["bounding", "effective", "permitted"], capabilities);
}
