//! The same bundles with a user namespace under runc 1.3 and under the runtime under test: what the process sees, and what
//! the host finds afterwards, must be the same.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use coracle_integration::bundle::{add_mount, grant, push, without_namespace};
use coracle_integration::{Runtime, beside, trial_without_runtime};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::common::{BASE, script};

type Edit = fn(&mut Value, &Path);

/// Each is given the configuration, and a directory of the host with a file of 5:6.
const CASES: [(&str, Edit); 11] = [
    ("the_default_bundle", |_, _| ()),
    ("an_ordinary_user", |config, _| {
        config["process"]["user"] =
            json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 7], "umask": 0o077 });
    }),
    ("many_capabilities", |config, _| {
        grant(config, &["CAP_CHOWN", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_NET_ADMIN"]);
        config["process"]["noNewPrivileges"] = json!(false);
    }),
    ("limits_and_a_score", |config, _| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
        config["process"]["oomScoreAdj"] = json!(123);
    }),
    ("several_ranges", |config, _| {
        for list in ["uidMappings", "gidMappings"] {
            config["linux"][list] = json!([
                { "containerID": 0, "hostID": BASE, "size": 10 },
                { "containerID": 10, "hostID": 400_000, "size": 2000 },
            ]);
        }
    }),
    ("a_bind_mount", |config, source| {
        add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["rbind", "ro"]);
    }),
    ("a_bind_mount_with_the_containers_ids", |config, source| {
        add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["bind", "idmap"]);
    }),
    ("a_bind_mount_with_ids_of_its_own", |config, source| {
        let mapping = json!([{ "containerID": 0, "hostID": BASE + 100, "size": 1000 }]);
        let mount = json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["bind"],
            "uidMappings": mapping, "gidMappings": mapping });
        push(config, "/mounts", mount);
    }),
    ("a_bind_mount_with_ids_below_it_too", |config, source| {
        add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["rbind", "ridmap"]);
    }),
    ("without_names_of_its_own", |config, _| {
        without_namespace(config, "uts");
        config.as_object_mut().expect("an object").remove("hostname");
    }),
    ("a_readonly_root", |config, _| config["root"]["readonly"] = json!(true)),
];

pub fn tests() -> Vec<Trial> {
    let trial = |&(name, edit): &(&str, Edit)| {
        trial_without_runtime(format!("as_runc_does_with_{name}"), move || {
            beside::compare(|rt| probe(rt, edit))
        })
    };
    CASES.iter().map(trial).collect()
}

const PROBE: &str = r"
section() { echo == $1; }
section mounts; cat /proc/self/mountinfo
section status; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask)' /proc/self/status
section maps; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
section limits; cat /proc/self/limits /proc/self/oom_score_adj
section devices; for f in null zero full random urandom tty console ptmx fd; do stat -c '%n %F %t:%T %a %u:%g' /dev/$f; done
section owners; stat -c '%n %a %u:%g' / /proc /sys /dev /dev/shm /dev/pts /tmp /mnt /mnt/file
section writing; touch /mnt/new && stat -c '%u:%g' /mnt/new
section names; hostname; pwd
section end
";

/// What one runtime's container sees, in sections, and who owns on the host what it has written.
fn probe(rt: &Runtime, edit: Edit) -> Vec<String> {
    let source = rt.scratch("source");
    fs::create_dir_all(&source).expect("making a directory");
    fs::write(source.join("file"), "").expect("writing a file");
    chown(source.join("file"), Some(5), Some(6)).expect("chown");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o777)).expect("chmod");
    let bundle = script(rt, PROBE, |config| edit(config, &source));
    fs::create_dir_all(bundle.rootfs("/mnt")).expect("making a directory");
    let c = rt.container(&bundle);
    let ran = c.run().ok();
    let mut seen = beside::seen(&ran.stdout, rt, &c.id, &[]);
    for place in [source.join("new"), bundle.rootfs("/mnt/new")] {
        if let Ok(found) = fs::metadata(&place) {
            let name = if place.starts_with(&source) { "source" } else { "rootfs" };
            seen.push(format!("on the host: new in the {name} is of {}:{}", found.uid(), found.gid()));
        }
    }
    seen
}
