//! `uidMappings` and `gidMappings`, of `linux` and of a mount (`config-linux.md`, "User namespace mappings";
//! user_namespaces(7), "User and group ID mappings").

use std::fmt::Arguments;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Process};

use super::{super::problems::Problems, has, has_new};

/// The most lines that the kernel takes in a map.
const MAX_MAPPINGS: usize = 340;

/// Checks the mappings of the container's user namespace, and that the process runs with ids that are mapped.
pub(super) fn check_user_namespace(
    linux: &Linux,
    process: Option<&Process>,
    namespaces: &[LinuxNamespace],
    problems: &mut Problems,
) {
    let uids = linux.uid_mappings().as_deref().unwrap_or_default();
    let gids = linux.gid_mappings().as_deref().unwrap_or_default();
    for (kind, mappings) in [("uid", uids), ("gid", gids)] {
        let place = format_args!("linux.{kind}Mappings");
        check(mappings, place, problems);
        if !has(namespaces, LinuxNamespaceType::User) {
            if !mappings.is_empty() {
                problems.refuse(
                    place.to_string(),
                    "User namespace mappings specified, but USER namespace isn't enabled in the config; \
                     add {\"type\": \"user\"} to linux.namespaces, or remove the mappings",
                );
            }
        } else if has_new(namespaces, LinuxNamespaceType::User) {
            if mappings.is_empty() {
                problems.refuse(
                    place.to_string(),
                    format!(
                        "User namespaces enabled, but no {kind} mappings found; \
                         give at least {{\"containerID\": 0, \"hostID\": …, \"size\": 1}}"
                    ),
                );
            } else if !maps(mappings, 0) && !has_empty(mappings) {
                problems.refuse(
                    place.to_string(),
                    format!("do not map {kind} 0 of the container, which sets it up; map containerID 0"),
                );
            }
        }
    }
    let Some(user) = process.map(Process::user) else { return };
    if !has_new(namespaces, LinuxNamespaceType::User) {
        return;
    }
    let additional = user.additional_gids().iter().flatten().enumerate();
    let additional = additional.map(|(index, gid)| (format!("additionalGids[{index}]"), *gid, gids));
    let own = [("uid".to_owned(), user.uid(), uids), ("gid".to_owned(), user.gid(), gids)];
    for (name, id, mappings) in own.into_iter().chain(additional) {
        if !mappings.is_empty() && !maps(mappings, id) && !has_empty(mappings) {
            let list = if name == "uid" { "linux.uidMappings" } else { "linux.gidMappings" };
            problems.refuse(
                format!("process.user.{name}"),
                format!("{id} is not mapped by {list}; map it there"),
            );
        }
    }
}

/// Checks one list of mappings for what the kernel refuses in any map.
pub(in super::super) fn check(mappings: &[LinuxIdMapping], place: Arguments<'_>, problems: &mut Problems) {
    if mappings.len() > MAX_MAPPINGS {
        problems.refuse(
            place.to_string(),
            format!("has {} mappings; the kernel takes at most {MAX_MAPPINGS}", mappings.len()),
        );
        return;
    }
    for (index, mapping) in mappings.iter().enumerate() {
        if mapping.size() == 0 {
            problems
                .refuse(format!("{place}[{index}].size"), "is 0 or missing; give the number of ids to map");
            continue;
        }
        for (name, first) in [("containerID", mapping.container_id()), ("hostID", mapping.host_id())] {
            // 4294967295 itself is no id.
            if first.checked_add(mapping.size()).is_none() {
                problems.refuse(
                    format!("{place}[{index}].size"),
                    format!(
                        "{} ids from {name} {first} on go beyond the last id, 4294967294",
                        mapping.size()
                    ),
                );
            }
        }
        for (earlier_index, earlier) in mappings.iter().take(index).enumerate() {
            let of = |mapping: &LinuxIdMapping| (mapping.container_id(), mapping.host_id());
            let ((container, host), (earlier_container, earlier_host)) = (of(mapping), of(earlier));
            for (name, first, earlier_first) in
                [("containerID", container, earlier_container), ("hostID", host, earlier_host)]
            {
                if overlap(first, mapping.size(), earlier_first, earlier.size()) {
                    problems.refuse(
                        format!("{place}[{index}].{name}"),
                        format!(
                            "overlaps with the range of {place}[{earlier_index}]; the kernel refuses that"
                        ),
                    );
                }
            }
        }
    }
}

