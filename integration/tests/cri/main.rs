//! Pods through containerd's CRI, as the kubelet drives them: our shim on each version of the daemon, with containerd's
//! own shim and runc as the yardstick. A runtime class is a handler here.

mod daemon_set;
mod installer;

use std::fs;
use std::process::ExitCode;

use coracle_integration::command::eventually;
use coracle_integration::engine::bench::{Bench, Place, trials_on};
use coracle_integration::engine::containerd::{Containerd, Version};
use coracle_integration::engine::cri::{
    Capabilities, IdMapping, LOCALHOST, Mount, NODE, Namespaces, Number, POD, Profile, RUNTIME_DEFAULT,
    Resources, UNCONFINED, UserNamespace,
};
use coracle_integration::engine::pod::{Pod, daemon, own_processes};
use coracle_integration::engine::podman;
use coracle_integration::engine::streams::{ERRORS, INPUT, OUTPUT, RESULT, Streams};
use coracle_integration::{host, named};

fn main() -> ExitCode {
    let checks = named![
        a_pod_of_two_containers_has_one_shim,
        containers_of_a_pod_share_what_they_are_to_share,
        containers_of_a_pod_share_processes_when_they_are_to,
        a_pod_shares_the_hosts_namespaces_when_it_is_to,
        exec_sync_gives_output_and_exit_code,
        exec_sync_ends_at_its_limit,
        exec_streams_input_and_output,
        attach_streams_input_and_output,
        a_forwarded_port_reaches_the_pod,
        output_is_logged_and_the_log_is_opened_anew,
        limits_are_set_and_updated,
        stats_are_those_of_the_container,
        a_container_over_its_memory_is_reported_as_such,
        seccomp_profiles_of_each_kind,
        a_user_groups_and_capabilities,
        a_readonly_root_and_volumes,
        a_container_stops_politely_or_by_force,
        a_program_that_is_not_there_is_told,
        probes_are_answered_under_load,
    ];
    let newest = named![a_pod_in_a_user_namespace];
    let of_ours =
        [named![options_of_the_runtime_class_arrive], installer::checks(), daemon_set::checks()].concat();
    if let Err(error) = enter_network() {
        eprintln!("the tests cannot run: {error}");
        return ExitCode::FAILURE;
    }
    let mut tests = trials_on(daemon, &checks, &Place::of_shims(), &[]);
    tests.extend(trials_on(daemon, &newest, &Place::newest(), &[]));
    tests.extend(trials_on(daemon, &of_ours, &Place::of_our_shim(), &[]));
    let code = coracle_integration::run_tests(tests);
    Containerd::stop_shared();
    code
}

/// A network of this program alone, in which the bridges of pods are nobody else's.
fn enter_network() -> Result<(), String> {
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    podman::private_network()
}

fn a_pod_of_two_containers_has_one_shim(bench: &Bench) {
    let pod = Pod::run(bench);
    let (one, two) = (pod.sleeping("one"), pod.sleeping("two"));
    assert_eq!(pod.shims().len(), 1, "{:?}", pod.shims());
    pod.cri.stop(&one, 5).expect("StopContainer");
    assert_eq!(pod.wait_for_end(&one), (0, "Completed".to_owned()));
    pod.cri.remove(&one).expect("RemoveContainer");
    assert_eq!(pod.exec(&two, "echo here"), "here\n", "the other lives on");
    pod.end();
}

/// The namespaces of a container, as it sees them itself.
fn namespaces(pod: &Pod, container: &str) -> Vec<String> {
    let script = "for n in net ipc uts pid mnt cgroup; do readlink /proc/self/ns/$n; done";
    pod.exec(container, script).lines().map(str::to_owned).collect()
}

