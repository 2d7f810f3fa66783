//! What is refused, with which words, and that nothing is left behind by any failure.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::ExitCode;

use coracle_integration::bundle::{add_mount, push, without_namespace};
use coracle_integration::command::{command, run};
use coracle_integration::{Checked, Finished, Runtime, host, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_missing_bundle_is_an_error,
        a_missing_config_is_an_error,
        bad_json_is_an_error,
        a_config_that_is_null_is_an_error,
        a_config_of_another_shape_is_an_error,
        a_missing_rootfs_is_an_error,
        a_rootfs_that_is_a_file_is_an_error,
        a_config_without_process_is_an_error,
        empty_args_are_an_error,
        a_relative_cwd_is_an_error,
        an_unknown_namespace_is_an_error,
        a_namespace_listed_twice_is_an_error,
        an_unknown_rlimit_is_an_error,
        an_rlimit_given_twice_is_an_error,
        an_unknown_capability_is_only_a_warning,
        an_unknown_rootfs_propagation_is_an_error,
        a_config_version_of_another_major_is_an_error,
        a_missing_mount_source_is_an_error,
        an_unknown_file_system_is_an_error,
        a_mount_over_proc_is_refused,
        a_mount_onto_a_symlink_out_of_the_rootfs_stays_inside,
        a_mount_through_a_symlinked_directory_stays_inside,
        a_bad_device_type_is_an_error,
        a_sysctl_of_the_host_is_refused,
        a_network_sysctl_needs_a_network_namespace,
        an_ipc_sysctl_needs_an_ipc_namespace,
        a_hostname_needs_a_uts_namespace,
        a_namespace_path_that_does_not_exist_is_an_error,
        a_namespace_path_of_another_type_is_an_error,
        a_cpuset_that_does_not_exist_is_an_error,
        a_memory_limit_that_the_kernel_refuses_is_an_error,
        a_cgroup_path_cannot_leave_its_hierarchy,
        args_not_found_is_said_as_runc_says_it,
        args_not_found_by_path_is_an_error,
        args_not_executable_is_an_error,
        args_that_are_a_directory_are_an_error,
        a_script_without_its_interpreter_is_an_error,
        bad_ids_are_refused,
        a_full_pid_cgroup_leaves_nothing_behind,
        a_root_that_cannot_be_made_is_an_error,
        a_console_socket_without_terminal_is_an_error,
        a_terminal_without_console_socket_is_an_error_for_create,
        every_message_names_the_place_in_the_config,
        a_failed_create_leaves_the_id_free,
        exec_of_what_is_not_there_is_255,
        exec_in_a_stopped_container_is_an_error,
        exec_in_nothing_is_an_error,
        exec_without_a_command_is_an_error,
        update_of_nothing_is_an_error,
        a_missing_id_is_a_usage_error,
        an_unknown_flag_is_a_usage_error,
        an_unknown_command_is_a_usage_error,
    ])
}

/// A container of an edited bundle must be refused by `create` with status 1, and leave nothing.
#[track_caller]
fn refused(rt: &Runtime, edit: impl FnOnce(&mut Value)) -> Finished {
    let bundle = rt.bundle(&["true"]).edit(edit);
    let refused = run(rt.container(&bundle).create_command(&[])).exits(1).fails();
    assert!(!refused.stderr.trim().is_empty(), "an error without a word: {refused}");
    rt.assert_clean();
    refused
}

#[track_caller]
fn says(finished: &Finished, parts: &[&str]) {
    // A log line in text form has its quotes escaped.
    let message = finished.stderr.to_lowercase().replace("\\\"", "\"");
    assert!(
        parts.iter().any(|part| message.contains(&part.to_lowercase())),
        "no word of {parts:?} in: {finished}"
    );
}

fn a_missing_bundle_is_an_error(rt: &Runtime) {
    let path = rt.scratch("nowhere").to_string_lossy().into_owned();
    let create = rt.call(&["create", "--bundle", &path, "x"]).exits(1).fails();
    says(&create, &["nowhere"]);
    rt.assert_clean();
}

fn a_missing_config_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    fs::remove_file(bundle.path().join("config.json")).expect("removing config.json");
    let create = run(rt.container(&bundle).create_command(&[])).exits(1).fails();
    says(&create, &["config.json"]);
    rt.assert_clean();
}

