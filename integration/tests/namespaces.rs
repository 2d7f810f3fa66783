//! Namespaces: new ones, shared ones, ones given by path, and what is set inside them.

use std::fs;
use std::process::ExitCode;

use coracle_integration::bundle::{grant, join_namespace, push, without_namespace};
use coracle_integration::command::{Running, command, run};
use coracle_integration::{Checked, Container, Runtime, host, skip, tests};
use serde_json::json;

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        namespaces_listed_are_new,
        namespaces_not_listed_are_the_runtimes,
        a_pid_namespace_starts_at_one,
        without_a_pid_namespace_the_host_is_seen,
        a_network_namespace_has_only_a_loopback_device,
        the_loopback_device_is_up,
        a_hostname_is_set,
        a_domainname_is_set,
        the_hosts_names_are_untouched,
        network_ipc_and_uts_namespaces_can_be_joined,
        a_pid_namespace_can_be_joined,
        a_mount_namespace_can_be_joined,
        cgroup_and_time_namespaces_can_be_joined,
        a_path_that_is_no_namespace_is_refused,
        containers_can_share_a_network,
        a_network_sysctl_is_set_inside_only,
        an_ipc_sysctl_is_set_inside_only,
        a_sysctl_of_a_joined_namespace_of_the_hosts_is_refused,
        sysctls_may_use_slashes,
        sysctls_are_set_where_the_hosts_are_covered,
        a_cgroup_namespace_hides_the_path,
        a_time_namespace_shifts_the_clocks,
        exec_joins_every_namespace,
    ])
}

const KINDS: [(&str, &str); 5] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt")];

fn of_us(link: &str) -> Option<String> {
    let pid = i32::try_from(std::process::id()).ok()?;
    host::namespace_of(pid, link)
}

fn namespaces_listed_are_new(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    for (kind, link) in KINDS {
        assert_ne!(host::namespace_of(c.pid(), link), of_us(link), "{kind}");
    }
    for link in ["cgroup", "user", "time"] {
        assert_eq!(host::namespace_of(c.pid(), link), of_us(link), "{link} was not asked for");
    }
}

fn namespaces_not_listed_are_the_runtimes(rt: &Runtime) {
    let bundle = rt.sleeper().edit(|config| {
        for kind in ["pid", "network", "ipc", "uts"] {
            without_namespace(config, kind);
        }
        config.as_object_mut().expect("an object").remove("hostname");
    });
    let c = rt.container(&bundle);
    c.up();
    for (kind, link) in KINDS {
        let same = host::namespace_of(c.pid(), link) == of_us(link);
        assert_eq!(same, kind != "mount", "{kind}");
    }
}

fn a_pid_namespace_starts_at_one(rt: &Runtime) {
    let seen = rt.sh("echo $$; ls -d /proc/[0-9]*", |_| ()).ok();
    assert_eq!(seen.lines().first(), Some(&"1"));
    assert!(seen.lines().len() <= 3, "{seen}");
}

fn without_a_pid_namespace_the_host_is_seen(rt: &Runtime) {
    let seen = rt.sh(&format!("test -d /proc/{} && echo seen", std::process::id()), |config| {
        without_namespace(config, "pid");
    });
    assert_eq!(seen.ok().out(), "seen");
}

fn a_network_namespace_has_only_a_loopback_device(rt: &Runtime) {
    // The kernel may add tunnel devices of its own; nothing of the host's ethernet is there.
    let seen = rt.sh("ip link; cat /proc/net/dev", |_| ()).ok();
    assert!(seen.stdout.contains("lo:") && !seen.stdout.contains("eth0"), "{seen}");
}

fn the_loopback_device_is_up(rt: &Runtime) {
    let seen =
        rt.sh("ip addr show lo; ping -c 1 -W 5 127.0.0.1", |config| grant(config, &["CAP_NET_RAW"])).ok();
    assert!(seen.stdout.contains("127.0.0.1/8"), "{seen}");
}

fn a_hostname_is_set(rt: &Runtime) {
    let seen = rt.sh("hostname; uname -n", |config| config["hostname"] = json!("inside.example"));
    assert_eq!(seen.ok().lines(), ["inside.example", "inside.example"]);
}

fn a_domainname_is_set(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has domainname since 1.2")?;
    let seen = rt.sh("cat /proc/sys/kernel/domainname", |config| config["domainname"] = json!("example.org"));
    assert_eq!(seen.ok().out(), "example.org");
    Ok(())
}

fn the_hosts_names_are_untouched(rt: &Runtime) {
    let name = || fs::read_to_string("/proc/sys/kernel/hostname").expect("our own host name");
    let before = name();
    rt.sh("true", |config| config["hostname"] = json!("other")).ok();
    assert_eq!(name(), before);
}

