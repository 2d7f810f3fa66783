//! What a document may say although the types refuse it.
//!
//! The runtime spec is looser than oci-spec's types: an unknown capability is warned of and dropped, `null` is as
//! absent, a `uint64` may be larger than an `i64`. The functions here bring such a document, as a
//! [`Value`], into a form that the types take. After that, in the types, they make absent what is given but empty,
//! as other runtimes read it.

use oci_spec::runtime::{Capability, LinuxNamespace, Process, Spec};
use serde::{
    Deserialize as _,
    de::value::{Error, StrDeserializer},
};
use serde_json::{Map, Value};

use super::problems::Problems;

/// Sections of other platforms.
const OTHER_PLATFORMS: [&str; 5] = ["solaris", "windows", "vm", "zos", "freebsd"];

/// The five capability sets of a process.
const CAPABILITY_SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// Scheduler flags as the spec has them, and as oci-spec 0.10 derives them from the names of its variants.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
];

/// Tolerates in a `config.json`. Gives whether anything was changed.
pub(super) fn config(document: &mut Value, problems: &mut Problems) -> bool {
    let mut changed = remove_nulls(document);
    if let Some(members) = document.as_object_mut() {
        for platform in OTHER_PLATFORMS {
            if members.remove(platform).is_some() {
                warn_of_platform(platform, problems);
                changed = true;
            }
        }
    }
    if let Some(process) = document.get_mut("process") {
        changed |= tolerate_process(process, "process.", problems);
    }
    if let Some(resources) = document.pointer_mut("/linux/resources") {
        changed |= tolerate_resources(resources);
    }
    if let Some(linux) = document.get_mut("linux").and_then(Value::as_object_mut)
        && linux.get("memoryPolicy").and_then(Value::as_object).is_some_and(Map::is_empty)
    {
        linux.remove("memoryPolicy");
        changed = true;
    }
    changed
}

/// Tolerates in a process file. Gives whether anything was changed.
pub(super) fn process(document: &mut Value, problems: &mut Problems) -> bool {
    remove_nulls(document) | tolerate_process(document, "", problems)
}

/// Tolerates in a `linux.resources` object that stands alone. Gives whether anything was changed.
pub(super) fn resources(document: &mut Value, _: &mut Problems) -> bool {
    remove_nulls(document) | tolerate_resources(document)
}

fn remove_nulls(value: &mut Value) -> bool {
    match value {
        Value::Object(members) => {
            let before = members.len();
            members.retain(|_, member| !member.is_null());
            let mut changed = members.len() != before;
            for member in members.values_mut() {
                changed |= remove_nulls(member);
            }
            changed
        }
        Value::Array(elements) => {
            let mut changed = false;
            for element in elements {
                changed |= remove_nulls(element);
            }
            changed
        }
        _ => false,
    }
}

fn tolerate_process(process: &mut Value, prefix: &str, problems: &mut Problems) -> bool {
    let mut changed = false;
    for set in CAPABILITY_SETS {
        let Some(Value::Array(names)) = process.pointer_mut(&format!("/capabilities/{set}")) else {
            continue;
        };
        names.retain(|name| {
            let unknown = name.as_str().is_some_and(|name| !is_capability(name));
            if unknown {
                problems.warn(
                    format_args!("{prefix}capabilities.{set}"),
                    format_args!("capability {name} is unknown and ignored; names are as in capabilities(7)"),
                );
            }
            changed |= unknown;
            !unknown
        });
    }
    let Some(members) = process.as_object_mut() else { return changed };
    if !members.contains_key("user") {
        members.insert("user".to_owned(), Value::Object(Map::new()));
        changed = true;
    }
    if let Some(Value::Object(affinity)) = members.get_mut("execCPUAffinity") {
        for phase in ["initial", "final"] {
            let Some(Value::String(list)) = affinity.get(phase) else { continue };
            let tidy = tidy_list(list);
            if tidy == *list && !tidy.is_empty() {
                continue;
            }
            changed = true;
            if tidy.is_empty() {
                affinity.remove(phase);
            } else {
                affinity.insert(phase.to_owned(), Value::String(tidy));
            }
        }
    }
    if let Some(Value::Array(flags)) =
        members.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"))
    {
        for flag in flags {
            if let Some((_, ours)) = SCHEDULER_FLAGS.iter().find(|(spec, _)| *flag == **spec) {
                *flag = Value::String((*ours).to_owned());
                changed = true;
            }
        }
    }
    changed
}

