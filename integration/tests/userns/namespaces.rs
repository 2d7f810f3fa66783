//! User namespaces beside the others: made, joined, refused.

use std::fs;

use coracle_integration::bundle::{grant, join_namespace, push, without_namespace};
use coracle_integration::command::{Running, command};
use coracle_integration::{Checked, Runtime, host, tests};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::common::{BASE, COUNT, script, sh, sleeper};

pub fn tests() -> Vec<Trial> {
    tests![
        namespaces_belong_to_the_user_namespace,
        a_user_namespace_can_be_joined,
        mappings_beside_a_path_are_those_of_the_namespace,
        an_id_that_a_joined_namespace_does_not_map_is_told,
        a_hosts_network_can_be_joined_from_a_new_user_namespace,
        a_time_namespace_works_inside,
        user_sysctls_can_be_set,
        a_hook_that_enters_the_mount_namespace_finds_the_hosts_tree,
        magic_links_of_a_joined_mount_namespace_lead_nowhere,
        wrong_mappings_are_refused_with_their_place,
        without_a_mount_namespace_it_is_refused,
        features_tell_of_user_namespaces_and_id_maps,
    ]
}

fn namespaces_belong_to_the_user_namespace(rt: &Runtime) {
    // Each of these needs power over its namespace, which root inside has only when they belong together.
    let text = "hostname inside; ip link set lo down && ip link set lo up; mount -t tmpfs none /tmp; echo $?";
    let seen = sh(rt, text, |config| grant(config, &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"])).ok();
    assert_eq!(seen.out(), "0", "{seen}");
}

fn a_user_namespace_can_be_joined(rt: &Runtime) {
    let donor = sleeper(rt, |_| ());
    let path = |link: &str| format!("/proc/{}/ns/{link}", donor.pid());
    let seen = sh(
        rt,
        "readlink /proc/self/ns/user; readlink /proc/self/ns/net; id -u; hostname mine; echo $?",
        |config| {
            let linux = config["linux"].as_object_mut().expect("an object");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
            grant(config, &["CAP_SYS_ADMIN"]);
            join_namespace(config, "user", &path("user"));
            join_namespace(config, "network", &path("net"));
            join_namespace(config, "ipc", &path("ipc"));
        },
    )
    .ok();
    let of_donor = |link| host::namespace_of(donor.pid(), link).expect("the donor's namespace");
    assert_eq!(seen.lines(), [&of_donor("user"), &of_donor("net"), "0", "0"], "{seen}");
}

/// Engines give both.
fn mappings_beside_a_path_are_those_of_the_namespace(rt: &Runtime) -> Checked {
    rt.coracle_only("runc compares them since 1.2")?;
    let donor = sleeper(rt, |_| ());
    let joins = |size: u32| {
        sh(rt, "id -u", |config| {
            join_namespace(config, "user", &format!("/proc/{}/ns/user", donor.pid()));
            for list in ["uidMappings", "gidMappings"] {
                config["linux"][list] = json!([{ "containerID": 0, "hostID": BASE, "size": size }]);
            }
        })
    };
    let same = joins(COUNT).ok();
    assert_eq!(same.out(), "0");
    assert!(same.stderr.contains("both namespace path and mapping specified"), "{same}");
    joins(COUNT - 1)
        .fails_with("both namespace path and non-matching mapping specified")
        .fails_with("linux.uidMappings");
    Ok(())
}

fn an_id_that_a_joined_namespace_does_not_map_is_told(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let donor = sleeper(rt, |_| ());
    sh(rt, "true", |config| {
        let linux = config["linux"].as_object_mut().expect("an object");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        join_namespace(config, "user", &format!("/proc/{}/ns/user", donor.pid()));
        config["process"]["user"] = json!({ "uid": 7, "gid": COUNT });
    })
    .fails_with("process.user")
    .fails_with("group 65536 is not mapped");
    let seen = donor.exec_with(&["--user", "70000:0"], &["true"]).fails_with("user 70000 is not mapped");
    assert!(!seen.stderr.contains("config.json"), "{seen}");
    Ok(())
}

fn a_hosts_network_can_be_joined_from_a_new_user_namespace(rt: &Runtime) {
    let own = format!("/proc/{}/ns/net", std::process::id());
    let seen = sh(rt, "readlink /proc/self/ns/net", |config| {
        join_namespace(config, "network", &own);
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
    })
    .ok();
    assert_eq!(Some(seen.out().to_owned()), host::namespace_of(std::process::id() as i32, "net"));
}

fn a_time_namespace_works_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has time namespaces since 1.2")?;
    let seen = sh(rt, "cut -d. -f1 /proc/uptime", |config| {
        push(config, "/linux/namespaces", json!({ "type": "time" }));
        config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 10_000_000, "nanosecs": 0 } });
    })
    .ok();
    assert!(seen.out().parse::<u64>().is_ok_and(|seconds| seconds > 10_000_000), "{seen}");
    Ok(())
}