/// A process in new namespaces that another container can join.
fn donor(rt: &Runtime) -> Container<'_> {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    // The bundle's directory is the runtime's, not the Bundle's, so it stays.
    c
}

fn network_ipc_and_uts_namespaces_can_be_joined(rt: &Runtime) {
    let donor = donor(rt);
    let bundle = rt.sleeper().edit(|config| {
        for (kind, link) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
            join_namespace(config, kind, &format!("/proc/{}/ns/{link}", donor.pid()));
        }
        config.as_object_mut().expect("an object").remove("hostname");
    });
    let c = rt.container(&bundle);
    c.up();
    for (kind, link) in KINDS {
        let same = host::namespace_of(c.pid(), link) == host::namespace_of(donor.pid(), link);
        assert_eq!(same, ["net", "ipc", "uts"].contains(&link), "{kind}");
    }
}

fn a_pid_namespace_can_be_joined(rt: &Runtime) {
    let donor = donor(rt);
    let bundle = rt
        .script("echo $$; test -d /proc/1; sleep 1012")
        .edit(|config| join_namespace(config, "pid", &format!("/proc/{}/ns/pid", donor.pid())));
    let c = rt.container(&bundle);
    c.up();
    assert_eq!(host::namespace_of(c.pid(), "pid"), host::namespace_of(donor.pid(), "pid"));
    c.wait_for_output("\n");
    assert_ne!(c.output().trim(), "1");
    let listed = donor.exec(&["ps"]).ok();
    assert!(listed.stdout.contains("sleep 1012"), "{listed}");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    assert_eq!(donor.status(), "running");
}

fn a_mount_namespace_can_be_joined(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 does not prepare a root filesystem there and fails on this bundle")?;
    let mut holder = command(
        "unshare",
        &["--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1013"],
    );
    holder.env(coracle_integration::leftovers::MARK, rt.mark());
    let holder = Running::start(holder);
    holder.wait_for_output("ready");
    let path = format!("/proc/{}/ns/mnt", holder.pid());
    let bundle = rt.sleeper().edit(|config| join_namespace(config, "mount", &path));
    let c = rt.container(&bundle);
    c.up();
    assert_eq!(host::namespace_of(c.pid(), "mnt"), host::namespace_of(holder.pid(), "mnt"));
    Ok(())
}

fn cgroup_and_time_namespaces_can_be_joined(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 knows no time namespaces")?;
    let bundle = rt.sleeper().edit(|config| {
        push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
        push(config, "/linux/namespaces", json!({ "type": "time" }));
        config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 100_000_000 } });
    });
    let donor = rt.container(&bundle);
    donor.up();
    let bundle = rt.sleeper().edit(|config| {
        for kind in ["cgroup", "time"] {
            join_namespace(config, kind, &format!("/proc/{}/ns/{kind}", donor.pid()));
        }
    });
    let c = rt.container(&bundle);
    c.up();
    for kind in ["cgroup", "time"] {
        assert_eq!(host::namespace_of(c.pid(), kind), host::namespace_of(donor.pid(), kind), "{kind}");
    }
    let uptime = c.exec(&["cat", "/proc/uptime"]).ok();
    assert!(uptime.out().starts_with("100"), "{uptime}");
    Ok(())
}

fn a_path_that_is_no_namespace_is_refused(rt: &Runtime) -> Checked {
    rt.coracle_only("runc waits for somebody to write into a FIFO")?;
    let fifo = rt.scratch("fifo");
    run(command("mkfifo", &[&fifo.to_string_lossy()])).ok();
    for kind in ["network", "pid"] {
        let seen = rt.sh("true", |config| join_namespace(config, kind, &fifo.to_string_lossy()));
        seen.fails_with("namespace");
    }
    rt.assert_clean();
    Ok(())
}

fn containers_can_share_a_network(rt: &Runtime) {
    let donor = donor(rt);
    let path = format!("/proc/{}/ns/net", donor.pid());
    let bundle =
        rt.script("echo hello | nc -l -p 7777").edit(|config| join_namespace(config, "network", &path));
    let c = rt.container(&bundle);
    c.up();
    let talk = "until nc 127.0.0.1 7777; do sleep 0.05; done";
    assert_eq!(donor.exec(&["sh", "-c", talk]).ok().out(), "hello");
}

fn a_network_sysctl_is_set_inside_only(rt: &Runtime) {
    let host = || fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").expect("a sysctl of ours");
    let before = host();
    let seen = rt.sh("cat /proc/sys/net/ipv4/ip_default_ttl", |config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "33" });
    });
    assert_eq!(seen.ok().out(), "33");
    assert_eq!(host(), before);
}

