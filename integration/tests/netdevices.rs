//! Network devices that move into a container. Every test has a network namespace of its own, in which the runtime runs.

use std::path::Path;
use std::process::ExitCode;

use coracle_integration::bundle::{join_namespace, push, without_namespace};
use coracle_integration::command::{Finished, command, run};
use coracle_integration::{Checked, Runtime, host, skip, tests};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_device_keeps_its_name_addresses_mtu_and_hardware_address,
        only_permanent_global_addresses_move,
        a_device_gets_the_name_that_is_asked_for,
        a_template_gives_the_first_free_name,
        several_devices_move,
        a_device_moves_into_a_user_namespace,
        a_device_stays_in_a_joined_namespace,
        a_device_is_gone_with_its_namespace,
        hooks_find_the_device_in_its_place,
        a_missing_device_is_told,
        a_name_that_is_taken_inside_is_told,
        loopback_cannot_be_moved,
        the_runtimes_own_namespace_is_refused,
        without_a_network_namespace_it_is_refused,
        devices_come_back_as_they_were_when_create_fails,
        the_plan_tells_of_devices,
        features_tell_of_devices,
    ])
}

/// A fresh network namespace for this test's thread, and so for what it executes, with a veth pair.
fn own_network(rt: &Runtime) -> Checked {
    rt.coracle_only("runc moves devices since 1.4")?;
    if !host::has_program("ip") {
        return skip("no ip here (package iproute2)");
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link add va type veth peer name vb");
    Ok(())
}

#[track_caller]
fn ip(line: &str) -> Finished {
    run(command("ip", &line.split(' ').collect::<Vec<_>>())).ok()
}

/// Words of `ip link` and `ip address` on a device, inside and outside.
fn shown(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The word after another one.
fn after<'w>(words: &'w [String], word: &str) -> Vec<&'w str> {
    words.windows(2).filter(|pair| pair[0] == word).map(|pair| pair[1].as_str()).collect()
}

fn devices(config: &mut Value, devices: Value) {
    config["linux"]["netDevices"] = devices;
}

fn a_device_keeps_its_name_addresses_mtu_and_hardware_address(rt: &Runtime) -> Checked {
    own_network(rt)?;
    ip("link set va mtu 1400 address 02:00:00:00:00:07 up");
    ip("address add 192.0.2.1/24 broadcast 192.0.2.255 dev va");
    ip("address add 198.51.100.7/32 dev va label va:x");
    ip("address add 2001:db8::1/64 dev va nodad");
    let seen = rt.sh("ip address show dev va", |config| devices(config, json!({ "va": {} }))).ok();
    let words = shown(&seen.stdout);
    assert_eq!(after(&words, "mtu"), ["1400"], "{seen}");
    assert_eq!(after(&words, "link/ether"), ["02:00:00:00:00:07"], "{seen}");
    assert_eq!(after(&words, "inet"), ["192.0.2.1/24", "198.51.100.7/32"], "{seen}");
    assert!(after(&words, "brd").contains(&"192.0.2.255"), "{seen}");
    assert!(words.contains(&"va:x".to_owned()), "{seen}");
    assert!(after(&words, "inet6").contains(&"2001:db8::1/64"), "{seen}");
    assert!(seen.stdout.contains(",UP"), "{seen}");
    Ok(())
}

fn only_permanent_global_addresses_move(rt: &Runtime) -> Checked {
    own_network(rt)?;
    ip("address add 192.0.2.1/24 dev va");
    ip("address add 192.0.2.2/24 dev va valid_lft 1000 preferred_lft 1000");
    ip("address add 203.0.113.3/32 dev va scope link");
    let seen = rt.sh("ip address show dev va", |config| devices(config, json!({ "va": {} }))).ok();
    assert_eq!(after(&shown(&seen.stdout), "inet"), ["192.0.2.1/24"], "{seen}");
    Ok(())
}