fn containers_of_a_pod_share_what_they_are_to_share(bench: &Bench) {
    let pod = Pod::run(bench);
    let (one, two) = (pod.sleeping("one"), pod.sleeping("two"));
    let (of_one, of_two) = (namespaces(&pod, &one), namespaces(&pod, &two));
    assert_eq!(of_one[..3], of_two[..3], "network, IPC and host name are the pod's");
    assert_ne!(of_one[3], of_two[3], "processes are a container's own");
    assert_ne!(of_one[4], of_two[4], "mounts are a container's own");
    let ours = fs::read_link("/proc/self/ns/net").expect("our network").display().to_string();
    assert_ne!(of_one[0], ours);
    pod.exec(&one, "ip addr show eth0 | grep -q 'inet 10.'");
    pod.exec(&one, "echo shared >/dev/shm/file");
    assert_eq!(pod.exec(&two, "cat /dev/shm/file"), "shared\n");
    pod.end();
}

fn containers_of_a_pod_share_processes_when_they_are_to(bench: &Bench) {
    let pod = Pod::sharing(bench, Namespaces { pid: POD, ..Namespaces::default() });
    let one = pod.start(&pod.script("one", "exec sleep 1234567"));
    let two = pod.sleeping("two");
    assert!(eventually(|| pod.exec(&two, "ps").contains("sleep 1234567")), "{}", pod.exec(&two, "ps"));
    pod.cri.stop(&one, 0).expect("StopContainer");
    assert!(!pod.exec(&two, "ps").contains("sleep 1234567"));
    pod.end();
}

fn a_pod_shares_the_hosts_namespaces_when_it_is_to(bench: &Bench) {
    let namespaces = Namespaces { network: NODE, pid: NODE, ipc: NODE, user: None };
    let pod = Pod::sharing(bench, namespaces);
    let one = pod.sleeping("one");
    for kind in ["net", "pid", "ipc"] {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).expect("ours").display().to_string();
        assert_eq!(pod.exec(&one, &format!("readlink /proc/self/ns/{kind}")).trim(), ours);
    }
    pod.cri.stop(&one, 2).expect("StopContainer");
    pod.end();
}

fn exec_sync_gives_output_and_exit_code(bench: &Bench) {
    let pod = Pod::run(bench);
    let one = pod.sleeping("one");
    let ended = pod.try_exec(&one, "echo out; echo err >&2; exit 9");
    assert_eq!((&*ended.stdout, &*ended.stderr, ended.exit_code), (&b"out\n"[..], &b"err\n"[..], 9));
    let large = pod.exec(&one, "head -c 200000 /dev/zero | tr '\\0' x");
    assert_eq!(large.len(), 200_000);
    let missing = pod.cri.exec_sync(&one, &["nonesuch"], 5).expect_err("there is no such program");
    assert!(missing.message().contains("executable file not found"), "{missing:?}");
    pod.end();
}

fn exec_sync_ends_at_its_limit(bench: &Bench) {
    let pod = Pod::run(bench);
    let one = pod.sleeping("one");
    let late = pod.cri.exec_sync(&one, &["sleep", "7654321"], 1).expect_err("it takes longer");
    assert_eq!(late.code(), tonic::Code::DeadlineExceeded, "{late:?}");
    let gone = || !pod.exec(&one, "ps").contains("7654321");
    assert!(eventually(gone), "{}", pod.exec(&one, "ps"));
    pod.end();
}

fn exec_streams_input_and_output(bench: &Bench) {
    let pod = Pod::run(bench);
    let one = pod.sleeping("one");
    let url = pod
        .cri
        .exec(&one, &["sh", "-c", "read word; echo got $word; echo err >&2; exit 3"], false)
        .expect("Exec");
    let mut streams = Streams::connect(&url);
    streams.write(INPUT, b"this\n");
    streams.read_until(OUTPUT, "got this\n");
    streams.read_until(ERRORS, "err\n");
    let result: serde_json::Value = serde_json::from_str(&streams.read_until(RESULT, "}")).expect("JSON");
    assert_eq!(result["status"], "Failure", "{result}");
    assert_eq!(result["details"]["causes"][0]["message"], "3", "{result}");
    // With a terminal.
    let url = pod.cri.exec(&one, &["sh"], true).expect("Exec");
    let mut streams = Streams::connect(&url);
    streams.write(INPUT, b"test -t 0 && echo is-a-'ter'minal; exit 0\n");
    streams.read_until(OUTPUT, "is-a-terminal");
    assert!(streams.read_until(RESULT, "}").contains("Success"));
    pod.end();
}