fn an_ipc_sysctl_is_set_inside_only(rt: &Runtime) {
    let host = || fs::read_to_string("/proc/sys/kernel/shmmni").expect("a sysctl of ours");
    let before = host();
    let seen = rt.sh("cat /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max", |config| {
        config["linux"]["sysctl"] = json!({ "kernel.shmmni": "1234", "fs.mqueue.msg_max": "7" });
    });
    assert_eq!(seen.ok().lines(), ["1234", "7"]);
    assert_eq!(host(), before);
}

/// A path that leads to the runtime's own namespace.
fn a_sysctl_of_a_joined_namespace_of_the_hosts_is_refused(rt: &Runtime) {
    for (kind, link, sysctl) in [
        ("network", "net", "net.ipv4.ip_default_ttl"),
        ("ipc", "ipc", "kernel.shmmni"),
        ("uts", "uts", "kernel.domainname"),
    ] {
        if kind != "network" && rt.coracle_only("runc looks at network namespaces only").is_err() {
            continue;
        }
        let file = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        let host = || fs::read_to_string(&file).expect("a sysctl of ours");
        let before = host();
        let seen = rt.sh("true", |config| {
            config.as_object_mut().expect("an object").remove("hostname");
            join_namespace(config, kind, &format!("/proc/self/ns/{link}"));
            config["linux"]["sysctl"] = json!({ sysctl: "77" });
        });
        let after = host();
        if after != before {
            fs::write(&file, &before).expect("setting it back");
        }
        assert_eq!(after, before);
        seen.fails_with(sysctl.rsplit('.').next().unwrap_or_default());
    }
}

fn sysctls_are_set_where_the_hosts_are_covered(rt: &Runtime) {
    let bundle = rt.script("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni").edit(|config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "33", "kernel.shmmni": "1234" });
    });
    let c = rt.container(&bundle);
    let run_it = c.run_command(&[]);
    // As LXC does it.
    let script = "mount --bind /proc/sys /proc/sys && mount --bind /proc/sys/net /proc/sys/net \
                  && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    let mut covered = command("unshare", &["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    covered.arg(run_it.get_program()).args(run_it.get_args());
    covered.env(coracle_integration::leftovers::MARK, rt.mark());
    assert_eq!(run(covered).ok().lines(), ["33", "1234"]);
}

fn sysctls_may_use_slashes(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 takes only dots for this check")?;
    let seen = rt.sh("cat /proc/sys/net/ipv4/conf/lo/forwarding", |config| {
        config["linux"]["sysctl"] = json!({ "net/ipv4/conf/lo/forwarding": "1" });
    });
    assert_eq!(seen.ok().out(), "1");
    Ok(())
}

fn a_cgroup_namespace_hides_the_path(rt: &Runtime) -> Checked {
    if !fs::exists("/proc/self/ns/cgroup").unwrap_or(false) {
        return skip("this kernel has no cgroup namespaces");
    }
    let seen = rt
        .sh("cat /proc/self/cgroup", |config| push(config, "/linux/namespaces", json!({ "type": "cgroup" })))
        .ok();
    let paths: Vec<&str> = seen.lines().iter().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    assert!(!paths.is_empty() && paths.iter().all(|path| *path == "/"), "{seen}");
    Ok(())
}

fn a_time_namespace_shifts_the_clocks(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has time namespaces since 1.2")?;
    let seen = rt.sh("cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime", |config| {
        push(config, "/linux/namespaces", json!({ "type": "time" }));
        config["linux"]["timeOffsets"] = json!({
            "monotonic": { "secs": 172_800, "nanosecs": 0 },
            "boottime": { "secs": 1_000_000, "nanosecs": 5 },
        });
    });
    let seen = seen.ok();
    let words: Vec<Vec<&str>> = seen.lines().iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["monotonic", "172800", "0"]);
    assert_eq!(words[1], ["boottime", "1000000", "5"]);
    assert!(words[2][0].parse::<u64>().is_ok_and(|uptime| uptime > 1_000_000), "{seen}");
    Ok(())
}

fn exec_joins_every_namespace(rt: &Runtime) {
    let bundle = rt.sleeper().edit(|config| push(config, "/linux/namespaces", json!({ "type": "cgroup" })));
    let c = rt.container(&bundle);
    c.up();
    let script = "for kind in pid net ipc uts mnt cgroup user; do readlink /proc/self/ns/$kind; done";
    let inside = c.exec(&["sh", "-c", script]).ok();
    let pid = c.pid();
    for (line, kind) in inside.lines().iter().zip(["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"]) {
        assert_eq!(Some((*line).to_owned()), host::namespace_of(pid, kind), "{kind}");
    }
    assert_eq!(run(c.exec_command(&[], &["pwd"])).ok().out(), "/");
}