fn a_device_gets_the_name_that_is_asked_for(rt: &Runtime) -> Checked {
    own_network(rt)?;
    ip("address add 192.0.2.1/24 dev va label va:x");
    let seen = rt
        .sh("ip address show dev net0; ls /sys/class/net", |config| {
            devices(config, json!({ "va": { "name": "net0" } }));
        })
        .ok();
    let words = shown(&seen.stdout);
    assert_eq!(after(&words, "inet"), ["192.0.2.1/24"], "{seen}");
    assert!(words.contains(&"net0:x".to_owned()), "{seen}");
    assert!(words.contains(&"net0".to_owned()) && !words.contains(&"va".to_owned()), "{seen}");
    Ok(())
}

fn a_template_gives_the_first_free_name(rt: &Runtime) -> Checked {
    own_network(rt)?;
    ip("link add wa type veth peer name wb");
    let seen = rt
        .sh("ls /sys/class/net", |config| {
            devices(config, json!({ "va": { "name": "eth%d" }, "wa": { "name": "eth%d" } }));
        })
        .ok();
    assert_eq!(seen.lines(), ["eth0", "eth1", "lo"]);
    Ok(())
}

fn several_devices_move(rt: &Runtime) -> Checked {
    own_network(rt)?;
    ip("link delete va");
    ip("link add va address 02:00:00:00:00:0a type veth peer name vb address 02:00:00:00:00:0b");
    // Each takes the name that the other one has on the host.
    let seen = rt.sh("cat /sys/class/net/va/address", |config| {
        devices(config, json!({ "va": { "name": "vb" }, "vb": { "name": "va" } }));
    });
    assert_eq!(seen.ok().out(), "02:00:00:00:00:0b");
    Ok(())
}

fn a_device_moves_into_a_user_namespace(rt: &Runtime) -> Checked {
    own_network(rt)?;
    ip("address add 192.0.2.1/24 dev va");
    let seen = rt
        .sh("ip address show dev va", |config| {
            push(config, "/linux/namespaces", json!({ "type": "user" }));
            for list in ["uidMappings", "gidMappings"] {
                config["linux"][list] = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
            }
            devices(config, json!({ "va": {} }));
        })
        .ok();
    assert_eq!(after(&shown(&seen.stdout), "inet"), ["192.0.2.1/24"], "{seen}");
    Ok(())
}

fn a_device_stays_in_a_joined_namespace(rt: &Runtime) -> Checked {
    own_network(rt)?;
    ip("address add 192.0.2.1/24 dev va");
    let donor = rt.container(&rt.sleeper());
    donor.up();
    let path = format!("/proc/{}/ns/net", donor.pid());
    rt.sh("ip address show dev va | grep -q 192.0.2.1", |config| {
        join_namespace(config, "network", &path);
        devices(config, json!({ "va": {} }));
    })
    .ok();
    donor.exec(&["sh", "-c", "ip address show dev va | grep -q 192.0.2.1"]).ok();
    Ok(())
}

fn a_device_is_gone_with_its_namespace(rt: &Runtime) -> Checked {
    own_network(rt)?;
    let c = rt.container(&rt.sleeper().edit(|config| devices(config, json!({ "va": {} }))));
    c.up();
    ip("link show vb");
    c.call("delete", &["--force"]).ok();
    // The kernel does it, some time after the last process has ended.
    assert!(coracle_integration::command::eventually(|| {
        !run(command("ip", &["link", "show", "vb"])).status.success()
    }));
    Ok(())
}

fn hooks_find_the_device_in_its_place(rt: &Runtime) -> Checked {
    own_network(rt)?;
    let out = rt.scratch("hook");
    let line = format!("cat >/dev/null; ip link show va >{} 2>&1; true", out.display());
    rt.sh("ip link show va", |config| {
        devices(config, json!({ "va": {} }));
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] });
        config["hooks"] = json!({ "createRuntime": [hook] });
    })
    .ok();
    let seen = std::fs::read_to_string(out).expect("what the hook saw");
    assert!(seen.contains("does not exist"), "{seen}");
    Ok(())
}

