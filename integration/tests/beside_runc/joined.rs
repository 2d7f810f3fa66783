//! Namespaces that are joined by path: those of a container, or of a process of the host's.

use std::fs;

use coracle_integration::beside::compare;
use coracle_integration::bundle::{add_mount, grant, join_namespace, push, without_namespace};
use coracle_integration::command::{Running, command};
use coracle_integration::{Checked, Container, Runtime, leftovers, trial_without_runtime};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{BASE, give, look, map, own_pid};

/// What is joined, and how the kernel calls it.
const KINDS: [(&str, &str); 8] = [
    ("user", "user"),
    ("network", "net"),
    ("pid", "pid"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

pub fn tests() -> Vec<Trial> {
    let mut tests: Vec<Trial> = KINDS
        .iter()
        .filter(|(kind, _)| !["user", "mount"].contains(kind))
        .flat_map(|&(kind, _)| {
            [
                trial_without_runtime(format!("joining_{kind}_of_a_container"), move || {
                    join(&[kind], |_| (), |_, _| ())
                }),
                trial_without_runtime(format!("joining_{kind}_of_a_mapped_container"), move || {
                    join(&["user", kind], map, |_, _| ())
                }),
            ]
        })
        .collect();
    tests.extend([
        trial_without_runtime("joining_all_of_a_container", || join(&ALL_BUT_MOUNT[1..], |_| (), |_, _| ())),
        trial_without_runtime("joining_all_of_a_mapped_container", || join(&ALL_BUT_MOUNT, map, |_, _| ())),
        trial_without_runtime("joining_user_of_a_container", || join(&["user"], map, |_, _| ())),
        trial_without_runtime("joining_user_with_its_mappings_given", || {
            join(&["user"], map, |config, _| {
                for list in ["uidMappings", "gidMappings"] {
                    config["linux"][list] = json!([{ "containerID": 0, "hostID": BASE, "size": 65_536 }]);
                }
            })
        }),
        trial_without_runtime("joining_user_with_other_mappings_given", || {
            join(&["user"], map, |config, _| {
                for list in ["uidMappings", "gidMappings"] {
                    config["linux"][list] = json!([{ "containerID": 0, "hostID": BASE, "size": 65_535 }]);
                }
            })
        }),
        trial_without_runtime("joining_user_as_an_ordinary_user", || {
            join(&["user", "network"], map, |config, _| {
                config["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 7] });
            })
        }),
        trial_without_runtime("joining_user_as_one_it_does_not_map", || {
            join(&["user"], map, |config, _| {
                config["process"]["user"] = json!({ "uid": 70_000, "gid": 0 });
            })
        }),
        trial_without_runtime("joining_user_with_a_device_and_a_sysctl", || {
            join(&["user"], map, |config, _| {
                grant(config, &["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_NET_ADMIN"]);
                config["linux"]["devices"] =
                    json!([{ "path": "/dev/full", "type": "c", "major": 1, "minor": 7 }]);
                config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
            })
        }),
        trial_without_runtime("joining_the_hosts_network_from_a_new_user_namespace", || {
            compare(|rt| {
                look(rt, "true", &[], |config| {
                    map(config);
                    join_namespace(config, "network", &format!("/proc/{}/ns/net", own_pid()));
                    bind_sysfs(config);
                })
            })
        }),
        trial_without_runtime("joining_network_of_the_host_from_a_joined_user_namespace", || {
            join(&["user"], map, |config, _| {
                join_namespace(config, "network", &format!("/proc/{}/ns/net", own_pid()));
                bind_sysfs(config);
            })
        }),
        trial_without_runtime("joining_a_mount_namespace", || compare(|rt| join_mounts(rt, false))),
        trial_without_runtime("joining_a_mount_namespace_and_its_users", || {
            compare(|rt| join_mounts(rt, true))
        }),
        trial_without_runtime("joining_a_file_that_is_no_namespace", || {
            join(&[], |_| (), |config, _| join_namespace(config, "network", "/etc/passwd"))
        }),
        trial_without_runtime("joining_a_namespace_of_another_kind", || {
            join(
                &[],
                |_| (),
                |config, donor| {
                    join_namespace(config, "network", &format!("/proc/{}/ns/ipc", donor.pid()));
                },
            )
        }),
        trial_without_runtime("joining_a_path_that_is_not_there", || {
            join(&[], |_| (), |config, _| join_namespace(config, "ipc", "/nowhere/ipc"))
        }),
    ]);
    tests
}

const ALL_BUT_MOUNT: [&str; 7] = ["user", "network", "pid", "ipc", "uts", "cgroup", "time"];

/// Engines give the host's sysfs where the network is the host's.
fn bind_sysfs(config: &mut Value) {
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
    add_mount(config, "/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
}

/// A container joins these namespaces of another one, which has all kinds that are its own by default, and those that
/// `of_donor` adds.
fn join(kinds: &[&str], of_donor: fn(&mut Value), edit: impl Fn(&mut Value, &Container<'_>)) -> Checked {
    compare(|rt| {
        let bundle = rt.sleeper().edit(|config| {
            of_donor(config);
            push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
            push(config, "/linux/namespaces", json!({ "type": "time" }));
            config["linux"]["timeOffsets"] =
                json!({ "boottime": { "secs": 1_000_000 }, "monotonic": { "secs": 5, "nanosecs": 7 } });
            config["hostname"] = json!("donor");
        });
        give(&bundle);
        let donor = rt.container(&bundle);
        donor.up();
        look(
            rt,
            "cut -c1-9 /proc/1/cmdline | tr '\\000' ' '; echo",
            &[("the donor's", donor.pid())],
            |config| {
                for (kind, link) in KINDS.iter().filter(|(kind, _)| kinds.contains(kind)) {
                    join_namespace(config, kind, &format!("/proc/{}/ns/{link}", donor.pid()));
                }
                if kinds.contains(&"uts") {
                    config.as_object_mut().expect("an object").remove("hostname");
                }
                edit(config, &donor);
            },
        )
    })
}

/// A container in a mount namespace that has the host's tree.
fn join_mounts(rt: &Runtime, with_users: bool) -> Vec<String> {
    let mut line = vec!["--mount", "--propagation", "private"];
    if with_users {
        line.push("--user");
    }
    line.extend(["sh", "-c", "echo ready; exec sleep 1000"]);
    let mut holder = command("unshare", &line);
    holder.env(leftovers::MARK, rt.mark());
    let holder = Running::start(holder);
    holder.wait_for_output("ready");
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", holder.pid());
    if with_users {
        let range = format!("0 {BASE} 65536\n");
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", holder.pid()), &range).expect("writing a map");
        }
    }
    let told = look(rt, "true", &[("the holder's", holder.pid())], |config| {
        join_namespace(config, "mount", &path("mnt"));
        if with_users {
            join_namespace(config, "user", &path("user"));
        }
        without_namespace(config, "cgroup");
    });
    holder.signal(rustix::process::Signal::KILL);
    holder.finish();
    told
}
