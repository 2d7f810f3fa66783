//! Random documents: whatever they say, the answer is a bundle or an error, never a panic.

use std::path::Path;

use proptest::{collection, prelude::*};
use serde_json::{Map, Value, json};

use super::{
    Bundle, IdList, check_cpuset, parse_mount_options, parse_sysctl, process_from_json,
    testing::{config, load},
};

/// Strings that have a meaning somewhere, and strings that have none.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "/",
            "..",
            "a/../b",
            "-1",
            "0-3,7",
            "CAP_KILL",
            "CAP_X",
            "RLIMIT_CORE",
            "bind",
            "rbind",
            "idmap",
            "rro",
            "tmpfs",
            "user",
            "pid",
            "network",
            "c",
            "p",
            "a",
            "rwm",
            "2MB",
            "1.0.0",
            "A=b",
            "=",
            "net.x",
            "net/..",
            "monotonic",
            "SCHED_FIFO",
            "MPOL_BIND",
            "\0",
            "é",
            "[\"",
            "\"]",
            "\\",
            "a.b[0]",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![0, 1, -1, 10, 4095, i64::MAX, i64::MIN, 4_294_967_295])
            .prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ]
}

/// The names of the spec's properties, so that random objects reach the checks.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned),
        1 => text(),
    ]
}

const KEYS: &[&str] = &[
    "type",
    "path",
    "source",
    "destination",
    "options",
    "uidMappings",
    "gidMappings",
    "containerID",
    "hostID",
    "size",
    "args",
    "env",
    "cwd",
    "user",
    "uid",
    "gid",
    "umask",
    "additionalGids",
    "capabilities",
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
    "rlimits",
    "soft",
    "hard",
    "scheduler",
    "policy",
    "flags",
    "nice",
    "priority",
    "runtime",
    "deadline",
    "period",
    "ioPriority",
    "class",
    "execCPUAffinity",
    "initial",
    "final",
    "consoleSize",
    "height",
    "width",
    "namespaces",
    "devices",
    "major",
    "minor",
    "fileMode",
    "resources",
    "memory",
    "limit",
    "swap",
    "reservation",
    "cpu",
    "quota",
    "burst",
    "cpus",
    "mems",
    "pids",
    "blockIO",
    "weight",
    "weightDevice",
    "leafWeight",
    "hugepageLimits",
    "pageSize",
    "network",
    "priorities",
    "name",
    "rdma",
    "hcaHandles",
    "unified",
    "sysctl",
    "seccomp",
    "maskedPaths",
    "readonlyPaths",
    "rootfsPropagation",
    "personality",
    "domain",
    "intelRdt",
    "closID",
    "schemata",
    "memoryPolicy",
    "mode",
    "nodes",
    "netDevices",
    "timeOffsets",
    "monotonic",
    "nanosecs",
    "cgroupsPath",
    "timeout",
    "prestart",
    "createRuntime",
    "poststop",
    "access",
    "allow",
];

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::vec((key(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Every value of a document with its path.
fn paths(value: &Value, path: &str, all: &mut Vec<String>) {
    all.push(path.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, member)| paths(member, &format!("{path}/{key}"), all));
        }
        Value::Array(elements) => {
            elements
                .iter()
                .enumerate()
                .for_each(|(index, element)| paths(element, &format!("{path}/{index}"), all));
        }
        _ => {}
    }
}

/// A valid configuration with a value in every section.
fn full() -> Value {
    let mut full = config();
    full["process"]["capabilities"] =
        json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "ambient": []});
    full["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    full["process"]["scheduler"] =
        json!({"policy": "SCHED_OTHER", "nice": 1, "flags": ["SCHED_RESET_ON_FORK"]});
    full["process"]["execCPUAffinity"] = json!({"initial": "0"});
    full["hooks"] = json!({"poststop": [{"path": "/x", "env": ["A=1"], "timeout": 1}]});
    full["annotations"] = json!({"a": "b"});
    full["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    full["linux"]["devices"] =
        json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438}]);
    full["linux"]["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 1, "swap": 2}, "pids": {"limit": 1},
        "cpu": {"quota": 1000, "period": 1000, "cpus": "0"}, "unified": {"memory.high": "1"},
        "blockIO": {"weightDevice": [{"major": 1, "minor": 1, "weight": 10}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "rdma": {"x": {"hcaHandles": 1}},
    });
    full["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}});
    full["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    full["linux"]["netDevices"] = json!({"eth0": {"name": "a"}});
    full["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
    full
}

#[test]
fn the_full_configuration_that_is_mutated_is_valid() {
    let bundle = load(&full()).expect("a valid configuration");
    assert_eq!(bundle.warnings, Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_valid_configuration_with_one_value_replaced_never_panics(at in any::<prop::sample::Index>(), value in tree()) {
        let mut config = full();
        let mut all = Vec::new();
        paths(&config, "", &mut all);
        if let Some(target) = config.pointer_mut(&all[at.index(all.len())]) {
            *target = value;
        }
        if let Err(error) = load(&config) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn random_sections_never_panic(process in tree(), linux in tree(), mounts in tree()) {
        let mut config = config();
        config["process"] = process.clone();
        config["mounts"] = mounts;
        config["linux"] = linux;
        let _ = load(&config);
        let _ = process_from_json(process.to_string().as_bytes());
    }

    #[test]
    fn a_text_cut_or_damaged_anywhere_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = full().to_string().into_bytes();
        let at = at.index(text.len());
        let _ = Bundle::from_json(Path::new("/b"), &text[..at]);
        text[at] = byte;
        let _ = Bundle::from_json(Path::new("/b"), &text);
    }

    #[test]
    fn small_parsers_never_panic(text in text(), options in collection::vec(text(), 0..5)) {
        if let Ok(list) = IdList::parse(&text) {
            prop_assert_eq!(list.mask().len(), list.max().map_or(0, |max| max as usize / 64 + 1));
            prop_assert_eq!(IdList::parse(&list.to_string()), Ok(list));
        }
        let _ = check_cpuset(&text);
        if let Ok(sysctl) = parse_sysctl(&text) {
            prop_assert!(!sysctl.path.split('/').any(|component| component == ".."));
        }
        let typed = parse_mount_options(&options);
        prop_assert!((typed.set & typed.clear).is_empty());
    }
}
