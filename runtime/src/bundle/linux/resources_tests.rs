use super::super::super::{
    check_resources,
    testing::{accepts, refuses},
};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

/// `(place below linux.resources, good values, bad values)`.
fn table() -> Vec<(&'static str, Vec<Value>, Vec<Value>)> {
    let page = |size: &str| json!([{"pageSize": size, "limit": 1}]);
    vec![
        ("memory.limit", vec![json!(-1), json!(0), json!(1 << 30)], vec![json!(-2), json!(1.5), json!("1")]),
        ("memory.reservation", vec![json!(-1), json!(1_i64 << 40)], vec![json!(-2)]),
        ("memory.swap", vec![json!(-1), json!(0)], vec![json!(-2), json!(1 << 30)]),
        ("memory.swappiness", vec![json!(0), json!(100)], vec![json!(101), json!(-1)]),
        ("cpu.quota", vec![json!(-1), json!(0), json!(1000)], vec![json!(1), json!(999)]),
        (
            "cpu.period",
            vec![json!(0), json!(1000), json!(1_000_000)],
            vec![json!(999), json!(1_000_001), json!(-1)],
        ),
        ("cpu.idle", vec![json!(0), json!(1)], vec![json!(2), json!(-1)]),
        ("cpu.realtimeRuntime", vec![json!(-1), json!(950_000)], vec![json!(-2)]),
        ("cpu.cpus", vec![json!("0-3,7"), json!(""), json!("0-4096")], vec![json!("3-1"), json!("x")]),
        ("cpu.mems", vec![json!("0")], vec![json!("-")]),
        ("pids.limit", vec![json!(-1), json!(0), json!(i64::MAX)], vec![json!(-2), json!(u64::MAX)]),
        ("blockIO.weight", vec![json!(0), json!(10), json!(1000)], vec![json!(9), json!(1001), json!(65536)]),
        ("blockIO.leafWeight", vec![json!(10)], vec![json!(1)]),
        ("hugepageLimits", vec![page("64KB"), page("2MB"), page("1GB"), page("16384MB")], vec![]),
        ("unified", vec![json!({"memory.high": "1", "x": ""})], vec![]),
        ("rdma", vec![json!({"mlx5_1": {"hcaHandles": 1}})], vec![]),
        (
            "network",
            vec![json!({"classID": u32::MAX, "priorities": [{"name": "eth0", "priority": 1}]})],
            vec![],
        ),
    ]
}

#[test]
fn values_have_the_ranges_of_the_spec_and_the_kernel() {
    for (name, good, bad) in table() {
        let place = format!("linux.resources.{name}");
        for value in good {
            accepts(&place, value);
        }
        for value in bad {
            refuses(&place, value, &place);
        }
    }
}

#[test]
fn swap_counts_memory_too_and_needs_its_limit_in_a_new_cgroup() {
    let memory = |limit: i64, swap: i64| json!({"limit": limit, "swap": swap});
    accepts("linux.resources.memory", memory(4096, 4096));
    accepts("linux.resources.memory", memory(4096, -1));
    refuses("linux.resources.memory", memory(4096, 4095), "linux.resources.memory.swap");
    refuses("linux.resources.memory", memory(-1, 4096), "linux.resources.memory.swap");

    let update = |memory: Value| -> LinuxResources {
        serde_json::from_value(json!({"memory": memory})).expect("resources")
    };
    assert_eq!(check_resources(&update(json!({"swap": 4096}))).expect("swap alone"), Vec::<String>::new());
    let error = check_resources(&update(memory(4096, 4095))).expect_err("less swap than memory");
    assert_eq!(error.place(), Some("linux.resources.memory.swap"));
}

#[test]
fn cpu_times_fit_each_other() {
    accepts(
        "linux.resources.cpu",
        json!({"quota": 5000, "burst": 5000, "realtimePeriod": 10, "realtimeRuntime": 10}),
    );
    accepts("linux.resources.cpu", json!({"burst": 5000}));
    refuses("linux.resources.cpu", json!({"quota": 5000, "burst": 5001}), "linux.resources.cpu.burst");
    refuses("linux.resources.cpu", json!({"quota": 5000, "burst": u64::MAX}), "linux.resources.cpu.burst");
    let realtime = json!({"realtimePeriod": 10, "realtimeRuntime": 11});
    refuses("linux.resources.cpu", realtime, "linux.resources.cpu.realtimeRuntime");
}

