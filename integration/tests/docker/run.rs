//! `docker run` and its options: output, limits, names.

use std::fs;

use coracle_integration::command::{Running, eventually, run, run_with_input};
use coracle_integration::console::Terminal;
use coracle_integration::engine::docker::{Container, Docker, Kind};
use coracle_integration::host::v1_hierarchy;

pub fn shows_output_and_exit_status(docker: &Docker) {
    let ran = docker.sh(&[], "echo out; echo err >&2; exit 42").exits(42);
    assert_eq!((ran.out(), ran.stderr.trim()), ("out", "err"), "{ran}");
}

pub fn in_a_terminal(docker: &Docker) {
    let command = docker.run_command(&["--rm", "--interactive", "--tty"], &["sh"]);
    Terminal::converse(command, "test -t 0 && test -t 1 && tty", "/dev/pts/0", 5);
}

pub fn passes_standard_input(docker: &Docker) {
    let text = "line of text\n".repeat(20_000);
    let command = docker.run_command(&["--rm", "--interactive"], &["sh", "-c", "cat; echo end"]);
    let ran = run_with_input(command, &text).ok();
    assert_eq!(ran.stdout.len(), text.len() + "end\n".len());
    assert!(ran.stdout.ends_with("text\nend\n"));
}

pub fn with_environment_directory_and_entrypoint(docker: &Docker) {
    let options =
        ["--env", "WORD=a value", "--workdir", "/var/new", "--entrypoint", "/bin/sh", "--label", "a=b"];
    let ran = docker.run(&options, &["-c", "echo $WORD; echo $FROM; pwd; echo $HOME"]).ok();
    assert_eq!(ran.lines(), ["a value", "image", "/var/new", "/root"]);
}

pub fn of_what_is_not_there_is_127(docker: &Docker) {
    let ran = docker.run(&[], &["nonesuch"]).exits(127);
    assert!(ran.stderr.contains("executable file not found in $PATH"), "{ran}");
    let ran = docker.run(&[], &["/nonesuch"]).exits(127);
    assert!(ran.stderr.contains("no such file or directory"), "{ran}");
}

pub fn of_what_is_not_executable_is_126(docker: &Docker) {
    let ran = docker.run(&[], &["/etc/passwd"]).exits(126);
    assert!(ran.stderr.contains("permission denied"), "{ran}");
    docker.run(&[], &["/etc"]).exits(126);
}