fn bad_json_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    for text in ["", "{", "{\"process\": }", "[]", "\"text\"", "{} {}", "\u{0}", "{\"ociVersion\": 1}"] {
        bundle.write_raw(text);
        run(c.create_command(&[])).exits(1).fails();
        rt.assert_clean();
    }
}

fn a_config_that_is_null_is_an_error(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 dies of a null pointer")?;
    let bundle = rt.bundle(&["true"]);
    bundle.write_raw("null");
    run(rt.container(&bundle).create_command(&[])).exits(1).fails_with("config.json");
    rt.assert_clean();
    Ok(())
}

fn a_config_of_another_shape_is_an_error(rt: &Runtime) {
    let edits: [(&str, Value); 7] = [
        ("/process/args", json!("true")),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!("root")),
        ("/mounts", json!({})),
        ("/root/readonly", json!("yes")),
        ("/linux/namespaces", json!([{ "type": 3 }])),
        ("/linux", json!([])),
    ];
    for (pointer, value) in edits {
        refused(rt, |config| *config.pointer_mut(pointer).expect("the default has it") = value);
    }
}

fn a_missing_rootfs_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| config["root"]["path"] = json!("not-there"));
    says(&message, &["not-there"]);
}

fn a_rootfs_that_is_a_file_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]).edit(|config| config["root"]["path"] = json!("file"));
    fs::write(bundle.path().join("file"), "").expect("writing a file");
    run(rt.container(&bundle).create_command(&[])).exits(1).fails();
    rt.assert_clean();
}

fn a_config_without_process_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| {
        config.as_object_mut().expect("an object").remove("process");
    });
    says(&message, &["process"]);
}

fn empty_args_are_an_error(rt: &Runtime) {
    let message = refused(rt, |config| config["process"]["args"] = json!([]));
    says(&message, &["args"]);
}

fn a_relative_cwd_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| config["process"]["cwd"] = json!("tmp"));
    says(&message, &["cwd"]);
}

fn an_unknown_namespace_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| push(config, "/linux/namespaces", json!({ "type": "soul" })));
    says(&message, &["soul", "namespace"]);
}

fn a_namespace_listed_twice_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| push(config, "/linux/namespaces", json!({ "type": "uts" })));
    says(&message, &["namespace", "duplicated ns"]);
}

fn an_unknown_rlimit_is_an_error(rt: &Runtime) {
    let rlimit = json!({ "type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1 });
    let message = refused(rt, |config| push(config, "/process/rlimits", rlimit));
    says(&message, &["RLIMIT_PATIENCE"]);
}

fn an_rlimit_given_twice_is_an_error(rt: &Runtime) -> Checked {
    rt.coracle_only("runc lets the last one win, the spec asks for an error")?;
    let rlimit = json!({ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 });
    let message = refused(rt, |config| push(config, "/process/rlimits", rlimit));
    says(&message, &["RLIMIT_NOFILE"]);
    Ok(())
}

fn an_unknown_capability_is_only_a_warning(rt: &Runtime) {
    let seen = rt.sh("grep CapEff /proc/self/status", |config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_FLY"]);
        }
    });
    assert_eq!(seen.ok().out(), "CapEff:\t0000000000000020");
}

fn an_unknown_rootfs_propagation_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| config["linux"]["rootfsPropagation"] = json!("rumour"));
    says(&message, &["rumour", "rootfsPropagation"]);
}

fn a_config_version_of_another_major_is_an_error(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not look at ociVersion")?;
    for version in ["2.0.0", "zero", ""] {
        let message = refused(rt, |config| config["ociVersion"] = json!(version));
        says(&message, &["ociVersion"]);
    }
    Ok(())
}

fn a_missing_mount_source_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| add_mount(config, "/data", "bind", "/not/there", &["bind"]));
    says(&message, &["/not/there"]);
}

fn an_unknown_file_system_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| add_mount(config, "/data", "wishfs", "none", &[]));
    says(&message, &["wishfs", "/data"]);
}

