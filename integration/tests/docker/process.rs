//! Options of `docker run` about the process: who it is, what it may do, whose namespaces it shares.

use std::fs;

use coracle_integration::engine::docker::Docker;

/// The value of a field of `/proc/self/status`, as the container shows it.
fn status_of(docker: &Docker, options: &[&str], field: &str) -> String {
    let ran = docker.sh(options, "cat /proc/self/status").ok();
    coracle_integration::host::status_field(&ran.stdout, field).unwrap_or_default().to_owned()
}

/// The bits of `/proc/self/status`' `CapEff`.
fn effective(docker: &Docker, options: &[&str]) -> u64 {
    u64::from_str_radix(&status_of(docker, options, "CapEff"), 16).expect("capabilities are a number")
}

pub fn as_another_user(docker: &Docker) {
    let script = "id -u; id -g; id -G; echo $HOME";
    let ran = docker.sh(&["--user", "1234:5678", "--group-add", "4000"], script).ok();
    assert_eq!(ran.lines(), ["1234", "5678", "5678 4000", "/"]);
    let ran = docker.sh(&["--user", "user"], script).ok();
    assert_eq!(ran.lines(), ["1000", "1000", "1000", "/home/user"]);
    docker.run(&["--user", "nobody-here"], &["true"]).exits(125);
}

pub fn with_capabilities_added_and_dropped(docker: &Docker) {
    const NET_RAW: u64 = 1 << 13;
    const NET_ADMIN: u64 = 1 << 12;
    const CHOWN: u64 = 1 << 0;
    assert_eq!(effective(docker, &["--cap-drop", "ALL", "--cap-add", "NET_RAW"]), NET_RAW);
    let usual = effective(docker, &[]);
    assert!(usual & CHOWN != 0 && usual & NET_ADMIN == 0, "{usual:x}");
    let changed = effective(docker, &["--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"]);
    assert_eq!(changed, (usual | NET_ADMIN) & !CHOWN);
    assert_eq!(effective(docker, &["--user", "1000"]), 0);
}

pub fn privileged(docker: &Docker) {
    let script = "mount -t tmpfs tmpfs /var && echo mounted; test -b /dev/loop0 -o -c /dev/kmsg && echo devices; \
                  grep ^Seccomp: /proc/self/status | tr -d '\\t'; touch /sys/fs/cgroup/pids/../pids/x 2>&1; \
                  grep ' /proc/sys ' /proc/mounts; echo end";
    let ran = docker.sh(&["--privileged"], script).ok();
    for part in ["mounted\n", "devices\n", "Seccomp:0\n"] {
        assert!(ran.stdout.contains(part), "{part:?} is not in {ran}");
    }
    assert!(ran.stdout.ends_with("end\n") && !ran.stdout.contains(" /proc/sys "), "{ran}");
    let all = effective(docker, &["--privileged"]);
    assert!(all & (1 << 21) != 0, "CAP_SYS_ADMIN is not in {all:x}");
}

pub fn with_ulimits_and_a_score(docker: &Docker) {
    let options = ["--ulimit", "nofile=512:1024", "--ulimit", "core=0", "--ulimit", "nproc=100"];
    let ran = docker.sh(&options, "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -u").ok();
    assert_eq!(ran.lines(), ["512", "1024", "0", "100"]);
    let ran = docker.run(&["--oom-score-adj", "500"], &["cat", "/proc/self/oom_score_adj"]).ok();
    assert_eq!(ran.out(), "500");
}