fn attach_streams_input_and_output(bench: &Bench) {
    let pod = Pod::run(bench);
    let mut config = pod.script("one", "while read word; do echo got $word; done; echo end; sleep 1000");
    (config.stdin, config.stdin_once) = (true, true);
    let one = pod.start(&config);
    let url = pod.cri.attach(&one).expect("Attach");
    let mut streams = Streams::connect(&url);
    streams.write(INPUT, b"first\n");
    streams.read_until(OUTPUT, "got first\n");
    streams.write(INPUT, b"second\n");
    streams.read_until(OUTPUT, "got second\n");
    streams.close();
    drop(streams);
    // The input ends with the one who attached.
    assert!(eventually(|| pod.log("one").iter().any(|line| line == "stdout F end")), "{:?}", pod.log("one"));
    pod.end();
}

fn a_forwarded_port_reaches_the_pod(bench: &Bench) {
    let pod = Pod::run(bench);
    let one = pod.start(&pod.script("one", "while :; do echo from the pod | nc -l -p 8080; done"));
    assert!(eventually(|| pod.exec(&one, "netstat -ltn").contains(":8080")), "nobody listens");
    let url = pod.cri.port_forward(&pod.id, 8080).expect("PortForward");
    let mut streams = Streams::connect(&url);
    // The first frame of a channel is the port, then come the data.
    streams.read_until(INPUT, "from the pod\n");
    pod.end();
}

fn output_is_logged_and_the_log_is_opened_anew(bench: &Bench) {
    let pod = Pod::run(bench);
    let script =
        "echo first; echo second >&2; until test -e /tmp/go; do sleep 0.05; done; echo third; sleep 1000";
    let one = pod.start(&pod.script("one", script));
    let sorted = || {
        let mut lines = pod.log("one");
        lines.sort();
        lines
    };
    assert!(eventually(|| sorted() == ["stderr F second", "stdout F first"]), "{:?}", pod.log("one"));
    fs::rename(pod.path("one.log"), pod.path("old.log")).expect("moving the log away");
    pod.cri.reopen_log(&one).expect("ReopenContainerLog");
    pod.exec(&one, "touch /tmp/go");
    assert!(eventually(|| pod.log("one") == ["stdout F third"]), "{:?}", pod.log("one"));
    assert_eq!(pod.log("old").len(), 2);
    pod.end();
}