/// Whether a capability is called so. The types also take `kill` and `CAP_CAP_KILL`, which other runtimes do not
/// grant.
fn is_capability(name: &str) -> bool {
    name.strip_prefix("CAP_").is_some_and(|name| {
        Capability::deserialize(StrDeserializer::<Error>::new(name))
            .is_ok_and(|known| known.to_string() == name)
    })
}

/// Whether [`process`] would drop a name of this section, `capabilities` word for word: a quick look, so that a
/// good section is not parsed twice.
pub(super) fn has_odd_capability(section: &str) -> bool {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let good = |text: &str| text.starts_with("CAP_") && !text.starts_with("CAP_CAP_") && plain(text);
    let odd = |text: &str| !CAPABILITY_SETS.contains(&text) && !good(text);
    section.contains('\\') || section.split('"').skip(1).step_by(2).any(odd)
}

/// A CPU list without blanks and empty elements, which other runtimes take and oci-spec does not.
fn tidy_list(list: &str) -> String {
    let parts: Vec<&str> = list.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    parts.join(",")
}

fn tolerate_resources(resources: &mut Value) -> bool {
    let mut changed = false;
    if let Some(Value::Array(rules)) = resources.get_mut("devices") {
        for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
            if rule.get("type").is_some_and(|kind| kind == "") {
                rule.remove("type");
                changed = true;
            }
        }
    }
    if let Some(Value::Array(limits)) = resources.get_mut("hugepageLimits") {
        for limit in limits.iter_mut().filter_map(|limit| limit.get_mut("limit")) {
            // A uint64 in the spec, an i64 in the types. The kernel counts pages in a long: both mean no limit.
            if limit.as_u64().is_some_and(|bytes| i64::try_from(bytes).is_err()) {
                *limit = Value::from(i64::MAX);
                changed = true;
            }
        }
    }
    changed
}

/// A parser's message with the names as the spec has them.
pub(super) fn names_as_in_spec(message: &str) -> String {
    SCHEDULER_FLAGS.iter().fold(message.to_owned(), |message, (spec, ours)| {
        message.replace(&format!("`{ours}`"), &format!("`{spec}`"))
    })
}

/// Drops the sections of other platforms.
pub(super) fn forget_other_platforms(spec: &mut Spec, problems: &mut Problems) {
    if spec.solaris_mut().take().is_some() {
        warn_of_platform("solaris", problems);
    }
    if spec.windows_mut().take().is_some() {
        warn_of_platform("windows", problems);
    }
    if spec.vm_mut().take().is_some() {
        warn_of_platform("vm", problems);
    }
    if spec.zos_mut().take().is_some() {
        warn_of_platform("zos", problems);
    }
}

fn warn_of_platform(platform: &str, problems: &mut Problems) {
    problems.warn(platform, "this section is for another platform and is ignored");
}

/// Makes strings absent that are given but empty, where that is what they mean.
pub(super) fn empty_as_absent(spec: &mut Spec) {
    forget_empty(spec.hostname_mut());
    forget_empty(spec.domainname_mut());
    if let Some(process) = spec.process_mut() {
        empty_as_absent_in_process(process);
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        forget_empty(mount.typ_mut());
        if mount.source().as_ref().is_some_and(|source| source.as_os_str().is_empty()) {
            mount.set_source(None);
        }
    }
    let Some(linux) = spec.linux_mut() else { return };
    forget_empty(linux.rootfs_propagation_mut());
    forget_empty(linux.mount_label_mut());
    if linux.cgroups_path().as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        linux.set_cgroups_path(None);
    }
    let pathless = |namespace: &LinuxNamespace| {
        namespace.path().as_ref().is_some_and(|path| path.as_os_str().is_empty())
    };
    for namespace in linux.namespaces_mut().iter_mut().flatten().filter(|namespace| pathless(namespace)) {
        namespace.set_path(None);
    }
}

/// [`empty_as_absent`] for a process.
pub(super) fn empty_as_absent_in_process(process: &mut Process) {
    if process.apparmor_profile().as_ref().is_some_and(String::is_empty) {
        process.set_apparmor_profile(None);
    }
    if process.selinux_label().as_ref().is_some_and(String::is_empty) {
        process.set_selinux_label(None);
    }
}

fn forget_empty(string: &mut Option<String>) {
    if string.as_ref().is_some_and(String::is_empty) {
        *string = None;
    }
}
