//! Id-mapped mounts, with a user namespace and without.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use coracle_integration::bundle::{add_mount, push};
use coracle_integration::{Checked, Runtime, tests};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::common::{BASE, sh};

pub fn tests() -> Vec<Trial> {
    tests![
        a_mount_can_be_mapped_without_a_user_namespace,
        a_mount_can_be_mapped_to_the_containers_ids,
        files_written_through_a_mapped_mount_have_the_ids_of_the_source,
        a_new_filesystem_can_be_mapped,
        a_new_filesystem_can_be_mapped_in_a_user_namespace,
        what_is_copied_up_is_mapped_too,
        a_filesystem_that_cannot_be_mapped_is_told,
        a_mapping_without_its_pair_or_its_namespace_is_refused,
    ]
}

/// A directory of the host with a file of user 5, for a mapped mount.
fn mapped_source(rt: &Runtime) -> PathBuf {
    let source = rt.scratch("source");
    fs::create_dir_all(&source).expect("making a directory");
    fs::write(source.join("file"), "").expect("writing a file");
    chown(source.join("file"), Some(5), Some(6)).expect("chown");
    source
}

fn a_mount_can_be_mapped_without_a_user_namespace(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has id-mapped mounts without a user namespace since 1.2")?;
    let source = mapped_source(rt);
    let seen = rt.sh("stat -c %u:%g /mnt/file", |config| {
        let mapping = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1000 }]);
        let mount = json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["rbind"],
            "uidMappings": mapping(1000), "gidMappings": mapping(3000) });
        push(config, "/mounts", mount);
    });
    assert_eq!(seen.ok().out(), "1005:3006");
    Ok(())
}

fn a_mount_can_be_mapped_to_the_containers_ids(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has id-mapped mounts since 1.2")?;
    let source = mapped_source(rt);
    let seen = sh(rt, "stat -c %u:%g /mnt/file /plain/file", |config| {
        add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["bind", "idmap"]);
        add_mount(config, "/plain", "bind", &source.to_string_lossy(), &["bind"]);
    });
    assert_eq!(seen.ok().lines(), ["5:6", "65534:65534"]);
    Ok(())
}

fn files_written_through_a_mapped_mount_have_the_ids_of_the_source(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has id-mapped mounts since 1.2")?;
    let source = mapped_source(rt);
    fs::set_permissions(&source, fs::Permissions::from_mode(0o777)).expect("chmod");
    sh(rt, "touch /mnt/new", |config| {
        config["process"]["user"] = json!({ "uid": 12, "gid": 13 });
        add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["bind", "idmap"]);
    })
    .ok();
    let found = fs::metadata(source.join("new")).expect("the file");
    assert_eq!((found.uid(), found.gid()), (12, 13));
    Ok(())
}

/// A mount of a new filesystem with mappings of its own.
fn new_mount(kind: &str, options: &[&str], host: u32) -> Value {
    let mapping = json!([{ "containerID": 0, "hostID": host, "size": 1000 }]);
    json!({ "destination": "/mnt", "type": kind, "source": kind, "options": options, "uidMappings": mapping,
        "gidMappings": mapping })
}

fn a_new_filesystem_can_be_mapped(rt: &Runtime) -> Checked {
    rt.coracle_only("runc maps bind mounts only")?;
    let text =
        "stat -c %u:%g /mnt; touch /mnt/x && stat -c %u:%g /mnt/x; grep -o idmapped /proc/self/mountinfo";
    let seen = rt.sh(text, |config| {
        // Only users that the mount maps to can own what it holds.
        config["process"]["user"] = json!({ "uid": 1005, "gid": 1006 });
        push(config, "/mounts", new_mount("tmpfs", &["mode=777"], 1000));
    });
    assert_eq!(seen.ok().lines(), ["1000:1000", "1005:1006", "idmapped"]);
    Ok(())
}

fn a_new_filesystem_can_be_mapped_in_a_user_namespace(rt: &Runtime) -> Checked {
    rt.coracle_only("runc maps bind mounts only")?;
    let mapped = |mount: Value| {
        sh(rt, "stat -c %u:%g /mnt; grep -o idmapped /proc/self/mountinfo", |config| {
            push(config, "/mounts", mount);
        })
        .ok()
    };
    // The mount's ids are the host's: BASE is user 0 of the container.
    assert_eq!(mapped(new_mount("tmpfs", &["mode=777"], BASE + 7)).lines(), ["7:7", "idmapped"]);
    let own = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"] });
    assert_eq!(mapped(own).lines(), ["0:0", "idmapped"]);
    Ok(())
}

fn what_is_copied_up_is_mapped_too(rt: &Runtime) -> Checked {
    rt.coracle_only("runc maps bind mounts only")?;
    let bundle = rt.script("stat -c %u:%g /mnt/file").edit(|config| {
        push(config, "/mounts", new_mount("tmpfs", &["tmpcopyup"], 1000));
    });
    fs::create_dir_all(bundle.rootfs("/mnt")).expect("making a directory");
    fs::write(bundle.rootfs("/mnt/file"), "").expect("writing a file");
    chown(bundle.rootfs("/mnt/file"), Some(5), Some(6)).expect("chown");
    assert_eq!(rt.container(&bundle).run().ok().out(), "1005:1006");
    Ok(())
}

fn a_filesystem_that_cannot_be_mapped_is_told(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    for kind in ["mqueue", "sysfs"] {
        rt.sh("true", |config| config["mounts"] = json!([new_mount(kind, &[], 1000)]))
            .fails_with("mounts[0]")
            .fails_with("map the ids of the mount")
            .fails_with("doesn't support id-mapped mounts");
    }
    for (mount, why) in [
        (new_mount("cgroup", &[], 1000), "cgroup hierarchies don't support id-mapped mounts"),
        (new_mount("tmpfs", &["remount"], 1000), "a remount can't map ids"),
    ] {
        rt.sh("true", |config| config["mounts"] = json!([mount])).fails_with("mounts[0]").fails_with(why);
    }
    Ok(())
}

fn a_mapping_without_its_pair_or_its_namespace_is_refused(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let with = |change: fn(&mut Value)| {
        let mut mount = new_mount("tmpfs", &[], 1000);
        change(&mut mount);
        rt.sh("true", |config| config["mounts"] = json!([mount]))
    };
    with(|mount| mount["gidMappings"] = json!([])).fails_with("mounts[0].gidMappings");
    with(|mount| mount["uidMappings"][0]["size"] = json!(0)).fails_with("mounts[0].uidMappings[0].size");
    with(|mount| {
        push(mount, "/gidMappings", json!({ "containerID": 9, "hostID": 5000, "size": 1 }));
    })
    .fails_with("mounts[0].gidMappings[1].containerID");
    with(|mount| {
        mount["uidMappings"] = json!([]);
        mount["gidMappings"] = json!([]);
        mount["options"] = json!(["idmap"]);
    })
    .fails_with("mounts[0].options");
    Ok(())
}
