//! What a bundle with a user namespace, or with a time namespace, gives its process.

use coracle_integration::beside::compare;
use coracle_integration::bundle::{add_mount, grant, push, without_namespace};
use coracle_integration::{Checked, Kind, trial_without_runtime};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{look, map};

type Edit = fn(&mut Value);

/// Each with a user namespace and without; what is asked for at the probe's end.
const BOTH: [(&str, Edit, &str); 13] = [
    ("the_default_bundle", |_| (), "true"),
    (
        "additional_groups",
        |config| config["process"]["user"]["additionalGids"] = json!([0, 5, 7, 1000, 65_535]),
        "id -G",
    ),
    (
        "a_user_with_additional_groups",
        |config| {
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7] });
        },
        "id -G",
    ),
    ("offsets_of_time", time, "cut -d. -f1 /proc/uptime | cut -c1-3"),
    (
        "offsets_of_time_into_the_past",
        |config| {
            push(config, "/linux/namespaces", json!({ "type": "time" }));
            config["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": -3, "nanosecs": 5 } });
        },
        "true",
    ),
    (
        "a_time_namespace_without_offsets",
        |config| push(config, "/linux/namespaces", json!({ "type": "time" })),
        "true",
    ),
    (
        "offsets_without_a_time_namespace",
        |config| {
            config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 5 } });
        },
        "true",
    ),
    (
        "sysctls_of_the_network",
        |config| {
            config["linux"]["sysctl"] =
                json!({ "net.ipv4.ip_forward": "1", "net.ipv4.ping_group_range": "0 1000" });
        },
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range",
    ),
    (
        "devices",
        |config| {
            config["linux"]["devices"] = json!([
                { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 0, "gid": 0 },
                { "path": "/dev/full", "type": "c", "major": 1, "minor": 7 },
            ]);
            // runc forbids the default devices that the bundle lists itself, unless a rule allows them.
            for minor in [5, 7] {
                let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": minor, "access": "rwm" });
                push(config, "/linux/resources/devices", rule);
            }
        },
        "head -c 3 /dev/zero | od -An -tx1; echo x > /dev/full || echo full",
    ),
    (
        "a_cgroup_namespace",
        |config| push(config, "/linux/namespaces", json!({ "type": "cgroup" })),
        "cut -d: -f3 /proc/self/cgroup | sort -u; stat -c '%a %u:%g' /sys/fs/cgroup",
    ),
    (
        "a_cgroup_namespace_to_write_to",
        |config| {
            push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
            writable_cgroups(config);
        },
        OWN_CGROUPS,
    ),
    ("cgroups_to_write_to_in_the_hosts_namespace", writable_cgroups, OWNED_CGROUPS),
    (
        "capabilities_and_a_hostname",
        |config| {
            grant(config, &["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD"]);
            config["process"]["noNewPrivileges"] = json!(false);
        },
        "hostname changed && hostname; mknod /tmp/node c 1 3 || echo refused; ip link set lo down && echo down",
    ),
];

/// Who owns the container's cgroup, and whether one can be made below it.
const OWN_CGROUPS: &str = "cd /sys/fs/cgroup; stat -c '%n %a %u:%g' . cgroup.procs cgroup.subtree_control memory.max pids pids/pids.max; \
    test -d pids && cd pids; mkdir inner && rmdir inner && echo made";

/// The same where it is not the top of what is mounted.
const OWNED_CGROUPS: &str =
    "stat -c '%a %u:%g' /sys/fs/cgroup /sys/fs/cgroup/pids; mkdir /sys/fs/cgroup/no || echo refused";

