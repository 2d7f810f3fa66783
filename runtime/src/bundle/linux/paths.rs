//! Paths and single values of `linux`: `cgroupsPath`, `maskedPaths`, `readonlyPaths`, `rootfsPropagation` and
//! `personality` (`config-linux.md`, sections of these names).

use std::path::{Component, Path};

use oci_spec::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceType, LinuxPersonality, LinuxPersonalityDomain,
};
use rustix::mount::MountPropagationFlags;

use super::{
    super::{
        mount_options::{PROPAGATIONS, propagation},
        problems::Problems,
    },
    has,
};

pub(super) fn check(linux: &Linux, namespaces: &[LinuxNamespace], problems: &mut Problems) {
    if let Some(path) = linux.cgroups_path() {
        check_cgroups_path(path, problems);
    }
    check_restricted("linux.maskedPaths", linux.masked_paths().as_deref(), namespaces, problems);
    check_restricted("linux.readonlyPaths", linux.readonly_paths().as_deref(), namespaces, problems);
    if let Some(name) = linux.rootfs_propagation()
        && propagation(name).is_none()
    {
        problems.refuse(
            "linux.rootfsPropagation",
            format!("rootfsPropagation={name} is not supported; use {PROPAGATIONS}"),
        );
    }
    if linux.rootfs_propagation().as_ref().is_some_and(|name| !name.is_empty())
        && !has(namespaces, LinuxNamespaceType::Mount)
    {
        problems.refuse(
            "linux.rootfsPropagation",
            "it needs a mount namespace of the container's own; add {\"type\": \"mount\"} to linux.namespaces",
        );
    }
    if let Some(personality) = linux.personality()
        && personality.flags().as_ref().is_some_and(|flags| !flags.is_empty())
    {
        problems.warn(
            format_args!("linux.personality.flags"),
            format_args!("the spec knows no flags yet, they have no effect; remove them"),
        );
    }
}

fn check_cgroups_path(path: &Path, problems: &mut Problems) {
    if path.components().any(|component| component == Component::ParentDir) {
        problems.refuse(
            "linux.cgroupsPath",
            format!(
                "{:?} has a \"..\", which could lead out of the hierarchy; write the path without",
                path.to_string_lossy()
            ),
        );
    }
}

fn check_restricted(
    place: &str,
    paths: Option<&[String]>,
    namespaces: &[LinuxNamespace],
    problems: &mut Problems,
) {
    let Some(paths) = paths.filter(|paths| !paths.is_empty()) else { return };
    if !has(namespaces, LinuxNamespaceType::Mount) {
        problems.refuse(
            place,
            "unable to restrict sys entries without a private MNT namespace; \
             add {\"type\": \"mount\"} to linux.namespaces",
        );
    }
    for (index, path) in paths.iter().enumerate() {
        if !path.starts_with('/') {
            problems.refuse(
                format!("{place}[{index}]"),
                format!("{path:?} is not absolute; give the path as the container sees it, beginning with /"),
            );
        }
    }
}

/// The propagation type that `linux.rootfsPropagation` names; `None` for a name that the check refuses.
pub fn parse_rootfs_propagation(name: &str) -> Option<MountPropagationFlags> {
    propagation(name)
}

/// The persona of personality(2) for `linux.personality`: `PER_LINUX` or `PER_LINUX32`.
pub fn personality(personality: &LinuxPersonality) -> u32 {
    match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0x0000,
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use serde_json::json;

    #[test]
    fn a_cgroups_path_does_not_climb() {
        for path in ["/a/b", "a/b", "system.slice:coracle:box", "/a/..b/c..", "/"] {
            accepts("linux.cgroupsPath", json!(path));
        }
        for path in ["..", "/../a", "a/../../b", "/a/.."] {
            refuses("linux.cgroupsPath", json!(path), "linux.cgroupsPath");
        }
        refuses("linux.cgroupsPath", json!("/a\u{0}b"), "linux.cgroupsPath");
    }

    #[test]
    fn restricted_paths_are_absolute_and_need_a_mount_namespace() {
        for list in ["maskedPaths", "readonlyPaths"] {
            let place = format!("linux.{list}");
            accepts(&place, json!(["/proc/kcore"]));
            refuses(&place, json!(["/proc/kcore", "proc/keys"]), &format!("{place}[1]"));
            refuses(&place, json!([""]), &format!("{place}[0]"));
            refuses("linux", json!({"namespaces": [{"type": "uts"}], list: ["/proc/kcore"]}), &place);
            accepts("linux", json!({"namespaces": [{"type": "uts"}], list: []}));
        }
    }

    #[test]
    fn rootfs_propagation_has_the_names_of_mounts() {
        for name in
            ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"]
        {
            accepts("linux.rootfsPropagation", json!(name));
            assert!(super::parse_rootfs_propagation(name).is_some());
        }
        accepts("linux.rootfsPropagation", json!(""));
        for name in ["ro", "Shared", "x"] {
            refuses("linux.rootfsPropagation", json!(name), "linux.rootfsPropagation");
        }
        let without = json!({"namespaces": [{"type": "uts"}], "rootfsPropagation": "slave"});
        refuses("linux", without, "linux.rootfsPropagation");
    }

    #[test]
    fn a_personality_is_one_of_two_domains_without_flags() {
        for (domain, persona) in [("LINUX", 0), ("LINUX32", 8)] {
            let bundle = accepts("linux.personality", json!({"domain": domain, "flags": []}));
            let linux = bundle.spec.linux().as_ref().expect("linux");
            assert_eq!(super::personality(linux.personality().as_ref().expect("a personality")), persona);
        }
        let with_flags = accepts("linux.personality", json!({"domain": "LINUX", "flags": ["x"]}));
        assert!(with_flags.warnings[0].contains("linux.personality.flags"), "{:?}", with_flags.warnings);
        refuses("linux.personality", json!({"domain": "BSD"}), "linux.personality.domain");
        refuses("linux.personality", json!({}), "linux.personality.domain");
    }
}