fn a_missing_device_is_told(rt: &Runtime) -> Checked {
    own_network(rt)?;
    rt.sh("true", |config| devices(config, json!({ "nothing0": {} })))
        .fails_with("linux.netDevices.nothing0")
        .fails_with("there is no network device")
        .fails_with("in the runtime's network namespace");
    Ok(())
}

fn a_name_that_is_taken_inside_is_told(rt: &Runtime) -> Checked {
    own_network(rt)?;
    rt.sh("true", |config| devices(config, json!({ "va": { "name": "lo" } })))
        .fails_with("linux.netDevices.va")
        .fails_with("the container's network namespace has a device");
    ip("link show va");
    Ok(())
}

fn loopback_cannot_be_moved(rt: &Runtime) -> Checked {
    own_network(rt)?;
    rt.sh("true", |config| devices(config, json!({ "lo": { "name": "lo9" } })))
        .fails_with("linux.netDevices.lo")
        .fails_with("move the network device");
    ip("link show lo");
    Ok(())
}

fn the_runtimes_own_namespace_is_refused(rt: &Runtime) -> Checked {
    own_network(rt)?;
    rt.sh("true", |config| {
        // The runtime is executed by this thread.
        let own = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
        join_namespace(config, "network", &own);
        config["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["type"] != "sysfs");
        devices(config, json!({ "va": { "name": "vc" } }));
    })
    .fails_with("linux.netDevices")
    .fails_with("is the runtime's own");
    ip("link show va");
    Ok(())
}

fn without_a_network_namespace_it_is_refused(rt: &Runtime) -> Checked {
    own_network(rt)?;
    rt.sh("true", |config| {
        without_namespace(config, "network");
        devices(config, json!({ "va": {} }));
    })
    .fails_with("linux.netDevices")
    .fails_with("without a private NET namespace");
    Ok(())
}

fn devices_come_back_as_they_were_when_create_fails(rt: &Runtime) -> Checked {
    own_network(rt)?;
    ip("link set va mtu 1400 up");
    ip("address add 192.0.2.1/24 dev va label va:x");
    ip("link add wa type veth peer name wb");
    let check = |what: &str| {
        let words = shown(&ip("address show dev va").stdout);
        assert_eq!(after(&words, "inet"), ["192.0.2.1/24"], "{what}: {words:?}");
        assert_eq!(after(&words, "mtu"), ["1400"], "{what}");
        assert!(words.contains(&"va:x".to_owned()), "{what}: {words:?}");
        assert!(words.iter().any(|word| word.contains(",UP")), "{what}: {words:?}");
        assert!(!ip("link show wa").stdout.contains(",UP"), "{what}: wa was down");
    };
    // The last of them can't be moved.
    rt.sh("true", |config| {
        devices(config, json!({ "va": { "name": "eth0" }, "wa": {}, "zz": {} }));
    })
    .fails_with("zz");
    check("a device is missing");
    rt.sh("true", |config| {
        devices(config, json!({ "va": { "name": "eth0" }, "wa": {} }));
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    })
    .fails_with("createRuntime");
    check("a hook fails");
    rt.sh("true", |config| {
        devices(config, json!({ "va": { "name": "eth0" }, "wa": {} }));
        config["process"]["args"] = json!(["/nowhere"]);
    })
    .fails_with("/nowhere");
    check("the program is missing");
    Ok(())
}

fn the_plan_tells_of_devices(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has no plan")?;
    let bundle = rt.script("true").edit(|config| devices(config, json!({ "va": { "name": "eth0" } })));
    let path: &Path = bundle.path();
    let seen = rt.call(&["plan", "--bundle", &path.to_string_lossy()]).ok();
    assert!(seen.stdout.contains("move the network device va in as eth0"), "{seen}");
    Ok(())
}

fn features_tell_of_devices(rt: &Runtime) -> Checked {
    rt.coracle_only("runc moves devices since 1.4")?;
    let features: Value = serde_json::from_str(&rt.call(&["features"]).ok().stdout).expect("JSON");
    assert_eq!(features["linux"]["netDevices"]["enabled"], json!(true));
    Ok(())
}