#[test]
fn device_rules_have_a_type_numbers_and_an_access() {
    let place = "linux.resources.devices";
    let full = json!({"allow": true, "type": "c", "major": 1, "minor": -1, "access": "rwm"});
    for good in [json!({"allow": false, "access": "rwm"}), json!({"type": "", "access": "m"}), full.clone()] {
        accepts(place, json!([good]));
    }
    for (name, bad) in [
        ("type", vec![json!("p"), json!("u"), json!("x")]),
        ("major", vec![json!(-2), json!(1_u64 << 32), json!("1")]),
        ("minor", vec![json!(-2), json!(i64::MIN)]),
        ("access", vec![Value::Null, json!(""), json!("x"), json!("RW")]),
    ] {
        for value in bad {
            let mut rule = full.clone();
            rule[name] = value;
            refuses(place, json!([full, rule]), &format!("{place}[1].{name}"));
        }
    }
}

#[test]
fn block_devices_have_numbers_and_a_weight() {
    let place = "linux.resources.blockIO";
    accepts(place, json!({"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}));
    refuses(place, json!({"weightDevice": [{"major": 8, "minor": 0}]}), &format!("{place}.weightDevice[0]"));
    let heavy = json!({"weightDevice": [{"major": 8, "minor": 0, "weight": 5}]});
    refuses(place, heavy, &format!("{place}.weightDevice[0].weight"));
    for list in [
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteIOPSDevice",
    ] {
        accepts(place, json!({list: [{"major": 8, "minor": 0, "rate": u64::MAX}]}));
        let bad = json!({list: [{"major": 8, "minor": 0, "rate": 1}, {"major": -1, "minor": 0, "rate": 1}]});
        refuses(place, bad, &format!("{place}.{list}[1].major"));
    }
}

#[test]
fn names_of_page_sizes_files_and_devices_are_well_formed() {
    for size in ["2M", "MB", "02MB", "2mb", "2TB", "-2MB", "2 MB", ""] {
        let limits = json!([{"pageSize": size, "limit": 1}]);
        refuses("linux.resources.hugepageLimits", limits, "linux.resources.hugepageLimits[0].pageSize");
    }
    for file in ["", ".", "..", "a/b", "/memory.high"] {
        let place = super::member_place("linux.resources.unified", file);
        refuses("linux.resources.unified", json!({file: "1"}), &place);
    }
    refuses("linux.resources.rdma", json!({"mlx5_1": {}}), "linux.resources.rdma.mlx5_1");
    let nameless = json!({"priorities": [{"name": "", "priority": 1}]});
    refuses("linux.resources.network", nameless, "linux.resources.network.priorities[0].name");
}

#[test]
fn a_hugepage_limit_of_64_bits_means_no_limit() {
    let bundle = accepts("linux.resources.hugepageLimits", json!([{"pageSize": "2MB", "limit": u64::MAX}]));
    let resources =
        bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone()).expect("resources");
    let limits = resources.hugepage_limits().as_deref().expect("limits");
    assert_eq!(limits[0].limit(), i64::MAX);
}

#[test]
fn pids_without_a_limit_set_none_and_a_limit_of_0_stays() {
    for (pids, kept) in [(json!({}), None), (json!({"limit": null}), None), (json!({"limit": 0}), Some(0))] {
        let bundle = accepts("linux.resources.pids", pids);
        let resources =
            bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone()).expect("resources");
        assert_eq!(resources.pids().map(|pids| pids.limit()), kept);
    }
}

#[test]
fn kernel_memory_limits_are_warned_of() {
    let bundle = accepts("linux.resources.memory", json!({"kernel": 4096, "kernelTCP": 4096}));
    assert_eq!(bundle.warnings.len(), 2, "{:?}", bundle.warnings);
    assert!(accepts("linux.resources.memory", json!({"kernel": -1, "kernelTCP": 0})).warnings.is_empty());
}