fn a_mount_over_proc_is_refused(rt: &Runtime) {
    let message = refused(rt, |config| add_mount(config, "/proc", "tmpfs", "tmpfs", &[]));
    says(&message, &["/proc"]);
    for destination in ["/proc", "/proc/sys", "/proc/self/attr"] {
        let message = refused(rt, |config| add_mount(config, destination, "bind", "/etc", &["bind"]));
        says(&message, &["/proc"]);
    }
}

/// A bundle whose rootfs has `/escape` as a symlink to a directory of the host, and that directory.
fn escaping_bundle(
    rt: &Runtime,
    edit: impl FnOnce(&mut Value),
) -> (coracle_integration::Bundle, std::path::PathBuf) {
    let outside = rt.scratch("outside");
    fs::create_dir(&outside).expect("making a directory");
    let bundle = rt.script("grep -c ' /escape\\| outside' /proc/self/mountinfo; true").edit(edit);
    symlink(&outside, bundle.rootfs("escape")).expect("making a symlink");
    (bundle, outside)
}

fn a_mount_onto_a_symlink_out_of_the_rootfs_stays_inside(rt: &Runtime) {
    let (bundle, outside) = escaping_bundle(rt, |config| add_mount(config, "/escape", "tmpfs", "tmpfs", &[]));
    // Refused or taken inside the rootfs: both are safe.
    let _ = rt.container(&bundle).run();
    assert_eq!(fs::read_dir(&outside).expect("it is still there").count(), 0);
    assert!(host::mounts_below(&outside).is_empty());
    rt.assert_clean();
}

fn a_mount_through_a_symlinked_directory_stays_inside(rt: &Runtime) {
    let (bundle, outside) = escaping_bundle(rt, |config| {
        add_mount(config, "/escape/deep/er", "tmpfs", "tmpfs", &[]);
        add_mount(config, "/escape/file", "bind", "/etc/hostname", &["bind"]);
        add_mount(config, "/tmp/../../../escape/up", "tmpfs", "tmpfs", &[]);
    });
    let _ = rt.container(&bundle).run();
    assert_eq!(
        fs::read_dir(&outside).expect("it is still there").count(),
        0,
        "made something outside the rootfs"
    );
    rt.assert_clean();
}

fn a_bad_device_type_is_an_error(rt: &Runtime) {
    let device = json!({ "path": "/dev/odd", "type": "x", "major": 1, "minor": 3 });
    refused(rt, |config| config["linux"]["devices"] = json!([device]));
}

fn a_sysctl_of_the_host_is_refused(rt: &Runtime) {
    for sysctl in ["kernel.panic", "vm.swappiness", "kernel.core_pattern", "fs.file-max"] {
        let message = refused(rt, |config| config["linux"]["sysctl"] = json!({ sysctl: "1" }));
        says(&message, &[sysctl]);
    }
}

fn a_network_sysctl_needs_a_network_namespace(rt: &Runtime) {
    let message = refused(rt, |config| {
        without_namespace(config, "network");
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    });
    says(&message, &["net.ipv4.ip_forward"]);
}

fn an_ipc_sysctl_needs_an_ipc_namespace(rt: &Runtime) {
    let message = refused(rt, |config| {
        without_namespace(config, "ipc");
        config["linux"]["sysctl"] = json!({ "kernel.shmmni": "4096" });
    });
    says(&message, &["kernel.shmmni"]);
}

fn a_hostname_needs_a_uts_namespace(rt: &Runtime) {
    let message = refused(rt, |config| without_namespace(config, "uts"));
    says(&message, &["hostname", "uts"]);
}

fn a_namespace_path_that_does_not_exist_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| {
        coracle_integration::bundle::join_namespace(config, "network", "/run/netns/not-there");
    });
    says(&message, &["/run/netns/not-there"]);
}

fn a_namespace_path_of_another_type_is_an_error(rt: &Runtime) {
    refused(rt, |config| coracle_integration::bundle::join_namespace(config, "network", "/proc/self/ns/uts"));
}

fn a_cpuset_that_does_not_exist_is_an_error(rt: &Runtime) {
    let message = refused(rt, |config| config["linux"]["resources"]["cpu"] = json!({ "cpus": "4000" }));
    says(&message, &["cpuset.cpus", "cpus"]);
}