/// A file of the container's cgroup, in a v1 hierarchy.
fn cgroup_file(pod: &Pod, container: &str, controller: &str, file: &str) -> String {
    let path =
        host::cgroup_of(pod.pid(container), controller).expect("a cgroup in this hierarchy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

fn limits_are_set_and_updated(bench: &Bench) {
    let pod = Pod::run(bench);
    let mut config = pod.script("one", "sleep 1000");
    let limits = Resources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit: 64 << 20,
        oom_score_adj: 500,
    };
    config.linux.get_or_insert_default().resources = Some(limits);
    let one = pod.start(&config);
    assert_eq!(cgroup_file(&pod, &one, "memory", "memory.limit_in_bytes"), (64_u64 << 20).to_string());
    assert_eq!(cgroup_file(&pod, &one, "cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(cgroup_file(&pod, &one, "cpu", "cpu.shares"), "512");
    assert_eq!(pod.exec(&one, "cat /proc/1/oom_score_adj"), "500\n");
    pod.cri.update(&one, Resources { cpu_quota: 20_000, memory_limit: 32 << 20, ..limits }).expect("Update");
    assert_eq!(cgroup_file(&pod, &one, "memory", "memory.limit_in_bytes"), (32_u64 << 20).to_string());
    assert_eq!(cgroup_file(&pod, &one, "cpu", "cpu.cfs_quota_us"), "20000");
    pod.end();
}

fn stats_are_those_of_the_container(bench: &Bench) {
    let pod = Pod::run(bench);
    let one = pod.start(&pod.script("one", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 1000"));
    let cpu = || pod.cri.stats(&one).ok().and_then(|stats| stats.cpu?.total).map_or(0, |total| total.value);
    assert!(eventually(|| cpu() > 10_000_000), "{} ns of the processor", cpu());
    let stats = pod.cri.stats(&one).expect("ContainerStats");
    let memory = stats.memory.and_then(|memory| memory.working_set).map_or(0, |set| set.value);
    assert!((4096..1 << 30).contains(&memory), "{memory} bytes");
    pod.end();
}

fn a_container_over_its_memory_is_reported_as_such(bench: &Bench) {
    let pod = Pod::run(bench);
    let mut config = pod.script("one", "dd if=/dev/zero of=/dev/null bs=256M count=1");
    let limits = Resources { memory_limit: 32 << 20, ..Resources::default() };
    config.linux.get_or_insert_default().resources = Some(limits);
    let one = pod.start(&config);
    assert_eq!(pod.wait_for_end(&one), (137, "OOMKilled".to_owned()));
    pod.end();
}

fn seccomp_profiles_of_each_kind(bench: &Bench) {
    let pod = Pod::run(bench);
    let file = pod.path("profile.json");
    let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }] }"#;
    fs::write(&file, profile).expect("writing the profile");
    let of_kind = |name: &str, kind: i32| {
        let mut config = pod.script(name, "sleep 1000");
        let security = config.linux.get_or_insert_default().security.get_or_insert_default();
        let file = if kind == LOCALHOST { file.display().to_string() } else { String::new() };
        security.seccomp = Some(Profile { kind, file });
        pod.start(&config)
    };
    let script = "grep ^Seccomp: /proc/self/status | tr -dc 0-9; mkdir /tmp/d 2>/dev/null && echo made || echo refused";
    assert_eq!(pod.exec(&of_kind("default", RUNTIME_DEFAULT), script), "2made\n");
    assert_eq!(pod.exec(&of_kind("none", UNCONFINED), script), "0made\n");
    assert_eq!(pod.exec(&of_kind("file", LOCALHOST), script), "2refused\n");
    pod.end();
}

fn a_user_groups_and_capabilities(bench: &Bench) {
    let pod = Pod::run(bench);
    let mut config = pod.script("one", "sleep 1000");
    let security = config.linux.get_or_insert_default().security.get_or_insert_default();
    (security.user, security.group) = (Some(Number { value: 1000 }), Some(Number { value: 1001 }));
    (security.groups, security.no_new_privs) = (vec![2000, 2001], true);
    let one = pod.start(&config);
    assert_eq!(pod.exec(&one, "id -u; id -g; grep NoNewPrivs /proc/1/status | tr -dc 0-9"), "1000\n1001\n1");
    assert_eq!(pod.exec(&one, "id -G").trim(), "1001 2000 2001");
    let mut config = pod.script("two", "sleep 1000");
    let security = config.linux.get_or_insert_default().security.get_or_insert_default();
    security.capabilities = Some(Capabilities { add: vec!["SYS_TIME".into()], drop: vec!["CHOWN".into()] });
    let two = pod.start(&config);
    let mask = pod.exec(&two, "grep CapEff /proc/1/status | cut -f2");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a mask");
    // CAP_CHOWN is 0, CAP_SYS_TIME is 25.
    assert_eq!((mask & 1, mask >> 25 & 1), (0, 1), "{mask:x}");
    pod.end();
}

fn a_readonly_root_and_volumes(bench: &Bench) {
    let pod = Pod::run(bench);
    for name in ["read", "write"] {
        fs::create_dir(pod.path(name)).expect("making a volume");
    }
    fs::write(pod.path("read/file"), "of the host\n").expect("writing into a volume");
    let mut config = pod.script("one", "sleep 1000");
    config.linux.get_or_insert_default().security.get_or_insert_default().readonly_rootfs = true;
    let volume = |name: &str, readonly| Mount {
        container: format!("/{name}"),
        host: pod.path(name).display().to_string(),
        readonly,
    };
    config.mounts = vec![volume("read", true), volume("write", false)];
    let one = pod.start(&config);
    let script = "cat /read/file; touch /new 2>/dev/null || touch /read/new 2>/dev/null || touch /write/new && echo there";
    assert_eq!(pod.exec(&one, script), "of the host\nthere\n");
    assert!(pod.path("write/new").exists());
    pod.end();
}

fn a_container_stops_politely_or_by_force(bench: &Bench) {
    let pod = Pod::run(bench);
    let polite = pod
        .start(&pod.script("polite", "trap 'echo bye; exit 4' TERM; echo on; while :; do sleep 0.05; done"));
    let stubborn = pod.start(&pod.script("stubborn", "trap '' TERM; echo on; while :; do sleep 0.05; done"));
    for name in ["polite", "stubborn"] {
        assert!(eventually(|| pod.log(name) == ["stdout F on"]));
    }
    pod.cri.stop(&polite, 20).expect("StopContainer");
    assert_eq!(pod.wait_for_end(&polite), (4, "Error".to_owned()));
    assert_eq!(pod.log("polite"), ["stdout F on", "stdout F bye"]);
    pod.cri.stop(&stubborn, 1).expect("StopContainer");
    assert_eq!(pod.wait_for_end(&stubborn), (137, "Error".to_owned()));
    pod.end();
}

fn a_program_that_is_not_there_is_told(bench: &Bench) {
    let pod = Pod::run(bench);
    let mut config = pod.script("one", "");
    config.command = vec!["nonesuch".into()];
    let failure = pod.try_start(&config).expect_err("there is no such program");
    assert!(failure.message().contains("executable file not found in $PATH"), "{failure:?}");
    pod.end();
}

fn probes_are_answered_under_load(bench: &Bench) {
    let pod = Pod::run(bench);
    let one = pod.start(&pod.script("one", "while :; do :; done"));
    std::thread::scope(|scope| {
        for prober in 0..5 {
            let (pod, one) = (pod.cri.clone(), one.as_str());
            scope.spawn(move || {
                for probe in 0..4 {
                    let word = format!("{prober}-{probe}");
                    let ended = pod.exec_sync(one, &["echo", &word], 30).expect("ExecSync");
                    assert_eq!((ended.stdout, ended.exit_code), (format!("{word}\n").into_bytes(), 0));
                }
            });
        }
    });
    pod.end();
}

fn a_pod_in_a_user_namespace(bench: &Bench) {
    assert_eq!(bench.engine.version(), Version::V2_1, "CRI knows of user namespaces since 2.0");
    let range = IdMapping { host: 300_000, container: 0, length: 65_536 };
    let user = UserNamespace { mode: POD, uids: vec![range], gids: vec![range] };
    let pod = Pod::sharing(bench, Namespaces { user: Some(user), ..own_processes() });
    let (one, two) = (pod.sleeping("one"), pod.sleeping("two"));
    let map: Vec<String> =
        pod.exec(&one, "cat /proc/self/uid_map").split_whitespace().map(str::to_owned).collect();
    assert_eq!(map, ["0", "300000", "65536"]);
    assert_eq!(
        pod.exec(&one, "id -u; stat -c %u /bin/busybox; touch /tmp/mine; stat -c %u /tmp/mine"),
        "0\n0\n0\n"
    );
    let user = "readlink /proc/self/ns/user";
    assert_eq!(pod.exec(&one, user), pod.exec(&two, user), "the pod has one");
    let status = fs::read_to_string(format!("/proc/{}/status", pod.pid(&one))).expect("its process");
    assert!(host::status_field(&status, "Uid").is_some_and(|ids| ids.starts_with("300000")), "{status}");
    assert_eq!(pod.shims().len(), 1, "{:?}", pod.shims());
    pod.end();
}

fn options_of_the_runtime_class_arrive(bench: &Bench) {
    let pod = Pod::try_run(bench, "coracle-root", |_| ())
        .unwrap_or_else(|status| panic!("RunPodSandbox: {status:?}"));
    let one = pod.sleeping("one");
    let root = bench.engine.path("runtime-root").join("k8s.io");
    for id in [&pod.id, &one] {
        assert!(root.join(id).join("state.json").is_file(), "nothing of {id} at {}", root.display());
    }
    pod.end();
}