fn overlap(first: u32, size: u32, other: u32, other_size: u32) -> bool {
    first < other.saturating_add(other_size) && other < first.saturating_add(size)
}

/// Whether a range is empty: an error of its own, beside which what is not mapped needs no telling.
fn has_empty(mappings: &[LinuxIdMapping]) -> bool {
    mappings.iter().any(|mapping| mapping.size() == 0)
}

/// Whether `id` of the container is mapped.
fn maps(mappings: &[LinuxIdMapping], id: u32) -> bool {
    mappings
        .iter()
        .any(|mapping| id.checked_sub(mapping.container_id()).is_some_and(|offset| offset < mapping.size()))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use serde_json::{Value, json};

    fn map(container: u32, host: u32, size: u32) -> Value {
        json!({"containerID": container, "hostID": host, "size": size})
    }

    fn linux(namespace: &str, uids: &Value, gids: &Value) -> Value {
        json!({"namespaces": [{"type": "uts"}, {"type": namespace}], "uidMappings": uids, "gidMappings": gids})
    }

    #[test]
    fn mappings_and_a_user_namespace_need_each_other() {
        let one = json!([map(0, 1000, 1)]);
        accepts("linux", linux("user", &one, &one));
        accepts("linux", linux("pid", &json!([]), &Value::Null));
        refuses("linux", linux("pid", &one, &Value::Null), "linux.uidMappings");
        refuses("linux", linux("pid", &Value::Null, &one), "linux.gidMappings");
        refuses("linux", linux("user", &json!([]), &one), "linux.uidMappings");
        let error = refuses("linux", linux("user", &one, &Value::Null), "linux.gidMappings");
        assert!(error.contains("no gid mappings found"), "{error}");
        let joined = json!({"namespaces": [{"type": "uts"}, {"type": "user", "path": "/x"}]});
        accepts("linux", joined);
    }

    #[test]
    fn root_and_the_ids_of_the_process_are_mapped() {
        let one = json!([map(0, 1000, 1)]);
        refuses("linux", linux("user", &json!([map(1, 1000, 5)]), &one), "linux.uidMappings");
        refuses("linux", linux("user", &one, &json!([map(1, 1000, 5)])), "linux.gidMappings");
        let mut config = super::super::super::testing::config_with("linux", linux("user", &one, &one));
        config["process"]["user"] = json!({"uid": 0, "gid": 1, "additionalGids": [0, 7]});
        let error = super::super::super::testing::load(&config).expect_err("gid 1 is not mapped");
        // The test's configuration is sorted by name.
        assert_eq!(error.place(), Some("process.user.additionalGids[1]"));
        assert!(error.to_string().contains("also wrong: process.user.gid"), "{error}");
    }

    #[test]
    fn ranges_have_a_size_do_not_overlap_and_end_within_the_ids() {
        let whole = json!([map(0, 0, u32::MAX)]);
        let check =
            |uids: Value, at: &str| refuses("linux", linux("user", &uids, &json!([map(0, 0, 1)])), at);
        accepts("linux", linux("user", &json!([map(0, 5, 1), map(1, 0, 5), map(6, 6, 1)]), &whole));
        check(json!([map(0, 1000, 0)]), "linux.uidMappings[0].size");
        check(json!([{"containerID": 0, "hostID": 0}]), "linux.uidMappings[0].size");
        check(json!([map(0, 2, u32::MAX - 1)]), "linux.uidMappings[0].size");
        check(json!([map(0, 0, 10), map(9, 100, 1)]), "linux.uidMappings[1].containerID");
        check(json!([map(0, 0, 10), map(10, 5, 1)]), "linux.uidMappings[1].hostID");
        check(json!([{"containerID": -1, "hostID": 0, "size": 1}]), "linux.uidMappings[0].containerID");
        let many: Vec<Value> = (0..341).map(|index| map(index, index, 1)).collect();
        check(json!(many), "linux.uidMappings");
    }
}