fn a_memory_limit_that_the_kernel_refuses_is_an_error(rt: &Runtime) {
    // A swap limit below the memory limit is EINVAL on cgroup v1.
    let memory = json!({ "limit": 64 << 20, "swap": 32 << 20 });
    refused(rt, |config| config["linux"]["resources"]["memory"] = memory);
}

fn a_cgroup_path_cannot_leave_its_hierarchy(rt: &Runtime) {
    let own = rt.own_cgroup();
    let bundle = rt.bundle(&["true"]).edit(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("/../../../../{own}/{own}"));
    });
    // Refused, or cleaned so that it stays below the mount point.
    let _ = rt.container(&bundle).run();
    for outside in ["/", "/sys/fs", "/sys/fs/cgroup"] {
        assert!(!std::path::Path::new(outside).join(&own).exists());
    }
    rt.assert_clean();
}

/// `create` and `run` with these args must both fail with status 1.
#[track_caller]
fn cannot_execute(rt: &Runtime, args: &[&str], parts: &[&str]) {
    let bundle = rt.bundle(args);
    bundle.file("etc/plain", "no program\n", 0o644);
    bundle.file("etc/orphan", "#!/not/there\n", 0o755);
    let c = rt.container(&bundle);
    let ran = c.run().exits(1).fails();
    says(&ran, parts);
    rt.assert_clean();
}

fn args_not_found_is_said_as_runc_says_it(rt: &Runtime) {
    cannot_execute(rt, &["nonesuch"], &["exec: \"nonesuch\": executable file not found in $PATH"]);
    let bundle = rt.bundle(&["nonesuch"]);
    run(rt.container(&bundle).create_command(&[])).exits(1).fails_with("executable file not found in $PATH");
    rt.assert_clean();
}

fn args_not_found_by_path_is_an_error(rt: &Runtime) {
    cannot_execute(rt, &["/bin/nonesuch"], &["no such file or directory"]);
}

fn args_not_executable_is_an_error(rt: &Runtime) {
    cannot_execute(rt, &["/etc/plain"], &["exec: \"/etc/plain\": permission denied"]);
}

fn args_that_are_a_directory_are_an_error(rt: &Runtime) {
    cannot_execute(rt, &["/etc"], &["permission denied", "is a directory"]);
}

fn a_script_without_its_interpreter_is_an_error(rt: &Runtime) {
    // It is found and executable, so that only execve itself can tell; that happens at start.
    cannot_execute(rt, &["/etc/orphan"], &["no such file or directory"]);
}

fn bad_ids_are_refused(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let path = bundle.path().to_string_lossy().into_owned();
    for id in ["", "..", ".", "a/b", "../up", "/abs", "a b", "a\nb", "tab\t", "ü", "a*", "a:b"] {
        rt.call(&["create", "--bundle", &path, id]).exits(1).fails();
        rt.call(&["state", id]).exits(1).fails();
        rt.assert_clean();
    }
}

fn a_full_pid_cgroup_leaves_nothing_behind(rt: &Runtime) -> Checked {
    let Some(hierarchy) = host::v1_hierarchy("pids") else {
        return coracle_integration::skip("no cgroup v1 pids hierarchy here");
    };
    let own = rt.own_cgroup();
    let parent = hierarchy.join(&own);
    fs::create_dir(&parent).expect("making a cgroup");
    fs::write(parent.join("pids.max"), "0").expect("writing pids.max");
    let bundle = rt.bundle(&["sh", "-c", "true & wait"]);
    let c = rt.container(&bundle);
    let bundle = bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(format!("/{own}/{}", c.id)));
    c.run().fails();
    drop(bundle);
    rt.assert_clean();
    Ok(())
}

fn a_root_that_cannot_be_made_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let file = rt.scratch("file");
    fs::write(&file, "").expect("writing a file");
    let root = file.join("root");
    let mut create = rt.bare(["--root"]);
    create.arg(&root).args(["create", "--bundle"]).arg(bundle.path()).arg(format!("{}-0", rt.mark()));
    let refused = run(create).exits(1).fails();
    says(&refused, &["not a directory"]);
    rt.assert_clean();
}

fn a_console_socket_without_terminal_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let socket = coracle_integration::console::DescriptorSocket::new(rt.scratch("socket"));
    let create = rt.container(&bundle).create_command(&["--console-socket", socket.path()]);
    run(create).exits(1).fails_with("console socket");
    rt.assert_clean();
}

