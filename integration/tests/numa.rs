//! `linux.memoryPolicy`: on which memory nodes the container's processes get their memory.

use std::path::Path;
use std::process::ExitCode;

use coracle_integration::{Checked, Runtime, skip, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        the_policy_is_that_of_the_process,
        what_exec_adds_has_the_policy_too,
        a_policy_works_in_a_user_namespace,
        nodes_that_are_not_there_are_told,
        a_container_without_a_policy_has_the_default,
    ])
}

fn on_numa(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has memory policies since 1.4")?;
    if Path::new("/proc/self/numa_maps").exists() { Ok(()) } else { skip("this kernel has no NUMA support") }
}

fn policy(mode: &str, nodes: &str, flags: &[&str]) -> Value {
    json!({ "mode": mode, "nodes": nodes, "flags": flags })
}

/// The policies of a process's mappings; where one has none of its own, the kernel shows the process's.
const POLICIES: &str = "cut -d' ' -f2 /proc/self/numa_maps | sort -u";

fn the_policy_is_that_of_the_process(rt: &Runtime) -> Checked {
    on_numa(rt)?;
    for (wanted, shown) in [
        (policy("MPOL_BIND", "0", &[]), "bind:0"),
        (policy("MPOL_BIND", "0", &["MPOL_F_STATIC_NODES"]), "bind=static:0"),
        (policy("MPOL_INTERLEAVE", "0", &[]), "interleave:0"),
        (policy("MPOL_PREFERRED", "0", &[]), "prefer:0"),
        (policy("MPOL_LOCAL", "", &[]), "local"),
        (json!({ "mode": "MPOL_DEFAULT" }), "default"),
    ] {
        let seen = rt.sh(POLICIES, |config| config["linux"]["memoryPolicy"] = wanted).ok();
        assert!(seen.lines().contains(&shown), "{shown} is expected: {seen}");
    }
    Ok(())
}

fn what_exec_adds_has_the_policy_too(rt: &Runtime) -> Checked {
    on_numa(rt)?;
    let bundle = rt.sleeper().edit(|config| config["linux"]["memoryPolicy"] = policy("MPOL_BIND", "0", &[]));
    let c = rt.container(&bundle);
    c.up();
    let seen = c.exec(&["sh", "-c", POLICIES]).ok();
    assert!(seen.lines().contains(&"bind:0"), "{seen}");
    Ok(())
}

fn a_policy_works_in_a_user_namespace(rt: &Runtime) -> Checked {
    on_numa(rt)?;
    let seen = rt
        .sh(POLICIES, |config| {
            coracle_integration::bundle::push(config, "/linux/namespaces", json!({ "type": "user" }));
            for list in ["uidMappings", "gidMappings"] {
                config["linux"][list] = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
            }
            config["linux"]["memoryPolicy"] = policy("MPOL_BIND", "0", &[]);
        })
        .ok();
    assert!(seen.lines().contains(&"bind:0"), "{seen}");
    Ok(())
}

fn nodes_that_are_not_there_are_told(rt: &Runtime) -> Checked {
    on_numa(rt)?;
    if Path::new("/sys/devices/system/node/node61").exists() {
        return skip("this machine has a great many nodes");
    }
    rt.sh("true", |config| config["linux"]["memoryPolicy"] = policy("MPOL_BIND", "61", &[]))
        .fails_with("linux.memoryPolicy")
        .fails_with("the nodes must be online");
    Ok(())
}

fn a_container_without_a_policy_has_the_default(rt: &Runtime) -> Checked {
    on_numa(rt)?;
    assert_eq!(rt.sh(POLICIES, |_| ()).ok().out(), "default");
    Ok(())
}