fn user_sysctls_can_be_set(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 knows no sysctls of user namespaces")?;
    let seen = sh(rt, "cat /proc/sys/user/max_net_namespaces", |config| {
        config["linux"]["sysctl"] = json!({ "user.max_net_namespaces": "3" });
    });
    assert_eq!(seen.ok().out(), "3");
    Ok(())
}

/// And runs the host's programs, not the image's.
fn a_hook_that_enters_the_mount_namespace_finds_the_hosts_tree(rt: &Runtime) {
    let mark = rt.own("mark");
    fs::write(&mark, "of the host\n").expect("writing a file");
    let log = rt.own("log");
    let bundle = script(rt, "true", |config| {
        for point in ["prestart", "createRuntime"] {
            let look = format!(
                "pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'); nsenter -t $pid -m /bin/busybox cat {} >> {}",
                mark.display(),
                log.display()
            );
            config["hooks"][point] = json!([{ "path": "/bin/busybox", "args": ["sh", "-c", look] }]);
        }
    });
    rt.container(&bundle).run().ok();
    assert_eq!(fs::read_to_string(log).expect("the log"), "of the host\n".repeat(2));
}

fn wrong_mappings_are_refused_with_their_place(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let with = |lists: Value| {
        let bundle = rt.script("true").edit(|config| {
            push(config, "/linux/namespaces", json!({ "type": "user" }));
            config["linux"]["uidMappings"] = lists;
            config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": BASE, "size": COUNT }]);
        });
        rt.container(&bundle).run()
    };
    with(json!([])).fails_with("linux.uidMappings");
    with(json!([{ "containerID": 1, "hostID": BASE, "size": 9 }])).fails_with("linux.uidMappings");
    with(json!([{ "containerID": 0, "hostID": BASE, "size": 9 }, { "containerID": 5, "hostID": 1, "size": 1 }]))
        .fails_with("linux.uidMappings[1].containerID");
    with(json!([{ "containerID": 0, "hostID": BASE, "size": 0 }])).fails_with("linux.uidMappings[0].size");
    let ranges = (0..330).map(|n| json!({ "containerID": n * 10, "hostID": BASE + n * 10, "size": 5 }));
    with(ranges.collect()).fails_with("linux.uidMappings").fails_with("the kernel takes less than 4096");
    Ok(())
}

fn without_a_mount_namespace_it_is_refused(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    sh(rt, "true", |config| {
        without_namespace(config, "mount");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    })
    .fails_with("linux.namespaces");
    Ok(())
}

fn features_tell_of_user_namespaces_and_id_maps(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has features since 1.1, and these since 1.2")?;
    let features: Value = serde_json::from_str(&rt.call(&["features"]).ok().stdout).expect("JSON");
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], json!(true));
    let namespaces = features["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
    assert!(namespaces.contains(&json!("user")), "{features}");
    Ok(())
}

/// Whoever made the namespace may have put anything there; the runtime opens sources with the host's power.
fn magic_links_of_a_joined_mount_namespace_lead_nowhere(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let line = ["--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; exec sleep 1000"];
    let donor = Running::start(command("unshare", &line));
    donor.wait_for_output("ready");
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", donor.pid());
    for source in ["/proc/self/root", "/proc/self/cwd"] {
        let seen = sh(rt, "true", |config| {
            let linux = config["linux"].as_object_mut().expect("an object");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
            join_namespace(config, "user", &path("user"));
            join_namespace(config, "mount", &path("mnt"));
            config["mounts"] =
                json!([{ "destination": "/mnt", "type": "bind", "source": source, "options": ["rbind"] }]);
        });
        seen.fails_with("mounts[0]").fails_with("magic link");
    }
    donor.signal(rustix::process::Signal::KILL);
    donor.finish();
    Ok(())
}
