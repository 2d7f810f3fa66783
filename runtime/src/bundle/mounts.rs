//! `mounts` (`config.md`, "Mounts"; `config-linux.md` for the id mappings).

use std::path::{Component, Path};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount, Spec};

use super::{
    linux::{self, mappings},
    mount_options::{Bind, IdMap, MountOptions, parse_mount_options},
    problems::Problems,
};

pub(super) fn check(spec: &Spec, problems: &mut Problems) {
    let namespaces = linux::namespaces_of(spec);
    let has_user_namespace = linux::has(namespaces, LinuxNamespaceType::User);
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let options = parse_mount_options(mount.options().as_deref().unwrap_or_default());
        check_destination(mount, index, problems);
        check_source_and_type(mount, &options, index, problems);
        check_id_mapping(mount, &options, has_user_namespace, index, problems);
    }
}

fn check_destination(mount: &Mount, index: usize, problems: &mut Problems) {
    let destination = mount.destination();
    if destination.as_os_str().is_empty() {
        problems.refuse(
            format!("mounts[{index}].destination"),
            "is empty; give the path inside the container where to mount",
        );
    } else if is_root(destination) {
        problems.refuse(
            format!("mounts[{index}].destination"),
            format!(
                "{:?} is on the top of rootfs: the root filesystem is what root.path names; mount on a path below it",
                destination.to_string_lossy()
            ),
        );
    } else if !destination.is_absolute() {
        problems.warn(
            format_args!("mounts[{index}].destination"),
            format_args!(
                "relative destination path {:?} is deprecated, using it as relative to /; write it with /",
                destination.to_string_lossy()
            ),
        );
    }
}

/// Whether a path inside the container ends where it began, at the root.
fn is_root(path: &Path) -> bool {
    let depth = path.components().fold(0_usize, |depth, component| match component {
        Component::Normal(_) => depth + 1,
        Component::ParentDir => depth.saturating_sub(1),
        _ => depth,
    });
    depth == 0
}

fn check_source_and_type(mount: &Mount, options: &MountOptions, index: usize, problems: &mut Problems) {
    let kind = mount.typ().as_deref();
    if options.tmpcopyup && (kind != Some("tmpfs") || options.bind != Bind::No) {
        problems.refuse(
            format!("mounts[{index}].options"),
            "have tmpcopyup, which only a mount of type tmpfs can do, and no bind mount; remove it",
        );
    }
    if options.bind != Bind::No {
        if !options.data.is_empty() {
            problems.refuse(
                format!("mounts[{index}].options"),
                format!(
                    "have {:?}: bind mounts cannot have any filesystem-specific options applied; the kernel \
                     would ignore them, remove them",
                    options.data.join(",")
                ),
            );
        }
        if mount.source().is_none() && !options.remount {
            problems
                .refuse(format!("mounts[{index}].source"), "is missing; a bind mount needs the path to bind");
        }
        return;
    }
    match kind {
        Some("bind" | "rbind") => problems.refuse(
            format!("mounts[{index}].options"),
            "have neither bind nor rbind, although the type is bind; add one of them",
        ),
        None if !options.remount => problems.refuse(
            format!("mounts[{index}].type"),
            "is missing; give the filesystem's type (see /proc/filesystems), or the option bind or rbind",
        ),
        _ => {}
    }
}

