//! `linux.namespaces`, `linux.timeOffsets`, and what cannot be set without a namespace of its own: `hostname` and
//! `domainname` (`config-linux.md`, "Namespaces" and "Offset for Time Namespace"; `config.md`, "Hostname").

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Spec};

use super::{
    super::problems::{Problems, member_place},
    has, has_new, type_name,
};

/// The longest host and domain name, in bytes: `__NEW_UTS_LEN` of the kernel.
const MAX_NAME: usize = 64;

pub(super) fn check_names(spec: &Spec, namespaces: &[LinuxNamespace], problems: &mut Problems) {
    for (place, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name else { continue };
        if !has(namespaces, LinuxNamespaceType::Uts) {
            problems.refuse(
                place,
                format!(
                    "unable to set {place} without a private UTS namespace; \
                     add {{\"type\": \"uts\"}} to linux.namespaces, or remove {place}"
                ),
            );
        }
        if name.len() > MAX_NAME {
            problems.refuse(place, format!("is {} bytes long; the kernel takes {MAX_NAME}", name.len()));
        }
    }
}

pub(super) fn check(namespaces: &[LinuxNamespace], problems: &mut Problems) {
    for (index, namespace) in namespaces.iter().enumerate() {
        if namespaces.iter().take(index).any(|earlier| earlier.typ() == namespace.typ()) {
            problems.refuse(
                format!("linux.namespaces[{index}].type"),
                format!("malformed spec file: duplicated ns {:?}; keep one", type_name(namespace.typ())),
            );
        }
        if let Some(path) = namespace.path()
            && !path.is_absolute()
        {
            problems.refuse(
                format!("linux.namespaces[{index}].path"),
                format!(
                    "{:?} is not absolute; give the path of a namespace file, or no path for a new one",
                    path.to_string_lossy()
                ),
            );
        }
    }
}

pub(super) fn check_time_offsets(linux: &Linux, namespaces: &[LinuxNamespace], problems: &mut Problems) {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else { return };
    if !has(namespaces, LinuxNamespaceType::Time) {
        problems.refuse(
            "linux.timeOffsets",
            "time namespace offsets specified, but time namespace isn't enabled in the config; \
             add {\"type\": \"time\"} to linux.namespaces",
        );
    } else if !has_new(namespaces, LinuxNamespaceType::Time) {
        problems.refuse(
            "linux.timeOffsets",
            "cannot be set in a time namespace that is joined by path: its clocks run already",
        );
    }
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            problems.refuse(
                member_place("linux.timeOffsets", clock),
                "is not a clock of time namespaces; use monotonic or boottime",
            );
        }
        if let Some(nanosecs) = offset.nanosecs()
            && nanosecs > 999_999_999
        {
            problems.refuse(
                format!("{}.nanosecs", member_place("linux.timeOffsets", clock)),
                format!("{nanosecs} is not from 0 to 999999999; put whole seconds into secs"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, config, load, refuses};
    use serde_json::{Value, json};

    #[test]
    fn every_namespace_of_linux_is_known_once() {
        let all = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];
        for kind in all.iter().filter(|kind| **kind != "user") {
            // Not a list with uts would refuse the hostname, so it is in every list.
            let others = if *kind == "uts" {
                json!([{"type": kind}])
            } else {
                json!([{"type": "uts"}, {"type": kind}])
            };
            accepts("linux.namespaces", others);
        }
        for kind in ["mnt", "net", "PID", "", "foo"] {
            let error = refuses("linux.namespaces", json!([{"type": kind}]), "linux.namespaces[0].type");
            assert!(error.contains("`network`"), "{error}");
        }
        refuses("linux.namespaces", json!([{"path": "/x"}]), "linux.namespaces[0].type");
        let twice = json!([{"type": "uts"}, {"type": "pid"}, {"type": "pid", "path": "/x"}]);
        let error = refuses("linux.namespaces", twice, "linux.namespaces[2].type");
        assert!(error.contains("duplicated ns \"pid\""), "{error}");
    }

    #[test]
    fn a_namespace_path_is_absolute_and_an_empty_one_means_a_new_namespace() {
        accepts("linux.namespaces", json!([{"type": "uts", "path": "/proc/1/ns/uts"}]));
        refuses("linux.namespaces", json!([{"type": "uts", "path": "ns/uts"}]), "linux.namespaces[0].path");
        let bundle = accepts("linux.namespaces", json!([{"type": "uts", "path": ""}]));
        assert_eq!(super::super::namespaces_of(&bundle.spec)[0].path(), &None);
    }

    #[test]
    fn names_need_a_uts_namespace_and_fit_the_kernel() {
        for place in ["hostname", "domainname"] {
            accepts(place, json!("a".repeat(64)));
            refuses(place, json!("a".repeat(65)), place);
        }
        accepts("hostname", json!(""));
        let mut config = config();
        config["linux"]["namespaces"] = json!([]);
        let error = load(&config).expect_err("no uts namespace").to_string();
        assert!(
            error.contains("hostname: unable to set hostname without a private UTS namespace"),
            "{error}"
        );
        config["hostname"] = Value::Null;
        load(&config).expect("no names, no namespaces");
    }

    #[test]
    fn time_offsets_need_a_new_time_namespace_and_known_clocks() {
        let offsets = json!({"monotonic": {"secs": -5, "nanosecs": 999_999_999}, "boottime": {"secs": 1}});
        accepts("linux.timeOffsets", offsets.clone());
        refuses("linux.timeOffsets", json!({"realtime": {"secs": 1}}), "linux.timeOffsets.realtime");
        let nanosecs = json!({"boottime": {"nanosecs": 1_000_000_000}});
        refuses("linux.timeOffsets", nanosecs, "linux.timeOffsets.boottime.nanosecs");
        let linux = |namespace: Value| json!({"namespaces": [{"type": "uts"}, namespace], "timeOffsets": offsets.clone()});
        accepts("linux", linux(json!({"type": "time"})));
        refuses("linux", linux(json!({"type": "pid"})), "linux.timeOffsets");
        refuses("linux", linux(json!({"type": "time", "path": "/x"})), "linux.timeOffsets");
    }
}