/// With a user namespace only.
const MAPPED: [(&str, Edit, &str); 12] = [
    (
        "a_group_that_is_not_mapped",
        |config| config["process"]["user"]["additionalGids"] = json!([70_000]),
        "true",
    ),
    (
        "a_user_that_is_not_mapped",
        |config| config["process"]["user"] = json!({ "uid": 70_000, "gid": 0 }),
        "true",
    ),
    (
        "a_device_that_the_host_lacks",
        |config| {
            config["linux"]["devices"] =
                json!([{ "path": "/dev/coracle-none", "type": "c", "major": 1, "minor": 3 }]);
        },
        "true",
    ),
    (
        "a_cgroup_namespace_of_another_user",
        |config| {
            push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
            writable_cgroups(config);
            config["process"]["user"] = json!({ "uid": 7, "gid": 8 });
        },
        OWN_CGROUPS,
    ),
    (
        "a_read_only_cgroup_mount",
        |config| {
            push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
        },
        OWN_CGROUPS,
    ),
    (
        "the_hosts_sysfs_by_bind",
        |config| {
            without_namespace(config, "network");
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
            add_mount(config, "/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        },
        "mkdir /sys/x || echo refused",
    ),
    (
        "the_hosts_proc_by_bind",
        |config| {
            without_namespace(config, "pid");
            config["mounts"][0] =
                json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        },
        "true",
    ),
    (
        "the_hosts_messages",
        |config| {
            without_namespace(config, "ipc");
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["type"] != "mqueue");
        },
        "true",
    ),
    (
        "its_users_alone",
        |config| {
            for kind in ["pid", "network", "ipc", "uts"] {
                without_namespace(config, kind);
            }
            config.as_object_mut().expect("an object").remove("hostname");
            config["mounts"] = json!([
                { "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"] },
            ]);
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        },
        "true",
    ),
    (
        "a_tmpfs_of_a_user",
        |config| {
            add_mount(
                config,
                "/data",
                "tmpfs",
                "tmpfs",
                &["nosuid", "uid=7", "gid=8", "mode=750", "size=64k"],
            );
        },
        "stat -c '%a %u:%g' /data",
    ),
    (
        "one_id_only",
        |config| {
            for list in ["uidMappings", "gidMappings"] {
                config["linux"][list] = json!([{ "containerID": 0, "hostID": crate::BASE, "size": 1 }]);
            }
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            // Group 5 is not mapped.
            mounts.retain(|mount| mount["type"] != "devpts");
        },
        "id -G",
    ),
    (
        "a_limit_and_a_score",
        |config| {
            config["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 100 }]);
            config["process"]["oomScoreAdj"] = json!(200);
        },
        "true",
    ),
];

fn time(config: &mut Value) {
    push(config, "/linux/namespaces", json!({ "type": "time" }));
    config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 123_000_000, "nanosecs": 1 },
        "monotonic": { "secs": 456, "nanosecs": 999_999_999 } });
}

fn writable_cgroups(config: &mut Value) {
    let mount =
        config["mounts"].as_array_mut().and_then(|mounts| mounts.last_mut()).expect("the cgroup mount");
    mount["options"] = json!(["nosuid", "noexec", "nodev"]);
}

pub fn tests() -> Vec<Trial> {
    let trial = |name: String, edit: Edit, more: &'static str, mapped: bool| {
        trial_without_runtime(name, move || case(edit, more, mapped))
    };
    let both = BOTH.iter().flat_map(|&(name, edit, more)| {
        [
            trial(format!("plain_with_{name}"), edit, more, false),
            trial(format!("mapped_with_{name}"), edit, more, true),
        ]
    });
    let mapped =
        MAPPED.iter().map(|&(name, edit, more)| trial(format!("mapped_with_{name}"), edit, more, true));
    let mut tests: Vec<Trial> = both.chain(mapped).collect();
    tests.push(trial_without_runtime("mapped_with_sysctls_of_users", sysctls_of_users));
    tests
}

/// runc takes them for the host's, and refuses them; they are the user namespace's own, and so the container's.
fn sysctls_of_users() -> Checked {
    compare(|rt| {
        let seen = look(rt, "cat /proc/sys/user/max_net_namespaces", &[], |config| {
            map(config);
            config["linux"]["sysctl"] = json!({ "user.max_net_namespaces": "3" });
        });
        let is_right = if rt.kind() == Kind::Coracle {
            seen.contains(&"more: 3".to_owned())
        } else {
            seen == ["it is refused"]
        };
        vec![format!("as expected: {is_right}")]
    })
}

fn case(edit: Edit, more: &'static str, mapped: bool) -> Checked {
    compare(|rt| {
        look(rt, &format!("{{ {more}; }} 2>&1"), &[], |config| {
            if mapped {
                map(config);
            }
            edit(config);
        })
    })
}