fn check_id_mapping(
    mount: &Mount,
    options: &MountOptions,
    has_user_namespace: bool,
    index: usize,
    problems: &mut Problems,
) {
    let given =
        |mappings: &Option<Vec<LinuxIdMapping>>| mappings.as_ref().is_some_and(|list| !list.is_empty());
    let (uids, gids) = (given(mount.uid_mappings()), given(mount.gid_mappings()));
    if !uids && !gids && options.idmap == IdMap::No {
        return;
    }
    if uids != gids {
        let missing = if uids { "gidMappings" } else { "uidMappings" };
        problems.refuse(
            format!("mounts[{index}].{missing}"),
            "is missing; uidMappings and gidMappings must be given together",
        );
    }
    if !uids && !gids && !has_user_namespace {
        problems.refuse(
            format!("mounts[{index}].options"),
            "have idmap or ridmap without mappings, which means those of the container's user namespace; \
             give uidMappings and gidMappings, or a user namespace",
        );
    }
    let place = format_args!("mounts[{index}].uidMappings");
    mappings::check(mount.uid_mappings().as_deref().unwrap_or_default(), place, problems);
    let place = format_args!("mounts[{index}].gidMappings");
    mappings::check(mount.gid_mappings().as_deref().unwrap_or_default(), place, problems);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepts, config, load, put, refuses};
    use serde_json::{Value, json};

    fn tmpfs(destination: &str) -> Value {
        json!([{"destination": destination, "type": "tmpfs", "source": "tmpfs"}])
    }

    #[test]
    fn a_destination_is_needed_and_a_relative_one_is_warned_of() {
        assert!(accepts("mounts", tmpfs("/mnt")).warnings.is_empty());
        let warnings = accepts("mounts", tmpfs("mnt")).warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("config.json: mounts[0].destination: "), "{warnings:?}");
        refuses("mounts", tmpfs(""), "mounts[0].destination");
        for root in ["/", "/mnt/..", ".."] {
            refuses("mounts", tmpfs(root), "mounts[0].destination");
        }
        refuses("mounts", json!([{"type": "tmpfs"}]), "mounts[0].destination");
    }

    #[test]
    fn a_bind_mount_needs_a_source_and_any_other_a_type() {
        let mount = |rest: Value| {
            let mut mount = json!({"destination": "/mnt"});
            for (key, value) in rest.as_object().into_iter().flatten() {
                mount[key] = value.clone();
            }
            json!([mount])
        };
        accepts("mounts", mount(json!({"source": "/tmp", "options": ["rbind"]})));
        accepts("mounts", mount(json!({"type": "none", "source": "rel", "options": ["bind", "ro"]})));
        accepts("mounts", mount(json!({"options": ["remount", "bind", "ro"]})));
        refuses("mounts", mount(json!({"type": "bind", "options": ["bind"]})), "mounts[0].source");
        refuses("mounts", mount(json!({"source": "", "options": ["bind"]})), "mounts[0].source");
        refuses("mounts", mount(json!({"type": "bind", "source": "/tmp"})), "mounts[0].options");
        refuses("mounts", mount(json!({"source": "tmpfs"})), "mounts[0].type");
        refuses("mounts", mount(json!({"type": "", "source": "tmpfs"})), "mounts[0].type");
    }

    #[test]
    fn a_bind_mount_has_no_options_of_a_filesystem() {
        let mount = |options: &[&str]| json!([{"destination": "/mnt", "source": "/tmp", "options": options}]);
        accepts("mounts", mount(&["rbind", "rprivate", "ro", "nosuid", "rnoexec", "noatime"]));
        refuses("mounts", mount(&["bind", "mode=755"]), "mounts[0].options");
        refuses("mounts", mount(&["rbind", "unknown"]), "mounts[0].options");
    }

    #[test]
    fn tmpcopyup_is_for_tmpfs() {
        let mount = |kind: &str, options: Value| json!([{"destination": "/mnt", "type": kind, "source": "x", "options": options}]);
        accepts("mounts", mount("tmpfs", json!(["tmpcopyup", "size=1m"])));
        refuses("mounts", mount("proc", json!(["tmpcopyup"])), "mounts[0].options");
        refuses("mounts", mount("bind", json!(["bind", "tmpcopyup"])), "mounts[0].options");
    }

    #[test]
    fn id_mappings_come_in_pairs_and_idmap_alone_needs_a_user_namespace() {
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
        let mount = |options: &[&str], uids: &Value, gids: &Value| {
            json!([{"destination": "/mnt", "type": "tmpfs", "source": "/tmp", "options": options,
                    "uidMappings": uids, "gidMappings": gids}])
        };
        accepts("mounts", mount(&["bind"], &map, &map));
        accepts("mounts", mount(&["rbind", "ridmap"], &map, &map));
        accepts("mounts", mount(&[], &map, &map));
        accepts("mounts", mount(&[], &json!([]), &Value::Null));
        refuses("mounts", mount(&["bind"], &map, &Value::Null), "mounts[0].gidMappings");
        refuses("mounts", mount(&["bind"], &json!([]), &map), "mounts[0].uidMappings");
        refuses("mounts", mount(&["bind", "idmap"], &Value::Null, &Value::Null), "mounts[0].options");
        let overlapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 9, "hostID": 1, "size": 1}]);
        refuses("mounts", mount(&["bind"], &overlapping, &map), "mounts[0].uidMappings[1].containerID");

        let mut config = config();
        put(&mut config, "mounts", mount(&["bind", "idmap"], &Value::Null, &Value::Null));
        put(&mut config, "linux.uidMappings", map.clone());
        put(&mut config, "linux.gidMappings", map);
        config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
        load(&config).expect("idmap with the mappings of the user namespace");
    }
}