pub fn with_a_memory_limit(docker: &Docker) {
    let options = ["--memory", "64m", "--memory-reservation", "32m", "--memory-swap", "64m"];
    let one = docker.up(&options, "sleep 1000");
    assert_eq!(one.cgroup_file("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(one.cgroup_file("memory", "memory.soft_limit_in_bytes"), (32 << 20).to_string());
    let seen = one.exec(&[], &["cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]).ok();
    assert_eq!(seen.out(), (64 << 20).to_string());
}

pub fn below_a_cgroup_of_its_own(docker: &Docker) {
    // Below the daemon's, so that it is removed with that.
    let parent = format!("{}/inner", docker.cgroup_parent());
    let options =
        ["--cgroup-parent", &parent, "--memory", "32m", "--memory-swappiness", "0", "--oom-kill-disable"];
    let one = docker.up(&options, "sleep 1000");
    let id = one.inspect("{{.Id}}");
    let hierarchy = v1_hierarchy("memory").expect("this host has the controller");
    let cgroup = hierarchy.join(parent.trim_start_matches('/')).join(id);
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).expect("it is below its parent");
    assert_eq!(read("memory.limit_in_bytes").trim(), (32 << 20).to_string());
    assert_eq!(read("memory.swappiness").trim(), "0");
    assert!(read("memory.oom_control").contains("oom_kill_disable 1"));
    one.exec(&[], &["true"]).ok();
    one.call("rm", &["--force"], &[]).ok();
    assert!(eventually(|| !cgroup.exists()), "{} is still there", cgroup.display());
}

pub fn beyond_its_memory_is_killed_and_reported(docker: &Docker) {
    let one = docker.container();
    let options = ["--name", &one.name, "--memory", "16m", "--memory-swap", "16m"];
    run(docker.run_command(&options, &["tail", "/dev/zero"])).exits(137);
    assert_eq!(one.inspect("{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
}

pub fn with_limits_of_the_processor(docker: &Docker) {
    let options = ["--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0"];
    let one = docker.up(&options, "sleep 1000");
    assert_eq!(one.cgroup_file("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(one.cgroup_file("cpu", "cpu.cfs_period_us"), "100000");
    assert_eq!(one.cgroup_file("cpu", "cpu.shares"), "512");
    assert_eq!(one.cgroup_file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(one.exec(&[], &["nproc"]).ok().out(), "1");
}

pub fn with_a_limit_of_processes(docker: &Docker) {
    let script = "cat /sys/fs/cgroup/pids/pids.max; for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; echo all";
    let ran = docker.sh(&["--pids-limit", "5"], script);
    assert!(ran.stdout.starts_with("5\n") && !ran.stdout.contains("all"), "{ran}");
    assert!(ran.stderr.contains("can't fork"), "{ran}");
}

pub fn with_sysctls(docker: &Docker) {
    let options = ["--sysctl", "kernel.msgmax=10000", "--sysctl", "net.ipv4.ip_default_ttl=33"];
    let ran =
        docker.run(&options, &["cat", "/proc/sys/kernel/msgmax", "/proc/sys/net/ipv4/ip_default_ttl"]).ok();
    assert_eq!(ran.lines(), ["10000", "33"]);
}

pub fn with_hostname_and_hosts(docker: &Docker) {
    let options = [
        "--hostname",
        "boat",
        "--domainname",
        "sea",
        "--add-host",
        "quay:10.0.0.1",
        "--dns",
        "10.0.0.2",
        "--network",
        "bridge",
    ];
    let ran =
        docker.sh(&options, "hostname; cat /proc/sys/kernel/domainname /etc/hosts /etc/resolv.conf").ok();
    let lines = ran.lines();
    // With a domain name, the host's name is the whole of both.
    assert!(lines.first().is_some_and(|name| name.starts_with("boat")), "{ran}");
    assert_eq!(lines.get(1), Some(&"sea"), "{ran}");
    assert!(ran.stdout.contains("10.0.0.1\tquay") && ran.stdout.contains("nameserver 10.0.0.2"), "{ran}");
}

pub fn with_an_init_that_reaps(docker: &Docker) {
    // The orphan ends as a child of the first process; only an init waits for it.
    let script = "cat /proc/1/comm; (sleep 0.1 & ) ; sleep 0.5; ps -o stat,comm | grep -c '^Z' ; exit 7";
    let ran = docker.sh(&["--init"], script).exits(7);
    assert_eq!(ran.lines(), ["docker-init", "0"]);
}

pub fn with_the_runtime_of_the_option(docker: &Docker) {
    let one = docker.container();
    match docker.kind() {
        Kind::Shim { name, .. } => {
            run(docker.run_command(&["--name", &one.name, "--runtime", name], &["true"])).ok();
            assert_eq!(one.inspect("{{.HostConfig.Runtime}}"), *name);
        }
        Kind::Program(_) => {
            run(docker.run_command(&["--name", &one.name, "--runtime", "wrapped"], &["true"])).ok();
            let id = one.inspect("{{.Id}}");
            let log = fs::read_to_string(docker.path("wrapped.log")).expect("the wrapper was used");
            for verb in [" create ", " start ", " delete "] {
                assert!(
                    log.lines().any(|line| line.contains(verb) && line.contains(&id)),
                    "no{verb}in: {log}"
                );
            }
        }
    }
}

pub fn many_at_once(docker: &Docker) {
    let names: Vec<_> = (0..20).map(|_| docker.container()).collect();
    let start = |(index, one): (usize, &Container)| {
        let script = format!("echo {index}; exit {index}");
        Running::start(docker.run_command(&["--rm", "--name", &one.name], &["sh", "-c", &script]))
    };
    let running: Vec<Running> = names.iter().enumerate().map(start).collect();
    for (index, one) in running.into_iter().enumerate() {
        let ran = one.finish().exits(i32::try_from(index).unwrap_or_default());
        assert_eq!(ran.out(), index.to_string());
    }
    for one in &names {
        one.wait_for("");
    }
}