fn a_terminal_without_console_socket_is_an_error_for_create(rt: &Runtime) {
    let message = refused(rt, |config| config["process"]["terminal"] = json!(true));
    says(&message, &["console socket"]);
}

fn every_message_names_the_place_in_the_config(rt: &Runtime) -> Checked {
    rt.coracle_only("other runtimes do not say where in config.json")?;
    let edits: [(&str, &str, Value); 12] = [
        ("/process/args", "process.args", json!([])),
        ("/process/cwd", "process.cwd", json!("tmp")),
        ("/process/user", "process.user.uid", json!({ "uid": -1, "gid": 0 })),
        (
            "/process/rlimits",
            "process.rlimits[0].type",
            json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]),
        ),
        ("/root", "root.path", json!({ "path": "not-there" })),
        ("/mounts/0", "mounts[0]", json!({ "destination": "/data", "type": "wishfs", "source": "none" })),
        (
            "/mounts/1",
            "mounts[1]",
            json!({ "destination": "/dev", "type": "bind", "source": "/not/there",
            "options": ["bind"] }),
        ),
        ("/linux/namespaces", "linux.namespaces[0]", json!([{ "type": "soul" }])),
        (
            "/linux/namespaces/1",
            "linux.namespaces[1].path",
            json!({ "type": "network", "path": "/not/there" }),
        ),
        ("/linux/resources", "linux.resources.cpu.cpus", json!({ "cpu": { "cpus": "4000" } })),
        ("/linux/maskedPaths", "linux.maskedPaths", json!("text")),
        ("/hostname", "hostname", json!("x".repeat(65))),
    ];
    for (pointer, place, value) in edits {
        let message = refused(rt, |config| *config.pointer_mut(pointer).expect("the default has it") = value);
        assert!(message.stderr.contains(place), "{place} is not named: {message}");
    }
    Ok(())
}

fn a_failed_create_leaves_the_id_free(rt: &Runtime) {
    let bundle = rt.bundle(&["nonesuch"]);
    let c = rt.container(&bundle);
    c.create().fails();
    let bundle = bundle.edit(|config| config["process"]["args"] = json!(["true"]));
    assert_eq!(bundle.config["process"]["args"][0], "true");
    c.create().ok();
}

fn exec_of_what_is_not_there_is_255(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let missing = c.exec(&["nonesuch"]).exits(255);
    says(&missing, &["exec: \"nonesuch\": executable file not found in $PATH"]);
    c.exec(&["/etc/passwd"]).exits(255).fails_with("permission denied");
    assert_eq!(c.status(), "running");
}

fn exec_in_a_stopped_container_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    c.up();
    c.wait_for("stopped");
    let refused = c.exec(&["true"]).exits(255);
    refused.fails_with_any(&["cannot exec in a stopped container", "container not running"]);
}

fn exec_in_nothing_is_an_error(rt: &Runtime) {
    rt.call(&["exec", "nobody", "true"]).exits(255).fails_with("container does not exist");
}

fn exec_without_a_command_is_an_error(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.exec(&[]).fails();
}

fn update_of_nothing_is_an_error(rt: &Runtime) {
    rt.call(&["update", "--memory", "67108864", "nobody"]).fails_with("container does not exist");
}

fn a_missing_id_is_a_usage_error(rt: &Runtime) {
    for verb in ["create", "start", "state", "kill", "delete", "exec", "pause", "resume", "ps"] {
        rt.call(&[verb]).fails();
    }
}

fn an_unknown_flag_is_a_usage_error(rt: &Runtime) {
    for verb in ["create", "run", "start", "state", "delete", "list"] {
        let refused = rt.call(&[verb, "--no-such-flag", "x"]).fails();
        let text = format!("{}{}", refused.stdout, refused.stderr);
        assert!(text.contains("no-such-flag"), "{refused}");
    }
}

fn an_unknown_command_is_a_usage_error(rt: &Runtime) {
    let refused = rt.call(&["levitate"]);
    assert!(format!("{}{}", refused.stdout, refused.stderr).contains("levitate"), "{refused}");
    assert!(run(command(rt.binary(), &["help"])).stdout.contains("create"));
}