pub fn with_seccomp_profiles(docker: &Docker) {
    assert_eq!(status_of(docker, &[], "Seccomp"), "2");
    docker.run(&[], &["unshare", "-m", "true"]).fails_with("Operation not permitted");
    assert_eq!(status_of(docker, &["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }],
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("profile.json");
    fs::write(&file, profile.to_string()).expect("writing a profile");
    let option = format!("seccomp={}", file.display());
    docker.run(&["--security-opt", &option], &["mkdir", "/new"]).fails_with("No space left on device");
}

pub fn without_new_privileges(docker: &Docker) {
    assert_eq!(status_of(docker, &[], "NoNewPrivs"), "0");
    assert_eq!(status_of(docker, &["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");
}

pub fn with_devices(docker: &Docker) {
    let script = ": < /dev/readable && echo opened; echo x > /dev/readable || echo refused; \
                  stat -c '%F %t:%T' /dev/readable";
    let ran = docker.sh(&["--device", "/dev/fuse:/dev/readable:r"], script).ok();
    assert_eq!(ran.lines(), ["opened", "refused", "character special file a:e5"], "{ran}");
    // A container may make any device, but not open those that it was not given.
    let node = "mknod /node c 10 229 && : < /node";
    docker.sh(&[], node).fails_with("Operation not permitted");
    docker.sh(&["--device-cgroup-rule", "c 10:229 r"], node).ok();
    docker.run(&["--device", "/dev/nonesuch"], &["true"]).fails_with("/dev/nonesuch");
}

pub fn with_the_pid_namespaces_of_others(docker: &Docker) {
    let ran = docker.run(&["--pid", "host"], &["readlink", "/proc/self/ns/pid"]).ok();
    assert_eq!(ran.out(), own_namespace("pid"));
    let one = docker.up(&[], "sleep 1012");
    let other = format!("container:{}", one.name);
    let ran = docker.run(&["--pid", &other], &["ps"]).ok();
    assert!(ran.stdout.contains("sleep 1012"), "{ran}");
    assert_eq!(one.status(), "running");
}

pub fn with_the_ipc_namespaces_of_others(docker: &Docker) {
    let ran = docker.run(&["--ipc", "host"], &["readlink", "/proc/self/ns/ipc"]).ok();
    assert_eq!(ran.out(), own_namespace("ipc"));
    let one =
        docker.up(&["--ipc", "shareable", "--shm-size", "8m"], "echo shared > /dev/shm/word; sleep 1000");
    let other = format!("container:{}", one.name);
    let ran = docker.run(&["--ipc", &other], &["cat", "/dev/shm/word"]).ok();
    assert_eq!(ran.out(), "shared");
    let size = one.exec(&[], &["sh", "-c", "df -k /dev/shm | tail -n 1"]).ok();
    assert_eq!(size.out().split_whitespace().nth(1), Some("8192"), "{size}");
    let none = docker.run(&["--ipc", "none"], &["sh", "-c", "grep -c ' /dev/shm ' /proc/mounts"]);
    assert_eq!(none.out(), "0", "{none}");
}

pub fn with_the_network_namespaces_of_others(docker: &Docker) {
    let mine = docker.sh(&["--network", "host"], "ip -o addr show up0").ok();
    assert!(mine.stdout.contains(coracle_integration::engine::docker::ADDRESS), "{mine}");
    let alone = docker.sh(&[], "ip -o link | wc -l").ok();
    assert_eq!(alone.out(), "1");
    let one = docker.up(&["--network", "bridge"], "sleep 1000");
    let address = one.inspect("{{.NetworkSettings.IPAddress}}");
    let other = format!("container:{}", one.name);
    let ran = docker.run(&["--network", &other], &["ip", "-o", "addr", "show", "eth0"]).ok();
    assert!(!address.is_empty() && ran.stdout.contains(&address), "{address:?}: {ran}");
}

pub fn with_the_names_of_the_host(docker: &Docker) {
    let ran = docker.run(&["--uts", "host"], &["readlink", "/proc/self/ns/uts"]).ok();
    assert_eq!(ran.out(), own_namespace("uts"));
    let ran = docker.run(&[], &["readlink", "/proc/self/ns/uts"]).ok();
    assert_ne!(ran.out(), own_namespace("uts"));
}

pub fn with_a_cgroup_namespace(docker: &Docker) {
    let ran = docker.sh(&["--cgroupns", "private"], "grep pids: /proc/self/cgroup").ok();
    assert!(ran.out().ends_with(":/"), "{ran}");
    let ran = docker.sh(&["--cgroupns", "host"], "grep pids: /proc/self/cgroup").ok();
    assert!(!ran.out().ends_with(":/"), "{ran}");
}

fn own_namespace(kind: &str) -> String {
    coracle_integration::host::namespace_of(std::process::id().cast_signed(), kind)
        .expect("our own namespace")
}
